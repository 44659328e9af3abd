"""Check format, types and common mistakes in Go and Python."""

from pathlib import Path

import pythons
import venvs
from golang import go, go_environment
from workspace import ROOT, environment, fail, output, run

TOOLS = ROOT / "tools"


def main() -> None:
    """Run every linter; the first complaint ends the command."""
    lint_go()
    lint_python()


def lint_go() -> None:
    """gofmt, go vet and staticcheck."""
    env = go_environment()
    files = output("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.go").split()
    unformatted = output(go().parent / "gofmt", "-l", *(file for file in files if Path(ROOT, file).exists()))
    if unformatted:
        fail(f"gofmt -w these files:\n{unformatted}")
    run(go(), "vet", "./...", env=env)
    run(go(), "tool", f"-modfile={TOOLS / 'go.mod'}", "staticcheck", "./...", env=env)


def lint_python() -> None:
    """Ruff and mypy; mypy sees the packages that the tests use."""
    commands = venvs.ensure("lint", TOOLS / "requirements-lint.txt") / "bin"
    tests = pythons.test_venv(pythons.find()[-1])
    run(commands / "ruff", "check")
    run(commands / "ruff", "format", "--check")
    mypy = (commands / "mypy", "--strict", f"--python-executable={tests / 'bin' / 'python'}")
    for tree in ("python/caddysnake", "tools", "tests", "benchmarks"):
        # The tests' apps use frameworks without types.
        run(*mypy, "--exclude=^tests/apps/", tree, env=environment(MYPYPATH=str(TOOLS)))


if __name__ == "__main__":
    main()
