"""A worker's life: START, import the app, READY, serve, STOP. docs/internals.md has the protocol."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import files, monitor, wire
from .errors import StartError


def run(
    sock: socket.socket,
    problem: str = "",
    imported: Callable[[], None] = lambda: None,
    ends: Mapping[str, Any] | None = None,
    packages: Sequence[str] = (),
) -> int:
    """Serves the app that Caddy names on `sock`. Returns an exit status: 0 after STOP or end of file, 1 after FAILED.

    `problem` is why the app cannot run in this process, "" if nothing is known. `imported` is called when the app is
    ready, before the first request. `ends` is what `take_over` has made of the worker's descriptors, if it is not START
    that names them. `packages` is where the app's installed packages are; none if the interpreter is the app's own.

    Touches nothing of the process: any thread can run one. Raises ProtocolError when Caddy breaks the protocol.
    """
    sock.setblocking(True)
    decoder = wire.Decoder()
    settings = _settings(sock, decoder)
    if settings is None:
        return 0
    settings |= take_over(settings) if ends is None else ends
    settings["packages"] = packages
    serve = {"wsgi": _serve_wsgi, "asgi": _serve_asgi, "esgi": _serve_esgi}[settings["interface"]]

    def ready() -> None:
        imported()
        _tell(sock, wire.frame(wire.READY, 0, {"pid": os.getpid(), "python": sys.version.split()[0]}))

    try:
        if problem:
            raise StartError(problem)
        serve(sock, decoder, settings, ready)
    except StartError as exc:
        _tell(sock, wire.frame(wire.FAILED, 0, (str(exc), exc.trace)))
        return 1
    finally:
        for end in (settings["descriptors"], settings["monitor"]):
            if end is not None:
                end.close()
    return 0


def _settings(sock: socket.socket, decoder: wire.Decoder) -> dict[str, Any] | None:
    """Returns what START says, or None if Caddy went before it."""
    while (frame := decoder.next()) is None:
        count = sock.recv_into(decoder.room())
        if not count:
            return None
        decoder.fill(count)
    kind, stream, head, _ = frame
    if kind != wire.START or stream != 0 or not isinstance(head, dict):
        raise wire.ProtocolError(f"the first frame is of type {kind}, not START")
    return head


def take_over(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a `files.Channel` of the descriptor "descriptors" and a `monitor.Monitor` of "monitor", None of 0.

    `run` closes them, whatever fails.
    """
    asked = numbers["monitor"]
    return {"monitor": monitor.Monitor(asked) if asked else None, "descriptors": files.channel(numbers["descriptors"])}


def _tell(sock: socket.socket, frame: bytes) -> None:
    with contextlib.suppress(OSError):  # Caddy has gone; whoever reads next sees it
        sock.sendall(frame)


def _serve_wsgi(
    sock: socket.socket, decoder: wire.Decoder, settings: dict[str, Any], ready: Callable[[], None]
) -> None:
    from . import importer, wsgi

    app = importer.load(settings)
    ready()
    wsgi.serve(sock, decoder, app, settings)


def _serve_esgi(
    sock: socket.socket, decoder: wire.Decoder, settings: dict[str, Any], ready: Callable[[], None]
) -> None:
    from . import esgi, importer

    def log(level: str, message: str, **fields: str) -> None:
        _tell(sock, wire.log(level, message, **fields))

    esgi.serve(sock, decoder, importer.load(settings), settings, ready, log)


def _serve_asgi(
    sock: socket.socket, decoder: wire.Decoder, settings: dict[str, Any], ready: Callable[[], None]
) -> None:
    import asyncio

    from . import asgi

    loop, warning = asgi.new_loop(settings["runtime"])
    if warning and settings["worker"] == 1:  # all others would say the same
        _tell(sock, wire.log("warn", warning))
    asyncio.set_event_loop(loop)
    try:
        app = _load_asgi(loop, settings)
        asyncio.set_event_loop(loop)  # asyncio.run() at import has unset it
        loop.run_until_complete(asgi.serve(sock, decoder, app, settings, ready))
    finally:
        try:
            _cancel_all(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _load_asgi(loop: Any, settings: dict[str, Any]) -> Any:
    """Imports the app before the loop runs, as most ASGI servers do: at import it may run a loop of its own, by
    asyncio.run(), and Django use its database. What asks for the running loop there is imported again while it runs.
    """
    from . import importer

    try:
        return importer.load(settings)
    except StartError as exc:
        cause = exc.__cause__
        if not isinstance(cause, RuntimeError) or str(cause) != "no running event loop":
            raise

    async def load() -> Any:
        return importer.load(settings)

    return loop.run_until_complete(load())


def _cancel_all(loop: Any) -> None:
    """Ends the tasks that the app left behind, as asyncio.run() does."""
    import asyncio

    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
