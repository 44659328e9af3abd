"""What an interpreter says of itself: also one that is too old, so that Caddy can tell what is wrong with it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest
from driver import PACKAGE

PROGRAM = (PACKAGE / "probe.py").read_text()


def answer(before: str = "") -> dict[str, object]:
    """What this interpreter says, after it has run `before`."""
    found: dict[str, object] = json.loads(subprocess.check_output([sys.executable, "-c", f"{before}\n{PROGRAM}"]))
    return found


def test_this_interpreter() -> None:
    found = answer()
    assert (found["version"], found["supported"]) == (sys.version.split()[0], True)


def test_an_interpreter_that_is_too_old_runs_it_too() -> None:
    """Python 3.6 knows its syntax, and no annotation is evaluated, which 3.8 could not do with `list[str]`."""
    for node in ast.walk(ast.parse(PROGRAM, feature_version=(3, 6))):
        if isinstance(node, ast.FunctionDef):
            arguments = [argument.annotation for argument in node.args.args]
            assert all(isinstance(note, ast.Constant | None) for note in (node.returns, *arguments)), node.name
        assert not isinstance(node, ast.AnnAssign)


@pytest.mark.parametrize("locked", [True, False])
def test_a_free_threaded_interpreter_may_have_a_lock(locked: bool) -> None:
    """With PYTHON_GIL=1 in Caddy's environment."""
    build = "import sys, sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1"
    found = answer(f"{build}; sys._is_gil_enabled = lambda: {locked}")
    assert found["free_threaded"] is not locked
