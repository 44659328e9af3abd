"""Threat 3: a late reply reaches the next request.

Streams are numbered, and no number is used again while a frame for it may still come (internal/wire/stream.go).
"""

import asyncio
import random

import pytest

from support.check import Servers
from support.siege import share

REQUESTS = share(100_000)
CANCELLED = 0.1
CLIENTS = 50


class Client:
    """Sends requests, each with a nonce and a body of its own; gives up one in ten at any time.

    Attributes:
        answered: how many answers were as they should be.
        cancelled: how many requests it has given up.
        wrong: the answers that were not.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.random = random.Random(seed)
        self.answered = self.cancelled = 0
        self.wrong: list[str] = []

    async def run(self, requests: int) -> None:
        """Send so many requests, one after another."""
        streams = await self._connect()
        for _ in range(requests):
            nonce = self.random.randbytes(8).hex()
            body = nonce.encode() * self.random.choice([0, 1, 1, 100, 10_000])
            head = f"POST /echo?{nonce} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n"
            request = head.encode() + body
            if self.random.random() < CANCELLED:
                await self._give_up(*streams, request)
                streams = await self._connect()
            else:
                await self._complete(*streams, request, nonce, body)
        streams[1].close()
        await streams[1].wait_closed()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def _complete(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, nonce: str, body: bytes
    ) -> None:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        got = await reader.readexactly(len(body))
        if head.startswith("HTTP/1.1 200 ") and f"X-Nonce: {nonce}\r\n" in head and got == body:
            self.answered += 1
        else:
            self.wrong.append(f"{nonce}: {head!r} {got[:40]!r}")

    async def _give_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        self.cancelled += 1
        how = self.random.randrange(4)
        writer.write(request[: self.random.randrange(len(request))] if how == 0 else request)
        if how > 1:
            await writer.drain()
        if how > 2:
            await reader.readline()
        writer.transport.abort()


async def run(clients: list[Client]) -> None:
    """Run all clients at once."""
    await asyncio.gather(*(client.run(REQUESTS // CLIENTS) for client in clients))


@pytest.mark.parametrize("interface", ["wsgi", "asgi", "esgi"])
def test_threat_3_no_reply_reaches_another_request(serve: Servers, interface: str) -> None:
    server = serve(f"python {{\nmodule_{interface} threat_app:{interface}\nworkers 2\nimport worker\n}}")
    pids = server.worker_pids()
    clients = [Client(server.port.number, seed) for seed in range(CLIENTS)]
    asyncio.run(run(clients))
    assert [wrong for client in clients for wrong in client.wrong] == []
    cancelled = sum(client.cancelled for client in clients)
    assert sum(client.answered for client in clients) == REQUESTS - cancelled
    assert 0.05 * REQUESTS < cancelled < 0.15 * REQUESTS
    assert server.worker_pids() == pids
