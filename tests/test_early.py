"""Requests that come while a configuration starts: Caddy may listen for them before an app has been imported."""

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from support.check import Servers
from support.polling import wait_until
from support.project import Project, version
from support.raw import Closed, Connection
from support.server import Server

ATTEMPTS = 6  # Caddy starts its apps in no particular order
CLIENTS = 6


def slow_import(project: Project, gate: Path, then: str) -> None:
    """Write a version whose import says that it has begun, and goes on when the file exists."""
    project.module.write_text(
        f"import os, time\nprint('importing', flush=True)\n"
        f"while not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n{then}\n"
    )


def imports(server: Server) -> int:
    """How many slow imports have begun."""
    return server.log.output("stdout").count("importing")


def answers(server: Server) -> set[str]:
    """The versions that answer on connections of their own."""
    found = set()
    for _ in range(CLIENTS):
        with server.new_client() as client:
            response = client.get("/")
            assert response.status_code == 200
            found.add(response.json()["version"])
    return found


def reload(server: Server, project: Project, gate: Path, then: str, attempt: int) -> tuple[set[str], int]:
    """Reload, and ask while the new version is being imported: what answers, and the command's status."""
    before = imports(server)
    slow_import(project, gate, then)
    with ThreadPoolExecutor() as pool:
        reloading = pool.submit(server.reload, project.site(f"env_var ATTEMPT {attempt}", workers=1))
        try:
            wait_until(lambda: imports(server) > before, "import")
            found = answers(server)
        finally:
            gate.touch()
        return found, reloading.result().returncode


def test_a_reload_keeps_nobody_waiting_for_an_import(serve: Servers, project: Project, tmp_path: Path) -> None:
    server = serve(project.site(workers=1))
    for attempt in range(ATTEMPTS):
        old, new = version(server), f"after {attempt}"
        found, status = reload(server, project, tmp_path / f"gate{attempt}", f"VERSION = {new!r}", attempt)
        assert (found, status) == ({old}, 0)
        assert version(server) == new


@pytest.mark.expect_errors("RuntimeError", "python app failed to start", "loading new config", "load")
def test_a_reload_that_fails_keeps_nobody_waiting(serve: Servers, project: Project, tmp_path: Path) -> None:
    server = serve(project.site(workers=1))
    for attempt in range(ATTEMPTS):
        found, status = reload(server, project, tmp_path / f"gate{attempt}", "raise RuntimeError('no')", attempt)
        assert (found, status) == ({"1"}, 1)
        assert answers(server) == {"1"}


@pytest.mark.expect_errors("caddy is shutting down", "the app is shutting down", "loading initial config")
def test_an_exit_during_the_first_start_waits_for_no_client(serve: Servers, project: Project, tmp_path: Path) -> None:
    slow_import(project, tmp_path / "never", "VERSION = '1'")
    for _ in range(ATTEMPTS):
        server = serve.new()
        server.write_caddyfile(project.site(workers=1))
        server.launch("run", "--config", str(server.caddyfile))
        wait_until(lambda server=server: imports(server) > 0, "import")  # type: ignore[misc]
        if not server.port.accepts():
            server.caddy.send_signal(signal.SIGTERM)
            server.wait_exit()
            continue
        with Connection(server) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            server.caddy.send_signal(signal.SIGTERM)
            server.wait_exit()
            with suppress(Closed):  # it had not been read
                assert client.response().status == 503
