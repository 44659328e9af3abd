"""ESGI 0.1, WebSockets: from a REQUEST to a call of the app, and from its messages to frames.

docs/esgi.md is the specification. Caddy speaks RFC 6455 with the client: what comes here is valid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import wire
from .esgi import AlreadyResponded, ClientGone, Closed, Error, Headers, ResponseHeaders, asked, encode, to_bytes
from .headers import check_subprotocol, text_head
from .messages import BROKEN, LOST, NORMAL, Messages, check_code, cut_reason
from .stream import Scheduler, Stream
from .wire import BINARY, END, MAX_DATA, MESSAGE_COST, TEXT, pack_header

if TYPE_CHECKING:
    from .esgi import Worker

CLOSED_MESSAGE, BYTES_MESSAGE, TEXT_MESSAGE = 0, 1, 2  # kinds of messages


class Message:
    """What `receive()` returns.

    Attributes:
        kind: 0: the WebSocket is closed, 1: bytes, 2: text.
        data: bytes or str, None when it is closed.
        code, reason: why it is closed; 0 and "" otherwise.
    """

    __slots__ = ("code", "data", "kind", "reason")

    def __init__(self, kind: int, data: bytes | str | None, code: int = 0, reason: str = "") -> None:
        self.kind = kind
        self.data = data
        self.code = code
        self.reason = reason

    def __repr__(self) -> str:
        return f"Message(kind={self.kind!r}, data={self.data!r}, code={self.code!r}, reason={self.reason!r})"


class WebSocket(Stream):
    """One WebSocket. `run()` calls the app; no exception leaves it."""

    __slots__ = (
        "_messages",
        "_scope",
        "_sending",
        "_worker",
        "accepted",
        "last_words",
        "offered",
    )

    def __init__(self, worker: Worker, scheduler: Scheduler, stream: int, scope: dict[str, Any]) -> None:
        Stream.__init__(self, scheduler, stream, None)
        scope["headers"] = Headers(scope["headers"])
        self._worker = worker
        self._scope = scope
        self.offered: str = scope["headers"].get("sec-websocket-protocol", "")  # subprotocols
        self.accepted = False  # ACCEPT has been sent
        self.last_words = (LOST, "")  # code and reason of the end
        self._messages = Messages()
        self._sending = False  # a message goes out in parts: none may come between

    def run(self) -> None:
        try:
            self._worker.app(self._scope, WebSocketProtocol(self, self._worker))
            if not self.closed:
                self._finish()
        except BaseException as exc:  # SystemExit too: a request must not end its worker
            self.fail(exc)

    def asked(self) -> dict[str, str]:
        return asked(self._scope)

    def accept(self, head: bytes) -> None:
        """Sends ACCEPT."""
        self.accepted = True
        self.scheduler.put(self, pack_header(len(head), self.id, len(head) << 8 | wire.ACCEPT), head)

    def take_message(self) -> Message:
        """Waits for the next message, or for the end."""
        while (message := self._messages.take()) is None:
            if self.gone or self.closed:
                return Message(CLOSED_MESSAGE, None, *self.last_words)
            self._give_credit()
            self.scheduler.wait(self, self._has_news)
        self._give_credit()
        kind, data = message
        return Message(TEXT_MESSAGE, data.decode()) if kind == TEXT else Message(BYTES_MESSAGE, data)

    def send_message(self, kind: int, data: bytes) -> None:
        """Sends a TEXT or BINARY message. Waits while the client is slow. Raises ClientGone, Closed."""
        self._check_open()
        size = len(data)
        if self._sending or size > self.credit or size > MAX_DATA or self.credit <= 0:
            self._send_message_parts(kind, data)
        else:
            self._put(kind | END, data)

    def close_with(self, code: int, reason: str) -> None:
        """Closes the WebSocket, or rejects the handshake. Does nothing when it is closed or the client has gone."""
        while self._sending and not self.gone and not self.closed:
            self.scheduler.wait(self, self._can_send)
        if not self.gone and not self.closed:
            self.last_words = (code, reason)
            self._messages.clear()
            self.close(wire.frame(wire.CLOSE, self.id, (code, reason)))

    def feed_message(self, kind: int, data: bytes, ended: bool) -> None:
        """Takes one TEXT or BINARY frame. Raises ProtocolError when there was no credit for it."""
        self._messages.feed(kind, data, ended)

    def shut(self, code: int, reason: str) -> None:
        """Takes a CLOSE frame: the client's side is over."""
        self.gone = True
        self.last_words = (code, reason)

    def _give_credit(self) -> None:
        """Tells Caddy what the app has taken, when it is much."""
        if not self.gone and not self.closed and (size := self._messages.grant()):
            self.scheduler.put(self, wire.credit(self.id, size))

    def _finish(self) -> None:
        """Ends the WebSocket of an app that has returned."""
        if self.gone:
            self.close(wire.frame(wire.RESET, self.id))
        elif self.accepted:
            self.close_with(NORMAL, "")
        else:
            raise Error("the app returned without an answer to the handshake")

    def _put(self, kind: int, data: bytes) -> None:
        size = len(data)
        self.credit -= size + MESSAGE_COST
        self.scheduler.put(self, pack_header(size, self.id, kind), b"", data)

    def _send_message_parts(self, kind: int, data: bytes) -> None:
        while self._sending:
            self.scheduler.wait(self, self._can_send)
            self._check_open()
        self._sending = True
        at, size = 0, len(data)
        try:
            while True:
                while self.credit <= 0:
                    self.scheduler.wait(self, self._has_credit)
                    self._check_open()
                part = min(size - at, self.credit, MAX_DATA)
                last = at + part == size
                self._put(kind | END if last else kind, data[at : at + part])
                if last:
                    return
                at += part
        except BaseException:
            if at and not self.gone and not self.closed:
                # The greenlet was killed when half a message had gone out: nothing can follow it.
                self.last_words = (BROKEN, "")
                self.close(wire.frame(wire.CLOSE, self.id, self.last_words))
            raise
        finally:
            self._sending = False
            self.scheduler.wake(self)

    def _check_open(self) -> None:
        if self.closed:
            raise Closed("the WebSocket is closed")
        if self.gone:
            raise ClientGone("the client has gone")

    def _has_news(self) -> bool:
        return self._messages.changed or self.gone or self.closed

    def _has_credit(self) -> bool:
        return self.credit > 0 or self.gone or self.closed

    def _can_send(self) -> bool:
        return not self._sending or self.gone or self.closed


