"""An ASGI app with a lifespan; see test_lifecycle.py."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
    """Open what the requests share, and close it at the end."""
    if message := os.environ.get("STARTUP_FAILS"):
        raise RuntimeError(message)
    yield {"connection": "open"}
    print("connection closed", flush=True)


async def index(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.state.connection)


async def loop(request: Request) -> PlainTextResponse:
    return PlainTextResponse(type(asyncio.get_running_loop()).__module__)


app = Starlette(routes=[Route("/", index), Route("/loop", loop)], lifespan=lifespan)
