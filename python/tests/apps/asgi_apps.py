"""ASGI apps for the tests. `app` picks a view by the path."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import mmap
import os
import socket
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from caddysnake import wire

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

events: list[str] = []  # for /events
gate: asyncio.Event | None = None  # /wait waits for /open
background: set[asyncio.Task[None]] = set()
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
at_import: contextvars.ContextVar[str] = contextvars.ContextVar("at_import", default="unset")
at_import.set("set")
loop_at_import = asyncio.get_event_loop()

PLAIN = (b"content-type", b"text/plain")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    view = globals()["view_" + scope["path"].strip("/").replace("/", "_")]
    await view(scope, receive, send)


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [PLAIN, *headers]}


def body(data: Any, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def answer(send: Send, data: bytes) -> None:
    await send(start())
    await send(body(data))


def query(scope: Scope) -> str:
    return str(scope["query_string"].decode())


def opened() -> asyncio.Event:
    global gate
    gate = gate or asyncio.Event()
    return gate


async def view_hello(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"hello")


async def view_events(scope: Scope, receive: Receive, send: Send) -> None:
    got = "\n".join(events).encode()
    events.clear()
    await answer(send, got)


async def view_scope(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, repr(sorted(scope)).encode())


async def view_minimal(scope: Scope, receive: Receive, send: Send) -> None:
    """Leaves out all that has a default."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})


async def view_task(scope: Scope, receive: Receive, send: Send) -> None:
    task = asyncio.current_task()
    assert task is not None
    assert asyncio.get_running_loop() is loop_at_import
    assert task in asyncio.all_tasks()
    await answer(send, type(task).__name__.encode())


