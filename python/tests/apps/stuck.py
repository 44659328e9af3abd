"""Apps whose requests do not end when the worker is to stop. The worker's patience is short here."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable
from typing import Any

import caddysnake.wire

caddysnake.wire.STOP_GRACE = 0.1


async def deaf(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shutdown", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    try:
        await asyncio.Event().wait()
    finally:
        print("cancelled", flush=True)


@atexit.register
def goodbye() -> None:
    """Says which threads of the worker's still run when the interpreter exits."""
    print(sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("wsgi")), flush=True)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [])(b"begun")
    if environ["PATH_INFO"] == "/stuck":
        threading.Event().wait()
    return []
