"""`request_timeout`: who takes too long gets a 504, the log says where it was, and the others notice nothing."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from support.check import Servers
from support.log import Entry
from support.polling import wait_until
from support.raw import Connection
from support.server import Server
from support.websocket import Rejected, WebSocket
from support.worker import Worker

LIMIT = 0.5  # seconds

APPS = {
    "wsgi": "module_wsgi slow_app:wsgi\nthreads 4",
    "asgi": "module_asgi slow_app:asgi\nruntime native",
    "uvloop": "module_asgi slow_app:asgi\nruntime uvloop",
    "gevent": "module_wsgi slow_app:wsgi\nruntime gevent",
    "esgi": "module_esgi slow_app:esgi",
}

each_app = pytest.mark.parametrize("app", APPS)

timed_out = pytest.mark.expect_errors("python request timed out", "the app did not begin its response")


def site(worker: Worker, limit: float = LIMIT) -> str:
    """A site with each of the apps that these workers can run, below a path that is its name."""
    apps = [name for name in APPS if worker.runtime == "process" or name not in ("gevent", "esgi")]
    settings = f"workers 1\nrequest_timeout {limit}s\nimport worker"
    return "\n".join(f"handle_path /{name}/* {{\npython {{\n{APPS[name]}\n{settings}\n}}\n}}" for name in apps)


@pytest.fixture(scope="module")
def server(serve_shared: Servers, worker: Worker) -> Server:
    """A server whose workers are not replaced."""
    server = serve_shared(site(worker))
    serve_shared.warm_up(server, *(f"/{app}/pid" for app in apps_of(server)))
    return server


def apps_of(server: Server) -> list[str]:
    """The apps that a server has."""
    return [app for app in APPS if server.get(f"/{app}/pid").content]


@pytest.fixture
def gate(nothing_left: None, tmp_path: Path) -> Iterator[Path]:
    """The file that ends what hangs, at the latest when the test ends."""
    yield tmp_path / "gate"
    Path(tmp_path, "gate").touch()


class Background:
    """Requests that the test does not wait for."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pool = ThreadPoolExecutor()

    def get(self, path: str) -> Future[httpx.Response]:
        """Begin a GET."""
        return self._pool.submit(self._get, path)

    def _get(self, path: str) -> httpx.Response:
        with self._server.new_client() as client:
            return client.get(path)


def wait_timeout(server: Server, uri: str, since: int) -> Entry:
    """The entry of a request that has timed out."""
    return server.log.wait_for(lambda entry: entry["msg"] == "python request timed out" and entry["uri"] == uri, since)


def wait_output(server: Server, line: str, since: int) -> None:
    """Wait for what an app writes."""
    server.log.wait_for(lambda entry: str(entry.get("line")).startswith(line), since)


@timed_out
@each_app
def test_a_request_that_hangs_gets_a_504_and_the_worker_goes_on(server: Server, gate: Path, app: str) -> None:
    pid = server.get(f"/{app}/pid").text
    uri = f"/{app}/hang?{gate}"
    for _ in range(6):
        since, began = server.log.position(), time.monotonic()
        assert server.get(uri).status_code == 504
        assert time.monotonic() - began >= LIMIT
        entry = wait_timeout(server, uri, since)
        assert entry["method"] == "GET"
        assert entry["request_id"]
        assert "wait_for_file" in entry["stack"]
        assert "slow_app.py" in entry["stack"]
        assert "caddysnake" not in entry["stack"]
        assert "problem" not in entry
        wait_output(server, "through in", since)  # it was ended, not just left
    assert server.get(f"/{app}/pid").text == pid


@timed_out
def test_a_request_that_writes_all_the_time_is_ended(server: Server, gate: Path) -> None:
    pid = server.get("/wsgi/pid").text
    for _ in range(6):
        since = server.log.position()
        assert server.get(f"/wsgi/print?{gate}").status_code == 504
        wait_output(server, "through in", since)
    assert server.get("/wsgi/pid").text == pid


