"""What is measured: one request each, the app that answers it, and who else is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
HELLO = b"Hello, world!"
RESPOND_HELLO = "respond `Hello, world!`"
APPS = Path(__file__).parent / "apps"

WSGI_RIVALS = ("gunicorn-sync", "gunicorn-gthread", "granian-wsgi", "granian-few-threads")
ASGI_RIVALS = ("uvicorn", "granian-asgi")
GEVENT_RIVALS = ("gunicorn-gevent", "pywsgi")
RIVALS = {"wsgi": WSGI_RIVALS, "asgi": ASGI_RIVALS, "esgi": GEVENT_RIVALS}


@dataclass(frozen=True)
class Case:
    """One request, repeated as fast as the server answers."""

    name: str
    title: str
    interface: str
    """`wsgi`, `asgi` or `esgi`."""
    app: str
    """`module:variable` in the apps folder."""
    body: bytes
    """The body that every contender has to answer with."""
    limit: str
    """Caddyfile lines that give the same answer without Python; empty where Caddy has none."""
    connections: dict[int, int]
    """How many connections are kept busy, by number of workers; its keys are the numbers of workers to measure."""
    elsewhere: str = ""
    """The app that other servers run, where they do not speak the interface."""
    upload: int = 0
    """Bytes in the request's body; 0 makes it a GET."""
    rivals: tuple[str, ...] = ()
    """Names of the contenders beside Caddy Snake; empty: those of its interface."""
    load: str = "requests"
    """`requests`; or what counts as such: `events` to clients that listen, `messages` that WebSockets get back."""

    @property
    def method(self) -> str:
        """The request's method."""
        return "POST" if self.upload else "GET"

    @property
    def contenders(self) -> tuple[str, ...]:
        """Names of all that answer this case, in the order of the tables."""
        return (*(["respond"] if self.limit else []), "caddy-snake", *(self.rivals or RIVALS[self.interface]))


BUSY = {1: 64, 2: 100}
TRANSFER = {1: 8, 2: 8}
ALONE = {1: 1}

# Caddy has no handler of its own that reads a body of any size and drops it, but one that sends a large file.
SEND_FILE = "rewrite /download.bin\nfile_server"


def _plain(name: str, title: str, interface: str) -> Case:
    return Case(name, title, interface, f"plain_{interface}:hello", HELLO, RESPOND_HELLO, BUSY)


def _in_thread(interface: str) -> Case:
    title = f"Hello world in a thread of Caddy, {interface.upper()}"
    app, rivals = f"plain_{interface}:hello", ("caddy-snake-thread",)
    return Case(f"thread-{interface}", title, interface, app, HELLO, "", {1: 64}, rivals=rivals)


def _upload(interface: str) -> Case:
    title = f"1 MB upload, {interface.upper()}"
    app = f"plain_{interface}:upload"
    return Case(f"upload-{interface}", title, interface, app, b"1048576", "", TRANSFER, upload=MIB)


def _download(interface: str) -> Case:
    title = f"10 MB streamed download, {interface.upper()}"
    app = f"plain_{interface}:download"
    return Case(f"download-{interface}", title, interface, app, b"x" * (10 * MIB), SEND_FILE, TRANSFER)


def _alone(interface: str) -> Case:
    title = f"One connection alone, {interface.upper()}"
    return Case(f"alone-{interface}", title, interface, f"plain_{interface}:hello", HELLO, RESPOND_HELLO, ALONE)


def _events(name: str, app: str, when: str) -> Case:
    title = f"Server-sent events, 10 a second to each client, {when} (requests are events)"
    return Case(name, title, "asgi", f"events_asgi:{app}", HELLO, "", {1: 500}, load="events")


def _echo() -> Case:
    title = "WebSockets, an echo of 1 KB to each (requests are messages)"
    return Case("websocket-echo", title, "asgi", "echo_asgi:echo", HELLO, "", {1: 100}, load="messages")


JSON_HELLO = b'{"message":"Hello, world!"}'
RESPOND_JSON = f"respond `{JSON_HELLO.decode()}`"

CASES = (
    _plain("hello-wsgi", "Hello world, WSGI", "wsgi"),
    _plain("hello-asgi", "Hello world, ASGI", "asgi"),
    Case("flask", "Flask", "wsgi", "flask_app:app", HELLO, RESPOND_HELLO, BUSY),
    Case("fastapi", "FastAPI", "asgi", "fastapi_app:app", JSON_HELLO, RESPOND_JSON, BUSY),
    Case("json-esgi", "JSON, ESGI", "esgi", "json_gevent:esgi", JSON_HELLO, RESPOND_JSON, BUSY, "json_gevent:wsgi"),
    _upload("wsgi"),
    _upload("asgi"),
    _download("wsgi"),
    _download("asgi"),
    _alone("wsgi"),
    _alone("asgi"),
    _in_thread("wsgi"),
    _in_thread("asgi"),
    _events("events", "own_pace", "each at its own time"),
    _events("broadcast", "broadcast", "all at the same time"),
    _echo(),
)
"""All cases, in the order of the tables."""

STARTUP_CASES = ("flask", "fastapi")
"""Cases whose start-up is timed too."""

STARTUP_WORKERS = 2
"""How many workers start then."""
