"""What an app does behind its response, such as background tasks: nobody but the drain timeout cuts it off."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.check import Servers
from support.polling import wait_until
from support.server import Server

APPS = {
    "asgi": "module_asgi behind_app:asgi",
    "wsgi": "module_wsgi behind_app:wsgi",
    "gevent": "module_wsgi behind_app:wsgi\nruntime gevent",
    "esgi": "module_esgi behind_app:esgi",
}


def site(app: str, *settings: str) -> str:
    """The site of an app with these settings, served by one worker."""
    lines = "\n".join(settings)
    return f"python {{\n{APPS[app]}\nworkers 1\nimport worker\n{lines}\n}}"


@pytest.fixture
def gate(serve: Servers, tmp_path: Path) -> Iterator[Path]:
    """The file that ends the work, at the latest before the servers are to stop."""
    yield tmp_path / "gate"
    Path(tmp_path, "gate").touch()


def begin(server: Server, gate: Path) -> None:
    """Have the app work behind a response."""
    assert server.get(f"/work?{gate}").text == "answer"
    wait_until(lambda: "begun" in server.log.output("stdout"), "work")


def given_up(server: Server) -> list[str]:
    """What the log says of work that has been given up."""
    return [entry["msg"] for entry in server.log.entries() if "did not end after stop" in entry["msg"]]


def left(server: Server) -> list[int]:
    """The milliseconds that workers were given when they were told to stop."""
    return [int(line.split()[1]) for line in server.log.output("stdout") if line.startswith("stop")]


def finish(server: Server, gate: Path) -> None:
    """Let the work end, once its worker has been told to stop."""
    [milliseconds] = wait_until(lambda: left(server), "stop")
    assert 15_000 < milliseconds <= 30_000, "what is left of drain_timeout"
    gate.touch()
    wait_until(lambda: "finished" in server.log.output("stdout"), "end of the work")
    assert given_up(server) == []


@pytest.mark.parametrize("app", APPS)
def test_a_worker_that_is_replaced_finishes_it(serve: Servers, gate: Path, app: str) -> None:
    server = serve(site(app, "max_requests 2", "threads 2" * (app == "wsgi")))
    begin(server, gate)
    assert server.get("/").text == "answer"
    server.log.wait_for(lambda entry: entry["msg"] == "worker replaced")
    finish(server, gate)


@pytest.mark.parametrize("app", APPS)
def test_a_reload_lets_it_go_on(serve: Servers, gate: Path, app: str) -> None:
    server = serve(site(app))
    begin(server, gate)
    assert server.command("python-reload", "--config", str(server.caddyfile)).returncode == 0
    finish(server, gate)
    server.log.wait_for(lambda entry: entry["msg"] == "python app stopped")


@pytest.mark.parametrize("app", APPS)
def test_caddys_exit_waits_for_it(serve: Servers, gate: Path, app: str) -> None:
    server = serve(site(app))
    begin(server, gate)
    server.caddy.send_signal(signal.SIGTERM)
    finish(server, gate)
    assert server.wait_exit() == 0


@pytest.mark.parametrize("app", APPS)
def test_the_drain_timeout_ends_it_and_the_log_says_so(serve: Servers, gate: Path, app: str) -> None:
    server = serve(site(app, "drain_timeout 1s"))
    begin(server, gate)
    assert server.stop() == 0
    assert "finished" not in server.log.output("stdout")
    [entry] = [entry for entry in server.log.entries() if "did not end after stop" in entry["msg"]]
    assert entry["count"] == 1
    if app == "asgi":
        assert entry["requests"] == "GET /work"
