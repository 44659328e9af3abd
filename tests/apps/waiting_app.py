"""Every request waits for a second; see test_waiting.py."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The WSGI app."""
    time.sleep(1)
    start_response("200 OK", [("Content-Length", "6")])
    return [b"waited"]


def esgi(scope: dict[str, Any], protocol: Any) -> None:
    """The ESGI app."""
    time.sleep(1)
    protocol.response_str(200, [], "waited")


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """The ASGI app."""
    await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"waited"})
