"""Large and endless bodies, on all interfaces; see test_memory.py.

PUT reads the body in parts and answers with its size and CRC-32. GET /N answers with N blocks of 64 KiB, and GET
/taken says how many blocks of the last such response the server has taken.
"""

import json
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

BLOCK = bytes(range(256)) * 256

_taken = 0


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI app."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    if environ["REQUEST_METHOD"] == "PUT":
        size = crc = 0
        while part := environ["wsgi.input"].read(65536):
            size, crc = size + len(part), zlib.crc32(part, crc)
        return [_summary(size, crc)]
    if environ["PATH_INFO"] == "/taken":
        return [str(_taken).encode()]
    return _blocks(int(environ["PATH_INFO"][1:]))


def _blocks(count: int) -> Iterator[bytes]:
    global _taken
    for _taken in range(count):
        yield BLOCK
    _taken = count


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """The ASGI app."""
    global _taken
    await send({"type": "http.response.start", "status": 200})
    if scope["method"] == "PUT":
        size = crc = 0
        more = True
        while more:
            message = await receive()
            part = message.get("body", b"")
            size, crc = size + len(part), zlib.crc32(part, crc)
            more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": _summary(size, crc)})
    elif scope["path"] == "/taken":
        await send({"type": "http.response.body", "body": str(_taken).encode()})
    else:
        count = int(scope["path"][1:])
        for _taken in range(count):
            await send({"type": "http.response.body", "body": BLOCK, "more_body": True})
        _taken = count
        await send({"type": "http.response.body"})


def esgi(scope: dict[str, Any], protocol: Any) -> None:
    """The ESGI app."""
    if scope["method"] == "PUT":
        size = crc = 0
        for part in protocol:
            size, crc = size + len(part), zlib.crc32(part, crc)
        protocol.response_bytes(200, [], _summary(size, crc))
    elif scope["path"] == "/taken":
        protocol.response_str(200, [], str(_taken))
    else:
        transport = protocol.response_stream(200, [])
        for block in _blocks(int(scope["path"][1:])):
            transport.send_bytes(block)


def _summary(size: int, crc: int) -> bytes:
    return json.dumps([size, crc]).encode()
