"""ASGI WebSockets (spec 3.0, WebSocket 2.5): from a REQUEST to a task that runs the app, from its messages to frames.

Caddy speaks RFC 6455 with the client: handshake, pings, limits, compression. What comes here is valid.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from . import wire
from .asgi import Request
from .exchange import ClientGone, Exchange
from .headers import byte_head, check_subprotocol
from .messages import BROKEN, LOST, NORMAL, Messages, check_code, cut_reason
from .wire import BINARY, END, MAX_DATA, MESSAGE_COST, TEXT, pack_header

if TYPE_CHECKING:
    from .asgi import App, Server

_DENIAL = "websocket.http.response."


class WebSocket(Exchange):
    """One WebSocket: its `receive` and `send`, and what they share. Most are idle."""

    __slots__ = (
        "_accepted",
        "_connected",
        "_denial",
        "_last_words",
        "_messages",
        "_sending",
    )

    def __init__(self, server: Server, stream: int) -> None:
        super().__init__(server, stream)
        self._connected = False  # websocket.connect has been received
        self._accepted = False  # ACCEPT has been sent
        self._denial: _Denial | None = None  # the response that rejects the handshake, once it has begun
        self._messages = Messages()
        self._sending = False  # a message goes out in parts: none may come between
        self._last_words = (LOST, "")  # code and reason of websocket.disconnect

    async def run(self, app: App, scope: dict[str, Any]) -> None:
        """Runs the app and closes the stream. No exception leaves it: SystemExit would stop the loop."""
        try:
            await app(scope, self.receive, self.send)
            (self._denial or self).finish()
        except BaseException as exc:
            (self._denial or self).fail(exc, scope)
        if self.task is not None:
            self.server.through(self)

    def finish(self) -> None:
        """Closes the stream of an app that has returned: normally, if it has accepted and not closed."""
        if self._accepted and not self.gone and not self.closed:
            self._close(wire.CLOSE, (NORMAL, ""))
        else:
            super().finish()

    async def receive(self) -> dict[str, Any]:
        """ASGI receive(): websocket.connect, websocket.receive for each message, then websocket.disconnect."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while (message := self._messages.take()) is None:
            if self.gone or self.closed:
                code, reason = self._last_words
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._give_credit()
            await self._change()
        self._give_credit()
        kind, data = message
        if kind == TEXT:
            return {"type": "websocket.receive", "text": data.decode()}
        return {"type": "websocket.receive", "bytes": data}

    async def send(self, message: dict[str, Any]) -> None:
        """ASGI send(). Waits while the client is slow.

        Raises ClientGone, RuntimeError for a message out of order, TypeError or ValueError for what cannot be sent.
        """
        if self.gone:
            raise ClientGone("the client has gone")
        kind = message["type"]
        if kind == "websocket.send":
            if not self._accepted:
                raise RuntimeError("websocket.send was sent before websocket.accept")
            self._check_open(kind)
            frame, data = _content(message)
            size = len(data)
            if self._sending or size > self.credit or size > MAX_DATA or self.credit <= 0:
                await self._send_parts(frame, data)
            else:
                self._put(frame | END, data)
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._check_open(kind)
            if self._accepted:
                last_words = _closing(message)
                await self._wait_turn()
                self._last_words = last_words
                self._close(wire.CLOSE, last_words)
                self._messages.clear()
            else:  # the client gets a 403, whatever the code
                self._close(wire.CLOSE, (NORMAL, ""))
        elif kind.startswith(_DENIAL):
            await self._deny(message)
        else:
            raise RuntimeError(f"unexpected message {kind!r}")

    def feed_message(self, kind: int, data: bytes, ended: bool) -> None:
        """Takes one TEXT or BINARY frame. Raises ProtocolError when there was no credit for it."""
        self._messages.feed(kind, data, ended)

    def shut(self, code: int, reason: str) -> None:
        """Takes a CLOSE frame: the client's side is over."""
        self.gone = True
        self._last_words = (code, reason)

    def _give_credit(self) -> None:
        """Tells Caddy what the app has taken, when it is much."""
        if not self.gone and not self.closed and (size := self._messages.grant()):
            self.server.put(wire.credit(self.stream, size), b"", b"")

    def _check_open(self, kind: str) -> None:
        if self.closed:
            raise RuntimeError(f"{kind} was sent after the end of the websocket")
        if self._denial is not None:
            raise RuntimeError(f"{kind} was sent after websocket.http.response.start")

    def _accept(self, message: dict[str, Any]) -> None:
        self._check_open("websocket.accept")
        if self._accepted:
            raise RuntimeError("websocket.accept was sent twice")
        subprotocol = check_subprotocol(message.get("subprotocol"))
        headers = self.server.headers.check(message.get("headers") or ())
        for name, _ in headers:
            if name.startswith(b"sec-websocket-"):
                raise ValueError(f"the header {name.decode()} is the server's own")
        head = byte_head((subprotocol, headers))
        self._accepted = True
        self.server.put(pack_header(len(head), self.stream, len(head) << 8 | wire.ACCEPT), head, b"")

    async def _deny(self, message: dict[str, Any]) -> None:
        """Rejects the handshake with a response ("Websocket Denial Response")."""
        if self._denial is None:
            self._check_open(message["type"])
            if self._accepted:
                raise RuntimeError(f"{message['type']} was sent after websocket.accept")
            self._denial = _Denial(self, self.server, self.stream)
            self.server.streams[self.stream] = self._denial
        await self._denial.send(message | {"type": message["type"].removeprefix("websocket.")})
        self._denial.suspended()  # it has no task, by which `send` sees that a head is to be looked after
        self.server.flush_soon()

    def _put(self, kind: int, data: bytes) -> None:
        size = len(data)
        self.credit -= size + MESSAGE_COST
        self.server.put(pack_header(size, self.stream, kind), b"", data)

    async def _send_parts(self, kind: int, data: bytes) -> None:
        await self._wait_turn()
        self._sending = True
        at, size = 0, len(data)
        try:
            while True:
                while self.credit <= 0:
                    await self._change()
                    self._check_sendable()
                part = min(size - at, self.credit, MAX_DATA)
                end = at + part == size
                self._put(kind | END if end else kind, data[at : at + part])
                if end:
                    return
                at += part
        except asyncio.CancelledError:
            if at and not self.gone and not self.closed:
                # Half a message has gone out: nothing can follow it.
                self._last_words = (BROKEN, "")
                self._close(wire.CLOSE, self._last_words)
            raise
        finally:
            self._sending = False
            self.wake()

    async def _wait_turn(self) -> None:
        while self._sending:
            await self._change()
            self._check_sendable()

    def _check_sendable(self) -> None:
        if self.gone:
            raise ClientGone("the client has gone")
        self._check_open("websocket.send")


