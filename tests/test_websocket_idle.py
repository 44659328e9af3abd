"""Idle WebSockets are cheap, are looked after, and end with their workers."""

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support.check import Servers
from support.polling import wait_until
from support.server import Server
from support.siege import share
from support.websocket import BINARY, FIN, PING, PONG, Ended, WebSocket

ALLOWED = 40_000  # bytes for each, in Caddy and Python together


def site(websocket: str = "", name: str = "one", drain_timeout: str = "60s") -> str:
    """A site whose workers a change of `name` replaces."""
    return f"""
        python {{
            module_asgi conformance_websocket:app
            workers 1
            import worker
            env_var NAME {name}
            drain_timeout {drain_timeout}
            websocket {{
                {websocket}
            }}
        }}
    """


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    """Closes the WebSockets of a test. They are many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        yield stack
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(server: Server) -> int:
    """The memory of Caddy and its worker in bytes."""
    return sum(process.memory_info().rss for process in server.caddy_and_workers())


@pytest.mark.memory
def test_ten_thousand_idle_sockets(serve: Servers, sockets: ExitStack) -> None:
    server = serve(site())
    with WebSocket(server, "/echo") as warm:
        warm.text("warm")
        assert warm.message() == "warm"
    before, count = resident(server), share(10_000)
    open_ones = [sockets.enter_context(WebSocket(server, "/echo", source=f"127.0.0.{2 + n % 9}")) for n in range(count)]
    assert (resident(server) - before) / count < ALLOWED
    for socket in open_ones[:: count // 100]:
        socket.text("still there")
        assert socket.message() == "still there"


def test_a_client_that_answers_no_ping_is_given_up(serve: Servers) -> None:
    server = serve(site("ping_interval 100ms\nping_timeout 300ms"))
    with WebSocket(server, "/echo?silent") as silent, WebSocket(server, "/echo") as alive:
        for _ in range(6):
            assert alive.receive().opcode == PING
            alive.send(FIN | PONG)
        assert silent.receive().opcode == PING
        with pytest.raises((Ended, ConnectionError)):
            silent.receive()
        alive.text("still there")
        while (got := alive.receive()).opcode == PING:
            alive.send(FIN | PONG)
        assert got.payload == b"still there"
    assert server.get("/?silent").json() == [{"type": "websocket.disconnect", "code": 1006, "reason": "ping timeout"}]


def test_a_reload_that_leaves_the_app_alone_keeps_its_sockets(serve: Servers) -> None:
    server = serve(site())
    with WebSocket(server, "/echo") as socket:
        assert server.reload(site("max_size 1MiB")).returncode == 0
        socket.text("still there")
        assert socket.message() == "still there"


def test_a_reload_of_the_app_ends_its_sockets_with_the_drain_timeout(serve: Servers, sockets: ExitStack) -> None:
    server = serve(site(drain_timeout="2s"))
    old = server.worker_pids() - {server.caddy.pid}  # a thread ends in Caddy's process
    open_ones = [sockets.enter_context(WebSocket(server, path)) for path in ["/echo"] * 99 + ["/tell"]]
    assert server.reload(site(name="two")).returncode == 0
    open_ones[0].text("still there")
    assert open_ones[0].message() == "still there"
    assert {socket.end() for socket in open_ones} == {(1012, "")}
    last = {"type": "websocket.disconnect", "code": 1012, "reason": ""}
    wait_until(lambda: [json.loads(line) for line in server.log.output("stdout")] == [last], "what the app was told")
    with WebSocket(server, "/echo") as socket:
        socket.text("anew")
        assert socket.message() == "anew"
    wait_until(lambda: not server.worker_pids() & old, "end of the old worker")


def test_an_exit_ends_all_sockets_with_1012(serve: Servers, sockets: ExitStack) -> None:
    server = serve(site())
    open_ones = [sockets.enter_context(WebSocket(server, "/echo")) for _ in range(100)]
    assert server.reload(site(name="two")).returncode == 0  # what drains for a minute has no part in that
    server.caddy.send_signal(signal.SIGTERM)
    assert {socket.end() for socket in open_ones} == {(1012, "")}
    assert server.wait_exit() == 0


def test_a_client_that_does_not_answer_the_close_is_counted_as_what_it_is(serve: Servers) -> None:
    server = serve(site(drain_timeout="1s"))
    with WebSocket(server, "/echo"):
        server.caddy.send_signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    [entry] = [entry for entry in server.log.entries() if entry["msg"].startswith("requests cut off")]
    assert (entry["level"], entry["requests"], entry["websockets"]) == ("info", 0, 1)


@pytest.mark.parametrize("who", ["app", "exit"])
def test_a_client_that_has_sent_more_than_the_app_takes_gets_its_close(
    serve: Servers, sockets: ExitStack, who: str
) -> None:
    server = serve(site())
    path = {"app": "/doze", "exit": "/doze?4"}[who]  # who exits is not to be overtaken by the app
    open_ones = [sockets.enter_context(WebSocket(server, path)) for _ in range(50)]
    for socket in open_ones:
        socket.send(FIN | BINARY, bytes(1 << 20))
    if who == "app":
        assert {socket.end() for socket in open_ones} == {(4000, "")}
    else:
        server.caddy.send_signal(signal.SIGTERM)
        assert {socket.end() for socket in open_ones} == {(1012, "")}
        assert server.wait_exit() == 0


@pytest.mark.expect_errors("worker exited")
def test_a_worker_that_dies_ends_its_sockets_with_1011(serve: Servers) -> None:
    server = serve(site())
    with WebSocket(server, "/echo") as socket:
        for process in server.workers():
            process.kill()
        assert socket.end() == (1011, "")
