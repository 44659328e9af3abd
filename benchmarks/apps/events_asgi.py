"""Server-sent events: ten a second to each client, until it goes. Each says when it was sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PACE = 0.1  # seconds between two events
PADDING = "x" * 100

EVENT_STREAM = (b"content-type", b"text/event-stream")
PLAIN_TEXT = (b"content-type", b"text/plain; charset=utf-8")


async def own_pace(scope: Message, receive: Receive, send: Send) -> None:
    """Each client has a clock of its own, which began when it came."""
    await _answer(scope, receive, send, _Clock().tick)


async def broadcast(scope: Message, receive: Receive, send: Send) -> None:
    """All clients get each event at the same time."""
    global _common
    if _common is None:
        _common = _Broadcast()
    await _answer(scope, receive, send, _common.tick)


class _Clock:
    def __init__(self) -> None:
        self._due = time.monotonic()

    async def tick(self) -> float:
        """Wait for the next event; the time at which it is sent."""
        self._due += PACE
        await asyncio.sleep(self._due - time.monotonic())
        return time.monotonic()


class _Broadcast:
    def __init__(self) -> None:
        self._next: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        clock = _Clock()
        while True:
            now = await clock.tick()
            due, self._next = self._next, asyncio.get_running_loop().create_future()
            due.set_result(now)

    async def tick(self) -> float:
        """Wait for the next event; the time at which it is sent."""
        return await self._next


_common: _Broadcast | None = None


async def _answer(scope: Message, receive: Receive, send: Send, tick: Callable[[], Awaitable[float]]) -> None:
    if scope["path"] != "/events":
        await send({"type": "http.response.start", "status": 200, "headers": [PLAIN_TEXT]})
        await send({"type": "http.response.body", "body": b"Hello, world!"})
        return
    await receive()  # the request, which has no body
    gone = asyncio.ensure_future(receive())
    await send({"type": "http.response.start", "status": 200, "headers": [EVENT_STREAM]})
    while not gone.done():
        event = f"data: {await tick():.6f} {PADDING}\n\n".encode()
        await send({"type": "http.response.body", "body": event, "more_body": True})
