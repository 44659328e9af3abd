"""Keeps what a request has told it wherever an app may keep something, and says what it found there before.

Each request carries four canaries: in its query string, in a header, in a cookie and in its body. The answer is JSON:
`own`, the canaries that were still there at the end, and `found`, those of other requests.
"""

import asyncio
import contextvars
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

sys.setswitchinterval(1e-6)  # seconds: threads change wherever they can

_kept: contextvars.ContextVar[str] = contextvars.ContextVar("kept", default="")
_pause = random.Random(1)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI app."""
    body = environ["wsgi.input"].read().decode()
    canaries = [environ["QUERY_STRING"], environ["HTTP_X_CANARY"], environ["HTTP_COOKIE"], body]
    found = _keep(environ, canaries)
    if _pauses():
        time.sleep(_pause.random() / 500)
    content = _answer(environ, found)
    start_response("200 OK", [("Content-Length", str(len(content)))])
    return [content]


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """The ASGI app, with a lifespan, so that there is a state."""
    if scope["type"] == "lifespan":
        scope["state"]["canaries"] = ""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    message = await receive()
    assert not message["more_body"]
    headers = dict(scope["headers"])
    values = [scope["query_string"], headers[b"x-canary"], headers[b"cookie"], message["body"]]
    found = _keep(scope["state"], [value.decode() for value in values])
    if _pauses():
        await asyncio.sleep(_pause.random() / 500)
    content = _answer(scope["state"], found)
    length = str(len(content)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": content})


def esgi(scope: dict[str, Any], protocol: Any) -> None:
    """The ESGI app."""
    headers = scope["headers"]
    body = protocol.read_body().decode()
    found = _keep(scope, [scope["query_string"], headers["x-canary"], headers["cookie"], body])
    if _pauses():
        time.sleep(_pause.random() / 500)
    protocol.response_bytes(200, [], _answer(scope, found))


def _keep(place: dict[str, Any], canaries: list[str]) -> list[str]:
    """Keep the canaries in the context and in a dict of the request's; what was there before?"""
    found = [text for text in (_kept.get(), place.get("canaries", "")) if text]
    place["canaries"] = " ".join(canaries)
    _kept.set(place["canaries"])
    return found


def _answer(place: dict[str, Any], found: list[str]) -> bytes:
    if _kept.get() != place["canaries"]:
        found = [*found, _kept.get()]
    return json.dumps({"own": place["canaries"].split(), "found": found}).encode()


def _pauses() -> bool:
    """Whether to take a while, so that requests overlap: one time in 16."""
    return _pause.random() < 1 / 16
