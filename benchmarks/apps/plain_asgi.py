"""Bare ASGI apps: what the server costs when the app costs next to nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CHUNK = 64 * 1024  # bytes
CHUNKS = 160  # 10 MiB in all
PLAIN_TEXT = (b"content-type", b"text/plain; charset=utf-8")


async def hello(scope: Message, receive: Receive, send: Send) -> None:
    """Answer with one short line."""
    await send({"type": "http.response.start", "status": 200, "headers": [PLAIN_TEXT, (b"content-length", b"13")]})
    await send({"type": "http.response.body", "body": b"Hello, world!"})


async def upload(scope: Message, receive: Receive, send: Send) -> None:
    """Read the body in pieces and answer with the number of bytes in it."""
    size = 0
    more = True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    answer = str(size).encode()
    length = (b"content-length", str(len(answer)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [PLAIN_TEXT, length]})
    await send({"type": "http.response.body", "body": answer})


async def download(scope: Message, receive: Receive, send: Send) -> None:
    """Stream 10 MiB, one piece at a time."""
    headers = [(b"content-type", b"application/octet-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    piece = b"x" * CHUNK
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
