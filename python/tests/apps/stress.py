"""Apps that answer each request with its own query string, on many ways, while threads change as often as they can."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

sys.setswitchinterval(1e-6)

helpers = ThreadPoolExecutor(8)
current: ContextVar[bytes] = ContextVar("current", default=b"nothing")


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    own = environ["QUERY_STRING"].encode()
    before = current.get()
    current.set(own)
    kind = environ["PATH_INFO"]
    if kind == "/nap":
        time.sleep(0.002)
    elif kind == "/body":
        own = environ["wsgi.input"].read()
    elif kind == "/helper":
        own = helpers.submit(environ["wsgi.input"].read).result()
    elif kind == "/unread":
        helpers.submit(environ["wsgi.input"].read)  # goes on reading while the response ends
    elif kind == "/write":
        start_response("200 OK", [("X-Own", own.decode())])(own[:4])
        return [own[4:]]
    start_response("200 OK", [("X-Own", own.decode())])
    if before != b"nothing" or current.get() != own:
        return [b"crossed"]
    if kind == "/parts":
        return parts(own)
    return [own]


def parts(own: bytes) -> Iterator[bytes]:
    for at in range(0, len(own), 4):
        yield own[at : at + 4]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    own: bytes = scope["query_string"]
    before = current.get()
    current.set(own)
    kind = scope["path"]
    if kind == "/nap":
        await asyncio.sleep(0.002)
    elif kind == "/body":
        own, more = b"", True
        while more:
            message = await receive()
            own += message["body"]
            more = message["more_body"]
    elif kind == "/helper":
        own = await asyncio.to_thread(current.get)
    elif kind == "/unread":
        receiver = asyncio.ensure_future(receive())
        receiver.add_done_callback(lambda _: None)
    if before != b"nothing" or current.get() != own:
        own = b"crossed"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", own)]})
    if kind in ("/parts", "/write"):
        await send({"type": "http.response.body", "body": own[:4], "more_body": True})
        own = own[4:]
    await send({"type": "http.response.body", "body": own})
