"""ASGI 3.0 and its HTTP message format 2.5, clause by clause, over real HTTP and on both event loops."""

import ast
import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support import http2, raw
from support.cases import Cases
from support.server import Server

SITE = """
    @uvloop header Loop uvloop
    python @uvloop {
        module_asgi conformance_asgi:app
        runtime uvloop
        lifespan off
        workers 1
        import worker
    }
    python {
        module_asgi conformance_asgi:app
        runtime native
        lifespan on
        workers 1
        import worker
    }
"""

# What test_extensions.py and test_files.py are about.
EXTENSIONS = ["http.response.early_hint", "http.response.pathsend", "http.response.zerocopysend"]

# More than the kernel's buffers hold between the app and a client that does not read, far less than an app can make.
HELD_BACK = 16 << 20


@pytest.fixture(params=["http1", "http1-uvloop", "http2"])
def asgi(request: pytest.FixtureRequest, plain: Server, secure: Server) -> Iterator[Cases]:
    """The cases over HTTP/1.1 and HTTP/2, and on uvloop."""
    http2 = request.param == "http2"
    loop = {"Loop": "uvloop"} if request.param == "http1-uvloop" else {}
    with Cases(secure if http2 else plain, http2=http2, headers=loop) as cases:
        yield cases


@pytest.fixture
def cases(plain: Server) -> Iterator[Cases]:
    """The cases over HTTP/1.1."""
    with Cases(plain) as cases:
        yield cases


def scope(response: httpx.Response | raw.Response) -> dict[str, Any]:
    """The scope that a response shows."""
    body = response.content if isinstance(response, httpx.Response) else response.body
    shown: dict[str, Any] = ast.literal_eval(body.decode())
    return shown


def post(client: raw.Connection, case: str, argument: str, *headers: str) -> None:
    """Send the head of a POST."""
    lines = [f"POST /?{argument} HTTP/1.1", "Host: test", f"Case: {case}", *headers, "", ""]
    client.send("\r\n".join(lines).encode())


# The scope (ASGI HTTP, "HTTP Connection Scope").


def test_scope_has_every_key_with_its_type(plain: Server) -> None:
    port = plain.port.number
    with raw.Connection(plain) as client:
        client_port = client.socket.getsockname()[1]
        client.send(f"GET /a%20b/c?d=%20e&f HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Some-Name: v\r\n\r\n".encode())
        shown = scope(client.response())
    assert shown == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b/c",
        "raw_path": b"/a%20b/c",
        "query_string": b"d=%20e&f",
        "root_path": "",
        "headers": [(b"host", f"127.0.0.1:{port}".encode()), (b"x-some-name", b"v")],
        "client": ("127.0.0.1", client_port),
        "server": ("127.0.0.1", port),
        "extensions": {name: {} for name in EXTENSIONS},
        "state": shown["state"],
    }


def test_scope_over_tls_and_http2(secure: Server) -> None:
    with secure.new_client(http1=False, http2=True) as client:
        shown = scope(client.get("/"))
    assert (shown["http_version"], shown["scheme"]) == ("2", "https")
    assert dict(shown["headers"])[b"host"] == f"127.0.0.1:{secure.port.number}".encode(), ":authority stands as host"
    assert not [name for name, _ in shown["headers"] if name.startswith(b":")]


def test_http_1_0_without_a_host(plain: Server) -> None:
    with raw.Connection(plain) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        shown = scope(client.response())
    assert (shown["http_version"], shown["headers"]) == ("1.0", [])
    assert shown["server"] == ("127.0.0.1", plain.port.number)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_method(plain: Server, method: str) -> None:
    assert scope(plain.request(method, "/"))["method"] == method


def test_header_names_are_lower_case_and_values_of_one_name_in_order(plain: Server) -> None:
    lines = [b"X-A: 1", b"Cookie: b=1", b"x-a: 2, 3", b"Cookie: a=2", b"X-A:", b"X-B: \xc3\xab \xff"]
    with raw.Connection(plain) as client:
        headers = scope(client.get(b"/", *lines))["headers"]
    assert [value for name, value in headers if name == b"x-a"] == [b"1", b"2, 3", b""]
    assert [value for name, value in headers if name == b"cookie"] == [b"b=1", b"a=2"]
    assert [value for name, value in headers if name == b"x-b"] == [b"\xc3\xab \xff"]
    assert all(name == name.lower() for name, _ in headers)


def test_path_is_decoded_and_raw_path_is_what_was_sent(plain: Server) -> None:
    with raw.Connection(plain) as client:
        shown = scope(client.get("/Zo%C3%AB/ë/%2F/%FF?q=%C3%AB&ë".encode()))
    assert shown["path"] == "/Zoë/ë///\N{REPLACEMENT CHARACTER}", "what is no UTF-8 is replaced"
    assert shown["raw_path"] == "/Zo%C3%AB/ë/%2F/%FF".encode()
    assert shown["query_string"] == "q=%C3%AB&ë".encode()


