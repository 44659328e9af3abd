"""Run the end-to-end tests on bin/caddy: all, in several processes, or what the arguments tell pytest.

`python3 tools/test_e2e.py -k flask`
"""

import os
import sys

import pythons
from workspace import BINARY, ROOT, environment, fail, run

# What shares servers stays together, and the long files come first (tests/conftest.py).
IN_OUR_ORDER = ("--dist=loadscope", "--no-loadscope-reorder")
# Tests wait much for processes to start and end.
PARALLEL = ("-q", "-m", "not alone", f"--numprocesses={3 * (os.cpu_count() or 1)}", *IN_OUR_ORDER)
ALONE = ("-q", "-m", "alone")


def main() -> None:
    """pytest over tests/, which runs each test with workers on every interpreter that is here."""
    if not BINARY.exists():
        fail("there is no bin/caddy; run `make build` first")
    found = pythons.find()
    workers = [f"--worker-python={pythons.test_venv(python) / 'bin/python'}" for python in found]
    runner = pythons.test_venv(found[-1]) / "bin/python"
    env = environment(PYTHONDONTWRITEBYTECODE="1")
    for arguments in [sys.argv[1:]] if sys.argv[1:] else [PARALLEL, ALONE]:
        run(runner, "-m", "pytest", *workers, *arguments, cwd=ROOT / "tests", env=env)


if __name__ == "__main__":
    main()
