"""A WebSocket that sends each text back, and `Hello, world!` for those who ask without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PLAIN_TEXT = (b"content-type", b"text/plain; charset=utf-8")


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """The app."""
    if scope["type"] != "websocket":
        await send({"type": "http.response.start", "status": 200, "headers": [PLAIN_TEXT]})
        await send({"type": "http.response.body", "body": b"Hello, world!"})
        return
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
