"""A worker that is a thread: what becomes of its descriptors when it does not get as far as to serve."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import threading
from collections.abc import Iterator

import pytest
from caddysnake import thread
from caddysnake.shared import Shared
from driver import DEADLINE


@pytest.fixture
def shared() -> Iterator[Shared]:
    path, exits = list(sys.path), (atexit.register, atexit.unregister)
    yield Shared()
    sys.path[:], (atexit.register, atexit.unregister) = path, exits


@pytest.mark.parametrize(("stack", "why"), [(1 << 46, "can't start new thread"), (0, "ValueError")])
def test_a_worker_that_fails_early_closes_what_it_was_given_and_says_why(
    shared: Shared, capsys: pytest.CaptureFixture[str], stack: int, why: str
) -> None:
    """The system has no room for its thread, or what it is ordered cannot be done."""
    pairs = {name: socket.socketpair() for name in ("socket", "descriptors", "monitor")}
    pipes = {name: os.pipe() for name in ("stdout", "stderr", "reports")}
    order = {
        "number": 7,
        "app": "main:app",
        "generation": 1,
        "working_dir": b"/",
        "roots": [],
        "packages": [],
        "env": [b"no variable"],
        **{name: theirs.detach() for name, (_, theirs) in pairs.items()},
        **{name: writer for name, (_, writer) in pipes.items()},
    }
    before = threading.stack_size(stack)
    try:
        thread.start(order, shared, pipes["reports"][1])
    finally:
        threading.stack_size(before)
    with open(pipes["reports"][0], "rb") as reports:
        assert reports.read(4) == b"\x07\0\0\0"
        os.close(pipes["reports"][1])
    for ours, _ in pairs.values():
        ours.settimeout(DEADLINE)
        assert ours.recv(1) == b""
        ours.close()
    with open(pipes["stdout"][0]) as stdout, open(pipes["stderr"][0]) as stderr:
        assert stdout.read() == ""
        assert why in stderr.read() + capsys.readouterr().err
