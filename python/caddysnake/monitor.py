"""The thread that ends requests which have run for too long, and says where they were: `request_timeout`.

Caddy asks on a socketpair of its own with a stream's number, a u32, and gets the answer `(ended, stack)` in `marshal`
format with its size as a u32 before it. A thread that does nothing else answers, so that Caddy hears of an event loop
that is blocked. docs/adr/0013-request-timeout.md says how a request is ended, and what happens when that has no effect.

This module is imported before gevent patches the process: its thread, lock and socket stay the system's.
"""

from __future__ import annotations

import os
from _socket import socket
from _thread import allocate_lock, get_ident, start_new_thread
from collections.abc import Callable
from marshal import dumps
from sys import _current_frames
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import Place  # which imports what gevent is to patch first

PROBE = 1.0  # seconds that an event loop may take to look at what it is told

# Ends the request on a stream. Returns whether it could be told to end, and where it was, [] if it is over. Any thread
# may call it. It reads no file: what it runs in, or waits for, serves the other requests.
End = Callable[[int], "tuple[bool, list[Place]]"]


class Monitor:
    """The worker's end of the socketpair, and the thread that answers on it. `descriptor` is the one that START names,
    and belongs to this from now on."""

    def __init__(self, descriptor: int) -> None:
        if os.name == "posix":
            os.set_inheritable(descriptor, False)
        self._sock: socket | None = socket(fileno=descriptor)  # None: it is the thread's

    def start(self, end: End) -> None:
        """Answers until the socket's end of file. It is called once at most."""
        assert self._sock is not None
        self._sock.settimeout(None)  # an app may have set another default
        start_new_thread(_answer, (self._sock, end))
        self._sock = None

    def close(self) -> None:
        """Closes the socket unless there is a thread, which does so itself."""
        if self._sock is not None:
            self._sock.close()


def _answer(sock: socket, end: End) -> None:
    from .errors import stack

    try:
        while len(question := sock.recv(4)) == 4:
            ended = True
            try:
                ended, where = end(int.from_bytes(question, "little"))
                text = stack(where)
            except Exception as exc:  # it looks into what another thread changes
                text = f"(no stack: {exc!r})"
            answer = dumps((int(ended), text), 2)
            sock.sendall(len(answer).to_bytes(4, "little") + answer)
    except OSError:  # Caddy has gone
        pass
    finally:
        sock.close()


class Loop:
    """Ends the requests of an event loop, in the loop's own thread, which makes one.

    Args:
        call: has the loop call a function soon. Any thread may call it.
        end: ends the request on a stream and returns where it was, [] if it is over. It is called by the loop.
    """

    def __init__(self, call: Callable[[Callable[[], None]], object], end: Callable[[int], list[Place]]) -> None:
        self._call = call
        self._end = end
        self._thread = get_ident()
        self._told = allocate_lock()  # held from when the loop is told of a request until it has looked
        self._where: list[Place] = []

    def end(self, stream: int) -> tuple[bool, list[Place]]:
        """See `End`. False: the loop is blocked; then it is where what blocks it is."""
        from .errors import places

        if self._told.acquire(True, PROBE):
            self._where = []

            def look() -> None:
                try:
                    self._where = self._end(stream)
                finally:
                    self._told.release()

            self._call(look)
            if self._told.acquire(True, PROBE):
                self._told.release()
                return True, self._where
        return False, places(thread_frames(self._thread))


def thread_frames(ident: int) -> list[tuple[FrameType, int]]:
    """Returns a thread's frames with their current lines, outermost first, [] if it has ended."""
    frame = _current_frames().get(ident)
    frames: list[tuple[FrameType, int]] = []
    while frame is not None:
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    return frames[::-1]