def test_state_is_a_copy_of_the_lifespans(cases: Cases) -> None:
    first, second = (ast.literal_eval(cases.get("state", argument).text) for argument in ("1", "2"))
    assert first["own"] == second["own"] == "from lifespan", "what one request sets, another one does not see"
    assert second["shared"] == [*first["shared"], "1"], "but the objects in it are shared"


def test_there_is_no_state_without_lifespan(plain: Server) -> None:
    assert "state" not in scope(plain.get("/", headers={"Loop": "uvloop"}))


# receive() (ASGI HTTP, "Request" and "Disconnect").


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_the_body_comes_in_messages(asgi: Cases, size: int, chunked: bool) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    content = iter([body[:5], body[5:100_000], body[100_000:]]) if chunked else body
    got = asgi.post("messages", content=content).json()
    assert got["sha256"] == hashlib.sha256(body).hexdigest()
    assert [message[:2] for message in got["messages"]] == [["http.request", ["body", "more_body", "type"]]] * len(
        got["messages"]
    )
    assert sum(message[2] for message in got["messages"]) == size
    assert [message[3] for message in got["messages"]] == [True] * (len(got["messages"]) - 1) + [False]


def test_a_request_without_a_body_is_one_message(asgi: Cases) -> None:
    assert asgi.get("messages").json()["messages"] == [["http.request", ["body", "more_body", "type"], 0, False]]


def test_the_client_is_told_to_go_on_when_the_app_wants_the_body(plain: Server) -> None:
    """RFC 9110, section 10.1.1: Expect."""
    with raw.Connection(plain) as client:
        post(client, "messages", "", "Expect: 100-continue", "Content-Length: 4")
        assert client.head()[0] == 100
        client.send(b"body")
        assert client.response().json()["sha256"] == hashlib.sha256(b"body").hexdigest()


def test_the_client_is_not_told_to_go_on_when_the_app_does_not_want_the_body(plain: Server) -> None:
    with raw.Connection(plain) as client:
        post(client, "ignore", "", "Expect: 100-continue", "Content-Length: 4000000")
        assert client.head()[0] == 200


