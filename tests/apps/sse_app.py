"""Server-sent events, on both interfaces; see test_sse.py.

/gated?KEY sends three events; before each it waits at a gate, KEY0 to KEY2, which /open?KEY0 opens. /paced sends events
that say when they were sent, 100 ms after one another.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import gates

COUNT = 9
PACE = 0.1  # seconds

SSE = "text/event-stream"


def _event(data: object) -> bytes:
    return f"data: {data}\n\n".encode()


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI app."""
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/open":
        gates.open(query)
        start_response("204 No Content", [])
        return []
    start_response("200 OK", [("Content-Type", SSE)])
    return _gated(query) if path == "/gated" else _paced()


def _gated(key: str) -> Iterator[bytes]:
    for number in range(3):
        gates.wait(f"{key}{number}")
        yield _event(number)


def _paced() -> Iterator[bytes]:
    for _ in range(COUNT):
        time.sleep(PACE)
        yield _event(time.monotonic())


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """The ASGI app."""
    path, query = scope["path"], scope["query_string"].decode()
    if path == "/open":
        gates.open(query)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", SSE.encode())]})
    async for event in _gated_async(query) if path == "/gated" else _paced_async():
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body"})


async def _gated_async(key: str) -> AsyncIterator[bytes]:
    for number in range(3):
        await gates.wait_async(f"{key}{number}")
        yield _event(number)


async def _paced_async() -> AsyncIterator[bytes]:
    for _ in range(COUNT):
        await asyncio.sleep(PACE)
        yield _event(time.monotonic())
