"""ESGI 0.1: the worker, and HTTP, from a REQUEST to a call of the app, and from its one response to frames.

docs/esgi.md is the specification. What an app may touch are the classes without an underscore and their public methods.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import index
from typing import Any

from . import files, wire
from .errors import StartError, describe
from .headers import BODYLESS, TextHeaders, text_head
from .stream import ClientGone, Scheduler, Stream

__all__ = ["AlreadyResponded", "BodyConsumed", "ClientGone", "Closed", "Error", "HTTPProtocol", "Headers"]

App = Callable[[dict[str, Any], Any], object]
ResponseHeaders = Iterable[tuple[str, str]]


class Error(RuntimeError):
    """The app has used its protocol object in an order that ESGI does not allow."""


class AlreadyResponded(Error):
    """A second response: the first one has begun."""


class BodyConsumed(Error):
    """The body is read a second time."""


class Closed(Error):
    """It is over: nothing more can be sent or received."""


def serve(
    sock: socket.socket,
    decoder: wire.Decoder,
    target: Any,
    settings: dict[str, Any],
    ready: Callable[[], None],
    log: Callable[..., None],
) -> None:
    """Serves `target`, what the app's name stands for: `__esgi_init__`, `ready()`, requests until STOP or end of file,
    `__esgi_del__`. Files leave by the channel for descriptors; without one they are read here.

    Raises StartError if `__esgi_init__` raises, or what broke the connection.
    """
    from . import greenlets  # imports gevent, which need not be there

    _begin(target)
    ready()
    worker = Worker(getattr(target, "__esgi__", target), settings["descriptors"])
    greenlets.Scheduler(sock, decoder, worker.new_request, settings["monitor"], settings["descriptors"]).serve()
    _end(target, log)


def _begin(target: Any) -> None:
    init = getattr(target, "__esgi_init__", None)
    if init is None:
        return
    try:
        init()
    except BaseException as exc:
        message, trace = describe(exc)
        raise StartError(f"the app's __esgi_init__ failed: {message}", trace) from exc


def _end(target: Any, log: Callable[..., None]) -> None:
    delete = getattr(target, "__esgi_del__", None)
    if delete is None:
        return
    try:
        delete()
    except BaseException as exc:
        message, trace = describe(exc)
        log("error", "app's __esgi_del__ failed", error=message, traceback=trace)


class Headers(Mapping[str, str]):
    """`scope["headers"]`: from a name in lower case to its value; several values of one name are joined by ", "."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, str | list[str]]) -> None:
        self._values = values  # a list where a name was repeated

    def __getitem__(self, name: str) -> str:
        value = self._values[name]
        return value if type(value) is str else ", ".join(value)

    def get_all(self, name: str) -> list[str]:
        """Returns the values of a name in the order they came, [] if there is none."""
        value = self._values.get(name, [])
        return [value] if isinstance(value, str) else list(value)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({self._values!r})"


class Worker:
    """What all requests of one worker share."""

    __slots__ = ("_web_socket", "app", "channel", "headers")

    def __init__(self, app: App, channel: files.Channel | None) -> None:
        from .esgi_websocket import WebSocket  # which needs this module

        self._web_socket = WebSocket
        self.app = app
        self.channel = channel
        self.headers = TextHeaders()

    def new_request(self, scheduler: Scheduler, stream: int, scope: dict[str, Any], data: bytes, ended: bool) -> Stream:
        if not ended and scope["proto"] == "ws":
            return self._web_socket(self, scheduler, stream, scope)
        return _Request(self, scheduler, stream, scope, data, ended)


class _Request(Stream):
    """One HTTP request. `run()` calls the app; no exception leaves it."""

    __slots__ = ("_protocol", "_scope", "_worker")

    def __init__(
        self, worker: Worker, scheduler: Scheduler, stream: int, scope: dict[str, Any], data: bytes, ended: bool
    ) -> None:
        Stream.__init__(self, scheduler, stream, None if ended else wire.Body(data))
        scope["headers"] = Headers(scope["headers"])
        self._worker = worker
        self._scope = scope
        self._protocol = HTTPProtocol(self, worker, scope["method"] == "HEAD", data)

    def run(self) -> None:
        protocol = self._protocol
        try:
            self._worker.app(self._scope, protocol)
            if not self.closed:
                protocol._finish()
        except BaseException as exc:  # SystemExit too: a request must not end its worker
            self.fail(exc)

    def asked(self) -> dict[str, str]:
        return asked(self._scope)


