"""Server-sent events, on all interfaces; see test_sse.py.

/gated?KEY sends eight events; before each it waits at a gate, KEY0 to KEY7, which /open?KEY0 opens. /paced sends events
that say when they were sent, 100 ms after one another. /flood sends 2,000 numbered ones of 3 KB, half a millisecond
after one another, and /progress says how many were taken from it. /broken raises after eight. /endless?KEY ends when
the client has gone, for which /wait?KEY waits.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import closing
from typing import Any

import gates

GATES = 8
COUNT = 9
PACE = 0.1  # seconds
FLOOD = 2000
SHORT = 0.0005  # seconds
PADDING = " " * 3000

progress = 0

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
    if path == "/progress":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(progress).encode()]
    if path == "/wait":
        gates.wait(query)
        start_response("204 No Content", [])
        return []
    start_response("200 OK", [("Content-Type", SSE)])
    return _STREAMS[path](query)


def _gated(key: str) -> Generator[bytes]:
    for number in range(GATES):
        gates.wait(f"{key}{number}")
        yield _event(number)


def _paced(_: str) -> Generator[bytes]:
    for _number in range(COUNT):
        time.sleep(PACE)
        yield _event(time.monotonic())


def _flood(_: str) -> Generator[bytes]:
    global progress
    for progress in range(FLOOD):
        time.sleep(SHORT)
        yield _event(f"{progress}{PADDING}")


def _broken(_: str) -> Generator[bytes]:
    for number in range(GATES):
        time.sleep(SHORT)
        yield _event(number)
    raise RuntimeError("after eight events")


def _endless(key: str) -> Generator[bytes]:
    try:
        while True:
            time.sleep(SHORT)
            yield _event("again")
    finally:
        gates.open(key)


_STREAMS = {"/gated": _gated, "/paced": _paced, "/flood": _flood, "/broken": _broken, "/endless": _endless}


def esgi(scope: dict[str, Any], protocol: Any) -> None:
    """The ESGI app."""
    path, query = scope["path"], scope["query_string"]
    if path == "/progress":
        protocol.response_str(200, [("content-type", "text/plain")], str(progress))
    elif path in ("/open", "/wait"):
        (gates.open if path == "/open" else gates.wait)(query)
        protocol.response_empty(204, [])
    else:
        transport = protocol.response_stream(200, [("content-type", SSE)])
        with closing(_STREAMS[path](query)) as events:
            for event in events:
                transport.send_bytes(event)


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """The ASGI app."""
    path, query = scope["path"], scope["query_string"].decode()
    if path == "/progress":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": str(progress).encode()})
        return
    if path in ("/open", "/wait"):
        if path == "/open":
            gates.open(query)
        else:
            await gates.wait_async(query)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", SSE.encode())]})
    try:
        async for event in _ASYNC_STREAMS[path](query):
            await send({"type": "http.response.body", "body": event, "more_body": True})
    except OSError:
        gates.open(query)
        return
    await send({"type": "http.response.body"})


async def _gated_async(key: str) -> AsyncIterator[bytes]:
    for number in range(GATES):
        await gates.wait_async(f"{key}{number}")
        yield _event(number)


async def _paced_async(_: str) -> AsyncIterator[bytes]:
    for _number in range(COUNT):
        await asyncio.sleep(PACE)
        yield _event(time.monotonic())


async def _flood_async(_: str) -> AsyncIterator[bytes]:
    global progress
    for progress in range(FLOOD):
        await asyncio.sleep(SHORT)
        yield _event(f"{progress}{PADDING}")


async def _broken_async(_: str) -> AsyncIterator[bytes]:
    for number in range(GATES):
        await asyncio.sleep(SHORT)
        yield _event(number)
    raise RuntimeError("after eight events")


async def _endless_async(_: str) -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(SHORT)
        yield _event("again")


_ASYNC_STREAMS = {
    "/gated": _gated_async,
    "/paced": _paced_async,
    "/flood": _flood_async,
    "/broken": _broken_async,
    "/endless": _endless_async,
}
