"""Memory stays bounded, whatever is sent and however slowly it is read.

That the first block arrives before the app makes the second is in conformance/.
"""

import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.check import Servers
from support.memory import MB, Growth
from support.polling import wait_until
from support.raw import Connection
from support.server import Server
from support.siege import SIEGE

pytestmark = pytest.mark.memory

APPS = {
    "wsgi": "module_wsgi streams_app:wsgi",
    "asgi": "module_asgi streams_app:asgi",
    "esgi": "module_esgi streams_app:esgi",
}
BLOCK = bytes(range(256)) * 256  # what the app sends, again and again
LARGE = (2048 if SIEGE else 512) * MB
ALLOWED = 32.0  # megabytes for Caddy and for the worker each
HELD_BACK = 16 * MB  # more than the kernel's buffers hold between an app and a client that does not read


@pytest.fixture(scope="module", params=APPS)
def server(serve_shared: Servers, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = serve_shared(f"python {{\n{APPS[request.param]}\nworkers 1\nimport worker\n}}", warm_up="/100")
    yield server
    serve_shared.close()


@contextmanager
def little_growth(server: Server) -> Iterator[None]:
    """Fail if Caddy or its worker has grown by more than it may."""
    with Growth(server.caddy_and_workers()) as growth:
        yield
    grown = growth.megabytes()
    assert max(grown.values()) < ALLOWED, grown


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_a_large_upload(server: Server, coding: str) -> None:
    part = BLOCK * 16
    with Connection(server) as client, little_growth(server):
        if coding == "length":
            client.send(f"PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: {LARGE}\r\n\r\n".encode())
            frame = part
        else:
            client.send(b"PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
            frame = b"%x\r\n" % len(part) + part + b"\r\n"
        for _ in range(LARGE // len(part)):
            client.send(frame)
        client.send(b"" if coding == "length" else b"0\r\n\r\n")
        assert client.response().json() == [LARGE, crc_of_blocks(LARGE // len(BLOCK))]


def test_a_large_download(server: Server) -> None:
    with Connection(server) as client, little_growth(server):
        client.send(f"GET /{LARGE // len(BLOCK)} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert client.head()[0] == 200
        size = crc = 0
        for chunk in client.chunks():
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    assert size == LARGE
    assert crc == crc_of_blocks(LARGE // len(BLOCK))


def crc_of_blocks(count: int) -> int:
    """The CRC-32 of so many blocks."""
    crc = 0
    for _ in range(count):
        crc = zlib.crc32(BLOCK, crc)
    return crc


def test_a_client_that_reads_1_kilobyte_a_second_holds_the_app_back(server: Server) -> None:
    endless = 10**9
    with Connection(server, receive_buffer=4096) as client, little_growth(server):
        client.send(f"GET /{endless} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        began = time.monotonic()
        for seconds in range(1, 5):
            assert client.socket.recv(1024)
            wait_until(lambda due=began + seconds: time.monotonic() >= due, "end of a second")  # type: ignore[misc]
        taken = int(server.get("/taken").text)
        assert 0 < taken * len(BLOCK) < HELD_BACK
