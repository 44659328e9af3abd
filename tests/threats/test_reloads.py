"""Threat 21: a reload drops or blocks requests.

A reload starts new workers, swaps a pointer, and drains the old ones (poolref.go, drain.go); requests hold a reference
and no lock. Autoreload has requests wait for the new workers (autoreload.go).
"""

from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest

from support.check import Servers
from support.polling import wait_until
from support.project import Project
from support.server import Server
from support.siege import SIEGE
from support.traffic import Traffic

RELOADS = 100 if SIEGE else 3
RATE = 500  # requests per second
SOCKETS = 200
DRAIN = "drain_timeout 1s"  # WebSockets stay for so long


class Reloader:
    """Reloads one app in different ways, with the next version each time."""

    def __init__(self, server: Server, project: Project) -> None:
        self.server = server
        self.project = project
        self.number = 1

    def unrelated(self) -> None:
        """A change of the configuration that is of no concern to the app."""
        self.number += 1
        site = f"respond /number number-{self.number}\n{self.project.site(DRAIN)}"
        assert self.server.reload(site).returncode == 0
        wait_until(lambda: self._get("/number") == f"number-{self.number}", "the new configuration")

    def changed_app(self) -> None:
        """A change of the app's settings."""
        self._next()
        assert self.server.reload(self.project.site(DRAIN, f"env_var NUMBER {self.number}")).returncode == 0
        self._wait()

    def python_reload(self) -> None:
        """The command."""
        self._next()
        result = self.server.command("python-reload", "--config", str(self.server.caddyfile))
        assert result.returncode == 0, result
        self._wait()

    def autoreload(self) -> None:
        """A save."""
        self._next()
        self._wait()

    def _next(self) -> None:
        self.number += 1
        self.project.write(str(self.number))

    def _wait(self) -> None:
        wait_until(lambda: f'"version": "{self.number}"' in self._get("/"), "the next version", 60)

    def _get(self, path: str) -> str:
        """What is there, over a new connection; a reload of Caddy's closes some that it has not yet accepted."""
        self.server.close_client()
        with suppress(httpx.RemoteProtocolError):
            return self.server.get(path).text
        return ""


KINDS: dict[str, Callable[[Reloader], None]] = {
    "unrelated": Reloader.unrelated,
    "changed-app": Reloader.changed_app,
    "python-reload": Reloader.python_reload,
    "autoreload": Reloader.autoreload,
}


@pytest.mark.parametrize("kind", KINDS)
def test_threat_21_no_reload_drops_or_blocks_a_request(serve: Servers, project: Project, kind: str) -> None:
    server = serve(project.site(DRAIN, *(["autoreload"] if kind == "autoreload" else [])))
    reloader = Reloader(server, project)
    KINDS[kind](reloader)  # so that what is opened once is open
    descriptors, workers = _settled(server), len(server.workers())
    with Traffic(server, RATE, SOCKETS, retry=kind in ("unrelated", "changed-app")) as traffic:
        for _ in range(RELOADS):
            KINDS[kind](reloader)
            wait_until(lambda: traffic.open == SOCKETS, "all WebSockets", 60)
        wait_until(lambda: traffic.closed or kind == "unrelated", "WebSockets whose time is over", 60)
        answered, rate = traffic.answered, traffic.rate
    print(f"{kind}: {answered} requests at {rate:.0f}/s, {dict(traffic.closed)} WebSockets closed in {RELOADS} reloads")
    assert traffic.failures == []
    assert set(traffic.closed) == (set() if kind == "unrelated" else {1012})
    server.close_client()
    wait_until(lambda: len(server.workers()) == workers, "end of the old workers", 60)
    wait_until(lambda: server.caddy.num_fds() <= descriptors, f"no more than {descriptors} descriptors", 60)


def _settled(server: Server) -> int:
    """How many descriptors Caddy has when the clients have gone and the old workers too."""
    server.close_client()
    lowest = server.caddy.num_fds()

    def settled() -> bool:
        nonlocal lowest
        before, lowest = lowest, min(lowest, server.caddy.num_fds())
        return before == lowest and _drained(server)

    wait_until(settled, "old workers that have ended", 60)
    return lowest


def _drained(server: Server) -> bool:
    started = [entry for entry in server.log.entries() if entry["msg"] == "python app started"]
    stopped = [entry for entry in server.log.entries() if entry["msg"] == "python app stopped"]
    return len(started) == len(stopped) + 1
