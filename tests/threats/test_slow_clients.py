"""Threat 13: slow bodies and slow readers pin workers.

A request takes a WSGI thread only when the first 64 KiB of its body are there, or all of it (upload.go). What an app
sends waits in Caddy and not in the app, up to the stream's window (internal/wire). A client is given up when a thread
has waited for it too long (clients.go, clients_test.go).
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socket import socket

import pytest

from support.check import Servers
from support.memory import Growth
from support.server import Server
from support.siege import SIEGE
from support.worker import Worker

pytestmark = pytest.mark.alone

CLIENTS = 2000 if SIEGE else 500
SECONDS = 3 if SIEGE else 2  # how long ordinary requests are sent and measured meanwhile
P99 = 0.1  # seconds
MEMORY = CLIENTS / 4  # megabytes for Caddy and for each worker: a window of 256 KiB for each client
APPS = {
    "wsgi": "module_wsgi threat_app:wsgi",
    "gevent": "module_wsgi threat_app:wsgi\nruntime gevent",
    "asgi": "module_asgi threat_app:asgi",
    "esgi": "module_esgi threat_app:esgi",
}

SLOW_BODY = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n"
SLOW_CHUNKS = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
SLOW_READER = b"GET /blocks?200000 HTTP/1.1\r\nHost: test\r\n\r\n"


def send_byte(client: socket) -> None:
    client.send(b"1")


def send_chunk(client: socket) -> None:
    client.send(b"1\r\n1\r\n")


def read_byte(client: socket) -> None:
    client.recv(1)


ATTACKS: dict[str, tuple[bytes, Callable[[socket], None]]] = {
    "body": (SLOW_BODY, send_byte),
    "chunks": (SLOW_CHUNKS, send_chunk),
    "reader": (SLOW_READER, read_byte),
    "head": (b"GET /", send_byte),
}


@contextmanager
def attack(server: Server, begin: bytes, go_on: Callable[[socket], None]) -> Iterator[None]:
    """Many clients that have begun a request and go on with it at a byte a second."""
    clients = [server.connect(receive_buffer=4096) for _ in range(CLIENTS)]
    over = threading.Event()

    def drip() -> None:
        while True:
            for client in clients:
                client.setblocking(False)
                with suppress(BlockingIOError):
                    go_on(client)
            if over.wait(1):
                break

    for client in clients:
        client.sendall(begin)
    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        yield
    finally:
        over.set()
        dripping.join()
        for client in clients:
            client.close()


def measure(server: Server) -> list[float]:
    """How long ordinary requests take, in seconds, the fastest first."""
    took: list[float] = []
    with server.new_client() as client:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            began = time.perf_counter()
            nonce = str(len(took))
            assert client.post(f"/echo?{nonce}", content=b"body").headers["x-nonce"] == nonce
            took.append(time.perf_counter() - began)
    return sorted(took)


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("kind", ATTACKS)
@pytest.mark.expect_errors("unexpected EOF", "i/o timeout")
def test_threat_13_slow_clients_slow_down_nobody_else(serve: Servers, worker: Worker, app: str, kind: str) -> None:
    server = serve(f"python {{\n{APPS[app]}\nworkers 2\nimport worker\n}}")
    pids = server.worker_pids()
    with Growth(server.caddy_and_workers()) as growth, attack(server, *ATTACKS[kind]):
        took = measure(server)
    assert took[len(took) * 99 // 100] < P99, f"of {len(took)} requests"
    roles = 2 if worker.runtime == "thread" else 1  # of one process: Caddy, and its worker
    assert max(growth.megabytes().values()) < MEMORY * roles, growth.megabytes()
    assert server.worker_pids() == pids