@timed_out
@each_app
def test_a_request_whose_client_has_left_is_ended_too(server: Server, gate: Path, app: str) -> None:
    since, uri = server.log.position(), f"/{app}/hang?{gate}"
    with Connection(server) as connection:
        connection.send(f"GET {uri} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        wait_output(server, "waiting in", since)
    assert "wait_for_file" in wait_timeout(server, uri, since)["stack"]
    wait_output(server, "through in", since)


@each_app
def test_a_response_that_has_begun_may_go_on(server: Server, gate: Path, app: str) -> None:
    since, began = server.log.position(), time.monotonic()
    begun = Background(server).get(f"/{app}/begun?{gate}")
    wait_output(server, "waiting in", since)
    wait_until(lambda: time.monotonic() - began > 3 * LIMIT, "time beyond the limit")
    gate.touch()
    assert begun.result().text == "begun,ended"


def test_time_in_which_all_threads_are_in_close_does_not_count(server: Server, gate: Path) -> None:
    for _ in range(4):  # as many as there are threads
        assert server.get(f"/wsgi/close?{gate}").status_code == 200
    began = time.monotonic()
    waits = Background(server).get("/wsgi/pid")
    wait_until(lambda: time.monotonic() - began > 3 * LIMIT, "time beyond the limit")
    assert not waits.done()
    gate.touch()
    assert waits.result().status_code == 200


@each_app
def test_time_that_the_client_takes_for_its_body_does_not_count(server: Server, app: str) -> None:
    began = time.monotonic()
    with Connection(server) as connection:
        connection.send(f"POST /{app}/upload HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n\r\n".encode())
        connection.send(bytes(100_000))
        wait_until(lambda: time.monotonic() - began > 3 * LIMIT, "time beyond the limit")
        connection.send(bytes(100_000))
        response = connection.response()
    assert (response.status, response.body) == (200, b"200000")


@timed_out
def test_a_websocket_has_the_time_for_its_handshake_alone(server: Server, gate: Path) -> None:
    with WebSocket(server, "/asgi/echo") as client:
        with pytest.raises(Rejected) as rejected:
            WebSocket(server, f"/asgi/hang?{gate}")
        assert rejected.value.response.status == 504
        client.text("still there")
        assert client.message() == "still there"


@pytest.fixture
def fifos(serve: Servers, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """For each app, what ends a request that blocks, at the latest before the servers are to stop."""
    paths = {app: tmp_path / app for app in APPS}
    for path in paths.values():
        os.mkfifo(path)
    yield paths
    for path in paths.values():
        os.close(os.open(path, os.O_RDWR))  # wakes who opens it for reading


def wait_replaced(server: Server, apps: list[str]) -> None:
    """Wait until each of the apps has another worker."""
    wait_until(
        lambda: len([entry for entry in server.log.entries() if entry["msg"] == "worker replaced"]) == len(apps),
        "other workers",
        30,
    )
    for app in apps:
        assert server.get(f"/{app}/pid").status_code == 200


@timed_out
def test_a_worker_that_blocks_is_replaced(serve: Servers, worker: Worker, fifos: dict[str, Path]) -> None:
    server = serve(site(worker))
    apps, before = apps_of(server), server.worker_pids()
    background = Background(server)
    answers = {app: background.get(f"/{app}/block?{fifos[app]}") for app in apps}
    for app, answer in answers.items():
        assert answer.result().status_code == 504
        entry = wait_timeout(server, f"/{app}/block?{fifos[app]}", 0)
        assert "wait_in_c" in entry["stack"]
        assert entry.get("problem") == (None if app == "wsgi" else "its event loop is blocked")
    wait_replaced(server, apps)
    if worker.runtime == "process":
        wait_until(lambda: not before & server.worker_pids(), "end of the old workers", 30)


@timed_out
def test_a_request_that_goes_on_all_the_same_costs_its_worker_alone(
    serve: Servers, worker: Worker, tmp_path: Path
) -> None:
    server = serve(site(worker))
    gate = tmp_path / "gate"
    background = Background(server)
    apps = apps_of(server)
    answers = [background.get(f"/{app}/stubborn?{gate}") for app in apps]
    begun = [background.get(f"/{app}/begun?{gate}") for app in apps]
    assert [answer.result().status_code for answer in answers] == [504] * len(apps)
    wait_replaced(server, apps)
    gate.touch()
    assert [response.result().text for response in begun] == ["begun,ended"] * len(apps)


@timed_out
def test_a_request_that_goes_on_while_its_pool_drains_stops_nobody_who_waits(serve: Servers, tmp_path: Path) -> None:
    settings = f"workers 1\nthreads 1\nrequest_timeout {LIMIT}s\ndrain_timeout forever\nimport worker"
    server = serve(f"python {{\nmodule_wsgi slow_app:wsgi\n{settings}\n}}")
    gate = tmp_path / "gate"
    with Connection(server) as stubborn:
        stubborn.send(f"GET /stubborn?{gate} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        wait_output(server, "waiting in", 0)
        waiting = [Background(server).get("/pid") for _ in range(3)]
        wait_until(lambda: waiting_requests(server) == len(waiting), "requests in the queue")
        assert server.command("python-reload", "--config", str(server.caddyfile)).returncode == 0
        wait_timeout(server, f"/stubborn?{gate}", 0)
        assert [answer.result().status_code for answer in waiting] == [200] * len(waiting)
        wait_replaced(server, [""])
    gate.touch()


def waiting_requests(server: Server) -> int:
    """How many requests wait for a worker."""
    [app] = server.admin_request("GET", "/python/").json()
    return int(app["waiting"])


@timed_out
@pytest.mark.expect_errors("worker killed", "worker exited", "the worker ended before it answered")
def test_a_worker_that_is_stopped_is_replaced(serve: Servers, worker: Worker) -> None:
    server = serve(site(worker))
    before = server.workers()
    for process in before:
        process.send_signal(signal.SIGSTOP)
    background = Background(server)
    answers = [background.get(f"/{app}/pid") for app in APPS]
    assert [answer.result().status_code for answer in answers] == [504] * len(APPS)
    for app in APPS:
        assert "the worker does not answer" in wait_timeout(server, f"/{app}/pid", 0)["problem"]
    wait_until(lambda: not {process.pid for process in before} & server.worker_pids(), "other workers", 30)
    assert apps_of(server) == list(APPS)


@timed_out
@pytest.mark.expect_errors("worker did not stop in time", "worker exited")
def test_requests_that_a_blocked_worker_has_no_room_for_get_a_504_too(serve: Servers, fifos: dict[str, Path]) -> None:
    settings = f"workers 1\nrequest_timeout {LIMIT}s\ndrain_timeout forever\nimport worker"
    server = serve(f"python {{\n{APPS['asgi']}\n{settings}\n}}")
    first = Background(server).get(f"/block?{fifos['asgi']}")
    wait_output(server, "blocked in", 0)
    # A head of 4096 bytes leaves nothing of the body in net/http's buffer, so that the body comes with its request. The
    # worker's socket holds a MiB at most.
    head = b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 65536\r\nX-Fill: "
    request = head.ljust(4092, b".") + b"\r\n\r\n" + bytes(65_536)
    with ExitStack() as stack:
        clients = [stack.enter_context(Connection(server)) for _ in range(30)]
        for client in clients:
            client.send(request)
        assert [client.response().status for client in clients] == [504] * len(clients)
    assert first.result().status_code == 504
