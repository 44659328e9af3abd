"""Run a part of the end-to-end tests on Pythons that this machine does not have, in a Debian sid of their own.

It needs root, debootstrap and Debian: packages come from the mirror that apt is configured with. Arguments go to pytest
and take the place of the part that is run by default; `--make` alone makes that Debian, and runs nothing.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pythons
from test_e2e import PARALLEL
from workspace import BINARY, CACHE, IN_CI, ROOT, fail, run

PYTHONS = ("3.14", "3.15")
# For some time after a Python is new there are packages that cannot be installed on it, and what needs them.
NOT_YET = {"3.15": ("orjson", "nicegui", "pyyaml")}

# WSGI, ASGI, ESGI, WebSockets, lifespan, reloads, packages in C, and what is special to threads.
TESTS = (
    "conformance/test_asgi.py",
    "test_fastapi.py",
    "test_gevent.py",
    "test_lifecycle.py",
    "test_thread.py",
    "test_thread_reload.py",
    "test_websocket_apps.py",
)

# The tree is seen in the root at /tree. What is mounted is so for these processes alone, and gone with them.
_ENTER = """
set -e
tree=$1 root=$2
shift 2
mkdir -p "$root/tree"
mount --bind "$tree" "$root/tree"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
cd "$root"
exec chroot . sh -c 'cd /tree/tests && exec "$@"' sh "$@"
"""


def main() -> None:
    """pytest over these tests, with workers of both runtimes on each of the Pythons."""
    if why := _missing():
        print(f"left out, because {why}: Python {' and '.join(PYTHONS)} in Debian sid")
        return
    root = _ensure_root()
    if sys.argv[1:] == ["--make"]:
        return
    if not BINARY.exists():
        fail("there is no bin/caddy; run `make build` first")
    workers = [f"--worker-python=/venvs/{version}/bin/python" for version in PYTHONS]
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CADDYSNAKE_SIEGE": os.environ.get("CADDYSNAKE_SIEGE", ""),
        "CI": os.environ.get("CI", ""),  # pytest cuts its messages short elsewhere
    }
    pytest = (f"/venvs/{PYTHONS[0]}/bin/python", "-m", "pytest", *workers, *(sys.argv[1:] or (*PARALLEL, *TESTS)))
    _run_isolated("sh", "-c", _ENTER, "sh", ROOT, root, "env", "-i", *(f"{k}={v}" for k, v in env.items()), *pytest)


def _missing() -> str:
    """Why this cannot be done here, "" if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root can make another system"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        return "nothing can be mounted in this container"
    if shutil.which("apt-get") is None or not (_mirror() or _mirror(update=True)):
        return "apt knows of no mirror of Debian"
    if shutil.which("debootstrap") is None:
        return fail("CI tests on Debian sid; there is no debootstrap") if IN_CI else "there is no debootstrap"
    return ""


def _mirror(update: bool = False) -> str:
    """The address of the mirror that apt takes Debian's packages from; "" if there is none, or it is not up to date."""
    if update:
        subprocess.run(["apt-get", "update", "-qq"])
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"]
    targets = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return next((target.split("|")[2] for target in targets if target.startswith("Debian|Debian|")), "")


def _ensure_root() -> Path:
    """The folder of a Debian with the Pythons, each in a virtual environment with tests/requirements.txt.

    It is made once; `make clean` removes it.
    """
    packages = [name for version in PYTHONS for name in (f"python{version}", f"libpython{version}")]
    recipe = repr((packages, NOT_YET)).encode() + pythons.REQUIREMENTS.read_bytes()
    root = CACHE / "sid" / hashlib.sha256(recipe).hexdigest()[:12]
    complete = root / ".complete"
    if not complete.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        _run_isolated("debootstrap", "--variant=minbase", f"--include={','.join(packages)}", "sid", root, _mirror())
        for version in PYTHONS:
            run("chroot", root, f"/usr/bin/python{version}", "-m", "venv", "--without-pip", f"/venvs/{version}")
            _install(root / "venvs" / version / "lib" / f"python{version}" / "site-packages", version)
        complete.touch()
    return root


def _install(folder: Path, version: str) -> None:
    """Install tests/requirements.txt for a Python that is not the one that does it."""
    left_out = NOT_YET.get(version, ())
    lines = pythons.REQUIREMENTS.read_text().splitlines()
    chosen = CACHE / "sid" / f"requirements-{version}.txt"
    chosen.write_text("".join(f"{line}\n" for line in lines if line.partition("==")[0] not in left_out))
    pip = (pythons.test_venv(pythons.find()[-1]) / "bin/python", "-m", "pip", "install", "--quiet")
    run(*pip, "--target", folder, "--python-version", version, "--only-binary=:all:", "--requirement", chosen)


def _run_isolated(*command: str | Path) -> None:
    """Run a command whose mounts nobody else sees, and that are gone when it has ended."""
    run("unshare", "--mount", "--propagation", "private", *command)


if __name__ == "__main__":
    main()