def asked(scope: dict[str, Any]) -> dict[str, str]:
    """What the log has of a request, a WebSocket's too."""
    return {"method": str(scope.get("method", "GET")), "path": str(scope.get("path"))}


class HTTPProtocol:
    """The `protocol` of an HTTP request: its body, and its one response. Made by the server."""

    __slots__ = ("_data", "_is_head", "_responded", "_stream", "_taken", "_transport", "_worker")

    def __init__(self, stream: Stream, worker: Worker, is_head: bool, data: bytes) -> None:
        self._stream = stream
        self._worker = worker
        self._is_head = is_head
        self._data = data  # the whole body if that has come with the request
        self._taken = False  # the body has been asked for
        self._responded = False
        self._transport: HTTPTransport | None = None  # of response_stream

    def read_body(self) -> bytes:
        """Returns the whole body, b"" if there is none. Waits until it has come. Raises BodyConsumed, ClientGone."""
        self._take()
        if self._stream.body is None:
            return self._data
        return b"".join(self._parts())

    def iter_body(self) -> Iterator[bytes]:
        """Returns an iterator over the parts of the body as they come; each is at least a byte long.

        Raises BodyConsumed; the iterator raises ClientGone.
        """
        self._take()
        if self._stream.body is None:
            return iter((self._data,) if self._data else ())
        return self._parts()

    __iter__ = iter_body

    def response_empty(self, status: int, headers: ResponseHeaders) -> None:
        """Responds without a body. Raises AlreadyResponded, ClientGone, TypeError, ValueError."""
        self._respond(status, headers, b"")

    def response_str(self, status: int, headers: ResponseHeaders, body: str) -> None:
        """Responds with a text, encoded as UTF-8. Raises AlreadyResponded, ClientGone, TypeError, ValueError."""
        self._respond(status, headers, encode(body))

    def response_bytes(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        """Responds with bytes. Raises AlreadyResponded, ClientGone, TypeError, ValueError."""
        self._respond(status, headers, body if type(body) is bytes else to_bytes(body))

    def response_file(self, status: int, headers: ResponseHeaders, path: str | os.PathLike[str]) -> None:
        """Responds with a file. Raises OSError if it cannot be opened, and what `response_bytes` raises."""
        self._respond_file(status, headers, path, 0, None)

    def response_file_range(
        self, status: int, headers: ResponseHeaders, path: str | os.PathLike[str], start: int, end: int
    ) -> None:
        """Responds with the bytes of a file from offset `start` to before offset `end`.

        Raises ValueError if the file has no such range, and what `response_file` raises.
        """
        self._respond_file(status, headers, path, index(start), index(end))

    def response_stream(self, status: int, headers: ResponseHeaders) -> HTTPTransport:
        """Sends status and headers, and returns the transport for the body, which ends when the app returns.

        A response without a body ends at once: whatever is sent on the transport raises ClientGone.

        Raises AlreadyResponded, ClientGone, TypeError, ValueError.
        """
        head, length = self._begin(status, headers, None)
        is_bodyless = self._is_head or status in BODYLESS
        self._transport = HTTPTransport(self._stream, length)
        self._stream.send(head, b"", is_bodyless)
        self._stream.gone = is_bodyless  # nobody gets the body, which may be endless
        return self._transport

    def _take(self) -> None:
        if self._taken:
            raise BodyConsumed("the body of a request can be read once")
        if self._stream.closed:
            raise Closed("the body of a request cannot be read after the response")
        self._taken = True

    def _parts(self) -> Iterator[bytes]:
        receive = self._stream.receive
        while data := receive():
            yield data
        body = self._stream.body
        if body is not None and not body.finished:
            raise Closed("the body of a request cannot be read after the response")

    def _begin(self, status: int, headers: ResponseHeaders, size: int | None) -> tuple[bytes, int | None]:
        """Checks a response whose body has `size` bytes, None if that is not known; its head and Content-Length."""
        if self._responded:
            raise AlreadyResponded("a request has one response")
        if not isinstance(status, int):
            raise TypeError(f"the status of a response is an int, not {type(status).__name__}")
        if not 200 <= status <= 999:
            raise ValueError(f"the status of a response is 200 or more, not {status}")
        if self._stream.gone:
            raise ClientGone("the client has gone")
        checked, length = self._worker.headers.check(headers if type(headers) is list else list(headers))
        if size is not None and status not in BODYLESS:
            if length is None:
                if size or not self._is_head:
                    checked.append(("Content-Length", str(size)))
            elif length != size and not self._is_head:
                raise ValueError(f"Content-Length: {length} for a body of {size} bytes")
        head = text_head(int(status), checked)
        self._responded = True
        return head, length

    def _respond(self, status: int, headers: ResponseHeaders, body: bytes) -> None:
        head, _ = self._begin(status, headers, len(body))
        self._stream.send(head, b"" if self._is_head or status in BODYLESS else body, True)

    def _respond_file(
        self, status: int, headers: ResponseHeaders, path: str | os.PathLike[str], start: int, end: int | None
    ) -> None:
        descriptor = files.open_path(path)
        try:
            size = files.size_of(descriptor)
            stop = size if end is None else end
            if not 0 <= start <= stop <= size:
                raise ValueError(f"{os.fspath(path)!r} has {size} bytes, not the range from {start} to {stop}")
            head, _ = self._begin(status, headers, stop - start)
            is_bodyless = start == stop or status in BODYLESS
            # For HEAD too: Caddy sends the headers that it adds for GET, and of the file nothing.
            if is_bodyless or not self._hand_over(head, files.Part(descriptor, start, stop - start, False)):
                if is_bodyless or self._is_head:
                    self._stream.send(head, b"", True)
                else:
                    self._send_file(head, descriptor, start, stop)
        finally:
            os.close(descriptor)

    def _hand_over(self, head: bytes, part: files.Part) -> bool:
        """Has Caddy send a file. Returns False if that cannot be."""
        channel = self._worker.channel
        if channel is None:
            return False
        try:
            self._stream.send_file(channel, head, part)
        except ClientGone:
            raise
        except OSError:  # too many descriptors are under way
            return False
        return True

    def _send_file(self, head: bytes | None, descriptor: int, start: int, stop: int) -> None:
        while start < stop:
            data = os.pread(descriptor, min(stop - start, wire.MAX_DATA), start)
            if not data:
                raise OSError("the file became shorter while it was sent")
            start += len(data)
            self._stream.send(head, data, start == stop)
            head = None

    def _finish(self) -> None:
        """Ends the response of an app that has returned."""
        stream = self._stream
        if stream.gone:
            stream.close(wire.frame(wire.RESET, stream.id))
        elif self._transport is None:
            raise Error("the app returned without a response")
        elif self._transport.left:
            raise Error(f"the response ended {self._transport.left} bytes before its Content-Length")
        else:
            stream.send(None, b"", True)


class HTTPTransport:
    """The body of a response that `response_stream` has begun."""

    __slots__ = ("_stream", "left")

    def __init__(self, stream: Stream, length: int | None) -> None:
        self._stream = stream
        self.left = length  # bytes until the app's Content-Length, None if it gave none

    def send_bytes(self, data: bytes) -> None:
        """Sends a part of the body; it is on its way when this returns. Waits while the client is slow.

        Raises Closed when the app has returned, ClientGone, also for a response without a body, TypeError, and
        ValueError for more than the Content-Length.
        """
        self._send(data if type(data) is bytes else to_bytes(data))

    def send_str(self, data: str) -> None:
        """Sends a text, encoded as UTF-8; see `send_bytes`."""
        self._send(encode(data))

    def _send(self, data: bytes) -> None:
        if self._stream.gone:
            raise ClientGone("the client has gone")
        if self._stream.closed:
            raise Closed("the response has ended")
        if not data:
            return
        if self.left is not None:
            if len(data) > self.left:
                raise ValueError(
                    f"the body is longer than its Content-Length: {len(data)} bytes where {self.left} are left"
                )
            self.left -= len(data)
        self._stream.send(None, data, False)


def encode(text: str) -> bytes:
    """Returns a text as UTF-8. Raises TypeError, or ValueError for a surrogate."""
    if not isinstance(text, str):
        raise TypeError(f"a text is a str, not {type(text).__name__}")
    return text.encode()


def to_bytes(data: object) -> bytes:
    """Returns data as bytes. Raises TypeError."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"data is bytes, not {type(data).__name__}")
