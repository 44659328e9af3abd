"""The monitor: how it ends a request that takes too long, what it leaves alone, and whose its socket is."""

from __future__ import annotations

import linecache
import os
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from caddysnake import errors, interrupts, threads, worker, wsgi
from caddysnake.wire import Decoder
from conftest import Launch
from driver import DEADLINE, END, FAILED, REQUEST, RESET, START, STOP, environ, frame, settings, until


@pytest.mark.parametrize(
    ("interface", "runtime"),
    [("wsgi", "sync"), ("wsgi", "gevent"), ("asgi", "native"), ("esgi", "gevent")],
    ids=["wsgi", "wsgi-gevent", "asgi", "esgi"],
)
def test_other_requests_go_on_while_it_reads_source_files(
    launch: Launch, tmp_path: Path, interface: str, runtime: str
) -> None:
    worker = launch(f"sources:{interface}", interface, runtime=runtime, monitored=True).start()
    source = tmp_path / "source"
    os.mkfifo(source)
    stream = worker.request(f"/hang?{source}")
    assert worker.get("/").body == b"hello"
    worker.end(stream)
    writers: list[int] = []

    def opened() -> bool:
        try:
            writers.append(os.open(source, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody reads
            return False
        return True

    try:
        until(opened, "the monitor reads the source")
        for _ in range(5):
            assert worker.get("/").body == b"hello"
        assert worker.response(stream).closed == RESET
    finally:
        for writer in writers:
            os.close(writer)
    ended, stack = worker.verdict()
    assert ended
    assert f'File "{source}", line 3, in hang' in stack
    assert "sources.py" in stack
    assert "caddysnake" not in stack
    assert worker.stop() == 0


def test_a_request_that_leaves_the_app_meanwhile_is_closed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    began, may_return = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        began.set()
        may_return.wait(DEADLINE)
        start_response("200 OK", [])
        return [b"done"]

    is_in_app = interrupts._is_in_app

    def look(thread: int) -> bool:
        """The thread goes on after the look, as when the system lets it run."""
        found = is_in_app(thread)
        may_return.set()
        until(lambda: sys._current_frames()[thread].f_code.co_name == "_close", "the app has returned")
        return found

    monkeypatch.setattr(interrupts, "_is_in_app", look)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(DEADLINE)
        new_request = partial(wsgi.TimedRequest, wsgi.Worker(app, None, True, False))
        scheduler = threads.Scheduler(theirs, Decoder(), 2, new_request)
        serving = threading.Thread(target=scheduler.serve)
        serving.start()
        ours.sendall(frame(REQUEST | END, 1, environ()))
        assert began.wait(DEADLINE)
        assert interrupts.Threads(scheduler).end(1)[0]
        closing = frame(RESET, 1)
        assert ours.recv(len(closing), socket.MSG_WAITALL) == closing
        ours.sendall(frame(STOP, 0, 0))
        serving.join(DEADLINE)
        assert not serving.is_alive()


async def refuse(scope: dict[str, Any], receive: object, send: object) -> None:
    """An ASGI app that does not start."""
    raise ValueError("no")


@pytest.mark.parametrize(
    ("interface", "app", "changes"),
    [
        ("wsgi", "nowhere:app", {}),
        ("esgi", "nowhere:app", {}),
        ("asgi", "nowhere:app", {}),
        ("asgi", "test_monitor:refuse", {"lifespan": "on"}),
        ("asgi", "test_monitor:refuse", {"runtime": "uvloop"}),
    ],
    ids=["wsgi", "esgi", "asgi", "lifespan", "uvloop"],
)
def test_a_failed_start_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, interface: str, app: str, changes: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # as if it were not installed
    pairs = [socket.socketpair() for _ in range(3)]
    (ours, theirs), *others = pairs
    with ours, theirs:
        handed = {name: end.detach() for name, (_, end) in zip(("descriptors", "monitor"), others, strict=True)}
        ours.sendall(frame(START, 0, settings(app, interface, **handed, **changes)))
        assert worker.run(theirs) == 1
        assert ours.recv(12)[8] & 0x7F == FAILED
    for end, _ in others:
        with end:
            end.settimeout(0)
            assert end.recv(1) == b"", "the worker's end is open"


def test_a_stack_that_takes_too_long_shows_the_lines_that_are_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(errors, "_LOOKING_UP", 0)
    known, unknown = tmp_path / "known.py", tmp_path / "unknown.py"
    for file in (known, unknown):
        file.write_text(f"run({file.stem})\n")
    assert linecache.getline(str(known), 1)
    text = errors.stack([(str(unknown), 1, "outer", {}), (str(known), 1, "inner", {})])
    assert text.splitlines()[1:] == [
        f'  File "{unknown}", line 1, in outer',
        f'  File "{known}", line 1, in inner',
        "    run(known)",
    ]
    assert errors.stack([]) == ""
