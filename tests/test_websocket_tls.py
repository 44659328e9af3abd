"""WebSockets over TLS, by HTTP/1.1; test_websocket_http2.py has those by HTTP/2."""

import ast

from support.check import Servers
from support.websocket import WebSocket

SITE = """
    python {
        module_asgi conformance_websocket:app
        workers 1
        import worker
    }
"""


def test_over_tls(serve: Servers) -> None:
    server = serve(SITE, tls=True)
    with WebSocket(server, "/scope") as socket:
        scope = ast.literal_eval(str(socket.message()))
        assert (scope["scheme"], scope["http_version"]) == ("wss", "1.1")
        assert "tls" in scope["extensions"]
    with WebSocket(server, "/echo") as socket:
        for size in (1, 4000, 5000, 1_000_000):  # around the buffer in which a read waits
            for _ in range(3):
                socket.text("x" * size)
                assert socket.message() == "x" * size
