"""One small ASGI app for each clause of ASGI HTTP; see conformance/test_asgi.py.

The header Case names the app. Without one, the answer is the scope. The query string is the app's argument, often the
key of a gate and of what the app notes for the test to see.
"""

import asyncio
import contextvars
import hashlib
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from odd_errors import odd_error

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PLAIN = (b"content-type", b"text/plain")

_cases: dict[str, App] = {}
_notes: defaultdict[str, list[str]] = defaultdict(list)
_gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
_variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def case(app: App) -> App:
    """A decorator: requests can name this app."""
    _cases[app.__name__] = app
    return app


@case
async def scope(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the scope, as Python writes it."""
    await _answer(send, repr(scope).encode())


@case
async def notes(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what was noted under a key."""
    await _answer(send, json.dumps(_notes[_argument(scope)]).encode())


@case
async def open_gate(scope: Scope, receive: Receive, send: Send) -> None:
    """Opens a gate for all who wait at it, or else for the next one who comes."""
    _gates[_argument(scope)].set()
    await _answer(send, b"open")


@case
async def messages(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what receive() gave: the type, keys, size and more_body of each message, and a hash of the body."""
    shown, body, more = [], hashlib.sha256(), True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        body.update(message.get("body", b""))
        shown.append([message["type"], sorted(message), len(message.get("body", b"")), more])
    await _answer(send, json.dumps({"messages": shown, "sha256": body.hexdigest()}).encode())


@case
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Begins its response at once and gives back the body as it comes."""
    await _start(send)
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})


