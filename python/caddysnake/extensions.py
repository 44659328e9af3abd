"""ASGI's HTTP extensions, as far as they are messages of the app: files, early hints, trailers (ASGI, "Extensions")."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from operator import index
from typing import TYPE_CHECKING, Any

from . import files, wire
from .files import FILE_COST, Part
from .headers import byte_head, check_trailer, has_control

if TYPE_CHECKING:
    from .asgi import Request

RETRY = 0.001  # seconds until a descriptor is offered again that the socket had no room for


async def send(request: Request, kind: str, message: dict[str, Any]) -> None:
    """Sends a message that is of no base type. Raises RuntimeError for an unknown one or one out of order."""
    handler = _HANDLERS.get(kind)
    if handler is None:
        raise RuntimeError(f"unexpected message {kind!r}")
    if request.closed:
        raise RuntimeError(f"{kind} was sent after the end of the response")
    await handler(request, message)


def before_trailers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Returns headers behind whose body trailers can come: in HTTP/1.1 only one without a length has room for them."""
    return [pair for pair in headers if pair[0] != b"content-length"]


async def _path_send(request: Request, message: dict[str, Any]) -> None:
    request.check_body("http.response.pathsend")
    _channel(request)
    descriptor = files.open_path(message["path"])
    try:
        await _send_file(request, Part(descriptor, 0, files.size_of(descriptor), False), request.ends_body(True))
    finally:
        os.close(descriptor)


async def _zero_copy_send(request: Request, message: dict[str, Any]) -> None:
    request.check_body("http.response.zerocopysend")
    _channel(request)
    file = message["file"]
    theirs = file if isinstance(file, int) else file.fileno()
    size = files.size_of(theirs)
    given, count = message.get("offset"), message.get("count")
    offset = _position(file, theirs) if given is None else index(given)
    left = max(0, size - offset)
    count = left if count is None else min(index(count), left)
    if offset < 0 or count < 0:
        raise ValueError(f"offset and count are 0 or more, not {offset} and {message.get('count')}")
    end = request.ends_body(not message.get("more_body", False))
    descriptor, shared = files.reopen(theirs)
    try:
        await _send_file(request, Part(descriptor, offset, count, shared), end)
    finally:
        os.close(descriptor)
    if given is None:
        # As sendfile would; a second message goes on where the first one ended.
        if isinstance(file, io.IOBase):
            file.seek(offset + count)
        else:
            os.lseek(theirs, offset + count, os.SEEK_SET)


async def _early_hint(request: Request, message: dict[str, Any]) -> None:
    links = [bytes(link) for link in message["links"]]
    for link in links:
        if has_control(link.decode("latin-1")):
            raise ValueError(f"illegal link in an early hint: {link!r} has a control character")
    data = b"\n".join(links)
    if len(data) > wire.MAX_DATA:
        raise ValueError(f"the links of an early hint have {len(data)} bytes, at most {wire.MAX_DATA} are allowed")
    if data and not request.begun:
        await request.reserve(len(data))
        if request.begun:  # another task has sent it meanwhile
            request.credit += len(data)
        else:
            request.put(wire.HINT, b"", data)


async def _trailers(request: Request, message: dict[str, Any]) -> None:
    trailers = request.trailers
    if trailers is None or not request.body_ended:
        raise RuntimeError("http.response.trailers comes after the body, and http.response.start says that it will")
    checked = request.server.headers.check(message.get("headers", ()))
    for name, _ in checked:
        check_trailer(name)
    trailers += checked
    if not message.get("more_trailers", False):
        head = byte_head(trailers)
        request.send_start()
        request.end()
        request.put(wire.TRAILERS | wire.END, head, b"")


_HANDLERS: dict[str, Callable[[Request, dict[str, Any]], Awaitable[None]]] = {
    "http.response.pathsend": _path_send,
    "http.response.zerocopysend": _zero_copy_send,
    "http.response.early_hint": _early_hint,
    "http.response.trailers": _trailers,
}


def _channel(request: Request) -> files.Channel:
    channel = request.server.channel
    if channel is None:
        raise RuntimeError("files cannot be sent here: the scope's extensions do not name it")
    return channel


def _position(file: Any, descriptor: int) -> int:
    """Where reading `file` would go on; what it has read ahead has not been read."""
    if isinstance(file, io.IOBase):
        return file.tell()
    return os.lseek(descriptor, 0, os.SEEK_CUR)


async def _send_file(request: Request, part: Part, end: bool) -> None:
    """Sends a part of the body; `end`: the last one. Waits while the client has not taken earlier files."""
    if not part.size:
        if end:
            request.send_data(b"", True)
        return
    if not end:
        await request.reserve(FILE_COST)
    waiting = request.server.with_file
    if end:  # a head that travels with the whole body has Caddy add Content-Length and answer ranges
        waiting.add(request)
    try:
        await _send_descriptor(request, part.descriptor)
    finally:
        waiting.discard(request)
    data = part.data()
    if end:
        request.end()
    request.put(wire.FILE | wire.END if end else wire.FILE, request.take_head(), data)


async def _send_descriptor(request: Request, descriptor: int) -> None:
    channel = _channel(request)
    while True:
        try:
            return channel.send(request.stream, descriptor)
        except BlockingIOError:  # Caddy takes them off with their frames
            request.server.flush()
            await asyncio.sleep(RETRY)
            request.check_open()
