"""The app of one tenant among many, copied into a folder for each; see test_dynamic.py.

Files beside it decide what it does when it starts: `broken` makes it fail, `held` holds it until that is gone.
"""

import os
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

FOLDER = Path.cwd()
print("started", FOLDER.name, os.getpid(), flush=True)
if Path("broken").exists():
    raise RuntimeError("this tenant is broken")
while Path("held").exists():
    time.sleep(0.005)


def answer(query: str) -> str:
    """Who answers: the tenant and its process; or the environment variable that the query names."""
    return os.environ.get(query, "(not set)") if query else f"{FOLDER.name} {os.getpid()}"


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI app."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer(environ["QUERY_STRING"]).encode()]


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """The ASGI app: /endless streams until its client leaves, a WebSocket answers each message."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": answer("")})
        return
    await send({"type": "http.response.start", "status": 200})
    if scope["path"] == "/endless":
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    await send({"type": "http.response.body", "body": answer(scope["query_string"].decode()).encode()})