async def view_pause(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits in every place once."""
    await asyncio.sleep(0)
    await send(start())
    await asyncio.sleep(0.001)
    await send(body(b"first ", True))
    await asyncio.sleep(0)
    await send(body(b"", True))
    await send(body(b"last"))


async def view_file(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send({"type": "http.response.pathsend", "path": __file__})


async def view_echo(scope: Scope, receive: Receive, send: Send) -> None:
    parts = []
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        parts.append(message["body"])
        if not message["more_body"]:
            break
    await answer(send, b"".join(parts))


async def view_duplex(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers each part of the body as it comes."""
    await send(start())
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send(body(message["body"].upper(), more))


async def view_ignore_body(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"did not read")


async def view_wait(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers when /open has been called."""
    opened().clear()
    await opened().wait()
    await answer(send, b"waited")


async def view_open(scope: Scope, receive: Receive, send: Send) -> None:
    opened().set()
    await answer(send, b"opened")


async def view_start_wait(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends its start, and its body when /open has been called."""
    opened().clear()
    await send(start())
    await opened().wait()
    await send(body(b"late"))


async def view_stream_wait(scope: Scope, receive: Receive, send: Send) -> None:
    opened().clear()
    await send(start())
    await send(body(b"first", True))
    await opened().wait()
    await send(body(b"second", False))


async def view_disconnect(scope: Scope, receive: Receive, send: Send) -> None:
    """Waits for http.disconnect, then tries to send."""
    await receive()
    events.append((await receive())["type"])
    try:
        await send(start())
    except OSError as exc:
        events.append(f"send raised {type(exc).__name__}")
        if query(scope) == "raise":
            raise
        if query(scope) == "other":
            raise ValueError("after the client went") from None


async def view_order(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers when /open has been called, in some parts and a last one, and does something after that."""
    opened().clear()
    await opened().wait()
    await send(start())
    for _ in range(int(query(scope))):
        await send(body(b"part", True))
    await send(body(b"last"))
    events.append("done after the response")


async def view_quiet(scope: Scope, receive: Receive, send: Send) -> None:
    """Begins a response, and has nothing more to say."""
    opened().clear()
    if query(scope) == "late":
        await opened().wait()
    await send(start())
    try:
        if query(scope) != "late":
            await send(body(b"first", True))
        await asyncio.Event().wait()
    finally:
        events.append("ended")


async def view_told(scope: Scope, receive: Receive, send: Send) -> None:
    """Begins a response, hears that the client has gone, and goes on until /open is called."""
    opened().clear()
    await receive()
    await send(start())
    await send(body(b"first", True))
    events.append((await receive())["type"])
    await opened().wait()
    events.append("done")


async def view_skip(scope: Scope, receive: Receive, send: Send) -> None:
    """Gives up a part of the body for which there is no credit, and goes on with the next one."""
    await send(start())
    with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
        for _ in range(2):
            await asyncio.wait_for(send(body(b"." * 200_000, True)), 0.05)
    with contextlib.suppress(RuntimeError):
        await send(body(b"end"))


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.001)


async def view_blocks(scope: Scope, receive: Receive, send: Send) -> None:
    """Blocks the loop after its response, or in the middle of it, until there is a file."""
    pause, where, path = query(scope).split(",")
    if float(pause):
        await asyncio.sleep(float(pause))
    await send(start())
    if where == "after":
        await send(body(b"whole"))
    else:
        await send(body(b"first", True))
    wait_for(path)
    if where != "after":
        await send(body(b"second"))


async def view_after(scope: Scope, receive: Receive, send: Send) -> None:
    """What receive() says after the response."""
    await receive()
    await answer(send, b"over")
    events.append((await receive())["type"])
    events.append((await receive())["type"])


async def view_listen(scope: Scope, receive: Receive, send: Send) -> None:
    """Streams, and listens for the client's leave in another task, as Starlette does."""

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        events.append("heard")

    listener = asyncio.create_task(listen())
    await send(start())
    await send(body(b"streaming", True))
    await listener
    events.append("cancelled")


async def view_listen_twice(scope: Scope, receive: Receive, send: Send) -> None:
    """Two tasks wait in receive() at once; one is cancelled."""
    await receive()
    first, second = asyncio.create_task(receive()), asyncio.create_task(receive())
    await asyncio.sleep(0)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    await send(start())
    await send(body(b"sent", False))
    events.append((await second)["type"])


async def view_download(scope: Scope, receive: Receive, send: Send) -> None:
    """One body of as many bytes as the query says."""
    await send(start())
    await send(body(b"d" * int(query(scope))))
    events.append("sent")


async def view_stream(scope: Scope, receive: Receive, send: Send) -> None:
    """As many parts of 1000 bytes as the query says."""
    await send(start())
    for _ in range(int(query(scope))):
        await send(body(b"x" * 1000, True))
    await send(body(b""))


async def view_endless(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    try:
        while True:
            await send(body(b"e" * 1000, True))
    except OSError as exc:
        events.append(f"send raised {type(exc).__name__}")
        raise


async def view_background(scope: Scope, receive: Receive, send: Send) -> None:
    """Goes on after its response until /open is called."""
    opened().clear()
    await answer(send, b"answered")
    await opened().wait()
    events.append("background done")


async def view_context(scope: Scope, receive: Receive, send: Send) -> None:
    """What a request sees of the context variables that others set."""
    seen = f"{at_import.get()} {variable.get()}"
    variable.set(query(scope))
    await asyncio.sleep(0)
    assert variable.get() == query(scope)
    await answer(send, seen.encode())
    assert variable.get() == query(scope)


async def view_block(scope: Scope, receive: Receive, send: Send) -> None:
    """Keeps the loop from running."""
    time.sleep(float(query(scope)))  # noqa: ASYNC251
    await answer(send, b"blocked")


async def view_raise(scope: Scope, receive: Receive, send: Send) -> None:
    name, _, message = query(scope).partition("=")
    errors: dict[str, type[BaseException]] = {
        "ValueError": ValueError,
        "SystemExit": SystemExit,
        "KeyboardInterrupt": KeyboardInterrupt,
        "CancelledError": asyncio.CancelledError,
    }
    raise errors[name](message)


async def view_raise_later(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0)
    await view_raise(scope, receive, send)


async def view_raise_after_start(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    raise ValueError("before the body")


async def view_raise_midway(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"begun", True))
    raise ValueError("midway")


async def view_raise_after(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, b"whole")
    raise ValueError("after it")


async def view_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    if query(scope) == "start":
        await send(start())
    elif query(scope) == "body":
        await send(start())
        await send(body(b"part", True))


async def view_wrong(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends messages in a wrong order."""
    messages: dict[str, list[Message]] = {
        "body_first": [body(b"x")],
        "two_starts": [start(), start()],
        "after_end": [start(), body(b"x"), body(b"y")],
        "unknown": [{"type": "http.response.push"}],
        "str": [start(), body("text")],
        "status": [start(status=101)],
        "bad_status": [{"type": "http.response.start", "status": "two hundred"}],
        "no_status": [{"type": "http.response.start"}],
        "no_type": [{}],
    }
    for message in messages[query(scope)]:
        await send(message)


async def view_header(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the status and headers that the scope holds."""
    said = scope["extensions"]["tls"]
    status = said.get("test.status", 200)
    try:
        await send({"type": "http.response.start", "status": status, "headers": said["test.headers"]})
    except (TypeError, ValueError) as exc:
        await send(start(status=400))
        await send(body(f"{type(exc).__name__}: {exc}".encode()))
    else:
        await send(body(b"sent"))


_buffer = mmap.mmap(-1, 6)  # hashable, and yet it changes
_buffer[:] = b"first "
_views = {b"readonly": memoryview(_buffer).toreadonly(), b"writable": memoryview(_buffer)}


async def view_header_view(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a header whose value is a view of one buffer, which is changed after each response."""
    headers = [(b"x-view", _views[scope["query_string"]])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send(body(b"sent"))
    _buffer[:] = b"second" if _buffer[:] == b"first " else b"first "


async def view_kinds(scope: Scope, receive: Receive, send: Send) -> None:
    """Types that are like the ones asked for."""
    headers = ((name, value) for name, value in [[bytearray(b"X-Array"), memoryview(b"view")]])
    await send({"type": "http.response.start", "status": HTTPStatus.CREATED, "headers": headers})
    await send(body(bytearray(b"array "), True))
    await send(body(memoryview(b"view")))


async def view_reuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Changes its buffer after send() has returned."""
    data = bytearray(b"original")
    await send(start())
    await send(body(data, True))
    data[:] = b"changed!"
    await send(body(b""))


async def view_state(scope: Scope, receive: Receive, send: Send) -> None:
    state = scope["state"]
    seen = f"{state['count']} {'request' in state} {state['shared']}"
    state["count"] += 1
    state["request"] = "mine"
    state["shared"].append(len(state["shared"]))
    await answer(send, seen.encode())


async def view_stop_task(scope: Scope, receive: Receive, send: Send) -> None:
    """Leaves a task behind that must be cancelled at the end."""

    async def forever() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            print("task cancelled")

    task = asyncio.create_task(forever())
    background.add(task)
    await answer(send, b"left")


async def view_hints(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a hint in each of two turns of the loop, behind the start."""
    await send(start())
    for link in (b"</1>", b"</2>"):
        await send({"type": "http.response.early_hint", "links": [link]})
        await asyncio.sleep(0)
    await send(body(b"hinted"))


def preempted() -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The app on a machine that gives the processor to others for a while whenever something is sent."""
    send = wire.send

    def send_and_wait(sock: socket.socket, parts: list[bytes | memoryview], size: int) -> memoryview:
        rest = send(sock, parts, size)
        time.sleep(0.05)
        return rest

    wire.send = send_and_wait
    return app


def future(scope: Scope, receive: Receive, send: Send) -> asyncio.Future[None]:
    """An app that returns an awaitable which is no coroutine."""
    return asyncio.ensure_future(app(scope, receive, send))