class WebSocketProtocol:
    """The `protocol` of a WebSocket: its handshake. Made by the server."""

    __slots__ = ("_socket", "_worker")

    def __init__(self, socket: WebSocket, worker: Worker) -> None:
        self._socket = socket
        self._worker = worker

    def accept(self, subprotocol: str | None = None, headers: ResponseHeaders = ()) -> WebSocketTransport:
        """Completes the handshake, with a subprotocol of those that the client offers and with headers of the response.

        Raises AlreadyResponded, ClientGone, TypeError, ValueError.
        """
        socket = self._socket
        if socket.accepted or socket.closed:
            raise AlreadyResponded("a handshake has one answer")
        chosen = check_subprotocol(subprotocol)
        if chosen and chosen not in [name.strip() for name in socket.offered.split(",")]:
            raise ValueError(f"the client offers the subprotocols {socket.offered!r}, not {chosen!r}")
        checked, _ = self._worker.headers.check(list(headers))
        for name, _ in checked:
            if name.lower().startswith("sec-websocket-"):
                raise ValueError(f"the header {name} is the server's own")
        if socket.gone:
            raise ClientGone("the client has gone")
        socket.accept(text_head(chosen, checked))
        return WebSocketTransport(socket)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Closes the WebSocket; before `accept()` it rejects the handshake with a 403. Raises TypeError, ValueError."""
        _close(self._socket, code, reason)


class WebSocketTransport:
    """A WebSocket that has been accepted. Several greenlets may use it at once."""

    __slots__ = ("_socket",)

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    def receive(self) -> Message:
        """Returns the next message; waits until there is one. When the WebSocket is closed, that is one of kind 0."""
        return self._socket.take_message()

    def send_bytes(self, data: bytes) -> None:
        """Sends a message of bytes. Waits while the client is slow. Raises Closed, ClientGone, TypeError."""
        self._socket.send_message(BINARY, data if type(data) is bytes else to_bytes(data))

    def send_str(self, data: str) -> None:
        """Sends a message of text. Waits while the client is slow. Raises Closed, ClientGone, TypeError, ValueError."""
        self._socket.send_message(TEXT, encode(data))

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Closes the WebSocket. Raises TypeError, ValueError."""
        _close(self._socket, code, reason)


def _close(socket: WebSocket, code: int, reason: str) -> None:
    if not isinstance(code, int):
        raise TypeError(f"a close code is an int, not {type(code).__name__}")
    check_code(code)
    socket.close_with(int(code), cut_reason(reason))
