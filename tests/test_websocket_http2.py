"""WebSockets over HTTP/2 (RFC 8441), where Go is told to let them through."""

import ast
import signal
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from support import http2
from support.check import Servers
from support.polling import wait_until
from support.server import Server
from support.websocket import FIN, PING, PONG, Rejected, WebSocketOverHttp2

APPS = {"asgi": "module_asgi conformance_websocket:app", "esgi": "module_esgi conformance_esgi_websocket:app"}


def site(interface: str = "asgi", websocket: str = "") -> str:
    return f"""
        python {{
            {APPS[interface]}
            workers 1
            import worker
            websocket {{
                {websocket}
            }}
        }}
    """


@pytest.fixture(scope="module", params=APPS)
def server(request: pytest.FixtureRequest, serve_shared: Servers) -> Server:
    return serve_shared(site(request.param), tls=True, warm_up="/", GODEBUG="http2xconnect=1")


@pytest.fixture
def connection(server: Server) -> Iterator[http2.Connection]:
    with connect(server) as connection:
        yield connection


def connect(server: Server) -> http2.Connection:
    """A connection over which the server's settings have come."""
    connection = http2.Connection(server)
    connection.read()
    return connection


def notes(server: Server, key: str) -> Any:
    """What the app has noted under a key, as soon as there is something."""
    return wait_until(lambda: server.get(f"/?{key}").json(), f"note of {key}")


def key() -> str:
    return uuid.uuid4().hex


@pytest.mark.parametrize("server", ["asgi"], indirect=True)
def test_scope(connection: http2.Connection) -> None:
    with WebSocketOverHttp2(connection, "/scope", (b"sec-websocket-protocol", b"a, b")) as socket:
        scope = ast.literal_eval(str(socket.message()))
    assert (scope["scheme"], scope["http_version"], scope["subprotocols"]) == ("wss", "2", ["a", "b"])
    assert b":protocol" not in dict(scope["headers"])


def test_the_client_closes(server: Server, connection: http2.Connection) -> None:
    name = key()
    socket = WebSocketOverHttp2(connection, f"/echo?{name}")
    socket.text("hello")
    assert socket.message() == "hello"
    socket.close(4001, "bye")
    assert socket.receive().close == (4001, "")
    socket.gone()
    assert socket.stream.ended
    assert notes(server, name) == [{"type": "websocket.disconnect", "code": 4001, "reason": "bye"}]


def test_the_app_closes(server: Server, connection: http2.Connection) -> None:
    socket = WebSocketOverHttp2(connection, "/close?4000,own")
    assert socket.end() == (4000, "own")
    assert socket.stream.ended
    assert notes(server, "4000,own") == [{"type": "websocket.disconnect", "code": 4000, "reason": "own"}]


def test_the_app_rejects(connection: http2.Connection) -> None:
    with pytest.raises(Rejected) as rejected:
        WebSocketOverHttp2(connection, "/reject")
    assert rejected.value.response.status == 403


def test_a_client_that_goes(server: Server, connection: http2.Connection) -> None:
    name = key()
    with WebSocketOverHttp2(connection, f"/echo?{name}"):
        pass
    assert notes(server, name) == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


def test_a_client_that_takes_nothing_stops_the_app(server: Server, connection: http2.Connection) -> None:
    name, count = key(), 100
    socket = WebSocketOverHttp2(connection, f"/flood?{count},{name}")
    last: list[int] = []

    def still() -> bool:
        [taken] = notes(server, name)
        last[:] = [*last, taken] if last[-1:] == [taken] else [taken]
        return len(last) > 20

    wait_until(still, "the app stops", 30)
    assert last[0] < count // 4
    assert sum(len(socket.message()) for _ in range(count)) == count * (64 << 10)
    assert socket.end() == (1000, "")


def test_a_client_that_talks_and_is_slow_gets_the_last_messages_and_the_close(
    server: Server, connection: http2.Connection
) -> None:
    """It may take longer for them than for an answer to the Close, of which it does not know yet."""
    name = key()
    socket = WebSocketOverHttp2(connection, f"/flood?3,{name}")
    wait_until(lambda: notes(server, name) == [3], "end of the app")
    for _ in range(60):
        socket.text("still here")
        time.sleep(0.1)  # the pace of the client, who gives no credit meanwhile
    assert [socket.message() for _ in range(3)] == [bytes(64 << 10)] * 3
    assert socket.end() == (1000, "")


# What belongs to one server.


@pytest.mark.parametrize("interface", APPS)
def test_an_exit_ends_all_sockets_with_1012(serve: Servers, interface: str) -> None:
    """Those too whose clients leave at the same moment, which is none of the others' business."""
    server = serve(site(interface), tls=True, GODEBUG="http2xconnect=1")
    with connect(server) as connection:
        staying, leaving = ([WebSocketOverHttp2(connection, "/echo") for _ in range(100)] for _ in range(2))
        server.caddy.send_signal(signal.SIGTERM)
        for socket in leaving:
            with socket:
                pass
        assert {socket.end() for socket in staying} == {(1012, "")}
        assert all(socket.stream.ended for socket in staying)
    assert server.wait_exit() == 0


def test_timeouts_of_requests_end_no_idle_socket(serve: Servers) -> None:
    limits = "read_body 200ms\nread_body_idle 200ms\nwrite 200ms\nwrite_idle 200ms"
    options = f"servers {{\ntimeouts {{\n{limits}\n}}\n}}"
    bodies = "request_body {\nmax_size 1\n}"
    server = serve(bodies + site("asgi", "ping_interval 1s"), options, tls=True, GODEBUG="http2xconnect=1")
    with connect(server) as connection, WebSocketOverHttp2(connection, "/echo") as socket:
        assert socket.receive().opcode == PING
        socket.send(FIN | PONG)
        socket.text("still there")
        assert socket.message() == "still there"


def stuck(server: Server, connection: http2.Connection) -> WebSocketOverHttp2:
    """A socket whose client takes nothing, while the app has something to send."""
    name = key()
    socket = WebSocketOverHttp2(connection, f"/flood?100,{name}")
    notes(server, name)
    return socket


@pytest.mark.expect_errors("ClientGone")
def test_a_client_that_takes_nothing_is_given_up(serve: Servers) -> None:
    server = serve(site("asgi", "ping_interval 100ms\nping_timeout 300ms"), tls=True, GODEBUG="http2xconnect=1")
    with connect(server) as connection:
        socket = stuck(server, connection)
        while not socket.over:
            connection.read(credit=False)
        assert not socket.stream.ended


@pytest.mark.expect_errors("ClientGone")
def test_an_exit_does_not_wait_for_a_client_that_takes_nothing(serve: Servers) -> None:
    server = serve(site("asgi", "ping_interval off"), tls=True, GODEBUG="http2xconnect=1")
    with connect(server) as connection:
        stuck(server, connection)
        assert server.stop() == 0
