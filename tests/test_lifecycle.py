"""Workers from start to stop: killed, reloaded, drained."""

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from support.check import Servers
from support.load import Holder, Load
from support.polling import wait_until
from support.server import Server
from support.worker import APPS, Worker

TWO_WORKERS = """
    python {
        module_wsgi worker_app:app
        workers 2
        import worker
    }
"""


@pytest.fixture
def gate(serve: Servers, tmp_path: Path) -> Iterator[Path]:
    """The file that ends held requests, at the latest before the servers are to stop."""
    yield tmp_path / "gate"
    Path(tmp_path, "gate").touch()


def kill(server: Server, pid: int) -> None:
    """Kill a worker and wait until another has taken its place."""
    number = len(server.workers())
    [victim] = [process for process in server.workers() if process.pid == pid]
    victim.send_signal(signal.SIGKILL)
    wait_until(lambda: pid not in server.worker_pids() and len(server.workers()) == number, "new worker")


def all_serve(server: Server) -> Callable[[], bool]:
    """Whether each worker answers requests."""

    def check() -> bool:
        return server.worker_pids() == {server.get("/process").json()["pid"] for _ in range(20)}

    return check


@pytest.mark.expect_errors("worker exited")
def test_killed_workers_are_replaced_and_no_get_fails(serve: Servers) -> None:
    server = serve(TWO_WORKERS)
    before = server.worker_pids()
    load = Load(server)
    for _ in range(3):
        load.wait_for(50)
        kill(server, min(server.worker_pids()))
        load.wait_for(50)
    load.stop()
    assert len(server.worker_pids() - before) >= 2, "they were replaced"
    entry = server.log.wait_for(lambda entry: entry["msg"] == "worker exited")
    assert "signal: killed" in entry["error"]
    assert entry["worker"] in (1, 2)


@pytest.mark.expect_errors("worker exited")
def test_workers_start_although_somebody_has_cleaned_up(serve: Servers) -> None:
    server = serve(TWO_WORKERS)
    [package] = {Path(process.cmdline()[1]) for process in server.workers()}
    assert (package / "__main__.py").exists()
    shutil.rmtree(package)
    kill(server, min(server.worker_pids()))
    wait_until(all_serve(server), "answers of both workers")


@pytest.mark.expect_errors("worker exited")
def test_a_daemon_of_the_apps_keeps_no_killed_worker_in_its_place(serve: Servers) -> None:
    server = serve(TWO_WORKERS)
    daemon = psutil.Process(int(server.get("/daemon").text))
    try:
        for pid in server.worker_pids():
            kill(server, pid)
        assert server.get("/process").status_code == 200
        assert daemon.is_running()
        assert server.stop() == 0
    finally:
        daemon.kill()


@pytest.mark.expect_errors("worker exited")
def test_get_of_a_killed_worker_is_replayed(serve: Servers, gate: Path) -> None:
    server = serve(TWO_WORKERS)
    holder = Holder(server, gate)
    response, first = holder.send("GET")
    since = server.log.position()
    kill(server, first)
    second = holder.wait_held(since)
    holder.release()
    assert response.result().text == str(second)
    assert second != first


@pytest.mark.expect_errors("worker exited", "the worker ended before it answered")
def test_post_of_a_killed_worker_gets_502_and_no_other_request_notices(serve: Servers, gate: Path) -> None:
    server = serve(TWO_WORKERS)
    holder = Holder(server, gate)
    lost, first = holder.send("POST")
    kept, second = holder.send("POST")
    assert first != second, "the less busy worker gets the next request"
    since = server.log.position()
    kill(server, first)
    assert lost.result().status_code == 502
    holder.release()
    assert kept.result().text == str(second)
    assert holder.held(since) == [], "a POST is never replayed"


def test_graceful_stop_waits_for_running_requests(serve: Servers, worker: Worker, gate: Path) -> None:
    server = serve(TWO_WORKERS)
    holder = Holder(server, gate)
    response, _ = holder.send()
    server.caddy.send_signal(signal.SIGTERM)
    wait_until(lambda: not server.port.accepts(), "closed port")
    assert not response.done()
    holder.release()
    assert response.result().status_code == 200
    assert server.wait_exit() == 0
    goodbyes = [line for line in server.log.output() if line.startswith("goodbye from")]
    assert len(goodbyes) == worker.count(2), "each worker has run its atexit functions"


def test_interrupt_ends_gracefully(serve: Servers) -> None:
    server = serve(TWO_WORKERS)
    server.caddy.send_signal(signal.SIGINT)
    assert server.wait_exit() == 0


def test_lifespan_shutdown_runs_at_stop(serve: Servers) -> None:
    server = serve(LIFESPAN)
    assert server.get("/").text == "open"
    assert server.stop() == 0
    assert "connection closed" in server.log.output("stdout")


