"""One small ESGI app for each clause of docs/esgi.md; see conformance/test_esgi.py.

The header Case names the app. Without one, the answer is the scope. The query string is the app's argument, often the
key of a gate and of what the app notes for the test to see.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from caddysnake import esgi
from gevent.event import Event

Scope = dict[str, Any]
App = Callable[[Scope, Any], None]

PLAIN = [("Content-Type", "text/plain")]

_cases: dict[str, App] = {}
_notes: defaultdict[str, list[str]] = defaultdict(list)
_gates: defaultdict[str, Event] = defaultdict(Event)
_begun = False


def case(app: App) -> App:
    """A decorator: requests can name this app."""
    _cases[app.__name__] = app
    return app


@case
def scope(scope: Scope, protocol: Any) -> None:
    """Answers with the scope, as Python writes it; the headers as a dict from each name to the one and all values."""
    headers = {name: (value, scope["headers"].get_all(name)) for name, value in scope["headers"].items()}
    protocol.response_str(200, PLAIN, repr({**scope, "headers": headers}))


@case
def endless(scope: Scope, protocol: Any) -> None:
    """Sends without end, and waits for nothing but the client."""
    transport = protocol.response_stream(int(scope["query_string"]), PLAIN)
    while True:
        transport.send_bytes(b"endless")


@case
def notes(scope: Scope, protocol: Any) -> None:
    """Answers with what was noted under a key."""
    protocol.response_str(200, PLAIN, json.dumps(_notes[scope["query_string"]]))


@case
def open_gate(scope: Scope, protocol: Any) -> None:
    """Opens a gate for the one who waits at it, or will."""
    _gates[scope["query_string"]].set()
    protocol.response_empty(200, [])


def _wait(key: str) -> None:
    if not _gates[key].wait(20):
        raise TimeoutError(f"nobody opened gate {key}")
    del _gates[key]


@case
def begun(scope: Scope, protocol: Any) -> None:
    """Whether __esgi_init__ has run, and the process."""
    protocol.response_str(200, PLAIN, f"{_begun} {os.getpid()}")


@case
def read_body(scope: Scope, protocol: Any) -> None:
    """Answers with the size and hash of the body."""
    _answer_body(protocol, [protocol.read_body()])


@case
def iter_body(scope: Scope, protocol: Any) -> None:
    """The same, in parts."""
    _answer_body(protocol, list(protocol.iter_body()))


@case
def iterate(scope: Scope, protocol: Any) -> None:
    """The same, with `for`."""
    _answer_body(protocol, list(protocol))


def _answer_body(protocol: Any, parts: list[bytes]) -> None:
    body = b"".join(parts)
    answer = {
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "types": [type(part).__name__ for part in parts],
    }
    protocol.response_str(200, PLAIN, json.dumps(answer))


@case
def echo(scope: Scope, protocol: Any) -> None:
    """Begins its response at once and gives back the body as it comes."""
    transport = protocol.response_stream(200, [])
    transport.send_str("begun")
    for part in protocol:
        transport.send_bytes(part)


@case
def ignore(scope: Scope, protocol: Any) -> None:
    """Answers without a look at the body."""
    protocol.response_str(200, PLAIN, "ignored")


@case
def empty(scope: Scope, protocol: Any) -> None:
    protocol.response_empty(
        int(scope["query_string"]), [("X-Name", "Zo\xeb"), ("Set-Cookie", "b=1"), ("Set-Cookie", "a=2")]
    )


@case
def text(scope: Scope, protocol: Any) -> None:
    protocol.response_str(HTTPStatus.CREATED, PLAIN, "blå")


@case
def data(scope: Scope, protocol: Any) -> None:
    protocol.response_bytes(200, [("content-length", "3")], memoryview(b"\xff\x00\xfe"))


@case
def large(scope: Scope, protocol: Any) -> None:
    protocol.response_bytes(200, [], bytes(int(scope["query_string"])))


@case
def file(scope: Scope, protocol: Any) -> None:
    """Answers with a file, or a range of it; 404 if there is none."""
    path, *limits = scope["query_string"].split("&")
    try:
        if limits:
            protocol.response_file_range(206, [], path, int(limits[0]), int(limits[1]))
        else:
            protocol.response_file(200, [("X-Kind", "file")], path)
    except (OSError, ValueError) as exc:
        protocol.response_str(404, PLAIN, type(exc).__name__)


@case
def blocks(scope: Scope, protocol: Any) -> None:
    """Three blocks; the second and third wait at a gate."""
    key = scope["query_string"]
    transport = protocol.response_stream(200, [])
    for block in ("first", "second", "third"):
        if block != "first":
            _wait(key)
        _notes[key].append(f"made {block}")
        transport.send_str(block)


@case
def head_alone(scope: Scope, protocol: Any) -> None:
    """Sends the head, and the body when a gate opens."""
    transport = protocol.response_stream(202, PLAIN)
    _wait(scope["query_string"])
    transport.send_str("body")


@case
def length(scope: Scope, protocol: Any) -> None:
    """Ten bytes with the Content-Length that the query gives."""
    transport = protocol.response_stream(200, [("Content-Length", scope["query_string"])])
    transport.send_str("12345")
    transport.send_str("67890")


@case
def gone(scope: Scope, protocol: Any) -> None:
    """Sends until the client has gone, and notes how it learned of that."""
    key = scope["query_string"]
    transport = protocol.response_stream(200, [])
    try:
        while True:
            transport.send_bytes(bytes(65536))
    except esgi.ClientGone as exc:
        _notes[key].append(f"{isinstance(exc, OSError)} {exc}")


@case
def gone_while_reading(scope: Scope, protocol: Any) -> None:
    """Reads until the client has gone, and notes how it learned of that."""
    try:
        protocol.read_body()
    except esgi.ClientGone as exc:
        _notes[scope["query_string"]].append(str(exc))
        raise


@case
def exceptions(scope: Scope, protocol: Any) -> None:
    """Uses the protocol as it must not be used, and answers with what that raised."""
    key = scope["query_string"]
    raised = []

    def attempt(call: Callable[..., Any], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as exc:
            raised.append(f"{type(exc).__name__}: {exc}")
        else:
            raised.append("nothing")

    attempt(protocol.response_str, 99, [], "")
    attempt(protocol.response_str, "200", [], "")
    attempt(protocol.response_str, 200, [("X", "a\r\nb")], "")
    attempt(protocol.response_str, 200, [("X", 1)], "")
    attempt(protocol.response_str, 200, [], b"")
    attempt(protocol.response_bytes, 200, [], "")
    protocol.read_body()
    attempt(protocol.read_body)
    attempt(protocol.iter_body)
    attempt(iter, protocol)
    transport = protocol.response_stream(200, PLAIN)
    attempt(protocol.response_empty, 200, [])
    attempt(protocol.response_stream, 200, [])
    attempt(transport.send_bytes, "")
    attempt(transport.send_str, b"")
    transport.send_str("\n".join(raised))
    _notes[key].append("sent")
    _kept[key] = transport


_kept: dict[str, Any] = {}


@case
def too_late(scope: Scope, protocol: Any) -> None:
    """Sends on the transport of an earlier request."""
    try:
        _kept.pop(scope["query_string"]).send_str("too late")
    except esgi.Closed as exc:
        protocol.response_str(200, PLAIN, f"{isinstance(exc, esgi.Error)} {isinstance(exc, RuntimeError)} {exc}")


@case
def no_response(scope: Scope, protocol: Any) -> None:
    """Returns without a response."""


@case
def broken(scope: Scope, protocol: Any) -> None:
    raise RuntimeError("broken on purpose")


@case
def broken_midway(scope: Scope, protocol: Any) -> None:
    protocol.response_stream(200, []).send_str("begun")
    raise RuntimeError("broken on purpose")


class Application:
    """What `module_esgi` names: an object with all methods that the specification knows."""

    def __call__(self, scope: Scope, protocol: Any) -> None:
        raise AssertionError("__esgi__ is preferred")

    def __esgi__(self, scope: Scope, protocol: Any) -> None:
        _cases[scope["headers"].get("case", "scope")](scope, protocol)

    def __esgi_init__(self) -> None:
        global _begun
        _begun = True

    def __esgi_del__(self) -> None:
        print("ended", os.getpid(), flush=True)


app = Application()


def function(scope: Scope, protocol: Any) -> None:
    """The same as a function."""
    _cases[scope["headers"].get("case", "scope")](scope, protocol)
