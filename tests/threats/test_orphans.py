"""Threat 20: zombies and orphans.

One thread, which never ends, starts all workers; the kernel, and the end of its connection, end a worker when Caddy has
gone (process.go, __main__.py). Those that die before are reaped.
"""

import signal

import psutil
import pytest

from support.check import Servers
from support.polling import wait_until
from support.server import Server
from support.siege import share

KILLS = share(100)
SECONDS = 2

SITE = """
    handle /asgi {
        python {
            module_asgi pressure_app:asgi
            workers 1
            import worker
        }
    }
    python {
        module_wsgi pressure_app:wsgi
        workers 2
        import worker
    }
"""


def test_threat_20_nothing_is_left_when_caddy_is_killed(serve: Servers) -> None:
    for _ in range(KILLS):
        kill(serve(SITE))


def kill(server: Server) -> None:
    """Kill a Caddy that serves; nothing is left."""
    assert {server.get(path).status_code for path in ("/asgi", "/")} == {200}
    assert len(server.workers()) == 3
    server.close_client()
    server.caddy.kill()
    assert server.wait_exit() == -signal.SIGKILL
    wait_until(lambda: not server.processes(), "end of all processes", SECONDS)
    sockets = [c for c in psutil.net_connections("inet") if c.laddr and c.laddr.port == server.port.number]
    assert [c for c in sockets if c.status == psutil.CONN_LISTEN] == []


@pytest.mark.expect_errors("worker exited")
def test_threat_20_workers_that_die_are_reaped(serve: Servers) -> None:
    server = serve(SITE)
    for _ in range(3):
        before = server.worker_pids()
        for process in server.workers():
            process.kill()
        wait_until(lambda before=before: not before & server.worker_pids(), "other workers")  # type: ignore[misc]
        wait_until(lambda: len(server.workers()) == 3, "all workers")
    assert [child for child in server.caddy.children() if child.status() == psutil.STATUS_ZOMBIE] == []
