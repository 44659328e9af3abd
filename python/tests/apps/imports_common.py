"""What the apps have in common that use an event loop while they are imported."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

App = Callable[[Any, Any, Any], Awaitable[None]]


def answer(body: bytes, running: asyncio.AbstractEventLoop | None = None) -> App:
    """Returns an app that answers with `body`, if the loop is the one that `running` says."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert running in (None, asyncio.get_running_loop())
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    return app


def make_app() -> App:
    """Returns an app that can be made only while the event loop runs."""
    return answer(b"made", asyncio.get_running_loop())
