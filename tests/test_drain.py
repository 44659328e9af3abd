"""What becomes of requests that go on when their workers are to end: at a reload of the app, and when Caddy exits."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.check import Servers
from support.polling import wait_until
from support.porter import Porter
from support.raw import Closed, Connection
from support.server import Server
from support.worker import Worker

APPS = {
    "starlette": "module_asgi drain_app:starlette\nlifespan on",
    "asgi": "module_asgi drain_app:deaf\nlifespan on",
    "wsgi": "module_wsgi drain_app:wsgi\nthreads 120\nenv_var SAY_GOODBYE 1",
    "gevent": "module_wsgi drain_app:wsgi\nruntime gevent\nenv_var SAY_GOODBYE 1",
    "esgi": "module_esgi drain_app:esgi",
}
STREAMS = 100
EVENT = b"data: event\n\n"
CUT = "requests cut off at the end of the drain timeout"


def site(app: str, timeout: str) -> str:
    """The site of an app with this drain_timeout, served by two workers."""
    return f"python {{\n{APPS[app]}\nworkers 2\nimport worker\ndrain_timeout {timeout}\n}}"


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    """Closes the connections of a test."""
    with ExitStack() as stack:
        yield stack


def open_streams(server: Server, clients: ExitStack) -> list[Iterator[bytes]]:
    """Ask for endless streams, all of which have begun."""
    connections = [clients.enter_context(Connection(server)) for _ in range(STREAMS)]
    streams = []
    for connection in connections:
        connection.send(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
        assert connection.head()[0] == 200
        streams.append(connection.chunks())
    assert {next(stream) for stream in streams} == {EVENT}
    return streams


def assert_cut(streams: list[Iterator[bytes]]) -> None:
    """Each stream ends without its last chunk."""
    for stream in streams:
        with pytest.raises(Closed):
            assert {event.replace(EVENT, b"") for event in stream} == {b""}


def started(server: Server) -> set[str]:
    """The workers that have imported the app, by the name that each has given itself."""
    return {line.split()[-1] for line in server.log.output("stdout") if line.startswith("imported in")}


def shut_down(server: Server) -> set[str]:
    """The workers whose app has shut down in an orderly way."""
    return {line.split()[-1] for line in server.log.output("stdout") if line.startswith("shutdown in")}


def messages(server: Server) -> list[str]:
    return [entry["msg"] for entry in server.log.entries()]


@pytest.mark.parametrize("app", APPS)
def test_reload_with_endless_streams(serve: Servers, worker: Worker, clients: ExitStack, app: str) -> None:
    server = serve(site(app, "3s"))
    wait_until(lambda: len(started(server)) == worker.count(2), "words of all workers")
    old = started(server)
    streams = open_streams(server, clients)
    assert server.reload(site(app, "4s")).returncode == 0
    wait_until(lambda: len(started(server) - old) == worker.count(2), "words of all new workers")
    if CUT not in messages(server):
        assert next(streams[0]), "they go on for a while"
    assert_cut(streams)
    wait_until(lambda: shut_down(server) == old, "end of the old workers")
    wait_until(lambda: len(server.workers()) == worker.count(2), "end of the old workers' processes")
    assert server.request("PUT", "/upload", content=b"123").status_code == 200
    [entry] = [entry for entry in server.log.entries() if entry["msg"] == CUT]
    assert entry["requests"] == STREAMS


@pytest.mark.parametrize("app", APPS)
def test_exit_with_endless_streams(serve: Servers, clients: ExitStack, app: str) -> None:
    server = serve(site(app, "2s"))
    streams = open_streams(server, clients)
    server.caddy.send_signal(signal.SIGTERM)
    assert_cut(streams)
    assert server.wait_exit() == 0
    assert shut_down(server) == started(server)
    assert CUT in messages(server)


def test_exit_while_a_reload_drains(serve: Servers, worker: Worker, clients: ExitStack) -> None:
    server = serve(site("starlette", "3s"))
    streams = open_streams(server, clients)
    assert server.reload(site("starlette", "2s")).returncode == 0
    assert server.stop() == 0
    assert_cut(streams)
    assert len(started(server)) == 2 * worker.count(2)
    assert shut_down(server) == started(server), "those of the old configuration too"


@pytest.mark.parametrize("app", APPS)
def test_a_reload_cuts_off_no_upload(serve: Servers, worker: Worker, clients: ExitStack, app: str) -> None:
    server = serve(site(app, "20s"))
    wait_until(lambda: len(started(server)) == worker.count(2), "words of all workers")
    old = started(server)
    client = clients.enter_context(Connection(server))
    client.send(b"PUT /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n\r\n", b"." * 10)
    assert server.reload(site(app, "21s")).returncode == 0
    client.send(b"." * 199_990)
    response = client.response()
    assert response.status == 200
    got, name = response.body.decode().split(" in ")
    assert int(got) == 200_000
    assert name in old
    wait_until(lambda: old <= shut_down(server), "end of the old workers")


@pytest.mark.parametrize("app", APPS)
def test_what_another_handler_keeps_during_a_reload_is_answered_by_the_new_workers(
    serve: Servers, worker: Worker, clients: ExitStack, app: str
) -> None:
    porter = clients.enter_context(Porter())
    server = serve(porter.directive + site(app, "20s"))
    wait_until(lambda: len(started(server)) == worker.count(2), "words of all workers")
    old = started(server)
    client = clients.enter_context(Connection(server))
    client.send(b"PUT /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc")
    porter.await_request()
    assert server.reload(porter.directive + site(app, "21s")).returncode == 0
    server.log.wait_for(lambda entry: entry["msg"] == "python app stopped")
    porter.let_pass()
    response = client.response()
    assert response.status == 200
    assert response.body.decode().split(" in ")[1] in started(server) - old


@pytest.mark.parametrize("app", ["starlette", "wsgi"])
@pytest.mark.expect_errors("the app is shutting down")
def test_exit_with_an_upload_that_does_not_go_on(serve: Servers, clients: ExitStack, app: str) -> None:
    server = serve(site(app, "1s"))
    client = clients.enter_context(Connection(server))
    client.send(b"PUT /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\nExpect: 100-continue\r\n\r\n")
    assert client.head()[0] == 100, "the request is being served: Caddy drops those that it reads later"
    client.send(b"." * 10)
    server.caddy.send_signal(signal.SIGTERM)
    assert client.response().status == 503
    assert server.wait_exit() == 0


def test_exit_with_a_client_that_does_not_read(serve: Servers, clients: ExitStack) -> None:
    server = serve("python {\nmodule_asgi streams_app:asgi\nworkers 1\nimport worker\ndrain_timeout 1s\n}")
    client = clients.enter_context(Connection(server, receive_buffer=4096))
    client.send(b"GET /1000000 HTTP/1.1\r\nHost: test\r\n\r\n")
    assert client.head()[0] == 200
    server.caddy.send_signal(signal.SIGTERM)
    assert server.wait_exit() == 0


@pytest.mark.expect_errors("the app is shutting down")
def test_a_worker_that_does_not_stop_is_killed_and_the_log_says_so(serve: Servers, clients: ExitStack) -> None:
    server = serve(site("starlette", "1s").replace("workers 2", "workers 1"))
    clients.enter_context(Connection(server)).send(b"GET /block HTTP/1.1\r\nHost: test\r\n\r\n")
    server.log.wait_for(lambda entry: entry.get("line") == "blocked")
    assert server.stop() == 0
    assert "worker did not stop in time" in messages(server)
    assert shut_down(server) == set()


def test_a_lifespan_shutdown_that_does_not_end_is_cut_off_and_the_log_says_so(serve: Servers) -> None:
    server = serve(site("starlette", "1s").replace("workers 2", "workers 1"), SHUTDOWN_HANGS="1")
    wait_until(lambda: started(server), "the worker's word")
    assert server.stop() == 0
    assert "worker did not stop in time" in messages(server)
    assert "worker thread left running, it did not end in time" not in messages(server)
    assert shut_down(server) == set()
