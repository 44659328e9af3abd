"""Load by WebSockets: each sends a message, waits until it comes back, and sends it again.

Frames are made and compared by hand, on sockets that one thread polls: a WebSocket library would take more CPU than the
servers that are measured.
"""

from __future__ import annotations

import os
import select
import socket
import statistics
import time

from request import LOG, TIMEOUT_SECONDS, Failure
from results import Sample
from stack import Stack

# RFC 6455 section 1.3. No extension is asked for, so no message is compressed.
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SIZE = 1024  # bytes of a message
TEXT = b"x" * SIZE
MASK = os.urandom(4)
HEADER = b"\x81%c" + SIZE.to_bytes(2, "big")  # FIN and text; masked or not, and that the length follows in two bytes
SENT = HEADER % (0x80 | 126) + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(TEXT))
EXPECTED = HEADER % 126 + TEXT


class Client:
    """One WebSocket: it connects when it is made."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(HANDSHAKE)
        response = b""
        while not response.endswith(b"\r\n\r\n"):
            part = self.sock.recv(4096)
            if not part:
                break
            response += part
        if not response.startswith(b"HTTP/1.1 101 "):
            raise Failure(f"no WebSocket: {response[:80]!r}")
        self.sock.setblocking(False)
        self.began = 0.0
        self._rest = b""

    def send(self) -> None:
        """Send the message. It has room: the one before has come back."""
        self.began = time.perf_counter()
        if self.sock.send(SENT) != len(SENT):
            raise Failure("a message could not be sent whole")

    def take(self) -> bool:
        """Read what has come; whether it is the whole message. Raise Failure if it is something else."""
        part = self.sock.recv(2 * len(EXPECTED))
        data = self._rest + part
        if data == EXPECTED:
            self._rest = b""
            return True
        if not part:
            raise Failure("a WebSocket has ended")
        if not EXPECTED.startswith(data):
            raise Failure(f"{data[:40]!r} instead of the message")
        self._rest = data
        return False


def measure(stack: Stack, connections: int, seconds: int) -> Sample:
    """Have `connections` WebSockets send and receive for `seconds`. Raise Failure if one gets something else back."""
    clients: dict[int, Client] = {}
    try:
        for _ in range(connections):
            client = Client(stack.port)
            clients[client.sock.fileno()] = client
        sample = _measure(stack, clients, seconds)
    except OSError as error:
        raise Failure(f"{type(error).__name__}: {error}{LOG}{stack.last_words()}") from None
    finally:
        for client in clients.values():
            client.sock.close()
    stack.check_alive()
    stack.wait_quiet()  # the WebSockets have ended
    return sample


def _measure(stack: Stack, clients: dict[int, Client], seconds: int) -> Sample:
    cpu_before, began = stack.cpu_seconds(), time.perf_counter()
    delays, answered = _run(clients, began + seconds)
    took, cpu_seconds = time.perf_counter() - began, stack.cpu_seconds() - cpu_before
    if answered != clients.keys():
        raise Failure(f"{len(clients) - len(answered)} of {len(clients)} WebSockets got nothing back")
    return Sample(
        requests_per_second=len(delays) / took,
        p50_us=statistics.median(delays) * 1e6,
        p99_us=statistics.quantiles(delays, n=100)[98] * 1e6,
        cpu_us=cpu_seconds / len(delays) * 1e6,
        memory_mib=stack.memory_mib(),
    )


def _run(clients: dict[int, Client], end: float) -> tuple[list[float], set[int]]:
    """The delay of each message in seconds, and who has got one, until the time of `end`."""
    delays: list[float] = []
    answered: set[int] = set()
    now = time.perf_counter
    with select.epoll() as poll:
        for number, client in clients.items():
            poll.register(number, select.EPOLLIN)
            client.send()
        while (left := end - now()) > 0:
            for number, _ in poll.poll(left):
                client = clients[number]
                if client.take():
                    delays.append(now() - client.began)
                    answered.add(number)
                    client.send()
    return delays, answered
