"""The Pythons that the tests run on. Run as a command, it makes the virtual environment of each."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import venvs
from workspace import IN_CI, ROOT, environment, fail

OLDEST = (3, 10)
WANTED = ("3.10", "3.13")
REQUIREMENTS = ROOT / "tests" / "requirements.txt"


class Python(NamedTuple):
    """An interpreter: its version as in "3.13", and its path."""

    version: str
    path: str


def find() -> list[Python]:
    """The interpreters to test on, one for each wanted version that is here.

    CADDYSNAKE_TEST_PYTHONS, a list of paths separated as in PATH, replaces the search on PATH and among pyenv's
    versions. Without it all wanted versions must be there in CI; elsewhere what is missing is said, and when none is
    there the running interpreter takes their place.
    """
    override = os.environ.get("CADDYSNAKE_TEST_PYTHONS")
    if override:
        found = [_probe(path) or fail(f"CADDYSNAKE_TEST_PYTHONS: {path} does not run") for path in _paths(override)]
    else:
        found = [python for version in WANTED if (python := search(version))]
    versions = {python.version for python in found}
    missing = [version for version in WANTED if version not in versions and not override]
    if missing and IN_CI:
        fail(f"CI tests on Python {' and '.join(WANTED)}; not found: {', '.join(missing)}")
    if not found and sys.version_info >= OLDEST:
        found = [_probe(sys.executable) or fail(f"{sys.executable} does not run")]
    if not found:
        fail(f"Python {'.'.join(map(str, OLDEST))} or newer is needed")
    print("Python for the tests:", ", ".join(f"{python.version} ({python.path})" for python in found))
    if missing:
        print("left out, because it was not found: Python", ", ".join(missing))
    return found


def test_venv(python: Python) -> Path:
    """The folder of the virtual environment of `python` with the frameworks under test and the test runner."""
    return venvs.ensure(f"tests-{python.version}", REQUIREMENTS, python.path)


def search(version: str) -> Python | None:
    """An interpreter of this version on PATH or among pyenv's, or None."""
    for candidate in _candidates(version):
        python = _probe(candidate)
        if python and python.version == version:
            return python
    return None


def _paths(override: str) -> list[str]:
    return [path for path in override.split(os.pathsep) if path]


def _candidates(version: str) -> Iterator[str]:
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield on_path
    yield sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path(os.environ.get("HOME", "/")) / ".pyenv")
    yield from (str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python")))


def _probe(path: str) -> Python | None:
    """What `path` really is: a pyenv shim may name an interpreter that does not run."""
    program = "import json, sys; print(json.dumps(['%d.%d' % sys.version_info[:2], sys.executable]))"
    try:
        result = subprocess.run([path, "-c", program], capture_output=True, text=True, env=environment())
    except OSError:
        return None
    return Python(*json.loads(result.stdout)) if result.returncode == 0 else None


def main() -> None:
    """What the tests would else make when they come to it; it mostly waits for packages."""
    for python in reversed(find()):  # the newest is the first that is needed
        test_venv(python)


if __name__ == "__main__":
    main()
