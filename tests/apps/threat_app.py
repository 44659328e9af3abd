"""An app that does what an attacker would have it do, on all interfaces; see threats/.

    /echo     answers with the body of the request, and with its query string in the header X-Nonce
    /respond  answers with the status, header name and value that the query string gives, as bytes in latin-1;
              /respond/utf-8 takes them for UTF-8; `times` repeats the value
    /blocks   answers with as many bytes as the query string says, in blocks of 64 KiB
    /frame    writes the bytes in the query string where the worker's own frames go
    /process  answers with the environment variables and arguments of the worker's process
    /seen     answers with the method and target of all requests since it was asked last
    /unread   answers without a look at the body; /part reads 10 bytes of it first; /begin begins its answer first
    /bored    (ASGI) answers when a part of the body takes long

Everything else is answered with what the app was told of the request.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes

CADDY = 3  # the descriptor of a worker's connection

_seen: list[str] = []
_pause = random.Random(1)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI app."""
    path, query, body = environ["PATH_INFO"], environ["QUERY_STRING"], environ["wsgi.input"]
    if path == "/seen":
        return _start(start_response, _take_seen())
    if path == "/process":
        return _start(start_response, _process())
    _seen.append(f"{environ['REQUEST_METHOD']} {environ['REQUEST_URI']}")
    if path == "/echo":
        content: bytes = body.read()
        if _pauses():
            time.sleep(_pause.random() / 200)
        return _start(start_response, content, ("X-Nonce", query))
    if path.startswith("/respond"):
        status, name, value = _response(query, path)
        start_response(f"200 {status}", [(name, value), ("Content-Length", "4")])
        return [b"body"]
    if path == "/blocks":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return _blocks(int(query))
    if path == "/frame":
        os.write(CADDY, unquote_to_bytes(query))
    elif path == "/part":
        body.read(10)
    elif path == "/begin":
        start_response("200 OK", [("Content-Type", "text/plain")])(b"begun, ")
        return [str(len(body.read())).encode()]
    told = {key: value for key, value in environ.items() if isinstance(value, str)}
    return _start(start_response, json.dumps(told).encode())


def _start(start_response: Callable[..., Any], content: bytes, *headers: tuple[str, str]) -> list[bytes]:
    start_response("200 OK", [("Content-Length", str(len(content))), *headers])
    return [content]


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """The ASGI app."""
    path, query = scope["path"], scope["query_string"]
    if path == "/seen":
        return await _send(send, _take_seen())
    if path == "/process":
        return await _send(send, _process())
    target = scope["raw_path"] + (b"?" + query) * bool(query)
    _seen.append(f"{scope['method']} {target.decode('latin-1')}")
    if path == "/echo":
        content = await _read(receive)
        if _pauses():
            await asyncio.sleep(_pause.random() / 200)
        return await _send(send, content, (b"x-nonce", query))
    if path == "/respond":
        status, name, value = _response(query.decode(), path)
        pair = (name.encode("latin-1"), value.encode("latin-1"))
        await send({"type": "http.response.start", "status": ord(status or "\xc8"), "headers": [pair]})
        return await send({"type": "http.response.body", "body": b"body"})
    if path == "/blocks":
        await send({"type": "http.response.start", "status": 200})
        for block in _blocks(int(query)):
            await send({"type": "http.response.body", "body": block, "more_body": True})
        return await send({"type": "http.response.body"})
    if path == "/frame":
        os.write(CADDY, unquote_to_bytes(query))
    elif path == "/part":
        await receive()
    elif path == "/bored":
        await _read_impatiently(receive)
    elif path == "/begin":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun, ", "more_body": True})
        return await send({"type": "http.response.body", "body": str(len(await _read(receive))).encode()})
    told = {key: repr(value) for key, value in scope.items()}
    await _send(send, json.dumps(told).encode())


async def _read_impatiently(receive: Callable[..., Any]) -> None:
    waiting = True
    while waiting:
        part = asyncio.ensure_future(receive())
        waiting = part in (await asyncio.wait([part], timeout=0.2))[0]
    part.cancel()


def esgi(scope: dict[str, Any], protocol: Any) -> None:
    """The ESGI app."""
    path, query = scope["path"], scope["query_string"]
    if path == "/seen":
        return protocol.response_bytes(200, [], _take_seen())
    if path == "/process":
        return protocol.response_bytes(200, [], _process())
    _seen.append(f"{scope['method']} {path}{'?' * bool(query)}{query}")
    if path == "/echo":
        content = protocol.read_body()
        if _pauses():
            time.sleep(_pause.random() / 200)
        return protocol.response_bytes(200, [("X-Nonce", query)], content)
    if path.startswith("/respond"):
        status, name, value = _response(query, path)
        return protocol.response_str(ord(status or "\xc8"), [(name, value)], "body")
    if path == "/blocks":
        transport = protocol.response_stream(200, [])
        for block in _blocks(int(query)):
            transport.send_bytes(block)
        return None
    if path == "/frame":
        os.write(CADDY, unquote_to_bytes(query))
    elif path == "/part":
        next(iter(protocol))
    elif path == "/begin":
        transport = protocol.response_stream(200, [])
        transport.send_str("begun, ")
        return transport.send_str(str(len(protocol.read_body())))
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in scope["headers"].items()]
    told = {key: repr(value) for key, value in {**scope, "headers": pairs}.items()}
    return protocol.response_str(200, [], json.dumps(told))


def _blocks(size: int) -> Iterator[bytes]:
    for at in range(0, size, 65_536):
        yield bytes(min(65_536, size - at))


async def _read(receive: Callable[..., Any]) -> bytes:
    content, more = b"", True
    while more:
        message = await receive()
        content += message.get("body", b"")
        more = message.get("more_body", False)
    return content


async def _send(send: Callable[..., Awaitable[None]], content: bytes, *headers: tuple[bytes, bytes]) -> None:
    lines = [(b"content-length", str(len(content)).encode()), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": lines})
    await send({"type": "http.response.body", "body": content})


def _take_seen() -> bytes:
    content = json.dumps(_seen).encode()
    _seen.clear()
    return content


def _process() -> bytes:
    return json.dumps({"environ": dict(os.environ), "argv": sys.argv}).encode()


def _response(query: str, path: str) -> tuple[str, str, str]:
    """The status, name and value in a query string: one part is what the test tries, the others are harmless."""
    given = parse_qs(query, keep_blank_values=True, encoding="utf-8" if path.endswith("utf-8") else "latin-1")
    value = given.get("value", ["value"])[0] * int(given.get("times", ["1"])[0])
    return given.get("status", [""])[0], given.get("name", ["X-Name"])[0], value


def _pauses() -> bool:
    """Whether to take a while, so that answers overtake one another: one time in 8."""
    return _pause.random() < 0.125
