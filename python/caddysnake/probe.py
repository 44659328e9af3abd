"""What Caddy must know of an interpreter to run it inside itself: `PYTHON -c <this file>` prints it as JSON.

Any Python from 3.6 on can run it, so that Caddy can say that it is too old: what 3.8 cannot evaluate is in quotes.
"""

import json
import os
import site
import sys
import sysconfig


def library_places() -> "list[str]":
    """Where the shared library of this interpreter may be, the likeliest first."""
    if sys.platform == "win32":
        free_threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
        return [os.path.join(sys.base_prefix, f"python{sys.version_info[0]}{sys.version_info[1]}{free_threaded}.dll")]
    suffix = ".dylib" if sys.platform == "darwin" else ".so.1.0"
    usual = f"libpython{sysconfig.get_config_var('py_version_short')}{sys.abiflags}{suffix}"
    names = [sysconfig.get_config_var("INSTSONAME"), sysconfig.get_config_var("LDLIBRARY"), usual]
    names = [name for name in dict.fromkeys(names) if name and not name.endswith(".a")]
    folders = [
        sysconfig.get_config_var("LIBDIR"),
        os.path.join(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("MULTIARCH") or ""),
        os.path.join(sys.base_prefix, "lib"),
        sysconfig.get_config_var("PYTHONFRAMEWORKPREFIX"),
    ]
    return [os.path.join(folder, name) for name in names for folder in dict.fromkeys(filter(None, folders))]


def main() -> None:
    places = library_places()
    packages = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    found = {
        "version": sys.version.split()[0],
        "supported": sys.version_info >= (3, 10) and sys.implementation.name == "cpython",
        "library": next(filter(os.path.isfile, places), ""),
        "places": places,
        "packages": [path for path in packages if path in sys.path],
        "utf8_mode": bool(getattr(sys.flags, "utf8_mode", 0)),
        "free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),  # PYTHON_GIL=1 gives it its lock back
    }
    print(json.dumps(found))


main()