@case
async def ignore(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without a look at the body."""
    await _answer(send, b"ignored")


@case
async def blocks(scope: Scope, receive: Receive, send: Send) -> None:
    """Three blocks; the second and third wait at a gate."""
    key = _argument(scope)
    await _start(send)
    for block in ("first", "second", "third"):
        if block != "first":
            await _wait(key)
        _notes[key].append(f"made {block}")
        await send({"type": "http.response.body", "body": block.encode(), "more_body": block != "third"})


@case
async def start_alone(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the head, and the body when a gate opens."""
    await _start(send, HTTPStatus.ACCEPTED)
    await _wait(_argument(scope))
    await send({"type": "http.response.body", "body": b"body"})


@case
async def listen(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes that it waits, and what receive() gives it after the body."""
    key = _argument(scope)
    while (await receive()).get("more_body"):
        pass
    _notes[key].append("listening")
    _notes[key].append((await receive())["type"])
    try:
        await _start(send)
    except OSError:
        _notes[key].append("OSError")
    _notes[key].append((await receive())["type"])


@case
async def listen_while_streaming(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends one block, then notes what receive() gives it."""
    await receive()
    await _start(send)
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    _notes[_argument(scope)].append((await receive())["type"])


@case
async def upload_broken(scope: Scope, receive: Receive, send: Send) -> None:
    """Notes the types of the messages that it gets, up to http.disconnect."""
    key = _argument(scope)
    while (message := await receive())["type"] != "http.disconnect":
        _notes[key].append(f"{message['type']} {message['more_body']}")
    _notes[key].append("http.disconnect")


@case
async def disconnect_after_response(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers, then notes what receive() gives it."""
    await _answer(send, b"answered")
    await receive()
    _notes[_argument(scope)].append((await receive())["type"])


@case
async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends blocks of 64 KiB without end; notes their number, and what ended it."""
    key = _argument(scope)
    _notes[key].append("0")
    await _start(send)
    try:
        while True:
            await send({"type": "http.response.body", "body": b"." * 65536, "more_body": True})
            _notes[key][0] = str(int(_notes[key][0]) + 1)
    except Exception as error:
        _notes[key] += [base.__name__ for base in type(error).__mro__]


@case
async def download(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends as many blocks of 64 KiB as the query string says; notes how many were taken."""
    key, count = _argument(scope).split(",")
    await _start(send)
    for number in range(int(count)):
        await send({"type": "http.response.body", "body": b"." * 65536, "more_body": True})
        _notes[key][:] = [str(number + 1)]
    await send({"type": "http.response.body"})


@case
async def crowd(scope: Scope, receive: Receive, send: Send) -> None:
    """Joins those who wait for one gate; notes how many they are."""
    key = _argument(scope)
    _notes[key][:] = [str(int((_notes[key] or ["0"])[0]) + 1)]
    await _wait(key)
    await _answer(send, b"through")


@case
async def context(scope: Scope, receive: Receive, send: Send) -> None:
    """Sets a context variable, and answers with what it was before, and is after a gate."""
    key, value = _argument(scope).split(",")
    before = _variable.get()
    _variable.set(value)
    _notes[key].append(value)
    await _wait(key)
    inner = await asyncio.create_task(_get())
    await _answer(send, f"{before} {_variable.get()} {inner}".encode())


async def _get() -> str:
    return _variable.get()


@case
async def state(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with its state, having changed what is its own and what is shared."""
    shown = repr(scope["state"]).encode()
    scope["state"]["own"] = "changed by a request"
    scope["state"]["shared"].append(_argument(scope))
    await _answer(send, shown)


@case
async def status(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with a status, and with a body even where that status has none."""
    await _answer(send, b"a body", int(_argument(scope)))


@case
async def headers(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with headers of one name, in order, any bytes above 127, and headers about the connection."""
    lines = [(b"set-cookie", b"b=1"), PLAIN, (b"X-Name", "Zoë".encode()), (b"set-cookie", b"a=2")]
    lines += [(b"connection", b"close"), (b"transfer-encoding", b"chunked"), (b"keep-alive", b"9")]
    await send({"type": "http.response.start", "status": 200, "headers": iter(lines)})
    await send({"type": "http.response.body", "body": b"body"})


@case
async def length(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers 10 bytes in two parts, with the content-length that the query string says."""
    lines = [PLAIN, (b"content-length", scope["query_string"])]
    await send({"type": "http.response.start", "status": 200, "headers": lines})
    await send({"type": "http.response.body", "body": b"12345", "more_body": True})
    await send({"type": "http.response.body", "body": b"67890"})


@case
async def raises(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises before the response."""
    raise RuntimeError("a bug in the app")


@case
async def raises_oddly(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises what is hard to show."""
    raise odd_error(scope["query_string"].decode())


@case
async def raises_late(scope: Scope, receive: Receive, send: Send) -> None:
    """Raises after the first block."""
    lines = [PLAIN, *[(b"content-length", b"100")] * (_argument(scope) == "length")]
    await send({"type": "http.response.start", "status": 200, "headers": lines})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    raise RuntimeError("a bug in the app")


@case
async def illegal(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with a header that would split the response."""
    lines = [PLAIN, (b"x-name", b"value\r\nx-injected: yes")]
    await send({"type": "http.response.start", "status": 200, "headers": lines})
    await send({"type": "http.response.body", "body": b"body"})


@case
async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns without a response."""


@case
async def incomplete(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns within its response."""
    await _start(send)
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})


def _argument(scope: Scope) -> str:
    return str(scope["query_string"].decode())


async def _wait(key: str) -> None:
    await asyncio.wait_for(_gates[key].wait(), 60)
    _gates.pop(key, None)


async def _start(send: Send, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [PLAIN]})


async def _answer(send: Send, body: bytes, status: int = 200) -> None:
    await _start(send, status)
    await send({"type": "http.response.body", "body": body})


async def _lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    scope["state"].update(own="from lifespan", shared=["from lifespan"])
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The case that the request names."""
    if scope["type"] == "lifespan":
        await _lifespan(scope, receive, send)
    else:
        named = dict(scope["headers"]).get(b"case", b"scope").decode()
        await _cases[named](scope, receive, send)
