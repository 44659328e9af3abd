"""Where everything that the build makes is kept: .cache/ and bin/ of the tree, nothing in HOME."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

if sys.version_info < (3, 10):  # noqa: UP036, because this is how one learns of it
    sys.exit(f"error: Python 3.10 or newer is needed, not {sys.version.split()[0]}: make PYTHON=/path/to/python3 ...")

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
BINARY = ROOT / "bin" / "caddy"
IN_CI = os.environ.get("CI") == "true"

# Caches that the environment already names are used as they are.
_CACHES = {
    "GOPATH": CACHE / "go",
    "GOCACHE": CACHE / "go-build",
    "PIP_CACHE_DIR": CACHE / "pip",
    "RUFF_CACHE_DIR": CACHE / "ruff",
    "MYPY_CACHE_DIR": CACHE / "mypy",
    "XDG_CACHE_HOME": CACHE / "xdg-cache",
    "XDG_CONFIG_HOME": CACHE / "xdg-config",
    "XDG_DATA_HOME": CACHE / "xdg-data",
}

# One set of flags for every Go command, so that all share one set of compiled packages. The tags are those that xcaddy
# sets: they leave out storage engines that Caddy does not use.
_GOFLAGS = "-trimpath -buildvcs=false -modcacherw -tags=nobadger,nomysql,nopgx"


def environment(**extra: str) -> dict[str, str]:
    """The environment of every command that the build runs; `extra` wins over everything."""
    env = {name: str(path) for name, path in _CACHES.items()}
    env |= os.environ
    env |= {"GOFLAGS": _GOFLAGS, "GOTOOLCHAIN": "local", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env.pop("VIRTUAL_ENV", None)
    env.pop("PYTHONHOME", None)
    env.pop("PYTHONPATH", None)
    return env | extra


def run(*command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> None:
    """Run a command that must succeed; exit with its status if it does not."""
    words = [str(word) for word in command]
    print("+", *words, flush=True)
    status = subprocess.run(words, cwd=cwd, env=env or environment(), stdin=subprocess.DEVNULL).returncode
    if status != 0:
        fail(f"{Path(words[0]).name} exited with status {status}", status if status > 0 else 1)


def output(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """What a command that must succeed prints on standard output."""
    words = [str(word) for word in command]
    result = subprocess.run(
        words, cwd=ROOT, env=env or environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    if result.returncode != 0:
        fail(f"{' '.join(words)} exited with status {result.returncode}")
    return result.stdout


def fail(message: str, status: int = 1) -> NoReturn:
    """End this command with a message."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(status)


def has_c_compiler() -> bool:
    """Whether a C program can be compiled and linked here, which cgo and the race detector need."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return False
    program = b"#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n"
    command = [*compiler.split(), "-x", "c", "-", "-o", os.devnull]
    return subprocess.run(command, input=program, capture_output=True).returncode == 0
