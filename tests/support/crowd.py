"""Many clients that wait at the same time."""

import asyncio

from support.server import Server

# How many may be connecting at a moment: a listener's backlog is bounded.
_CONNECTING = 200


def get_at_once(server: Server, path: str, count: int) -> list[bytes]:
    """Get a path on so many connections, all of which are open before the first is answered; the raw responses.

    The server speaks plain HTTP.
    """
    return asyncio.run(_get_all(server.port.number, path, count))


async def _get_all(port: int, path: str, count: int) -> list[bytes]:
    connecting = asyncio.Semaphore(_CONNECTING)

    async def get() -> bytes:
        async with connecting:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            return await reader.read()
        finally:
            writer.close()

    return await asyncio.gather(*(get() for _ in range(count)))
