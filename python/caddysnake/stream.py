"""One request on its stream, seen from the app: the rest of its body, its response, and the waiting for either.

It is the same for every blocking interface; whether waiting means a thread or a greenlet is its scheduler's business.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Protocol

from . import wire
from .errors import describe, stems_from
from .files import Channel, Part
from .wire import END, MAX_DATA, WINDOW, pack_header


class Scheduler(Protocol):
    """What runs requests and moves their frames: `threads.Scheduler` or `greenlets.Scheduler`."""

    streams: dict[int, Stream]  # open: not closed
    expected: tuple[type[BaseException], ...]  # how an app ends when its client has gone, by no fault of its own
    left: bool  # this is a process that the app has forked, which ends with its request

    @property
    def lock(self) -> AbstractContextManager[Any, Any]:
        """Guards `streams`, and each stream's body, credit, waiter and closing.

        An app may read or write on a thread of its own while another one ends the response: whoever adds a frame that
        does not close its stream holds `lock` from when it has seen that the stream is open.
        """

    def put(
        self, stream: Stream, prefix: bytes, head: bytes = b"", data: bytes | memoryview = b"", flush: bool = False
    ) -> None:
        """Adds a frame to what is to be sent; with `flush` it leaves before this returns."""

    def add(self, prefix: bytes, head: bytes = b"", data: bytes | memoryview = b"") -> None:
        """Adds a frame to what the next `flush()` sends. It may be called with `lock` held."""

    def flush(self) -> None:
        """Sends all that is to be sent."""

    def wait(self, stream: Stream, ready: Callable[[], bool]) -> None:
        """Returns as soon as `ready()`, which only a frame for `stream` can bring about."""

    def wake(self, stream: Stream) -> None:
        """Wakes who waits for `stream`, if anybody does. Call it with `lock` held."""


class ClientGone(OSError):
    """The client has gone: nothing more can be read from it or sent to it."""


class RequestTimeout(BaseException):
    """Raised in a request that has run for longer than `request_timeout`. An `except Exception` lets it pass."""

    def __str__(self) -> str:
        return "the request has run for longer than request_timeout"


class Stream:
    """One request as its scheduler sees it. `wsgi.Request` and `esgi.Request` make HTTP requests of it.

    `run()` is called once, by one thread or greenlet; the methods here are for that one, and for those that the app has
    help it. What they send when the response has ended meanwhile is dropped.
    """

    __slots__ = ("body", "closed", "credit", "gone", "id", "scheduler", "thread", "waiter")

    def __init__(self, scheduler: Scheduler, stream: int, body: wire.Body | None) -> None:
        self.scheduler = scheduler
        self.id = stream
        self.body = body  # None: all of it came with the request
        self.credit = WINDOW  # bytes of data that may be sent
        self.gone = False  # the client or Caddy has gone
        self.closed = False  # the closing frame has been sent
        self.thread: Any = None  # the scheduler's: what runs it; None: not begun
        self.waiter: Any = None  # the scheduler's: what a wait ends with

    def run(self) -> None:
        raise NotImplementedError

    def asked(self) -> dict[str, str]:
        """The request's method and path, for the log."""
        raise NotImplementedError

    def feed_message(self, kind: int, data: bytes, ended: bool) -> None:
        """Takes one TEXT or BINARY frame. Raises ProtocolError."""
        raise wire.ProtocolError("a message where none is due")

    def shut(self, code: int, reason: str) -> None:
        """Takes a CLOSE frame. Raises ProtocolError."""
        raise wire.ProtocolError("CLOSE where none is due")

    def receive(self) -> bytes:
        """Returns the next part of the body as soon as there is one, b"" at its end, or at that of the response: what
        the app has not read by then does not come any more. Raises ClientGone.
        """
        scheduler, body = self.scheduler, self.body
        while body is not None:
            with scheduler.lock:
                if self.closed or body.finished:
                    break
                if self.gone:
                    raise ClientGone("the client has gone")
                size = body.grant()
                if size:
                    scheduler.add(wire.credit(self.id, size))
                data = body.take()
            if size:
                scheduler.flush()
            if data is not None:
                return data
            scheduler.wait(self, self._readable)
        return b""

    def send(self, head: bytes | None, data: bytes, end: bool) -> None:
        """Sends RESPONSE (with `head`) or DATA; `end` closes the stream. Waits while there is no credit.

        A response that ends is held if this thread leads; all else leaves before this returns. Raises ClientGone.
        """
        if self.gone:
            raise ClientGone("the client has gone")
        kind = wire.DATA if head is None else wire.RESPONSE
        head = head or b""
        size = len(data)
        if not end or size > MAX_DATA or not self._close(size):
            self._send_parts(kind, head, data, end)
        else:
            prefix = pack_header(len(head) + size, self.id, len(head) << 8 | kind | END)
            self.scheduler.put(self, prefix, head, data)

    def send_file(self, channel: Channel, head: bytes, part: Part) -> None:
        """Sends FILE, with RESPONSE's head if that has not been sent, and closes the stream.

        Raises ClientGone, or OSError when the descriptor cannot be sent; nothing has been sent then.
        """
        if self.gone:
            raise ClientGone("the client has gone")
        data = part.data()
        prefix = pack_header(len(head) + len(data), self.id, len(head) << 8 | wire.FILE | END)
        channel.send(self.id, part.descriptor)
        if self._close():
            self.scheduler.put(self, prefix, head, data, True)

    def close(self, frame: bytes) -> None:
        """Sends a closing frame without data: ERROR or RESET."""
        if self._close():
            self.scheduler.put(self, frame)

    def fail(self, exc: BaseException) -> None:
        """Ends what the app has raised out of: with ERROR, or with RESET if the client has gone; or just logs it."""
        if self.scheduler.left:
            end_process(exc)
        if self.gone and not self.closed:
            self.close(wire.frame(wire.RESET, self.id))
        expected = self.scheduler.expected
        if self.gone and isinstance(exc, expected):
            return
        message, trace = describe(exc)
        if not self.closed:
            self.close(wire.frame(wire.ERROR, self.id, (message, trace)))
        else:
            level = "debug" if self.gone and stems_from(exc, expected) else "error"
            said = wire.log(level, "app raised after its response", **self.asked(), error=message, traceback=trace)
            self.scheduler.put(self, said, flush=True)

    def _send_parts(self, kind: int, head: bytes, data: bytes, end: bool) -> None:
        scheduler, view, at, size = self.scheduler, memoryview(data), 0, len(data)
        while True:
            with scheduler.lock:
                if self.closed:
                    return
                part = min(size - at, self.credit, MAX_DATA)
                self.credit -= part
                last = end and at + part == size
                if (part or head) and not last:
                    prefix = pack_header(len(head) + part, self.id, len(head) << 8 | kind)
                    scheduler.add(prefix, head, view[at : at + part])
            if last:
                break
            if part or head:
                scheduler.flush()
                kind, head, at = wire.DATA, b"", at + part
            if at == size:
                return
            if not self.credit:
                try:
                    scheduler.wait(self, self._writable)
                except BaseException as exc:  # a timeout of gevent's, say, that the app goes on after
                    if at and not self.gone and not isinstance(exc, scheduler.expected):
                        # Nothing can follow it.
                        said = f"half a block of the body has been sent: {describe(exc)[0]}"
                        self.close(wire.frame(wire.ERROR, self.id, (said, "")))
                    raise
            if self.gone:
                raise ClientGone("the client has gone")
        if self._close():
            prefix = pack_header(len(head) + part, self.id, len(head) << 8 | kind | END)
            scheduler.put(self, prefix, head, view[at:])

    def _close(self, size: int = 0) -> bool:
        """Says that the closing frame comes next, with `size` bytes of data that have not been charged.

        Returns False if another thread of the app has sent it, or there is no credit for them.
        """
        with self.scheduler.lock:
            if self.closed or (size and size > self.credit):
                return False
            # Before the frame leaves: Caddy's next request must find the place free.
            self.closed = True
            del self.scheduler.streams[self.id]
            if self.waiter is not None:
                self.scheduler.wake(self)
        return True

    def _readable(self) -> bool:
        return self.gone or self.closed or self.body is None or not self.body.waiting

    def _writable(self) -> bool:
        return self.gone or self.closed or self.credit > 0


def end_process(exc: BaseException | None) -> NoReturn:
    """Ends a process that the app has forked, as Python ends one: with what has been raised, if anything was."""
    code = 0
    with contextlib.suppress(BaseException):  # nobody is there to read it
        if isinstance(exc, SystemExit) and (exc.code is None or isinstance(exc.code, int)):
            code = exc.code or 0
        elif exc is not None and not isinstance(exc, ClientGone):  # to respond is its parent's business
            code = 1
            print(exc if isinstance(exc, SystemExit) else describe(exc)[1], file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


# Makes a Stream of a REQUEST: its number, head and data, and whether that is the whole body.
NewStream = Callable[[Scheduler, int, Any, bytes, bool], Stream]
