"""What forward_auth asks before a request goes on, and takes its time."""

from __future__ import annotations

import socket
from types import TracebackType


class Porter:
    """Lets requests wait before the handlers behind forward_auth get them.

    Attributes:
        directive: the Caddyfile's line that has them come here.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(30)
        self._visitor: socket.socket | None = None
        self.directive = f"forward_auth 127.0.0.1:{self._listener.getsockname()[1]} {{\nuri /\n}}\n"

    def __enter__(self) -> Porter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._visitor is not None:
            self._visitor.close()
        self._listener.close()

    def await_request(self) -> None:
        """Wait until a request has come; it has to wait from now on."""
        self._visitor, _ = self._listener.accept()
        self._visitor.settimeout(30)
        head = b""
        while b"\r\n\r\n" not in head:
            part = self._visitor.recv(4096)
            assert part, f"an incomplete question: {head!r}"
            head += part

    def let_pass(self) -> None:
        """Let it go on."""
        assert self._visitor is not None, "nobody waits"
        self._visitor.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        self._visitor.close()
        self._visitor = None
