"""WSGI apps that know that they run under gevent."""

import contextvars
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent import monkey
from gevent import socket as gevent_socket

# At import: the app's own code never sees the standard library without the patches.
patched_at_import = socket.socket is gevent_socket.socket and monkey.is_module_patched("threading")

here = threading.local()
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="fresh")
turns: list[str] = []


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    text = globals()["view_" + environ["PATH_INFO"].strip("/")](environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]


def view_patched(_: str) -> str:
    return f"{patched_at_import} {isinstance(gevent.getcurrent(), gevent.Greenlet)}"


def view_sleep(seconds: str) -> str:
    time.sleep(float(seconds))
    return "slept"


def view_spin(seconds: str) -> str:
    """Computes, and so lets no other greenlet run."""
    until = time.perf_counter() + float(seconds)
    while time.perf_counter() < until:
        pass
    return "spun"


def view_fresh(_: str) -> str:
    """What an earlier request left for this one: nothing."""
    seen = f"{getattr(here, 'value', 'fresh')} {variable.get()}"
    here.value = "old"
    variable.set("old")
    return seen


def view_kept(text: str) -> str:
    """Whether a request's own values survive that others run."""
    here.value = text
    variable.set(text)
    time.sleep(0.01)
    return f"{here.value} {variable.get()}"


def view_killed(_: str) -> str:
    gevent.getcurrent().kill()
    return "never"


def view_spawned(name: str) -> str:
    """A greenlet of the app's own raises."""
    errors: dict[str, type[BaseException]] = {"SystemExit": SystemExit, "SystemError": SystemError}

    def fail() -> None:
        raise errors[name]("in a greenlet of the app's own")

    gevent.spawn(fail).join()
    return "survived"


def view_timeout(_: str) -> str:
    with gevent.Timeout(0.01, False):
        time.sleep(60)
    return "in time"


def view_threadpool(_: str) -> str:
    """Waits for a thread of the system, as gevent does for what it cannot patch."""
    return str(gevent.get_hub().threadpool.apply(sum, ([1, 2],)))


def hole(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Gives up a block for which there is no credit, and goes on with the next one."""
    write = start_response("200 OK", [])
    with gevent.Timeout(0.05, False):
        for _ in range(2):
            write(b"." * 200_000)
    write(b"end")
    return []


def stops(environ: dict[str, Any], start_response: Callable[..., Any]) -> "Stops":
    start_response("200 OK", [("Content-Length", "4")])
    return Stops()


class Stops:
    """Its close() takes a while after the response."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"body"

    def close(self) -> None:
        time.sleep(0.3)
        print("closed")
