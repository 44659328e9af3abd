"""HTTP/1.1 by hand: for requests that no proper client would send, and for responses exactly as they come."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from support.server import Server


class Closed(Exception):
    """The connection has ended where a response, or the rest of one, was due."""


@dataclass
class Response:
    """A response.

    Attributes:
        status: its status code.
        headers: its header lines in their order, names in lower case.
        body: what came of its body, without the chunked coding.
        complete: whether that is all of it; if not, the connection was cut.
        trailers: what came behind a chunked body, like headers.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    complete: bool
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)

    def values(self, name: bytes) -> list[bytes]:
        """The values of one header."""
        return [value for key, value in self.headers if key == name]


class Connection:
    """A connection of its own to a server.

    Args:
        server: where to.
        options: those of Server.connect.
    """

    def __init__(self, server: Server, **options: str | int) -> None:
        self.socket: socket.socket = server.connect(**options)  # type: ignore[arg-type]
        self._reader = self.socket.makefile("rb")
        self._trailers: list[tuple[bytes, bytes]] = []

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close it, whatever is under way."""
        self._reader.close()
        self.socket.close()

    def end(self) -> None:
        """Say that nothing more will be sent."""
        with suppress(OSError):  # the server was first
            self.socket.shutdown(socket.SHUT_WR)

    def send(self, *parts: bytes) -> None:
        """Send the parts, one after another; what a server that has hung up does not take is no error."""
        with suppress(ConnectionError):
            self.socket.sendall(b"".join(parts))

    def get(self, target: bytes, *headers: bytes) -> Response:
        """GET a target with these header lines, and read the response."""
        self.send(b"GET ", target, b" HTTP/1.1\r\nHost: test\r\n", *(header + b"\r\n" for header in headers), b"\r\n")
        return self.response()

    def response(self, method: str = "GET") -> Response:
        """Read the next response that is not informational; Closed if there is none."""
        while True:
            status, headers = self.head()
            if status >= 200 or status == 101:
                break
        response = Response(status, headers, b"", True)
        if method == "HEAD" or status in (101, 204, 304):
            return response
        try:
            if response.values(b"transfer-encoding") == [b"chunked"]:
                for chunk in self.chunks():
                    response.body += chunk
                response.trailers = self._trailers
            elif length := response.values(b"content-length"):
                response.body = self._reader.read(int(length[0]))
                response.complete = len(response.body) == int(length[0])
            else:
                response.body = self._reader.read()
        except (Closed, ConnectionError):
            response.complete = False
        return response

    def responses(self) -> Iterator[Response]:
        """Read responses until the server closes the connection."""
        with suppress(Closed):
            while True:
                yield self.response()

    def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Read a status line and headers; Closed if there are none."""
        version, status = self._line().split(b" ")[:2]
        assert version in (b"HTTP/1.1", b"HTTP/1.0"), version
        return int(status), self._fields()

    def read(self, size: int) -> bytes:
        """Read so many bytes of a body that is not chunked, or what comes before the end of the connection."""
        return self._reader.read(size)

    def skip(self, size: int) -> int:
        """Read so many bytes, or what comes before the end of the connection, and say how many these were."""
        buffer = memoryview(bytearray(1 << 20))
        left = size
        while left and (count := self._reader.readinto(buffer[: min(left, len(buffer))])):
            left -= count
        return size - left

    def chunks(self) -> Iterator[bytes]:
        """Read the chunks of a chunked body as they come, up to the last; Closed if it does not come."""
        while size := int(self._line(), 16):
            chunk = self._reader.read(size)
            if len(chunk) < size:
                raise Closed
            yield chunk
            self._line()
        self._trailers = self._fields()

    def _fields(self) -> list[tuple[bytes, bytes]]:
        fields = []
        while line := self._line():
            name, _, value = line.partition(b":")
            fields.append((name.lower(), value.strip(b" \t")))
        return fields

    def _line(self) -> bytes:
        try:
            line = self._reader.readline()
        except ConnectionError:
            raise Closed from None
        if not line.endswith(b"\r\n"):
            raise Closed
        return line[:-2]
