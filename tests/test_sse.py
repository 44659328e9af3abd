"""Server-sent events leave at once, also behind Caddy's `encode gzip`, over HTTP/1.1 and HTTP/2."""

import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from support import raw
from support.check import Servers
from support.polling import wait_until
from support.server import Server

pytestmark = pytest.mark.alone

APPS = {
    "wsgi": "module_wsgi sse_app:wsgi",
    "gevent": "module_wsgi sse_app:wsgi\nruntime gevent",
    "asgi": "module_asgi sse_app:asgi",
    "esgi": "module_esgi sse_app:esgi",
}
# Under gevent and ESGI there is another sender in the worker, and nothing else in Caddy.
SERVERS = [
    *(f"{app}-plain" for app in APPS),
    *(f"{app}-{way}" for app in ("wsgi", "asgi") for way in ("gzip", "http2-gzip")),
]
GATES = 8  # in the app
FLOOD = 2000
SOON = 0.050  # seconds from an event's making to its arrival; half of what lies between two events


def site(interface: str, encode: bool = False) -> str:
    return f"{'encode gzip' if encode else ''}\npython {{\n{APPS[interface]}\nworkers 1\nimport worker\n}}"


@pytest.fixture(scope="module", params=SERVERS)
def server(serve_shared: Servers, request: pytest.FixtureRequest) -> Iterator[Server]:
    interface, _, way = request.param.partition("-")
    yield serve_shared(site(interface, "gzip" in way), tls="http2" in way, warm_up="/open?warm-up")
    serve_shared.close()


@contextmanager
def events(server: Server, target: str) -> Iterator[tuple[httpx.Response, Iterator[str]]]:
    """A response of server-sent events, and what each one says."""
    with server.new_client(http2=server.tls) as client, client.stream("GET", target) as response:
        assert response.http_version == ("HTTP/2" if server.tls else "HTTP/1.1")
        lines = response.iter_lines()
        yield response, (line.removeprefix("data: ") for line in lines if line)


def open_gate(server: Server, gate: str) -> None:
    assert server.get(f"/open?{gate}").status_code == 204


def test_each_event_arrives_before_the_next_is_made(server: Server) -> None:
    key = uuid.uuid4().hex
    open_gate(server, f"{key}0")
    with events(server, f"/gated?{key}") as (response, said):
        for number in range(GATES):
            assert next(said) == str(number)
            open_gate(server, f"{key}{number + 1}")
        assert list(said) == []
        assert response.headers.get("content-encoding") == (
            "gzip" if "encode" in server.caddyfile.read_text() else None
        )


def test_an_event_arrives_within_50_milliseconds(server: Server) -> None:
    """In the median: one that waited for the next, or for a timer, would make all of them late."""
    with events(server, "/paced") as (_, said):
        delays = [time.monotonic() - float(event) for event in said]
    assert len(delays) == 9
    assert statistics.median(delays) < SOON, delays


def test_the_headers_arrive_before_the_first_event(serve: Servers) -> None:
    server = serve(site("asgi"))
    key = uuid.uuid4().hex
    with events(server, f"/gated?{key}") as (response, said):
        assert response.headers["content-type"] == "text/event-stream"
        for number in range(GATES):
            open_gate(server, f"{key}{number}")
            assert next(said) == str(number)


def wait_until_stopped(progress: Callable[[], int]) -> None:
    """Wait until this figure has grown from 0 and no longer grows, half a second after another look at it."""
    seen = [(time.monotonic(), 0)]

    def stopped() -> bool:
        now, figure = time.monotonic(), progress()
        if figure != seen[-1][1]:
            seen.append((now, figure))
        return figure > 0 and now - seen[-1][0] > 0.5

    wait_until(stopped, "end of the progress")


@pytest.mark.parametrize("server", ["wsgi-plain", "asgi-plain"], indirect=True)
def test_a_client_that_takes_nothing_holds_nobody_up(server: Server) -> None:
    """It gets all events in the end, each once and in order."""
    with raw.Connection(server, receive_buffer=4096) as slow:
        slow.send(b"GET /flood HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        wait_until_stopped(lambda: int(server.get("/progress").text))
        with events(server, "/paced") as (_, said):
            delays = [time.monotonic() - float(event) for event in said]
        assert statistics.median(delays) < SOON, delays
        response = slow.response()
    assert response.complete
    assert [int(event.removeprefix(b"data: ")) for event in response.body.split(b"\n\n")[:-1]] == list(range(FLOOD))


@pytest.mark.expect_errors("after eight events")
def test_an_error_after_many_events_cuts_the_connection(server: Server) -> None:
    with events(server, "/broken") as (_, said):
        for number in range(GATES):
            assert next(said) == str(number)
        with pytest.raises(httpx.RemoteProtocolError):
            next(said)


def test_the_app_learns_that_a_client_has_gone(server: Server) -> None:
    key = uuid.uuid4().hex
    with events(server, f"/endless?{key}") as (_, said):
        for _ in range(GATES):
            assert next(said) == "again"
    assert server.get(f"/wait?{key}").status_code == 204
