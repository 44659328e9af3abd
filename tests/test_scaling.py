"""How many workers there are, and what happens to requests for which there is none."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from support.check import Servers
from support.load import Holder
from support.pace import Pace
from support.polling import wait_until
from support.project import DOES_NOT_RUN, Project, version
from support.server import Server
from support.siege import SIEGE

IDLE = 2  # seconds
GROWN = 2 if SIEGE else 5  # seconds from the first request in the queue to four workers; siege has the machine

SCALING = """
    python {
        module_wsgi pressure_app:wsgi
        threads 1
        workers %s
        idle_timeout %ds
        env_var BROKEN {$BROKEN}
        import worker
    }
"""

QUEUE = """
    python {
        module_wsgi worker_app:app
        threads 1
        workers 1
        queue {
            size 2
            timeout 1s
        }
        import worker
    }
"""


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The file that keeps pressure_app.py from starting."""
    return tmp_path / "broken"


@pytest.mark.alone
def test_workers_come_with_a_queue_and_go_when_they_are_idle(serve: Servers, broken: Path) -> None:
    server = serve(SCALING % ("1 4", IDLE), BROKEN=str(broken))
    assert len(server.workers()) == 1
    with Pace(server, "/work", 150) as pace:  # one worker can do 50
        began = time.monotonic()
        wait_until(lambda: len(server.workers()) == 4, "four workers")
        took = time.monotonic() - began
        wait_until(lambda: len({answer.body for answer in pace.answers}) == 4, "answers of all four")
    ended = time.monotonic()
    wait_until(lambda: len(server.workers()) == 1, "a single worker", 5 * IDLE + 5)
    assert time.monotonic() - ended > IDLE / 2
    assert pace.statuses().keys() == {200}
    assert server.get("/pid").status_code == 200
    assert took < GROWN


def test_the_first_request_waits_for_the_first_worker(serve: Servers, broken: Path) -> None:
    server = serve(SCALING % ("0 2", 1), BROKEN=str(broken))
    assert server.workers() == []
    for _ in range(2):
        assert server.get("/pid").status_code == 200
        assert len(server.workers()) == 1
        wait_until(lambda: not server.workers(), "no worker")


@pytest.mark.expect_errors("python app failed to start", "worker exited", "the app does not start")
def test_a_first_worker_that_does_not_start_is_tried_again(serve: Servers, broken: Path) -> None:
    server = serve(SCALING % ("0 2", 60), BROKEN=str(broken))
    broken.touch()
    response = server.get("/pid")
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    entry = server.log.wait_for(lambda entry: entry["msg"] == "python app failed to start")
    assert "this app is broken" in entry["error"]
    broken.unlink()
    wait_until(lambda: server.get("/pid").status_code == 200, "answer")


@pytest.fixture
def gate(serve: Servers, tmp_path: Path) -> Iterator[Path]:
    """The file that ends held requests, at the latest before the servers are to stop."""
    yield tmp_path / "gate"
    Path(tmp_path, "gate").touch()


def get_in_background(server: Server) -> Future[httpx.Response]:
    """Begin a GET of /process."""

    def get() -> httpx.Response:
        with server.new_client() as client:
            return client.get("/process")

    return ThreadPoolExecutor().submit(get)


@pytest.mark.expect_errors("too many requests wait for a worker", "no worker had room in time")
def test_the_queue_is_bounded_in_number_and_time(serve: Servers, gate: Path) -> None:
    server = serve(QUEUE)
    holder = Holder(server, gate)
    held, _ = holder.send()
    began = time.monotonic()
    waiting = [get_in_background(server) for _ in range(5)]
    answers = [response.result() for response in waiting]
    assert time.monotonic() - began >= 1
    assert {answer.status_code for answer in answers} == {503}
    assert all(answer.headers["Retry-After"] for answer in answers)
    assert sum(answer.elapsed.total_seconds() >= 1 for answer in answers) == 2, "two of them waited"
    holder.release()
    assert held.result().status_code == 200
    assert server.get("/process").status_code == 200


@pytest.mark.expect_errors("python app failed to start", "reloading a python app", "this app is broken")
def test_a_version_that_does_not_start_takes_no_place(serve: Servers, broken: Path) -> None:
    server = serve(SCALING % ("0 2", 60), BROKEN=str(broken))
    assert server.get("/pid").status_code == 200
    broken.touch()
    result = server.command("python-reload", "--config", str(server.caddyfile))
    assert result.returncode == 1, result.stdout
    assert server.get("/pid").status_code == 200, "the old one goes on"


@pytest.mark.expect_errors(*DOES_NOT_RUN, "SyntaxError")
def test_autoreload_says_why_an_app_without_workers_does_not_start(serve: Servers, project: Project) -> None:
    site = project.site("autoreload", "idle_timeout 60s").replace("workers 2", "workers 0 2")
    server = serve(site)
    assert version(server) == "1"
    project.module.write_text("VERSION = = 2\n")
    wait_until(lambda: server.get("/").status_code == 500, "an app that does not run")
    assert "SyntaxError" in server.get("/").text


def test_a_deploy_begins_with_as_many_workers_as_there_are(serve: Servers, gate: Path) -> None:
    site = "python {\nmodule_wsgi worker_app:app\nthreads 1\nworkers 1 4\nidle_timeout 60s\nimport worker\n%s\n}"
    server = serve(site % "")
    holder = Holder(server, gate)
    for _ in range(3):
        holder.send()
    since = server.log.position()
    assert server.command("python-reload", "--config", str(server.caddyfile)).returncode == 0
    assert server.log.wait_for(lambda entry: entry["msg"] == "python app started", since)["workers"] == 3
    since = server.log.position()
    assert server.reload(site % "env_var VERSION 2").returncode == 0
    assert server.log.wait_for(lambda entry: entry["msg"] == "python app started", since)["workers"] == 3