@pytest.mark.parametrize("body", ["", "Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_disconnect_is_received_as_soon_as_the_client_goes(plain: Server, cases: Cases, body: str) -> None:
    key = cases.key()
    with raw.Connection(plain) as client:
        post(client, "listen", key, *[body] * bool(body))
        if body.endswith("chunked"):
            client.send(b"5\r\nbegun\r\n0\r\n\r\n")
        elif body:
            client.send(b"." * 100_000)
        cases.wait_noted(key, "listening")
    cases.wait_noted(key, "http.disconnect")
    notes = cases.wait_still(key)
    assert notes == ["listening", "http.disconnect", "OSError", "http.disconnect"], (
        "send() fails, receive() says so again"
    )


def test_disconnect_is_received_when_the_client_gives_up_an_http2_stream(secure: Server) -> None:
    key = Cases.key()
    with http2.Connection(secure) as client, Cases(secure) as cases:
        number = client.request(f"/?{key}", [(b"case", b"listen")])
        cases.wait_noted(key, "listening")
        client.reset(number)
        cases.wait_noted(key, "http.disconnect")


def test_disconnect_is_received_within_a_response(plain: Server, cases: Cases) -> None:
    key = cases.key()
    with raw.Connection(plain) as client:
        client.send(f"GET /?{key} HTTP/1.1\r\nHost: test\r\nCase: listen_while_streaming\r\n\r\n".encode())
        client.head()
        assert next(client.chunks()) == b"first"
        assert cases.notes(key) == []
    cases.wait_noted(key, "http.disconnect")


@pytest.mark.parametrize("coding", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_disconnect_is_received_when_the_body_breaks_off(plain: Server, cases: Cases, coding: str) -> None:
    key = cases.key()
    with raw.Connection(plain) as client:
        post(client, "upload_broken", key, coding)
        client.send(b"20000\r\n" if coding.endswith("chunked") else b"", b"." * 100_000)
        cases.wait_noted(key, "http.request True")
    cases.wait_noted(key, "http.disconnect")
    assert "http.request False" not in cases.notes(key), "half a body never looks like a whole one"


def test_disconnect_is_received_after_the_response(asgi: Cases) -> None:
    key = asgi.key()
    assert asgi.get("disconnect_after_response", key).text == "answered"
    asgi.wait_noted(key, "http.disconnect")


# send() (ASGI HTTP, "Response Start" and "Response Body").


def test_status_and_headers_go_out_as_they_are(asgi: Cases) -> None:
    response = asgi.get("headers")
    assert response.text == "body"
    assert response.headers.get_list("set-cookie") == ["b=1", "a=2"], "one name's values keep their order"
    assert dict(response.headers.raw)[b"x-name" if asgi.http2 else b"X-Name"] == "Zoë".encode()
    assert not {"connection", "keep-alive", "transfer-encoding"} & response.headers.keys(), "these are Caddy's"


@pytest.mark.parametrize("code", [200, 201, 299, 404, 418, 500, 599])
def test_any_status(asgi: Cases, code: int) -> None:
    response = asgi.get("status", str(code))
    assert (response.status_code, response.text) == (code, "a body")


def test_no_byte_follows_the_head_of_a_response_without_a_body(plain: Server) -> None:
    with raw.Connection(plain) as client:
        for method, code in (("HEAD", 200), ("GET", 204), ("GET", 304)):
            client.send(f"{method} /?{code} HTTP/1.1\r\nHost: test\r\nCase: status\r\n\r\n".encode())
            response = client.response(method)
            assert response.status == code
            assert response.values(b"transfer-encoding") == []
        client.end()
        assert list(client.responses()) == []


def test_the_apps_content_length_is_kept(asgi: Cases) -> None:
    response = asgi.get("length", "10")
    assert (response.headers["content-length"], response.text) == ("10", "1234567890")
    response = asgi.request("HEAD", "length", "10")
    assert (response.headers["content-length"], response.content) == ("10", b"")


def test_the_head_goes_out_before_the_body_is_there(asgi: Cases) -> None:
    key = asgi.key()
    with asgi.stream("GET", "start_alone", key) as response:
        assert response.status_code == 202
        asgi.open(key)
        assert response.read() == b"body"


def test_each_part_is_on_the_wire_before_the_next_is_made(asgi: Cases) -> None:
    key = asgi.key()
    with asgi.stream("GET", "blocks", key) as response:
        parts = response.iter_raw()
        made = []
        for part in ("first", "second", "third"):
            assert next(parts) == part.encode()
            made.append(f"made {part}")
            assert asgi.notes(key) == made
            if part != "third":
                asgi.open(key)
        assert list(parts) == []


def test_a_response_may_begin_before_the_body_has_come(plain: Server) -> None:
    """Both at once: each part of the body is given back before the next is sent."""
    with raw.Connection(plain) as client:
        post(client, "echo", "", "Transfer-Encoding: chunked")
        assert client.head()[0] == 200
        echoed = client.chunks()
        assert next(echoed) == b"begun"
        for part in (b"one", b"two", b"." * 10_000, b"three"):
            client.send(b"%x\r\n" % len(part), part, b"\r\n")
            got = b""
            while len(got) < len(part):
                got += next(echoed)
            assert got == part
        client.send(b"0\r\n\r\n")
        assert list(echoed) == [], "the response is complete"


def test_a_response_may_begin_before_the_body_has_come_over_http2(secure: Server) -> None:
    with http2.Connection(secure) as client:
        number = client.request("/", [(b"case", b"echo")], method="POST", end=False)
        got = client.streams[number]
        sent = b"begun"
        for part in (b"one", b"two", b"three"):
            while got.body != sent:
                client.read()
            client.send(number, part, end=part == b"three")
            sent += part
        assert client.response(number).body == sent
        assert got.reset is None


def test_a_response_does_not_wait_for_a_body_that_nobody_reads(plain: Server) -> None:
    with raw.Connection(plain) as client:
        post(client, "ignore", "", "Content-Length: 100000000")
        client.send(b"." * 1_000)
        response = client.response()
        assert (response.body, response.complete) == (b"ignored", True)


def test_send_waits_while_the_client_does_not_read(plain: Server, cases: Cases) -> None:
    key, blocks = cases.key(), 1600
    with raw.Connection(plain, receive_buffer=8192) as client:
        client.send(f"GET /?{key},{blocks} HTTP/1.1\r\nHost: test\r\nCase: download\r\n\r\n".encode())
        client.head()
        [taken] = cases.wait_still(key)
        assert int(taken) * 65536 < HELD_BACK, "of 100 MiB"
        assert sum(map(len, client.chunks())) == blocks * 65536


def test_send_raises_oserror_when_the_client_has_gone(plain: Server, cases: Cases) -> None:
    key = cases.key()
    with raw.Connection(plain, receive_buffer=8192) as client:
        client.send(f"GET /?{key} HTTP/1.1\r\nHost: test\r\nCase: endless\r\n\r\n".encode())
        client.head()
        cases.wait_still(key)
    cases.wait_noted(key, "OSError")


# Many requests on one worker.


def test_3000_requests_are_in_flight_on_one_worker(secure: Server) -> None:
    key, connections, streams = Cases.key(), 15, 200
    clients = [http2.Connection(secure) for _ in range(connections)]
    with Cases(secure) as cases:
        numbers = [[client.request(f"/?{key}", [(b"case", b"crowd")]) for _ in range(streams)] for client in clients]
        cases.wait_noted(key, str(connections * streams))
        cases.open(key)
    for client, own in zip(clients, numbers, strict=True):
        with client:
            assert {bytes(client.response(number).body) for number in own} == {b"through"}


def test_each_request_has_a_context_of_its_own(secure: Server) -> None:
    key = Cases.key()
    with http2.Connection(secure) as client, Cases(secure) as cases:
        numbers = {value: client.request(f"/?{key},{value}", [(b"case", b"context")]) for value in map(str, range(50))}
        cases.wait_still(key)
        assert len(cases.notes(key)) == 50
        cases.open(key)
        for value, number in numbers.items():
            assert client.response(number).body == f"unset {value} {value}".encode()
