"""Every request waits for a second; see test_waiting.py."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """The ASGI app."""
    await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"waited"})
