"""Says which event loop runs it."""

import asyncio
from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    name = type(asyncio.get_running_loop()).__module__
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": name.encode()})
