"""Virtual environments, made once and kept under .cache/venvs/."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from workspace import CACHE, environment, fail, run


def ensure(name: str, requirements: Path, interpreter: str = sys.executable, *, virtualenv: Path | None = None) -> Path:
    """The folder of a virtual environment of `interpreter` in which everything in `requirements` is installed.

    `virtualenv`, a command, makes it instead of the interpreter's own venv module, which Python 2.7 does not have.

    Its name carries a hash of the interpreter and the requirements, so a change of either makes a new one. Several
    processes may ask at once: the first makes it, the others wait.
    """
    recipe = interpreter.encode() + requirements.read_bytes()
    venv = CACHE / "venvs" / f"{name}-{hashlib.sha256(recipe).hexdigest()[:12]}"
    complete = venv / ".complete"
    venv.parent.mkdir(parents=True, exist_ok=True)
    with open(venv.with_name(f"{venv.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(venv, ignore_errors=True)
            if virtualenv:
                run(virtualenv, "--quiet", "--no-periodic-update", f"--python={interpreter}", venv)
            else:
                _create(venv, interpreter)
            run(venv / "bin/python", "-m", "pip", "install", "--quiet", "--requirement", requirements)
            complete.touch()
    return venv


def _create(venv: Path, interpreter: str) -> None:
    probe = subprocess.run([interpreter, "-c", "import ensurepip, venv"], capture_output=True, env=environment())
    if probe.returncode != 0:
        fail(
            f"{interpreter} cannot make virtual environments: its venv and ensurepip modules are missing; "
            "on Debian and Ubuntu: apt-get install python3-venv"
        )
    run(interpreter, "-m", "venv", venv)
