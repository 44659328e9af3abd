"""One small ASGI app for each clause of ASGI WebSocket; see conformance/test_websocket.py.

The path names the app. The query string is the app's argument, often the key of what the app notes for the test to see.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_cases: dict[str, App] = {}
_notes: defaultdict[str, list[Any]] = defaultdict(list)
_gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)


def case(app: App) -> App:
    """A decorator: handshakes can name this app."""
    _cases[app.__name__] = app
    return app


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Runs the case that the path names; over HTTP, opens a gate and answers with what was noted under its key."""
    if scope["type"] == "http":
        key = scope["query_string"].decode()
        _gates[key].set()
        body = json.dumps(_notes[key]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        return
    assert scope["type"] == "websocket", scope
    await _cases[scope["path"].rpartition("/")[2]](scope, receive, send)


@case
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends back what comes, until the end, which it notes."""
    await _accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        await send(message | {"type": "websocket.send"})
    _note(scope, message)


@case
async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Prints what it receives."""
    await _accept(receive, send)
    print(json.dumps(await receive()), flush=True)


@case
async def scope(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the scope, as Python writes it."""
    await _accept(receive, send)
    await send({"type": "websocket.send", "text": repr(scope)})


@case
async def choose(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts with the last of the subprotocols and with headers."""
    headers = [(b"x-one", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"connection", b"close")]
    await receive()
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][-1], "headers": headers})
    await receive()


@case
async def reject(scope: Scope, receive: Receive, send: Send) -> None:
    """Closes instead of accepting, with the code that is the argument before a comma, and notes what comes then."""
    await receive()
    await send({"type": "websocket.close", "code": int(scope["query_string"].partition(b",")[0] or b"4000")})
    _note(scope, await receive())


@case
async def deny(scope: Scope, receive: Receive, send: Send) -> None:
    """Rejects with a response in parts, whose status is the argument."""
    await receive()
    status = int(scope["query_string"])
    headers = [(b"content-type", b"text/plain"), (b"x-why", b"because")]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"not " * 100_000, "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"today"})


@case
async def close(scope: Scope, receive: Receive, send: Send) -> None:
    """Closes with the code and reason of the argument, and notes what comes then."""
    await _accept(receive, send)
    code, _, reason = unquote(scope["query_string"].decode()).partition(",")
    message: dict[str, Any] = {"type": "websocket.close", "reason": reason or None}
    await send(message | ({"code": int(code)} if code else {}))
    _note(scope, await receive())


@case
async def leave(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns when it has accepted."""
    await _accept(receive, send)


@case
async def leave_early(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns without an answer."""
    await receive()


@case
async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises when it has accepted."""
    await _accept(receive, send)
    raise ValueError("after the accept")


@case
async def fail_early(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises instead of accepting."""
    raise ValueError("before the accept")


@case
async def wrong(scope: Scope, receive: Receive, send: Send) -> None:
    """Tries messages that are not allowed where they come, and sends the exceptions' names."""
    await receive()
    before: list[dict[str, Any]] = [
        {"type": "websocket.send", "text": "too early"},
        {"type": "websocket.accept", "subprotocol": b"bytes"},
        {"type": "websocket.accept", "headers": [(b"sec-websocket-protocol", b"a")]},
        {"type": "websocket.accept", "headers": [(b"x", b"a\r\nb: c")]},
        {"type": "http.response.start", "status": 200},
    ]
    after: list[dict[str, Any]] = [
        {"type": "websocket.accept"},
        {"type": "websocket.http.response.start", "status": 200},
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": b"bytes"},
        {"type": "websocket.send", "bytes": "text"},
        {"type": "websocket.send", "text": "\ud800"},
        {"type": "websocket.close", "code": 999},
    ]
    names = [await _raised(send, message) for message in before]
    await send({"type": "websocket.accept"})
    names += [await _raised(send, message) for message in after]
    await send({"type": "websocket.send", "text": json.dumps(names)})
    await send({"type": "websocket.close"})
    _note(scope, await _raised(send, {"type": "websocket.send", "text": "too late"}))


@case
async def send_on(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends until it cannot any more, and notes the exception, whether it is an OSError, and what receive() says."""
    await _accept(receive, send)
    try:
        while True:
            await send({"type": "websocket.send", "text": "on and on"})
            await asyncio.sleep(0.001)
    except Exception as exc:
        _note(scope, type(exc).__name__)
        _note(scope, isinstance(exc, OSError))
    _note(scope, await receive())


@case
async def busy(scope: Scope, receive: Receive, send: Send) -> None:
    """Keeps the interpreter for the seconds of the first message."""
    await _accept(receive, send)
    seconds = float((await receive())["text"])
    await send({"type": "websocket.send", "text": "busy"})
    await asyncio.sleep(0)
    _hold(seconds)
    await send({"type": "websocket.send", "text": "done"})


@case
async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends as many messages of 64 KiB as the argument says, and notes how many have been taken so far."""
    count, key = scope["query_string"].decode().split(",")
    await _accept(receive, send)
    for number in range(int(count)):
        await send({"type": "websocket.send", "bytes": bytes(64 << 10)})
        _notes[key] = [number + 1]


@case
async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
    """Receives nothing until the gate KEY-go is open."""
    key = scope["query_string"].decode()
    await _accept(receive, send)
    _note(scope, "accepted")
    await _gates[f"{key}-go"].wait()
    while (await receive())["type"] == "websocket.receive":
        pass


@case
async def late(scope: Scope, receive: Receive, send: Send) -> None:
    """Receives nothing until the gate of the argument is open, then sends each byte that is in the first message."""
    await _accept(receive, send)
    await _gates[scope["query_string"].decode()].wait()
    message = await receive()
    await send({"type": "websocket.send", "bytes": bytes(sorted(set(message["bytes"])))})


@case
async def doze(scope: Scope, receive: Receive, send: Send) -> None:
    """Receives nothing for a second, or as many as the query says, then closes."""
    await _accept(receive, send)
    await asyncio.sleep(int(scope["query_string"] or 1))
    await send({"type": "websocket.close", "code": 4000})


@case
async def both(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends large messages from two tasks at once, each of one character."""
    await _accept(receive, send)
    parts = [{"type": "websocket.send", "text": character * 1_000_000} for character in "ab"]
    await asyncio.gather(*(send(message) for message in parts * 3))


async def _accept(receive: Receive, send: Send) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})


def _hold(seconds: float) -> None:
    time.sleep(seconds)


async def _raised(send: Send, message: dict[str, Any]) -> str:
    try:
        await send(message)
    except Exception as exc:
        return type(exc).__name__
    return "nothing"


def _note(scope: Scope, what: Any) -> None:
    _notes[scope["query_string"].decode()].append(what)
