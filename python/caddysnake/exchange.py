"""What requests and WebSockets under ASGI have in common: a stream that the app answers and that ends once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from . import wire
from .errors import describe, stems_from
from .wire import WINDOW

if TYPE_CHECKING:
    from .asgi import Server

_ASKED = 200  # characters of a request that the log has


class ClientGone(OSError):
    """The client has gone: nothing more can be sent to it (ASGI HTTP 2.4, "Disconnected Client")."""


class Exchange:
    """A stream on a server. Everything happens in the event loop's thread.

    Attributes:
        server: where it is.
        stream: its number.
        credit: how many bytes of data may be sent to Caddy.
        gone: the client or Caddy has gone.
        closed: the closing frame has been sent.
        task: what runs the app, unless that ended in its first step.
    """

    __slots__ = ("_waiters", "closed", "credit", "gone", "server", "stream", "task")

    def __init__(self, server: Server, stream: int) -> None:
        self.server = server
        self.stream = stream
        self._waiters: list[asyncio.Future[None]] | None = None  # of those who wait for anything to change
        self.credit = WINDOW
        self.gone = False
        self.closed = False
        self.task: asyncio.Task[None] | None = None

    def suspended(self) -> None:
        """The app has not returned in its first step, or will take that later, before Python 3.12."""

    def feed(self, data: bytes, ended: bool) -> None:
        """Takes one DATA frame. Raises ProtocolError."""
        raise wire.ProtocolError("DATA where none is due")

    def feed_message(self, kind: int, data: bytes, ended: bool) -> None:
        """Takes one TEXT or BINARY frame. Raises ProtocolError."""
        raise wire.ProtocolError("a message where none is due")

    def lose(self) -> None:
        """Takes RESET: the client has gone."""
        self.gone = True

    def shut(self, code: int, reason: str) -> None:
        """Takes a CLOSE frame. Raises ProtocolError."""
        raise wire.ProtocolError("CLOSE where none is due")

    def finish(self) -> None:
        """Closes the stream of an app that has returned too early."""
        if not self.closed:
            self._close(wire.RESET if self.gone else wire.ERROR, None if self.gone else (self.lack(), ""))

    def lack(self) -> str:
        """Returns what is wrong with an app that has returned too early; "": just that."""
        return ""

    def fail(self, exc: BaseException, scope: dict[str, Any]) -> None:
        """Closes the stream of an app that has raised. When it is closed, and Caddy through with it, the log has it."""
        expected = isinstance(exc, (ClientGone, asyncio.CancelledError))
        if self.gone and not self.closed:
            self._close(wire.RESET, None)
        if self.gone and expected:
            return
        message, trace = describe(exc)
        if not self.closed:
            self._close(wire.ERROR, (message, trace))
        else:
            level = "debug" if self.gone and stems_from(exc, ClientGone) else "error"
            # As in an error's entry by Caddy. Starlette raises once more behind its own 500.
            asked = {"method": str(scope.get("method", "GET")), "path": str(scope.get("path"))}
            self.server.log(level, "app raised after its response", **asked, error=message, traceback=trace)

    def asked(self) -> str:
        """What the client asked for, while the app runs, for the log: "GET /path"."""
        coroutine: Any = None if self.task is None else self.task.get_coro()
        frame = getattr(coroutine, "cr_frame", None)
        scope = frame.f_locals.get("scope", {}) if frame is not None else {}
        return f"{scope.get('method', 'GET')} {scope.get('path')}"[:_ASKED]

    def end(self) -> None:
        """The next frame closes the stream."""
        self.closed = True
        self.server.streams.pop(self.stream, None)
        if self._waiters:
            self.wake()

    def wake(self) -> None:
        """Wakes all who wait for a change."""
        if self._waiters:
            waiters, self._waiters = self._waiters, None
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def _change(self) -> None:
        """Returns when anything has changed."""
        waiter = self.server.loop.create_future()
        if self._waiters is None:
            self._waiters = [waiter]
        else:
            # Who was cancelled is forgotten here: an app may poll.
            self._waiters = [other for other in self._waiters if not other.done()]
            self._waiters.append(waiter)
        await waiter

    def _close(self, kind: int, head: object) -> None:
        frame = wire.frame(kind, self.stream, head)
        self.end()
        self.server.put(frame, b"", b"")
