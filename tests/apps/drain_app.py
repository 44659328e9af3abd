"""Endless responses, and what ends with the worker; see test_drain.py."""

import asyncio
import atexit
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

EVENT = b"data: event\n\n"

NAME = os.urandom(8).hex()  # of this worker
print("imported in", NAME, flush=True)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    if "SHUTDOWN_HANGS" in os.environ:
        await asyncio.Event().wait()
    print("shutdown in", NAME, flush=True)


async def events() -> AsyncIterator[bytes]:
    while True:
        yield EVENT
        await asyncio.sleep(0.05)


async def stream(request: Request) -> StreamingResponse:
    return StreamingResponse(events(), media_type="text/event-stream")


async def upload(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} in {NAME}")


async def block(request: Request) -> PlainTextResponse:
    """Block the event loop, and with it everything that could end it."""
    print("blocked", flush=True)
    time.sleep(1000)  # noqa: ASYNC251
    return PlainTextResponse("never")


starlette = Starlette(
    routes=[Route("/events", stream), Route("/upload", upload, methods=["PUT"]), Route("/block", block)],
    lifespan=lifespan,
)


async def deaf(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """The same events from an app that never looks whether its client is there."""
    if scope["path" if scope["type"] == "http" else "type"] != "/events":
        await starlette(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200})
    async for event in events():
        await send({"type": "http.response.body", "body": event, "more_body": True})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI app."""
    if environ["PATH_INFO"] == "/upload":
        answer = f"{len(environ['wsgi.input'].read())} in {NAME}"
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [answer.encode()]
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return wsgi_events()


def wsgi_events() -> Iterator[bytes]:
    while True:
        yield EVENT
        time.sleep(0.05)


class Esgi:
    """The ESGI app."""

    def __esgi__(self, scope: dict[str, Any], protocol: Any) -> None:
        if scope["path"] == "/upload":
            protocol.response_str(200, [], f"{len(protocol.read_body())} in {NAME}")
            return
        transport = protocol.response_stream(200, [("Content-Type", "text/event-stream")])
        for event in wsgi_events():
            transport.send_bytes(event)

    def __esgi_del__(self) -> None:
        print("shutdown in", NAME, flush=True)


esgi = Esgi()

if os.environ.get("SAY_GOODBYE"):
    atexit.register(lambda: print("shutdown in", NAME, flush=True))
