"""Run the benchmarks with bin/caddy. Arguments go to benchmarks/run.py."""

import sys

import venvs
from workspace import BINARY, ROOT, fail, run

BENCHMARKS = ROOT / "benchmarks"


def main() -> None:
    """benchmarks/run.py in a virtual environment with the servers that it compares."""
    if not BINARY.exists():
        fail("there is no bin/caddy; run `make build` first")
    venv = venvs.ensure("bench", BENCHMARKS / "requirements.txt")
    run(venv / "bin/python", BENCHMARKS / "run.py", *sys.argv[1:])


if __name__ == "__main__":
    main()
