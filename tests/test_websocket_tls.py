"""WebSockets over TLS: by HTTP/1.1, and by HTTP/2 (RFC 8441) where Go is told to let them through."""

import ast

from support import http2
from support.check import Servers
from support.polling import wait_until
from support.websocket import CLOSE, FIN, TEXT, WebSocket, frame

SITE = """
    python {
        module_asgi conformance_websocket:app
        workers 1
        import worker
    }
"""
CONNECT = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-protocol", b"a, b"),
]


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


def test_over_http2(serve: Servers) -> None:
    server = serve(SITE, tls=True, GODEBUG="http2xconnect=1")
    with http2.Connection(server) as connection:
        connection.read()  # the server's settings
        number = connection.request("/scope", CONNECT, end=False)
        scope = ast.literal_eval(text(connection, number).decode())
        assert (scope["scheme"], scope["http_version"], scope["subprotocols"]) == ("wss", "2", ["a", "b"])
        assert b":protocol" not in dict(scope["headers"])

        number = connection.request("/echo?over-http2", CONNECT, end=False)
        connection.send(number, frame(FIN | TEXT, b"hello"))
        assert text(connection, number) == b"hello"
        assert connection.streams[number].status == 200
        del connection.streams[number].body[:]
        connection.send(number, frame(FIN | CLOSE, b"\x0f\xa1"), end=True)
        response = connection.response(number)
        assert response.ended
        assert response.body == bytes([FIN | CLOSE, 2, 0x0F, 0xA1])

        number = connection.request("/reject", CONNECT, end=False)
        while not connection.streams[number].status:
            connection.read()
        assert connection.streams[number].status == 403
    last = {"type": "websocket.disconnect", "code": 4001, "reason": ""}
    assert wait_until(lambda: server.get("/?over-http2").json(), "note") == [last]


def text(connection: http2.Connection, number: int) -> bytes:
    """The text that comes in one frame."""
    body = connection.streams[number].body
    while len(body) < 4 or len(body) < (4 + int.from_bytes(body[2:4], "big") if body[1] == 126 else 2 + body[1]):
        connection.read()
    assert body[0] == FIN | TEXT
    return bytes(body[4:] if body[1] == 126 else body[2:])
