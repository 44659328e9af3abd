"""The apps of conformance_websocket.py that ESGI can have too; see conformance/test_websocket.py.

What is noted of an end is in ASGI's words, so that one test serves both.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import gevent
from caddysnake import esgi
from gevent.event import Event

Scope = dict[str, Any]
App = Callable[[Scope, Any], None]

_cases: dict[str, App] = {}
_notes: defaultdict[str, list[Any]] = defaultdict(list)
_gates: defaultdict[str, Event] = defaultdict(Event)
_sleep = time.sleep


def case(app: App) -> App:
    """A decorator: handshakes can name this app."""
    _cases[app.__name__] = app
    return app


def app(scope: Scope, protocol: Any) -> None:
    """Runs the case that the path names; over HTTP, opens a gate and answers with what was noted under its key."""
    if scope["proto"] == "http":
        key = scope["query_string"]
        _gates[key].set()
        protocol.response_str(200, [], json.dumps(_notes[key]))
        return
    assert scope["proto"] == "ws", scope
    _cases[scope["path"].rpartition("/")[2]](scope, protocol)


@case
def echo(scope: Scope, protocol: Any) -> None:
    """Sends back what comes, until the end, which it notes."""
    transport = protocol.accept()
    while (message := transport.receive()).kind:
        if message.kind == 2:
            transport.send_str(message.data)
        else:
            transport.send_bytes(message.data)
    _note_end(scope, message)


@case
def scope(scope: Scope, protocol: Any) -> None:
    """Sends the scope, as Python writes it."""
    protocol.accept().send_str(repr({**scope, "headers": dict(scope["headers"])}))


@case
def choose(scope: Scope, protocol: Any) -> None:
    """Accepts with the last of the subprotocols and with headers."""
    offered = [name.strip() for name in scope["headers"]["sec-websocket-protocol"].split(",")]
    headers = [("X-One", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Connection", "close")]
    protocol.accept(offered[-1], headers).receive()


@case
def reject(scope: Scope, protocol: Any) -> None:
    """Closes instead of accepting, and notes what comes then."""
    protocol.close(4000)
    _note(scope, _raised(protocol.accept))
    _note(scope, _raised(protocol.close))


@case
def close(scope: Scope, protocol: Any) -> None:
    """Closes with the code and reason of the argument, and notes what comes then."""
    transport = protocol.accept()
    code, _, reason = unquote(scope["query_string"]).partition(",")
    transport.close(*([int(code)] if code else []), reason=reason)
    _note_end(scope, transport.receive())


@case
def leave(scope: Scope, protocol: Any) -> None:
    """Returns when it has accepted."""
    protocol.accept()


@case
def leave_early(scope: Scope, protocol: Any) -> None:
    """Returns without an answer."""


@case
def fail(scope: Scope, protocol: Any) -> None:
    """Raises when it has accepted."""
    protocol.accept()
    raise ValueError("after the accept")


@case
def fail_early(scope: Scope, protocol: Any) -> None:
    """Raises instead of accepting."""
    raise ValueError("before the accept")


@case
def wrong(scope: Scope, protocol: Any) -> None:
    """Tries what is not allowed, and sends the exceptions' names."""
    names = [
        _raised(protocol.accept, b"bytes"),
        _raised(protocol.accept, None, [("Sec-WebSocket-Protocol", "a")]),
        _raised(protocol.accept, None, [("X", "a\r\nb: c")]),
        _raised(protocol.close, 1006),
        _raised(protocol.close, "1000"),
        _raised(protocol.close, 1000, b"reason"),
    ]
    transport = protocol.accept()
    names += [
        _raised(protocol.accept),
        _raised(transport.send_str, b"bytes"),
        _raised(transport.send_bytes, "text"),
        _raised(transport.send_str, "\ud800"),
        _raised(transport.close, 999),
    ]
    transport.send_str(json.dumps(names))
    protocol.close()
    _note(scope, _raised(transport.send_str, "too late"))
    _note(scope, transport.receive().kind)
    _note(scope, _raised(transport.close))


@case
def send_on(scope: Scope, protocol: Any) -> None:
    """Sends until it cannot any more, and notes the exception, whether it is an OSError, and what receive() says."""
    transport = protocol.accept()
    try:
        while True:
            transport.send_str("on and on")
            _sleep(0.001)
    except esgi.ClientGone as exc:
        _note(scope, type(exc).__name__)
        _note(scope, isinstance(exc, OSError))
    _note_end(scope, transport.receive())


@case
def busy(scope: Scope, protocol: Any) -> None:
    """Keeps the interpreter for the seconds of the first message."""
    transport = protocol.accept()
    seconds = float(transport.receive().data)
    transport.send_str("busy")
    _sleep(0)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    transport.send_str("done")


@case
def flood(scope: Scope, protocol: Any) -> None:
    """Sends as many messages of 64 KiB as the argument says, and notes how many have been taken so far."""
    count, key = scope["query_string"].split(",")
    transport = protocol.accept()
    for number in range(int(count)):
        transport.send_bytes(bytes(64 << 10))
        _notes[key] = [number + 1]


@case
def deaf(scope: Scope, protocol: Any) -> None:
    """Receives nothing until the gate KEY-go is open."""
    transport = protocol.accept()
    _note(scope, "accepted")
    _gates[f"{scope['query_string']}-go"].wait()
    while transport.receive().kind:
        pass


@case
def both(scope: Scope, protocol: Any) -> None:
    """Sends large messages from two greenlets at once, each of one character."""
    transport = protocol.accept()
    gevent.joinall(
        [gevent.spawn(transport.send_str, character * 1_000_000) for character in "ab" * 3], raise_error=True
    )


def _raised(call: Callable[..., Any], *arguments: Any) -> str:
    try:
        call(*arguments)
    except Exception as exc:
        return type(exc).__name__
    return "nothing"


def _note(scope: Scope, what: Any) -> None:
    _notes[scope["query_string"]].append(what)


def _note_end(scope: Scope, message: Any) -> None:
    assert (message.kind, message.data) == (0, None)
    _note(scope, {"type": "websocket.disconnect", "code": message.code, "reason": message.reason})
