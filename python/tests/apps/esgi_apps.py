"""ESGI apps for the tests. `app` picks a view by the path."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

import gevent
from caddysnake import esgi
from gevent.event import Event

PLAIN = [("content-type", "text/plain")]

events: list[str] = []  # what happened, for /events
gate = Event()  # /wait waits for /open
kept: list[Any] = []  # protocol objects of earlier requests


def app(scope: dict[str, Any], protocol: Any) -> None:
    globals()["view_" + scope["path"].strip("/").replace("/", "_")](scope, protocol)


def tell(protocol: Any, call: Callable[[], Any]) -> None:
    """Answers with the exception that a call raises."""
    try:
        call()
    except Exception as exc:
        protocol.response_str(400, PLAIN, f"{type(exc).__name__}: {exc}")
    else:
        events.append("nothing was raised")


def view_hello(scope: dict[str, Any], protocol: Any) -> None:
    protocol.response_str(200, PLAIN, "hello")


def view_scope(scope: dict[str, Any], protocol: Any) -> None:
    shown = {key: value for key, value in scope.items() if key != "headers"}
    headers = scope["headers"]
    parts = [repr(shown), type(headers).__name__, repr(dict(headers)), repr(headers.get_all("x")), repr(len(headers))]
    parts += [repr(headers.get("none")), repr(headers.get_all("none")), repr("x" in headers), repr("X" in headers)]
    protocol.response_str(200, PLAIN, "\n".join(parts))


def view_events(scope: dict[str, Any], protocol: Any) -> None:
    protocol.response_str(200, PLAIN, "\n".join(events))
    events.clear()


def view_main(scope: dict[str, Any], protocol: Any) -> None:
    protocol.response_str(200, PLAIN, os.getcwd())


# Bodies


def view_read(scope: dict[str, Any], protocol: Any) -> None:
    protocol.response_bytes(200, [], protocol.read_body())


def view_iterate(scope: dict[str, Any], protocol: Any) -> None:
    parts = list(protocol if scope["query_string"] == "protocol" else protocol.iter_body())
    assert all(type(part) is bytes and part for part in parts)
    protocol.response_bytes(200, [], b"".join(parts))


def view_echo(scope: dict[str, Any], protocol: Any) -> None:
    transport = protocol.response_stream(200, [])
    for part in protocol:
        transport.send_bytes(part)


def view_read_twice(scope: dict[str, Any], protocol: Any) -> None:
    first, second = scope["query_string"].split("&")
    ways = {"read": protocol.read_body, "iter": protocol.iter_body, "for": lambda: iter(protocol)}
    ways[first]()
    tell(protocol, ways[second])


def view_read_after(scope: dict[str, Any], protocol: Any) -> None:
    parts = protocol.iter_body() if scope["query_string"] == "begun" else None
    if parts is not None:
        next(parts)
    protocol.response_empty(200, [])
    try:
        list(protocol if parts is None else parts)
    except esgi.Closed as exc:
        events.append(str(exc))


def view_swallow(scope: dict[str, Any], protocol: Any) -> None:
    """Catches the error of a client that has gone, and goes on."""
    for call in (protocol.read_body, lambda: protocol.response_str(200, PLAIN, "nobody reads this")):
        try:
            call()
        except OSError as exc:
            events.append(type(exc).__name__)


# Responses


def view_respond(scope: dict[str, Any], protocol: Any) -> None:
    """Responds as scope["test.response"] says: method, status, headers, further arguments."""
    method, *arguments = scope["test.response"]
    if scope["query_string"] == "catch":
        tell(protocol, lambda: getattr(protocol, method)(*arguments))
    else:
        getattr(protocol, method)(*arguments)


def view_twice(scope: dict[str, Any], protocol: Any) -> None:
    first, second = scope["query_string"].split("&")
    ways: dict[str, Callable[[], Any]] = {
        "empty": lambda: protocol.response_empty(200, []),
        "str": lambda: protocol.response_str(200, [], "text"),
        "bytes": lambda: protocol.response_bytes(200, [], b"data"),
        "file": lambda: protocol.response_file(200, [], __file__),
        "range": lambda: protocol.response_file_range(200, [], __file__, 0, 1),
        "stream": lambda: protocol.response_stream(200, []),
    }
    ways[first]()
    try:
        ways[second]()
    except esgi.AlreadyResponded as exc:
        events.append(str(exc))


def view_refused(scope: dict[str, Any], protocol: Any) -> None:
    """A response that was refused is none: another may follow."""
    for status, headers in ((99, []), (200, [("X", "a\r\nb")]), ("200", []), (200, [("content-length", "5")])):
        try:
            protocol.response_str(status, headers, "text")
        except (TypeError, ValueError) as exc:
            events.append(str(exc))
    protocol.response_str(200, PLAIN, "accepted")


def view_stream(scope: dict[str, Any], protocol: Any) -> None:
    transport = protocol.response_stream(200, PLAIN)
    gate.clear()
    assert gate.wait(20)
    transport.send_str("blå ")
    transport.send_bytes(b"")
    transport.send_bytes(bytearray(b"bytes "))
    gate.clear()
    assert gate.wait(20)
    transport.send_bytes(memoryview(b"end"))


def view_open(scope: dict[str, Any], protocol: Any) -> None:
    gate.set()
    protocol.response_empty(200, [])


def view_wait(scope: dict[str, Any], protocol: Any) -> None:
    gate.clear()
    assert gate.wait(20)
    protocol.response_str(200, PLAIN, "waited")


def view_length(scope: dict[str, Any], protocol: Any) -> None:
    """Declares 5 bytes, and gives as many blocks of 3 as the query says."""
    transport = protocol.response_stream(200, [("Content-Length", "5")])
    for _ in range(int(scope["query_string"])):
        transport.send_bytes(b"abc")


def view_wrong_data(scope: dict[str, Any], protocol: Any) -> None:
    transport = protocol.response_stream(200, PLAIN)
    for call in (lambda: transport.send_str(b"bytes"), lambda: transport.send_bytes("text")):
        try:
            call()
        except TypeError as exc:
            transport.send_str(f"{exc}\n")


def view_late(scope: dict[str, Any], protocol: Any) -> None:
    kept.append(protocol.response_stream(200, []))
    kept[-1].send_bytes(b"in time")


def view_too_late(scope: dict[str, Any], protocol: Any) -> None:
    """Sends on a transport of an earlier request."""
    tell(protocol, lambda: kept.pop().send_bytes(b"too late"))


def view_endless(scope: dict[str, Any], protocol: Any) -> None:
    transport = protocol.response_stream(int(scope["query_string"] or 200), [("content-length", "1000000")])
    try:
        while True:
            transport.send_bytes(b"e" * 1000)
    except esgi.ClientGone:
        events.append("client gone")
        raise


def view_download(scope: dict[str, Any], protocol: Any) -> None:
    protocol.response_bytes(200, [], b"d" * int(scope["query_string"]))


def view_source(scope: dict[str, Any], protocol: Any) -> None:
    protocol.response_file(200, [], "children.py")


def view_sleep(scope: dict[str, Any], protocol: Any) -> None:
    time.sleep(float(scope["query_string"]))
    protocol.response_str(200, PLAIN, "slept")


def view_nothing(scope: dict[str, Any], protocol: Any) -> None: ...


def view_raise(scope: dict[str, Any], protocol: Any) -> None:
    errors: dict[str, type[BaseException]] = {"ValueError": ValueError, "SystemExit": SystemExit}
    raise errors[scope["query_string"]]("boom")


def view_raise_midway(scope: dict[str, Any], protocol: Any) -> None:
    protocol.response_stream(200, []).send_bytes(b"begun")
    raise ValueError("midway")


def view_raise_after(scope: dict[str, Any], protocol: Any) -> None:
    protocol.response_str(200, PLAIN, "whole")
    raise ValueError("afterwards")


def view_greenlet(scope: dict[str, Any], protocol: Any) -> None:
    protocol.response_str(200, PLAIN, str(isinstance(gevent.getcurrent(), gevent.Greenlet)))


class Whole:
    """An app with all that the specification names."""

    def __init__(self) -> None:
        self.state = "made"

    def __call__(self, scope: dict[str, Any], protocol: Any) -> None:
        protocol.response_str(500, PLAIN, "__esgi__ is preferred")

    def __esgi__(self, scope: dict[str, Any], protocol: Any) -> None:
        protocol.response_str(200, PLAIN, self.state)

    def __esgi_init__(self) -> None:
        self.state = "begun"

    def __esgi_del__(self) -> None:
        print("ended")


class BrokenInit(Whole):
    def __esgi_init__(self) -> None:
        raise ValueError("no database")


class BrokenDel(Whole):
    def __esgi_del__(self) -> None:
        raise ValueError("no farewell")


whole, broken_init, broken_del = Whole(), BrokenInit(), BrokenDel()


def with_hooks(scope: dict[str, Any], protocol: Any) -> None:
    protocol.response_str(200, PLAIN, ", ".join(events))


with_hooks.__esgi_init__ = lambda: events.append("begun")  # type: ignore[attr-defined]


# WebSockets


def view_ws_echo(scope: dict[str, Any], protocol: Any) -> None:
    transport = protocol.accept()
    while (message := transport.receive()).kind:
        (transport.send_bytes if message.kind == 1 else transport.send_str)(message.data)


def view_ws_large(scope: dict[str, Any], protocol: Any) -> None:
    protocol.accept().send_bytes(bytes(int(scope["query_string"])))


def view_ws_count(scope: dict[str, Any], protocol: Any) -> None:
    transport = protocol.accept()
    transport.send_str(str(len(transport.receive().data)))
    transport.receive()


def view_ws_wait(scope: dict[str, Any], protocol: Any) -> None:
    """Receives when /open has been called."""
    transport = protocol.accept()
    gate.clear()
    gate.wait(20)
    while transport.receive().kind:
        pass


def view_ws_reject(scope: dict[str, Any], protocol: Any) -> None:
    protocol.close()


class Text(str):
    """A str that cannot be marshalled."""


class Word(Text, Enum):
    CHAT = "chat"
    BYE = "bye"


def view_ws_words(scope: dict[str, Any], protocol: Any) -> None:
    protocol.accept(Word.CHAT, [(Text("x-room"), Text("1"))]).close(4000, Word.BYE)


def view_ws_refused(scope: dict[str, Any], protocol: Any) -> None:
    """A call that has raised has done nothing."""
    large = [("x-large", "a" * (1 << 20))]
    for accepts in (("not a token",), ("chat, talk",), ("other",), ("ch\xe4t",), (b"chat",), ("chat", large)):
        try:
            protocol.accept(*accepts)
        except (TypeError, ValueError) as exc:
            events.append(type(exc).__name__)
    transport = protocol.accept("chat")
    for reason in (b"bytes", "\ud800", "é" * 100):
        try:
            transport.close(4000, reason)
        except (TypeError, ValueError) as exc:
            events.append(type(exc).__name__)


def view_ws_nothing(scope: dict[str, Any], protocol: Any) -> None: ...


def view_ws_raise(scope: dict[str, Any], protocol: Any) -> None:
    protocol.accept()
    raise ValueError("in a WebSocket")


def view_ws_after(scope: dict[str, Any], protocol: Any) -> None:
    """Raises after the client has gone."""
    transport = protocol.accept()
    assert transport.receive().kind == 0
    try:
        if scope["query_string"] != "other":
            transport.send_str("late")
    except esgi.ClientGone as exc:
        if scope["query_string"] == "because":
            raise ValueError("after the client went") from exc
        raise
    raise ValueError("after the client went")


def view_ws_leave(scope: dict[str, Any], protocol: Any) -> None:
    protocol.accept()
