"""Requests at a steady rate, and WebSockets that stay open, while something happens to the server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from types import TracebackType

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from support.polling import wait_until
from support.server import Server

REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
ATTEMPTS = 6
BACKOFF = 0.02  # seconds, after the second attempt, and so much more after each


class Unanswered(Exception):
    """The connection was closed before a response had begun."""


class Traffic:
    """Requests and WebSockets from a thread of their own, from `with` on.

    Args:
        server: where to; `/` is asked for.
        rate: requests per second, over 400 connections that are kept: enough to keep the rate while some wait.
        sockets: WebSockets that are open all the time; one that the server closes with 1012 connects again.
        retry: send a request again whose connection is closed without an answer, and shake hands again likewise.
            `caddy reload` closes idle connections, and new ones whose request it has not read yet when it lets go of
            the old listener, also where no Python is (net/http does it). While hundreds of clients connect at once,
            that may befall one more than once, until the old listener is closed.

    Attributes:
        answered: how many requests were answered with 200.
        failures: what went wrong with others, and with WebSockets.
        closed: with which codes the server has closed WebSockets.
        opened: how many WebSockets were opened.
    """

    CONNECTIONS = 400

    def __init__(self, server: Server, rate: int, sockets: int, retry: bool = False) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self.closed: Counter[int] = Counter()
        self.opened = 0
        self._server = server
        self._interval = self.CONNECTIONS / rate
        self._sockets = sockets
        self._attempts = ATTEMPTS if retry else 1
        self._stopped = False
        self._began = time.monotonic()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))

    def __enter__(self) -> Traffic:
        self._began = time.monotonic()
        self._thread.start()
        wait_until(lambda: self.open >= self._sockets and self.answered > 100, "traffic", 60)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._stopped = True
        self._thread.join()

    @property
    def open(self) -> int:
        """How many WebSockets are open."""
        return self.opened - sum(self.closed.values())

    @property
    def rate(self) -> float:
        """Requests per second that were answered, so far."""
        return self.answered / (time.monotonic() - self._began)

    async def _run(self) -> None:
        offsets = (self._interval * number / self.CONNECTIONS for number in range(self.CONNECTIONS))
        clients = [asyncio.create_task(self._ask(offset)) for offset in offsets]
        sockets = [asyncio.create_task(self._listen()) for _ in range(self._sockets)]
        await asyncio.gather(*clients)  # until they are stopped
        for task in sockets:
            task.cancel()
        await asyncio.gather(*sockets, return_exceptions=True)

    async def _ask(self, offset: float) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        due = time.monotonic() + offset
        while not self._stopped:
            await asyncio.sleep(max(0, due - time.monotonic()))
            due = max(due + self._interval, time.monotonic() - self._interval)
            for attempt in range(1, self._attempts + 1):
                try:
                    connection = connection or await asyncio.open_connection("127.0.0.1", self._server.port.number)
                    status = await _exchange(*connection)
                except (OSError, Unanswered, asyncio.IncompleteReadError) as error:
                    if connection:
                        connection[1].close()
                    connection = None
                    if attempt == self._attempts or isinstance(error, asyncio.IncompleteReadError):
                        self.failures.append(f"request: {error!r}")
                        break
                    await _back_off(attempt)
                    continue
                if status == 200:
                    self.answered += 1
                else:
                    self.failures.append(f"request: status {status}")
                break
        if connection:
            connection[1].close()

    async def _listen(self) -> None:
        url = f"ws://127.0.0.1:{self._server.port.number}/"
        unanswered = 0  # so often, one after the other
        while True:
            try:
                async with connect(url, proxy=None, open_timeout=60) as socket:
                    self.opened += 1
                    unanswered = 0
                    try:
                        await socket.recv()
                    except ConnectionClosed as end:
                        code = end.rcvd.code if end.rcvd else 1006
                        self.closed[code] += 1
            except (OSError, WebSocketException, asyncio.IncompleteReadError) as error:
                cut = isinstance(error, ConnectionError) or isinstance(error.__cause__, EOFError)
                unanswered = unanswered + 1 if cut else self._attempts
                if unanswered >= self._attempts:
                    self.failures.append(f"websocket: {error!r}, after {error.__cause__!r}")
                    await asyncio.sleep(0.1)
                else:
                    await _back_off(unanswered)


async def _back_off(failed: int) -> None:
    """Pause after so many attempts that failed: none after the first, whose connection was idle."""
    await asyncio.sleep(BACKOFF * (failed - 1))


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(REQUEST)
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        if getattr(error, "partial", b""):
            raise
        raise Unanswered from error
    lines = head.split(b"\r\n")
    lengths = [line.split(b":")[1] for line in lines if line.lower().startswith(b"content-length:")]
    await reader.readexactly(int(lengths[0]))
    return int(lines[0].split()[1])
