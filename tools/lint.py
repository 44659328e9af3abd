"""Check format, types and common mistakes in Go, C and Python."""

import os
import shutil
from pathlib import Path

import pythons
import venvs
from golang import go, go_environment
from workspace import ROOT, environment, fail, has_c_compiler, output, run

TOOLS = ROOT / "tools"


def main() -> None:
    """Run every linter; the first complaint ends the command."""
    lint_go()
    lint_c()
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


def lint_c() -> None:
    """clang-format, and the C compiler's warnings where there is one."""
    files = ("caddysnake.c", "caddysnake.h")
    commands = venvs.ensure("lint", TOOLS / "requirements-lint.txt") / "bin"
    run(commands / "clang-format", "--dry-run", "-Werror", *files)
    if has_c_compiler():
        compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or "cc"
        flags = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only")
        run(*compiler.split(), *flags, files[0])


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
