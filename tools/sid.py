"""A Debian sid in a folder of its own, for Pythons that this machine does not have, as Debian's users get them.

It needs root, debootstrap and Debian: packages come from the mirror that apt is configured with.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pythons
from workspace import CACHE, IN_CI, ROOT, fail, run

PYTHONS = ("3.14", "3.15")

_PACKAGES = [*(name for version in PYTHONS for name in (f"python{version}", f"libpython{version}")), "wrk"]

# The tree is seen in the root at /tree. What is mounted is so for these processes alone, and gone with them.
_ENTER = """
set -e
tree=$1 root=$2 folder=$3
shift 3
mkdir -p "$root/tree"
mount --bind "$tree" "$root/tree"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
cd "$root"
exec chroot . sh -c 'cd "/tree/$1" && shift && exec "$@"' sh "$folder" "$@"
"""


def missing() -> str:
    """Why there can be no such Debian here, "" if there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root can make another system"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        return "nothing can be mounted in this container"
    if shutil.which("apt-get") is None or not (_mirror() or _mirror(update=True)):
        return "apt knows of no mirror of Debian"
    if shutil.which("debootstrap") is None:
        return fail("CI tests on Debian sid; there is no debootstrap") if IN_CI else "there is no debootstrap"
    return ""


def ensure_root() -> Path:
    """The folder of a Debian with the Pythons. It is made once; `make clean` removes it."""
    root = CACHE / "sid" / hashlib.sha256(repr(_PACKAGES).encode()).hexdigest()[:12]
    complete = root / ".complete"
    if not complete.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        _run_isolated("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", "sid", root, _mirror())
        complete.touch()
    return root


def ensure_venv(root: Path, name: str, version: str, requirements: Path, left_out: tuple[str, ...] = ()) -> str:
    """The path, in there, of an interpreter that has what `requirements` names but for the packages `left_out`."""
    recipe = requirements.read_text() + repr(left_out)
    venv = f"venvs/{name}-{version}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    complete = root / venv / ".complete"
    if not complete.exists():
        shutil.rmtree(root / venv, ignore_errors=True)
        run("chroot", root, f"/usr/bin/python{version}", "-m", "venv", "--without-pip", f"/{venv}")
        lines = requirements.read_text().splitlines()
        chosen = root / venv / "requirements.txt"
        chosen.write_text("".join(f"{line}\n" for line in lines if line.partition("==")[0] not in left_out))
        # By a pip of this machine's, for a Python that is not the one that does it.
        pip = (pythons.test_venv(pythons.find()[-1]) / "bin/python", "-m", "pip", "install", "--quiet")
        target = root / venv / "lib" / f"python{version}" / "site-packages"
        only = ("--python-version", version, "--only-binary=:all:")
        run(*pip, "--target", target, *only, "--requirement", chosen)
        complete.touch()
    return f"/{venv}/bin/python"


def run_inside(root: Path, folder: str, env: dict[str, str], *command: str | Path) -> None:
    """Run a command in there, in a folder of the tree, with nothing else in its environment; it must succeed."""
    env = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"} | env
    settings = (f"{name}={value}" for name, value in env.items())
    _run_isolated("sh", "-c", _ENTER, "sh", ROOT, root, folder, "env", "-i", *settings, *command)


def _mirror(update: bool = False) -> str:
    """The address of the mirror that apt takes Debian's packages from; "" if there is none, or it is not up to date."""
    if update:
        subprocess.run(["apt-get", "update", "-qq"])
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"]
    targets = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return next((target.split("|")[2] for target in targets if target.startswith("Debian|Debian|")), "")


def _run_isolated(*command: str | Path) -> None:
    """Run a command whose mounts nobody else sees, and that are gone when it has ended."""
    run("unshare", "--mount", "--propagation", "private", *command)
