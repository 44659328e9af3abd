"""The monitor: whose its socket is."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest
from caddysnake import worker
from driver import FAILED, START, frame, settings


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