class _Denial(Request):
    """The response that rejects a handshake."""

    __slots__ = ("_socket",)

    def __init__(self, socket: WebSocket, server: Server, stream: int) -> None:
        super().__init__(server, stream, b"", True)
        self._socket = socket

    def end(self) -> None:
        """The next frame closes the stream, and with it the WebSocket."""
        super().end()
        self.wake()

    def wake(self) -> None:
        """Wakes all who wait for a change, here or in the WebSocket's receive()."""
        super().wake()
        self._socket.gone, self._socket.closed = self.gone, self.closed
        self._socket.wake()


def _content(message: dict[str, Any]) -> tuple[int, bytes]:
    """Returns TEXT or BINARY, and the data. Raises TypeError, or ValueError for a str that UTF-8 cannot encode."""
    data = message.get("bytes")
    if data is None:
        text = message.get("text")
        if not isinstance(text, str):
            raise TypeError(f"websocket.send has a text, a str, or bytes, not {type(text).__name__}")
        return TEXT, text.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return BINARY, bytes(data)
    raise TypeError(f"the bytes of websocket.send are bytes, not {type(data).__name__}")


def _closing(message: dict[str, Any]) -> tuple[int, str]:
    """Returns the code and reason of websocket.close. Raises ValueError for what may not be sent."""
    code = int(message.get("code") or NORMAL)
    check_code(code)
    reason = message.get("reason") or ""
    return code, cut_reason(reason if isinstance(reason, str) else str(reason))  # FastAPI gives a list of errors
