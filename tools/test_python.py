"""Run the worker package's unit tests on each Python."""

import pythons
from workspace import ROOT, environment, run

PACKAGE = ROOT / "python"


def main() -> None:
    """pytest over python/tests, once for each interpreter, without the frameworks' pytest plugins."""
    for python in pythons.find():
        env = environment(PYTHONPATH=str(PACKAGE), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
        run(pythons.test_venv(python) / "bin/python", "-m", "pytest", PACKAGE / "tests", cwd=PACKAGE, env=env)


if __name__ == "__main__":
    main()
