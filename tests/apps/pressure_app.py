"""An app under more load than it can take; see threats/test_killed_workers.py and test_scaling.py.

/pid answers at once, /work after 20 ms. When it is imported it says so in the file that SPAWNS names, and fails if the
file that BROKEN names exists.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

if spawns := os.environ.get("SPAWNS"):
    with open(spawns, "a") as file:
        file.write(f"{os.getpid()}\n")
if os.path.exists(os.environ.get("BROKEN", "")):
    raise RuntimeError("this app is broken")

WORK = 0.02  # seconds


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The WSGI app."""
    if environ["PATH_INFO"] == "/work":
        time.sleep(WORK)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """The ASGI app."""
    if scope["path"] == "/work":
        await asyncio.sleep(WORK)
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
