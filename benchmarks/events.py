"""Load by clients that listen: server-sent events to many of them for some seconds, and what each event took."""

from __future__ import annotations

import asyncio
import re
import statistics
import time
from typing import cast

import uvloop
from request import LOG, Failure
from results import Sample
from stack import Stack

REQUEST = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
SPREAD = 1.0  # seconds over which the clients come, so that their events do not all fall due at once
START_SECONDS = 30.0
PER_SECOND = 10  # events to one client
MISSING = 0.05  # the part of them that may fail to come in time
EVENT = re.compile(rb"data: (\d+\.\d+) x+\n\n")


class Client(asyncio.Protocol):
    """One client. The delay of each event, from its sending to its arrival, counts when `Listeners` says so."""

    def __init__(self, listeners: Listeners) -> None:
        self._listeners = listeners
        self._rest = b""
        self.heard = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for events."""
        cast(asyncio.Transport, transport).write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Take what came: parts of the response, of which only whole events count."""
        now = time.monotonic()
        data = self._rest + data
        end = 0
        for event in EVENT.finditer(data):
            end = event.end()
            self.heard = True
            if self._listeners.counting:
                self._listeners.delays.append(now - float(event[1]))
        self._rest = data[end:][-1000:]

    def connection_lost(self, exc: Exception | None) -> None:
        """Note an end that came too early."""
        self._listeners.lost += self._listeners.counting


class Listeners:
    """All clients of one measurement."""

    def __init__(self) -> None:
        self.counting = False
        self.delays: list[float] = []
        self.lost = 0

    async def listen(self, stack: Stack, count: int, seconds: int) -> Sample:
        """Connect `count` clients, wait until each has heard something, then count for `seconds`."""
        loop = asyncio.get_running_loop()
        clients: list[tuple[asyncio.Transport, Client]] = []
        for _ in range(count):
            clients.append(await loop.create_connection(lambda: Client(self), "127.0.0.1", stack.port))
            await asyncio.sleep(SPREAD / count)
        deadline = time.monotonic() + START_SECONDS
        while not all(client.heard for _, client in clients):
            if time.monotonic() > deadline:
                raise Failure(f"no events within {START_SECONDS:.0f} s{LOG}{stack.last_words()}")
            await asyncio.sleep(0.05)
        cpu_before, began, self.counting = stack.cpu_seconds(), time.monotonic(), True
        await asyncio.sleep(seconds)
        cpu_seconds, took, self.counting = stack.cpu_seconds() - cpu_before, time.monotonic() - began, False
        memory = stack.memory_mib()
        for transport, _ in clients:
            transport.abort()
        return self._sample(stack, cpu_seconds, took, memory, count * PER_SECOND * took)

    def _sample(self, stack: Stack, cpu_seconds: float, took: float, memory: float, due: float) -> Sample:
        stack.check_alive()
        if self.lost:
            raise Failure(f"{self.lost} streams have ended{LOG}{stack.last_words()}")
        count = len(self.delays)
        if count < due * (1 - MISSING):
            raise Failure(f"{count} events instead of {due:.0f} came in time")
        return Sample(
            requests_per_second=count / took,
            p50_us=statistics.median(self.delays) * 1e6,
            p99_us=statistics.quantiles(self.delays, n=100)[98] * 1e6,
            cpu_us=cpu_seconds / count * 1e6,
            memory_mib=memory,
        )


def measure(stack: Stack, connections: int, seconds: int) -> Sample:
    """Have `connections` clients listen for `seconds`. Raise Failure if events are missing."""
    sample = uvloop.run(Listeners().listen(stack, connections, seconds))
    stack.wait_quiet()  # the streams have ended
    return sample