LIFESPAN = "python {\nmodule_asgi lifespan_app:app\nlifespan on\nworkers 1\nimport worker\n}"


def test_lifespan_shutdown_runs_at_reload(serve: Servers) -> None:
    server = serve(LIFESPAN)
    assert server.reload(LIFESPAN.replace("import worker", "import worker\nenv_var VERSION 2")).returncode == 0
    server.log.wait_for(lambda entry: entry.get("line") == "connection closed")
    assert server.get("/").text == "open"


@pytest.mark.parametrize(
    ("app", "shutdown", "refused"),
    [
        ("lifespan_app:app", ["connection closed"], []),
        ("django_app:asgi", [], ["ValueError: Django can only handle ASGI/HTTP connections, not lifespan."]),
    ],
    ids=["starlette", "django"],
)
def test_lifespan_auto(serve: Servers, app: str, shutdown: list[str], refused: list[str]) -> None:
    server = serve(f"python {{\nmodule_asgi {app}\nlifespan auto\nworkers 1\nimport worker\n}}")
    assert server.get("/").status_code == 200
    assert server.stop() == 0
    assert [line for line in server.log.output("stdout") if line == "connection closed"] == shutdown
    assert [entry["error"] for entry in server.log.entries() if "lifespan protocol" in entry["msg"]] == refused


def test_workers_end_when_caddy_is_killed(serve: Servers) -> None:
    server = serve(TWO_WORKERS)
    assert len(server.workers()) == 2
    server.caddy.kill()
    assert server.wait_exit() == -signal.SIGKILL
    wait_until(lambda: not server.processes(), "end of the workers")


def test_reload_of_something_else_keeps_workers(serve: Servers, gate: Path) -> None:
    server = serve(TWO_WORKERS)
    before = server.worker_pids()
    holder = Holder(server, gate)
    response, _ = holder.send()
    assert server.reload("respond /health 200\n" + TWO_WORKERS).returncode == 0
    assert server.get("/health").status_code == 200
    assert server.worker_pids() == before
    holder.release()
    assert response.result().status_code == 200


def test_the_log_of_an_app_that_a_reload_keeps_is_the_new_one(serve: Servers, tmp_path: Path) -> None:
    site = "python {\nmodule_wsgi slow_app:wsgi\nworkers 1\nimport worker\n}"
    server = serve(site)
    pid = server.get("/pid").text
    new = tmp_path / "new.log"
    refused = f"{site}\n}}\nhttp://:1 {{\nbind 192.0.2.1\nrespond 204"  # an address of nobody here
    assert server.reload(refused, f"log {{\noutput file {tmp_path / 'refused.log'}\n}}").returncode != 0
    since = server.log.position()
    assert server.get("/hang").text == pid
    server.log.wait_for(lambda entry: entry.get("line") == f"through in {pid}", since)
    assert server.reload(site, f"log {{\noutput file {new}\n}}").returncode == 0
    since = server.log.position()
    assert server.get("/hang").text == pid
    wait_until(lambda: f'"line":"through in {pid}"' in new.read_text(), "the new log")
    assert not [entry for entry in server.log.entries(since) if "line" in entry]


def test_reload_of_the_app_drops_no_request(serve: Servers, gate: Path) -> None:
    server = serve(TWO_WORKERS)
    before = server.worker_pids()
    load = Load(server, retry=True)
    holder = Holder(server, gate)
    response, old = holder.send()
    load.wait_for(50)
    assert server.reload(TWO_WORKERS.replace("import worker", "import worker\nenv_var VERSION 2")).returncode == 0
    load.wait_for(50)
    load.stop()
    assert server.get("/env?name=VERSION").text == "2"
    assert not response.done()
    holder.release()
    assert response.result().text == str(old), "the old worker has finished what it had begun"
    wait_until(lambda: not before & server.worker_pids(), "end of the old workers")
    wait_until(all_serve(server), "two workers that serve")


def test_validate_starts_no_python(serve: Servers, tmp_path: Path) -> None:
    server = serve.new()
    started = tmp_path / "started"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ntouch {started}\nexec {server.worker.python} "$@"\n')
    python.chmod(0o755)
    settings = f"python_path {python}\nworking_dir {APPS}\nworkers 1\nworkers_runtime {server.worker.runtime}"
    site = f"python {{\nmodule_wsgi worker_app:app\n{settings}\n}}"
    server.write_caddyfile(site)
    result = server.command("validate", "--config", str(server.caddyfile))
    assert result.returncode == 0, result.stderr
    assert not started.exists()
    server.launch("run", "--config", str(server.caddyfile))
    server.wait_accepting(server.port)
    assert server.get("/process").status_code == 200
    assert started.exists(), "it is this interpreter that runs the workers"
