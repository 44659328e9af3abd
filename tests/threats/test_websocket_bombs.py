"""Threats 15 and 16: WebSocket messages that are to fill the memory, plain and compressed."""

import struct
import zlib
from contextlib import ExitStack, suppress
from socket import SO_LINGER, SOL_SOCKET

import pytest

from support.check import Servers
from support.memory import Growth
from support.server import Server
from support.siege import SIEGE, share
from support.websocket import BINARY, CONTINUATION, FIN, RSV1, TEXT, WebSocket, frame

MAX_SIZE = 1 << 20
SITE = """
    python {{
        {app}
        workers 1
        import worker
        websocket {{
            max_size 1MiB
            compression on
        }}
    }}
"""
APPS = {"asgi": "module_asgi conformance_websocket:app", "esgi": "module_esgi conformance_esgi_websocket:app"}
pytestmark = pytest.mark.memory
OFFER = "Sec-WebSocket-Extensions: permessage-deflate"
GROWTH = 96  # MB, for Caddy and for its worker: Caddy's heap is collected from 32 MB on, and grows while it is


@pytest.fixture(params=APPS)
def server(serve: Servers, request: pytest.FixtureRequest) -> Server:
    server = serve(SITE.format(app=APPS[request.param]))
    with WebSocket(server, "/echo") as socket:
        socket.text("warm")
        assert socket.message() == "warm"
    return server


def assert_refused(server: Server, bombs: list[bytes]) -> None:
    """All bombs, open at the same time, are closed with 1009, and nobody has grown; others are served."""
    with Growth(server.caddy_and_workers()) as growth, ExitStack() as stack:
        sockets = [stack.enter_context(WebSocket(server, "/echo", OFFER)) for _ in bombs]
        for socket, bomb in zip(sockets, bombs, strict=True):
            socket.connection.send(bomb)
        for socket in sockets:
            assert socket.end()[0] == 1009
        with WebSocket(server, "/echo") as other:
            other.text("still there")
            assert other.message() == "still there"
    grown = growth.megabytes()
    assert all(megabytes < GROWTH * roles(server) for megabytes in grown.values()), grown


def roles(server: Server) -> int:
    """How many of Caddy and its worker one process is."""
    return 2 if server.caddy in server.workers() else 1


def test_threat_15_memory_bombs(server: Server) -> None:
    announced = struct.pack("!BBQ", FIN | BINARY, 0xFF, 1 << 62) + bytes(4)
    just_beyond = struct.pack("!BBQ", FIN | TEXT, 0xFF, MAX_SIZE + 1) + bytes(4)
    fragments = frame(BINARY, bytes(1000)) + frame(CONTINUATION, bytes(1000)) * (MAX_SIZE // 1000)
    tiny = frame(BINARY) + frame(CONTINUATION) * 10_000 + just_beyond[:1].replace(b"\x81", b"\x80") + just_beyond[1:]
    for _ in range(20 if SIEGE else 1):
        assert_refused(server, [announced, just_beyond, fragments, tiny] * 13)


def test_threat_15_messages_that_nobody_takes(server: Server) -> None:
    """Clients send without end to apps that do not receive: each gets as far as its credit."""
    empty = frame(FIN | BINARY) * 10_000
    with Growth(server.caddy_and_workers()) as growth, ExitStack() as stack:
        for number in range(share(1000)):
            socket = stack.enter_context(WebSocket(server, f"/deaf?{number}"))
            client = socket.connection.socket
            client.setblocking(False)
            client.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))  # what is not taken is lost at the end
            with suppress(BlockingIOError):
                while True:
                    client.send(empty)
    for number in range(share(1000)):
        server.get(f"/?{number}-go")
    grown = growth.megabytes()
    # Each may hold 256 KiB of credit and one read; empty messages cost 64 bytes of it.
    most = GROWTH + share(1000) * 1.5
    assert all(megabytes < most for megabytes in grown.values()), grown


def test_threat_16_deflate_bombs(server: Server) -> None:
    compressor = zlib.compressobj(9, wbits=-15)
    bomb = compressor.compress(bytes(100 << 20)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < MAX_SIZE
    assert (100 << 20) / len(bomb) > 1000
    assert_refused(server, [frame(FIN | RSV1 | BINARY, bomb)] * 100)
