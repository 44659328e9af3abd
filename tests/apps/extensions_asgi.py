"""One small ASGI app for each extension of ASGI HTTP; see conformance/test_extensions.py and conformance/test_files.py.

The path names the app. The query string has its arguments; one may be the name of a gate.
"""

import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
END = {"type": "http.response.body"}
LINKS = [b"</style.css>; rel=preload; as=style", b"</app.js>; rel=preload"]
HINT = {"type": "http.response.early_hint", "links": LINKS}
TRAILERS = [(b"X-Digest", b"abc"), (b"server-timing", b"db;dur=53")]

_cases: dict[str, App] = {}
_gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


def case(app: App) -> App:
    """A decorator: requests can name this app."""
    _cases[app.__name__] = app
    return app


@case
async def extensions(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the scope's extensions."""
    await send(START)
    await send({"type": "http.response.body", "body": json.dumps(scope["extensions"]).encode()})


@case
async def open_gate(scope: Scope, receive: Receive, send: Send) -> None:
    """Opens a gate for all who wait at it, or else for the next one who comes."""
    _gates[_arguments(scope)["gate"]].set()
    await send(START)
    await send(END)


@case
async def hint(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends two hints behind a lone start, and the body when a gate opens."""
    await send(START)
    await send(HINT)
    await asyncio.sleep(0)
    await send(HINT | {"links": [b"</late.css>; rel=preload"]})
    await _wait(scope)
    await send({"type": "http.response.body", "body": b"body"})


@case
async def hint_first(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a hint before anything else, and the response when a gate opens."""
    await send(HINT)
    await _wait(scope)
    await send(START)
    await send({"type": "http.response.body", "body": b"body"})


@case
async def hint_and_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends many hints, then asks for the body, which the client sends when it is told to, and answers with that."""
    await send({"type": "http.response.early_hint", "links": LINKS * 100})
    body = (await receive())["body"]
    await send(START)
    await send({"type": "http.response.body", "body": body})


@case
async def hint_late(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a hint when the body has begun."""
    await send(START)
    await send({"type": "http.response.body", "body": b"body", "more_body": True})
    await send(HINT)
    await send(END)


@case
async def hint_illegal(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a hint that would split the response."""
    await send(START)
    await send(HINT | {"links": [b"</a>\r\nx-injected: yes"]})


@case
async def trailers(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends trailers in two messages, behind a body in two parts; arguments may have it empty, or say its length."""
    arguments = _arguments(scope)
    headers = [*START["headers"], (b"trailer", b"X-Digest, Server-Timing")]
    if "length" in arguments:
        headers.append((b"Content-Length", arguments["length"].encode()))
    await send(START | {"trailers": True, "headers": headers})
    if "empty" not in arguments:
        await send({"type": "http.response.body", "body": b"the ", "more_body": True})
        await send({"type": "http.response.body", "body": b"body"})
    else:
        await send(END)
    await send({"type": "http.response.trailers", "headers": TRAILERS[:1], "more_trailers": True})
    await send({"type": "http.response.trailers", "headers": TRAILERS[1:]})


@case
async def trailers_missing(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns without the trailers that it has said will come."""
    await send(START | {"trailers": True})
    await send({"type": "http.response.body", "body": b"body"})


@case
async def trailers_illegal(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a trailer that must be a header."""
    await send(START | {"trailers": True})
    await send({"type": "http.response.body", "body": b"body"})
    await send({"type": "http.response.trailers", "headers": [(b"content-length", b"100")]})


@case
async def path_send(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a file by its path, with the status and the further headers that the arguments say, when a gate opens."""
    arguments = _arguments(scope)
    await send(_start(arguments))
    await _wait(scope)
    await send({"type": "http.response.pathsend", "path": arguments["path"]})


@case
async def path_send_between(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a part of the body, then a file by its path."""
    await send(START)
    await send({"type": "http.response.body", "body": b"before ", "more_body": True})
    await send({"type": "http.response.pathsend", "path": _arguments(scope)["path"]})


@case
async def zero_copy_send(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends an open file from its position on, or the part of it that the arguments say; then where it stands."""
    arguments = _arguments(scope)
    message = {name: int(arguments[name]) for name in ("offset", "count") if name in arguments}
    with open(arguments["path"], "rb") as file:  # noqa: ASYNC230
        file.seek(int(arguments.get("seek", "0")))
        await send(START)
        await send(message | {"type": "http.response.zerocopysend", "file": file, "more_body": True})
        await send({"type": "http.response.body", "body": f" at {file.tell()}".encode()})


@case
async def zero_copy_parts(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a file byte by byte, as often as the arguments say, with a blank behind each byte; by its number."""
    arguments = _arguments(scope)
    descriptor = os.open(arguments["path"], os.O_RDONLY)
    try:
        await send(_start(arguments))
        for at in range(int(arguments["parts"])):
            part = {"type": "http.response.zerocopysend", "file": descriptor, "count": 1, "more_body": True}
            await send(part if at % 2 else part | {"offset": at})
            if not at % 2:
                os.lseek(descriptor, at + 1, os.SEEK_SET)
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
        await send(END)
    finally:
        os.close(descriptor)


@case
async def zero_copy_socket(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends something that is no file."""
    reader, writer = os.pipe()
    try:
        await send(START)
        await send({"type": "http.response.zerocopysend", "file": reader})
    finally:
        os.close(reader)
        os.close(writer)


@case
async def cpu(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the CPU time in seconds that this process has used."""
    await send(START)
    await send({"type": "http.response.body", "body": str(time.process_time()).encode()})


def _start(arguments: dict[str, str]) -> dict[str, Any]:
    named = {"etag", "last-modified", "content-length", "content-range", "content-type", "accept-ranges"}
    headers = [(name.encode(), value.encode()) for name, value in arguments.items() if name in named]
    return START | {"status": int(arguments.get("status", "200")), "headers": headers}


def _arguments(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode()))


async def _wait(scope: Scope) -> None:
    gate = _arguments(scope).get("gate")
    if gate is not None:
        await asyncio.wait_for(_gates[gate].wait(), 60)
        _gates.pop(gate, None)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The case that the path names."""
    await _cases[scope["path"].strip("/") or "extensions"](scope, receive, send)
