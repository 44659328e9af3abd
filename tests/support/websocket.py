"""WebSockets by hand (RFC 6455): for frames that no proper client would send, and for what comes as it comes."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from types import TracebackType

from support import http2
from support.raw import Connection, Response
from support.server import Server

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10

# The headers of a handshake over HTTP/2.
CONNECT = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b"sec-websocket-version", b"13")]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Rejected(Exception):
    """The handshake was answered with another response than 101.

    Attributes:
        response: that one.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(f"status {response.status}")
        self.response = response


class Ended(Exception):
    """The connection has ended where a frame, or the rest of one, was due."""


@dataclass
class Frame:
    """A frame of the server's.

    Attributes:
        first: its first byte: FIN, RSV1 to RSV3 and the opcode.
        payload: its payload, whole.
    """

    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        """Its opcode."""
        return self.first & 0x0F

    @property
    def close(self) -> tuple[int, str]:
        """The code and reason of a Close; 1005 without one."""
        assert self.opcode == CLOSE, self
        if not self.payload:
            return 1005, ""
        return struct.unpack_from("!H", self.payload)[0], self.payload[2:].decode()


class WebSocket:
    """A WebSocket's client.

    Args:
        server: where to.
        target: the request target.
        headers: further header lines of the handshake.
        host: the Host header; by default that of the server.
        early: bytes that go out together with the handshake.
        options: those of Server.connect.

    Attributes:
        headers: those of the server's response.

    Raises:
        Rejected: the server does not want it.
    """

    def __init__(
        self, server: Server, target: str = "/", *headers: str, host: str = "", early: bytes = b"", **options: str | int
    ) -> None:
        self.connection = Connection(server, **options)
        key = base64.b64encode(os.urandom(16))
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {host or ('127.0.0.1' if server.tls else 'test')}",
            "Connection: keep-alive, Upgrade",
            "Upgrade: WebSocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key.decode()}",
            *headers,
        ]
        self.connection.send("".join(line + "\r\n" for line in lines).encode(), b"\r\n", early)
        response = self.connection.response()
        if response.status != 101:
            self.connection.close()
            raise Rejected(response)
        self.headers = response.headers
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        assert response.values(b"sec-websocket-accept") == [accept]

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.connection.close()

    def send(self, first: int, payload: bytes = b"") -> None:
        """Send one frame; `first` is its first byte, so most often FIN | an opcode."""
        self._write(frame(first, payload))

    def text(self, text: str) -> None:
        """Send a text in one frame."""
        self.send(FIN | TEXT, text.encode())

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a Close."""
        self.send(FIN | CLOSE, struct.pack("!H", code) + reason.encode())

    def receive(self) -> Frame:
        """The next frame; Ended if there is none."""
        first, size = self._read(2)
        if size == 126:
            [size] = struct.unpack("!H", self._read(2))
        elif size == 127:
            [size] = struct.unpack("!Q", self._read(8))
        assert size < 1 << 63, "the server has masked a frame"
        return Frame(first, self._read(size))

    def message(self) -> str | bytes:
        """The next message, whole; it is an error when a control frame comes instead."""
        got = self.receive()
        kind, payload = got.opcode, got.payload
        assert kind in (TEXT, BINARY), got
        while not got.first & FIN:
            got = self.receive()
            assert got.opcode == CONTINUATION, got
            payload += got.payload
        return payload.decode() if kind == TEXT else payload

    def end(self) -> tuple[int, str]:
        """Read up to the Close, answer it, and see the connection end; the code and reason."""
        while (got := self.receive()).opcode != CLOSE:
            pass
        self.send(FIN | CLOSE, got.payload[:2])
        self.gone()
        return got.close

    def gone(self) -> None:
        """See the connection end."""
        try:
            got = self.receive()
        except (Ended, ConnectionError):
            return
        raise AssertionError(f"after the end: {got}")

    def _write(self, data: bytes) -> None:
        self.connection.send(data)

    def _read(self, size: int) -> bytes:
        data = self.connection.read(size)
        if len(data) < size:
            raise Ended
        return data


class WebSocketOverHttp2(WebSocket):
    """A WebSocket's client on one stream of a connection (RFC 8441).

    Args:
        http2: the connection, over which the server's settings have come.
        target: the request target.
        headers: further headers of the handshake.

    Attributes:
        headers: those of the server's response.
        stream: what has come and has not been read.
    """

    def __init__(self, http2: http2.Connection, target: str = "/", *headers: tuple[bytes, bytes]) -> None:
        self._http2 = http2
        self._number = http2.request(target, [*CONNECT, *headers], end=False)
        self.stream = http2.streams[self._number]
        while self.stream.status is None:
            assert self.stream.reset is None, "the server gave the handshake up"
            http2.read()
        if self.stream.status != 200:
            http2.response(self._number)
            raise Rejected(
                Response(self.stream.status, self.stream.headers, bytes(self.stream.body), self.stream.ended)
            )
        self.headers = self.stream.headers

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if not self.over:
            self._http2.reset(self._number)

    @property
    def over(self) -> bool:
        """Whether the stream has ended, well or not."""
        return self.stream.ended or self.stream.reset is not None

    def _write(self, data: bytes) -> None:
        if not self.over:
            self._http2.send(self._number, data)

    def _read(self, size: int) -> bytes:
        body = self.stream.body
        while len(body) < size:
            if self.over:
                raise Ended
            self._http2.read()
        data = bytes(body[:size])
        del body[:size]
        return data


def frame(first: int, payload: bytes = b"", mask: bytes = b"\x12\x34\x56\x78") -> bytes:
    """A client's frame."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    whole = mask * (size // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(whole[:size], "big")
    return head + mask + masked.to_bytes(size, "big")


def deflated(data: bytes) -> bytes:
    """What one message is compressed to."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
