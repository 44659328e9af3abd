"""Requests that take too long, each in another way; see test_request_timeout.py.

/pid answers at once. /hang?FILE waits until the file exists, and can be told to end; /print?FILE, under WSGI, writes
meanwhile. /block?FIFO waits in C code until somebody opens the other end of it; nothing else runs in an event loop
meanwhile. /stubborn?FILE is like /hang, but goes on when it is told to end. /begun?FILE is like /hang, and has begun
its response. /close?FILE, under WSGI, has a whole response whose close() is like /hang. /upload reads
the body. Under ASGI, a WebSocket hangs before it is accepted if its path is /hang?FILE; otherwise it echoes.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any


def _say(event: str) -> None:
    sys.stdout.write(f"{event} in {os.getpid()}\n")  # at once: nothing interrupts a line
    sys.stdout.flush()


def _exists(file: str) -> bool:
    return not file or os.path.exists(file)


def _wait(file: str, pause: Callable[[], object]) -> None:
    while not _exists(file):
        pause()


def wait_for_file(file: str) -> None:
    """Return when the file exists."""
    try:
        _say("waiting")
        # A loop of its own: an exception that comes from another thread at its end would pass by this `finally`, as
        # Python 3.13 does not count the jump back to the loop's beginning as a part of what `try` is around.
        _wait(file, lambda: time.sleep(0.01))
    finally:
        _say("through")


def wait_and_print(file: str) -> None:
    """Return when the file exists, and write all the time, if only nothing."""
    try:
        _wait(file, lambda: sys.stdout.write(""))
    finally:
        _say("through")


def wait_in_c(fifo: str) -> None:
    """Return when somebody writes to the fifo."""
    _say("blocked")
    os.close(os.open(fifo, os.O_RDONLY))


def wait_stubbornly(file: str) -> None:
    """Return when the file exists, whatever is raised."""
    _say("waiting")
    while not _exists(file):
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


def _last_part(path: str) -> str:
    return "/" + path.rpartition("/")[2]


def _answer(path: str, query: str) -> str:
    waits = {"/hang": wait_for_file, "/print": wait_and_print, "/block": wait_in_c, "/stubborn": wait_stubbornly}
    if path in waits:
        waits[path](query)
    return str(os.getpid())


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """The WSGI app."""
    path, query = _last_part(environ["PATH_INFO"]), environ["QUERY_STRING"]
    if path == "/upload":
        body = str(len(environ["wsgi.input"].read()))
    elif path == "/begun":
        start_response("200 OK", [])
        return _begun(query)
    else:
        body = _answer(path, "" if path == "/close" else query)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return Closing(body.encode(), query) if path == "/close" else [body.encode()]


class Closing:
    """A body whose close() returns when a file exists."""

    def __init__(self, body: bytes, file: str) -> None:
        self._body = body
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        """See the class."""
        wait_for_file(self._file)


def _begun(file: str) -> Iterator[bytes]:
    yield b"begun,"
    wait_for_file(file)
    yield b"ended"


def esgi(scope: dict[str, Any], protocol: Any) -> None:
    """The ESGI app."""
    path, query = _last_part(scope["path"]), scope["query_string"]
    if path == "/upload":
        protocol.response_str(200, [], str(len(protocol.read_body())))
    elif path == "/begun":
        transport = protocol.response_stream(200, [])
        for part in _begun(query):
            transport.send_bytes(part)
    else:
        protocol.response_str(200, [], _answer(path, query))


async def _pause() -> None:
    await asyncio.sleep(0.01)


async def wait_for_file_async(file: str) -> None:
    """Return when the file exists."""
    try:
        _say("waiting")
        while not _exists(file):
            await _pause()
    finally:
        _say("through")


async def wait_stubbornly_async(file: str) -> None:
    """Return when the file exists, whatever is raised."""
    _say("waiting")
    while not _exists(file):
        with contextlib.suppress(asyncio.CancelledError):
            await _pause()


async def _read(receive: Callable[..., Any]) -> int:
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))  # a client that has gone sends none
        if not message.get("more_body"):
            return size


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """The ASGI app."""
    path, query = _last_part(scope["path"]), scope["query_string"].decode()
    if scope["type"] == "websocket":
        await _echo(path, query, receive, send)
        return
    body = str(os.getpid())
    if path == "/upload":
        body = str(await _read(receive))
    elif path == "/hang":
        # As a framework does it: what hangs is in a task of its own, for which the request's task waits.
        await asyncio.create_task(wait_for_file_async(query))
    elif path == "/stubborn":
        await wait_stubbornly_async(query)
    elif path == "/block":
        wait_in_c(query)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if path == "/begun":
        await send({"type": "http.response.body", "body": b"begun,", "more_body": True})
        await wait_for_file_async(query)
        body = "ended"
    await send({"type": "http.response.body", "body": body.encode()})


async def _echo(path: str, query: str, receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    await receive()
    if path == "/hang":
        await wait_for_file_async(query)
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
