"""Run the worker package's unit tests on each Python."""

import os

import pythons
from workspace import ROOT, environment, run

PACKAGE = ROOT / "python"


def main() -> None:
    """pytest over python/tests, once for each interpreter, without the frameworks' pytest plugins."""
    # Most tests wait for a worker to start, to answer or to end.
    parallel = ("-p", "xdist", f"--numprocesses={2 * (os.cpu_count() or 1)}")
    for python in pythons.find():
        env = environment(PYTHONPATH=str(PACKAGE), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
        run(
            pythons.test_venv(python) / "bin/python",
            "-m",
            "pytest",
            "-q",
            *parallel,
            PACKAGE / "tests",
            cwd=PACKAGE,
            env=env,
        )


if __name__ == "__main__":
    main()
