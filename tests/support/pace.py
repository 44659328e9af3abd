"""Requests at a steady rate, whatever becomes of those before, while something happens to the server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from support.server import Server

_LONGEST = 60.0  # seconds that one request may take


@dataclass(frozen=True)
class Answer:
    """What became of one request.

    Attributes:
        status: the status code; 0 if there was no proper answer.
        body: what the body says.
        headers: the lines of the head.
        at: when it was there, as time.time() has it.
    """

    status: int
    body: str
    headers: bytes
    at: float


@dataclass
class Pace:
    """GETs a path `rate` times a second from when it is made, until `stop`, but not more than `most` at once.

    Attributes:
        server: where to.
        path: what to get.
        rate: requests in a second.
        most: how many connections there may be; a request that is due while all of them wait is left out.
        answers: what has come.
    """

    server: Server
    path: str
    rate: int
    most: int = 500
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopped = threading.Event()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, and wait for what has been sent."""
        self._stopped.set()
        self._thread.join()

    def statuses(self) -> Counter[int]:
        """How often each status came."""
        return Counter(answer.status for answer in self.answers)

    async def _run(self) -> None:
        began, sent = time.monotonic(), 0
        requests: set[asyncio.Task[None]] = set()
        while not self._stopped.is_set():
            due = int((time.monotonic() - began) * self.rate)
            for _ in range(min(due - sent, self.most - len(requests))):
                request = asyncio.create_task(self._get())
                requests.add(request)
                request.add_done_callback(requests.discard)
            sent = due
            await asyncio.sleep(0.005)
        await asyncio.gather(*requests)
        for _, writer in self._idle:
            writer.close()

    async def _get(self) -> None:
        try:
            answer = await asyncio.wait_for(self._answer(), _LONGEST)
        except (OSError, EOFError, TimeoutError) as error:
            answer = Answer(0, repr(error), b"", time.time())
        self.answers.append(answer)

    async def _answer(self) -> Answer:
        connection = self._idle.pop() if self._idle else None
        reader, writer = connection or await asyncio.open_connection("127.0.0.1", self.server.port.number)
        try:
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            body = await reader.readexactly(int(fields[b"content-length"]))
        except BaseException:
            writer.close()
            raise
        if fields.get(b"connection") == b"close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return Answer(int(head.split(b" ")[1]), body.decode(), head, time.time())
