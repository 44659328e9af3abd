"""HTTP/2 by hand: for header names that no proper client would send, and for streams that are given up."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes
from hyperframe.frame import Frame, GoAwayFrame

from support.server import Server

Fields = list[tuple[bytes, bytes]]


@dataclass
class Stream:
    """What has come on one stream.

    Attributes:
        hints: the headers of each informational response.
        status: of the response, or None as long as there is none.
        headers: of the response.
        trailers: the headers behind the body.
        body: as far as it has come.
        ended: whether the response is complete.
        reset: the error code with which the server gave the stream or the connection up, or None.
    """

    hints: list[Fields] = field(default_factory=list)
    status: int | None = None
    headers: Fields = field(default_factory=list)
    trailers: Fields = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(bytes(self.body))


class Connection:
    """An HTTP/2 connection of its own to a server whose site is served over TLS. Header names go out as they are."""

    def __init__(self, server: Server) -> None:
        self.socket = server.connect(http2=True)
        self.authority = f"127.0.0.1:{server.port.number}"
        self.streams: defaultdict[int, Stream] = defaultdict(Stream)
        config = h2.config.H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._h2 = _Client(config)
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def request(
        self, path: str, headers: Iterable[tuple[bytes, bytes]] = (), *, method: str = "GET", end: bool = True
    ) -> int:
        """Send a request and return the number of its stream.

        Args:
            path: the path, unless `headers` has a :path.
            headers: the request's, which may replace pseudo-headers.
            method: the method, unless `headers` has a :method.
            end: the request has no body; if not, the test sends one.
        """
        number = self._h2.get_next_available_stream_id()
        pseudo = {":method": method, ":scheme": "https", ":authority": self.authority, ":path": path}
        lines = {name.encode(): value.encode() for name, value in pseudo.items()}
        self._h2.send_headers(number, list((lines | dict(headers)).items()), end_stream=end)
        self._flush()
        return number

    def send(self, number: int, data: bytes, *, end: bool = False) -> None:
        """Send a part of a request's body, no more than the server's flow control has room for."""
        self._h2.send_data(number, data, end_stream=end)
        self._flush()

    def reset(self, number: int) -> None:
        """Give a stream up."""
        self._h2.reset_stream(number, ErrorCodes.CANCEL)
        self._flush()

    def response(self, number: int) -> Stream:
        """Read until the stream has ended or was reset."""
        stream = self.streams[number]
        while not stream.ended and stream.reset is None:
            self.read()
        return stream

    def read(self, *, credit: bool = True) -> None:
        """Read once, and give credit for what came; without, the server may soon send no more."""
        data = self.socket.recv(65536)
        if not data:
            self._reset_all(ErrorCodes.NO_ERROR)
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.streams[event.stream_id].status = int(dict(event.headers)[b":status"])
                self.streams[event.stream_id].headers = event.headers
            elif isinstance(event, h2.events.InformationalResponseReceived):
                self.streams[event.stream_id].hints.append(event.headers)
            elif isinstance(event, h2.events.TrailersReceived):
                self.streams[event.stream_id].trailers = event.headers
            elif isinstance(event, h2.events.DataReceived):
                self.streams[event.stream_id].body += event.data
                if credit:
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.streams[event.stream_id].ended = True
            elif isinstance(event, h2.events.StreamReset):
                self.streams[event.stream_id].reset = int(event.error_code)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self._reset_all(event.error_code)
        self._flush()

    def _reset_all(self, code: int | None) -> None:
        """The server gives up the whole connection."""
        for stream in self.streams.values():
            if not stream.ended and stream.reset is None:
                stream.reset = int(code or 0)

    def _flush(self) -> None:
        self.socket.sendall(self._h2.data_to_send())


class _Client(h2.connection.H2Connection):
    """One that goes on when the server says that it will take no further streams (RFC 9113, section 6.8)."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        if frame.error_code == ErrorCodes.NO_ERROR:
            return [], []
        return super()._receive_goaway_frame(frame)
