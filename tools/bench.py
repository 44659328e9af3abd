"""Run the benchmarks with bin/caddy. Arguments go to benchmarks/run.py.

They run on Python 3.14 of the Debian sid of sid.py where that can be had, because it is built as most people's Python
is, with profile-guided optimisation; pyenv's is not, and takes up to 1.8 times as long for the same code.
CADDYSNAKE_BENCH_PYTHON, a path, chooses another interpreter.
"""

import os
import subprocess
import sys

import sid
import venvs
from workspace import BINARY, ROOT, environment, fail, run

BENCHMARKS = ROOT / "benchmarks"
REQUIREMENTS = BENCHMARKS / "requirements.txt"


def main() -> None:
    """benchmarks/run.py in a virtual environment with the servers that it compares."""
    if not BINARY.exists():
        fail("there is no bin/caddy; run `make build` first")
    chosen = os.environ.get("CADDYSNAKE_BENCH_PYTHON", "")
    why = "" if chosen else sid.missing()
    if chosen or why:
        if why:
            print(f"measuring on {sys.executable}, because {why}: Python {sid.PYTHONS[0]} in Debian sid")
        venv = venvs.ensure("bench", REQUIREMENTS, chosen or sys.executable)
        run(venv / "bin/python", "run.py", *sys.argv[1:], cwd=BENCHMARKS, env=environment(CADDYSNAKE_COMMIT=_commit()))
        return
    root = sid.ensure_root()
    python = sid.ensure_venv(root, "bench", sid.PYTHONS[0], REQUIREMENTS)
    sid.run_inside(root, "benchmarks", {"CADDYSNAKE_COMMIT": _commit()}, python, "run.py", *sys.argv[1:])


def _commit() -> str:
    """The commit of this tree: there is no git in Debian sid to tell it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not in a git checkout"


if __name__ == "__main__":
    main()
