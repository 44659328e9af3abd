"""Workers that are well and yet replaced: after so many requests, so long a time, or with so much memory."""

from collections.abc import Callable

import pytest

from support.check import Servers
from support.load import Load
from support.polling import wait_until
from support.project import Project, instances
from support.server import Server
from support.websocket import WebSocket
from support.worker import Worker


def replaced(server: Server) -> list[str]:
    """Why workers were replaced so far."""
    return [entry["reason"] for entry in server.log.entries() if entry["msg"] == "worker replaced"]


def seen(load: Load) -> set[str]:
    """The imports of the app that have answered."""
    return {response.json()["instance"] for response in list(load.responses) if not isinstance(response, Exception)}


def until(load: Load, condition: Callable[[], bool], what: str) -> None:
    """Wait under load; no request may fail."""
    try:
        wait_until(condition, what, 60)
    finally:
        load.stop()


@pytest.mark.parametrize(("setting", "reason"), [("max_requests 40 20", "max_requests"), ("max_age 500ms", "max_age")])
def test_no_request_notices(serve: Servers, worker: Worker, project: Project, setting: str, reason: str) -> None:
    server = serve(project.site(setting))
    load = Load(server, "/")
    until(load, lambda: len(seen(load)) >= 5, "answers of five imports of the app")
    assert set(replaced(server)) == {reason}
    wait_until(lambda: len(server.workers()) <= worker.count(2) + 2, "end of the old workers")


def test_memory(serve: Servers, project: Project) -> None:
    server = serve(project.site("max_memory 120MiB"))
    load = Load(server, "/")
    grown = server.get("/grow").json()["pid"]
    until(load, lambda: grown not in server.worker_pids(), "end of the worker that has grown")
    assert set(replaced(server)) == {"max_memory"}
    wait_until(lambda: len(server.workers()) == 2, "two workers")


def test_a_websocket_goes_on_until_the_drain_timeout(serve: Servers, project: Project) -> None:
    server = serve(project.site("max_requests 1", "drain_timeout 2s", workers=1))
    with WebSocket(server) as socket:  # the first request of its worker, and the last
        wait_until(lambda: replaced(server) == ["max_requests"], "the worker's replacement")
        socket.text("hello")
        assert socket.message() == "1 hello"
        assert socket.end() == (1012, "")
    [entry] = [entry for entry in server.log.entries() if entry["msg"].startswith("requests cut off")]
    assert (entry["level"], entry["requests"], entry["websockets"], entry["worker"]) == ("info", 0, 1, 1)


@pytest.mark.expect_errors("new worker did not start", "python app failed to start")
def test_a_worker_that_does_not_start_leaves_the_old_one(serve: Servers, project: Project) -> None:
    server = serve(project.site("max_requests 10", workers=1))
    [first] = instances(server, 5)
    project.module.write_text("raise RuntimeError('no longer')\n")
    assert instances(server, 10) == {first}
    server.log.wait_for(lambda entry: entry["msg"] == "new worker did not start, the old one goes on")
    assert instances(server, 10) == {first}
