"""An ASGI app that runs an event loop while it is imported."""

import asyncio

from imports_common import answer


async def load() -> bytes:
    """What asyncio has at this moment."""
    await asyncio.sleep(0)
    return b"run"


app = answer(asyncio.run(load()))
