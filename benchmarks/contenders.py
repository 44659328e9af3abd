"""Who is measured: for each contender the commands that start it and the Caddyfile in front.

Every contender is the same Caddy binary with the same global options. What differs is the one handler. Other servers
get the settings that their own documentation recommends for speed; README.md says why for each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cases import APPS, Case

THREADS = 8
"""Threads in each WSGI worker of gthread, and of granian where it is told: as many as Caddy Snake's default."""

KEEP_ALIVE = "75"
"""Seconds for which an app server keeps Caddy's idle connections. Their defaults of 2 and 5 seconds would make Caddy
open new ones after each pause."""


@dataclass(frozen=True)
class Upstream:
    """Where an app server listens: a Unix socket, or a TCP port on loopback when `port` is not 0."""

    socket: Path
    port: int = 0
    idle: int | None = None
    """How many idle connections Caddy keeps; None leaves it at Caddy's default, 32."""

    @property
    def caddy(self) -> str:
        """Caddy's handler."""
        address = f"127.0.0.1:{self.port}" if self.port else f"unix/{self.socket}"
        if self.idle is None:
            return f"reverse_proxy {address}"
        return f"reverse_proxy {address} {{\ntransport http {{\nkeepalive_idle_conns_per_host {self.idle}\n}}\n}}"

    @property
    def gunicorn(self) -> list[str]:
        """The address as gunicorn takes it."""
        return ["--bind", f"127.0.0.1:{self.port}" if self.port else f"unix:{self.socket}"]

    @property
    def flags(self) -> list[str]:
        """The address as uvicorn and granian take it."""
        return ["--host", "127.0.0.1", "--port", str(self.port)] if self.port else ["--uds", str(self.socket)]


def _gunicorn(case: Case, workers: int, upstream: Upstream) -> list[str]:
    # The heartbeat file must not be on a disk; the control socket would be one more process-wide thread.
    quiet = ["--log-level", "warning", "--no-control-socket", "--worker-tmp-dir", "/dev/shm"]
    return ["gunicorn", *upstream.gunicorn, "--workers", str(workers), *quiet, case.elsewhere or case.app]


def _gunicorn_sync(case: Case, workers: int, upstream: Upstream) -> list[str]:
    return [*_gunicorn(case, workers, upstream), "--worker-class", "sync"]


def _gunicorn_gthread(case: Case, workers: int, upstream: Upstream) -> list[str]:
    threads = ["--worker-class", "gthread", "--threads", str(THREADS), "--keep-alive", KEEP_ALIVE]
    return [*_gunicorn(case, workers, upstream), *threads]


def _gunicorn_gevent(case: Case, workers: int, upstream: Upstream) -> list[str]:
    return [*_gunicorn(case, workers, upstream), "--worker-class", "gevent", "--keep-alive", KEEP_ALIVE]


def _pywsgi(case: Case, workers: int, upstream: Upstream) -> list[str]:
    address = str(upstream.port) if upstream.port else f"unix:{upstream.socket}"
    return ["pywsgi_server", address, str(workers), case.elsewhere]


def _uvicorn(case: Case, workers: int, upstream: Upstream) -> list[str]:
    fast = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    lean = ["--no-server-header", "--no-date-header", "--timeout-keep-alive", KEEP_ALIVE]
    sockets = ["--ws", "websockets-sansio" if case.load == "messages" else "none"]
    return ["uvicorn", *upstream.flags, "--workers", str(workers), *fast, *lean, *sockets, case.app]


def _granian(case: Case, workers: int, upstream: Upstream) -> list[str]:
    quiet = ["--no-access-log", "--log-level", "warning", "--http", "1"]
    quiet += ["--ws" if case.load == "messages" else "--no-ws"]
    return ["granian", *upstream.flags, "--workers", str(workers), "--interface", case.interface, *quiet, case.app]


def _granian_few_threads(case: Case, workers: int, upstream: Upstream) -> list[str]:
    return [*_granian(case, workers, upstream), "--blocking-threads", str(THREADS)]


def _granian_asgi(case: Case, workers: int, upstream: Upstream) -> list[str]:
    return [*_granian(case, workers, upstream), "--loop", "uvloop"]


@dataclass(frozen=True)
class Contender:
    """One way to serve a case."""

    name: str
    label: str
    server: Callable[[Case, int, Upstream], list[str]] | None = None
    """Module and arguments of the app server behind Caddy; None where Caddy needs none."""

    def server_command(self, case: Case, workers: int, upstream: Upstream) -> list[str] | None:
        """The command that starts the app server, in the apps folder."""
        if self.server is None:
            return None
        return [sys.executable, "-m", *self.server(case, workers, upstream)]

    def handler(self, case: Case, workers: int, upstream: Upstream) -> str:
        """The Caddyfile lines that answer the case."""
        if self.server is not None:
            return upstream.caddy
        if self.name == "respond":
            return case.limit
        return (
            "python {\n"
            f"module_{case.interface} {case.app}\n"
            f"workers {workers}\n"
            f"workers_runtime {'thread' if self.name == 'caddy-snake-thread' else 'process'}\n"
            f"working_dir {APPS}\n"
            f"venv {sys.prefix}\n"
            "}"
        )


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("respond", "Caddy alone"),
        Contender("caddy-snake", "Caddy Snake"),
        Contender("caddy-snake-thread", "Caddy Snake, thread"),
        Contender("gunicorn-sync", "Caddy + gunicorn sync", _gunicorn_sync),
        Contender("gunicorn-gthread", "Caddy + gunicorn gthread", _gunicorn_gthread),
        Contender("gunicorn-gevent", "Caddy + gunicorn gevent", _gunicorn_gevent),
        Contender("pywsgi", "Caddy + gevent.pywsgi", _pywsgi),
        Contender("uvicorn", "Caddy + uvicorn", _uvicorn),
        Contender("granian-wsgi", "Caddy + granian", _granian),
        Contender("granian-few-threads", f"Caddy + granian, {THREADS} threads", _granian_few_threads),
        Contender("granian-asgi", "Caddy + granian", _granian_asgi),
    )
}
"""All contenders by name."""


def caddyfile(handler: str, port: int, root: Path) -> str:
    """A Caddyfile that serves `handler` on loopback at `port`, with `root` for static files."""
    return f"{{\nadmin off\nauto_https off\n}}\nhttp://:{port} {{\nbind 127.0.0.1\nroot {root}\n{handler}\n}}\n"
