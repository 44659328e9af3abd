"""Work behind a response, on all interfaces; see test_behind.py.

/work?FILE   answers, says so, and works on until the file exists
/            answers
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import unquote

import caddysnake.wire


def grace(head: int) -> float:
    """Tell how many milliseconds STOP leaves, and have nothing come on top of them."""
    print("stop", head, flush=True)
    return head / 1000


caddysnake.wire.stop_grace = grace


def work(file: str) -> None:
    """Work until the file exists."""
    print("begun", flush=True)
    while not os.path.exists(file):
        time.sleep(0.01)
    print("finished", flush=True)


class Body:
    """The body of a WSGI response, with work for when it has been sent."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        yield b"answer"

    def close(self) -> None:
        """Work."""
        work(self._file)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    start_response("200 OK", [("Content-Length", "6")])
    return Body(unquote(environ["QUERY_STRING"])) if environ["PATH_INFO"] == "/work" else [b"answer"]


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"answer"})
    if scope["path"] == "/work":
        print("begun", flush=True)
        file = unquote(scope["query_string"].decode())
        while not os.path.exists(file):  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)
        print("finished", flush=True)


def esgi(scope: dict[str, Any], protocol: Any) -> None:
    protocol.response_bytes(200, [], b"answer")
    if scope["path"] == "/work":
        work(unquote(scope["query_string"]))
