"""Threat 5: a header of the app's splits the response, or kills the worker.

What an app returns is checked in Python (python/caddysnake/headers.py) and again in Go (response.go).
"""

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from support.check import Servers
from support.raw import Connection, Response
from support.server import Server

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")  # RFC 9110, 5.6.2
CONTROLS = frozenset([*range(32), 127])

# What splits a response where it is not refused.
SPLITS = [
    "v\r\nX-Injected: yes",
    "v\nX-Injected: yes",
    "v\rX-Injected: yes",
    "v\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected",
    "v\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected",
    "v\r\n folded",
    "v\r\n\tfolded",
    "\r\nX-Injected: yes",
    "v\0\r\nX-Injected: yes",
]


@pytest.fixture(scope="module", params=["wsgi", "asgi", "esgi"])
def interface(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def server(serve_shared: Servers, interface: str) -> Iterator[Server]:
    yield serve_shared(
        f"python {{\nmodule_{interface} threat_app:{interface}\nworkers 1\nimport worker\n}}", warm_up="/"
    )
    serve_shared.close()


@pytest.fixture
def client(server: Server) -> Iterator[Connection]:
    """One connection for all requests of a test: what a split response left would be read as the next one."""
    pids = server.worker_pids()
    with Connection(server) as client:
        yield client
    assert server.worker_pids() == pids


def respond(client: Connection, part: str, data: bytes, path: str = "/respond") -> Response:
    """Have the app put `data` into one part of its response; whatever it is, the answer is one proper response."""
    response = client.get(f"{path}?{part}={quote(data)}".encode())
    assert response.status >= 200
    assert response.complete
    names = {name for name, _ in response.headers}
    assert b"x-injected" not in names
    tried = {b"x-name"} if part == "value" else {data.lower()} if part == "name" else set()
    if response.status == 200:
        assert response.body == b"body"
        assert names - tried - {b"x-name"} <= {b"content-length", b"content-type", b"date", b"server"}
    return response


@pytest.mark.expect_errors("/respond")
def test_threat_5_every_byte_in_a_header_name(client: Connection) -> None:
    for byte in range(256):
        name = b"X" + bytes([byte]) + b"Y"
        response = respond(client, "name", name)
        assert response.status == (200 if byte in TOKEN else 500), name
        if response.status == 200:
            assert response.values(name.lower()) == [b"value"]


@pytest.mark.expect_errors("/respond")
def test_threat_5_every_byte_in_a_header_value(client: Connection) -> None:
    for byte in range(256):
        value = b"a" + bytes([byte]) + b"b"
        response = respond(client, "value", value)
        assert response.status == (500 if byte in CONTROLS - {9} else 200), value
        if response.status == 200:
            assert response.values(b"x-name") == [value]


@pytest.mark.expect_errors("/respond")
def test_threat_5_every_byte_in_a_status(client: Connection, interface: str) -> None:
    for byte in range(256):
        response = respond(client, "status", bytes([byte]))
        if interface != "wsgi":  # a number
            assert response.status == (byte if byte >= 200 else 500), byte
        elif byte in CONTROLS:
            assert response.status == 500, byte
        elif byte < 128:
            assert response.status == 200, byte


@pytest.mark.expect_errors("/respond")
@pytest.mark.parametrize("part", ["name", "value", "status"])
def test_threat_5_nothing_splits_a_response(client: Connection, interface: str, part: str) -> None:
    for split in SPLITS:
        if part == "status" and interface != "wsgi":
            split = split[-1]
        assert respond(client, part, split.encode()).status == 500, split


@pytest.mark.expect_errors("/respond")
@pytest.mark.parametrize("interface", ["wsgi", "esgi"], indirect=True)
def test_threat_5_characters_whose_low_byte_is_a_line_end(client: Connection, interface: str) -> None:
    """A str is no bytes: a server that kept the low byte of each character would make line ends of these."""
    for split in ("včĊX-Injected: yes", "v\u560d\u560aX-Injected: yes", "v\U0001f60d\U0001f60a"):
        for part in ("name", "value", "status") if interface == "wsgi" else ("name", "value"):
            response = respond(client, part, split.encode(), "/respond/utf-8")
            assert response.status == (200 if part == "status" else 500), split


@pytest.mark.expect_errors("/respond")
def test_threat_5_headers_that_are_too_large_fail_one_request_alone(server: Server, client: Connection) -> None:
    """More than a frame can hold, and more than its length can say."""
    with Connection(server) as other:
        other.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nbegun, ")
        for size in (2 << 20, 5 << 20, 17 << 20):
            assert client.get(f"/respond?times={size}&value=a".encode()).status == 500
        assert len(client.get(b"/respond?times=200000&value=a").values(b"x-name")[0]) == 200_000
        other.send(b"end")
        assert other.response().body == b"begun, end"
