"""PEP 3333, clause by clause, over real HTTP. Every app here is also run inside wsgiref.validate."""

import hashlib
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from support import http2
from support.cases import Cases
from support.log import Entry
from support.raw import Connection, Response
from support.server import Server

SITE = """
    @bare header Bare *
    python @bare {{
        module_wsgi conformance_wsgi:app
        workers 1
        runtime {runtime}
        import worker
    }}
    python {{
        module_wsgi conformance_wsgi:validated
        workers 1
        runtime {runtime}
        import worker
    }}
"""

BODY = random.Random(1).randbytes(300_000) + b"\n" * 5 + b"x" * 70_000 + b"\nlast line without an end"


@pytest.fixture(scope="module", params=["sync", "gevent"])
def site(request: pytest.FixtureRequest) -> str:
    return SITE.format(runtime=request.param)


@pytest.fixture(params=["http1", "http1-bare", "http2"])
def wsgi(request: pytest.FixtureRequest, plain: Server, secure: Server) -> Iterator[Cases]:
    """The cases over HTTP/1.1 and HTTP/2, and without wsgiref.validate, which hides that a result is a list."""
    http2 = request.param == "http2"
    bare = {"Bare": "1"} if request.param == "http1-bare" else {}
    with Cases(secure if http2 else plain, http2=http2, headers=bare) as cases:
        yield cases


@pytest.fixture
def bare(plain: Server) -> Iterator[Cases]:
    """The cases without wsgiref.validate."""
    with Cases(plain, headers={"Bare": "1"}) as cases:
        yield cases


def environ(response: httpx.Response | Response) -> dict[str, Any]:
    """The values of the environ that a response shows."""
    return {key: value for key, (_, value) in response.json().items()}


# The environ (PEP 3333, "environ Variables").


def test_environ_has_every_key_with_its_type(plain: Server) -> None:
    port = plain.port.number
    with Connection(plain) as client:
        client_port = client.socket.getsockname()[1]
        client.send(f"GET /a%20b/c?d=%20e&f HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Some-Name: v\r\n\r\n".encode())
        shown = client.response().json()
    assert shown == {
        "REQUEST_METHOD": ["str", "GET"],
        "SCRIPT_NAME": ["str", ""],
        "PATH_INFO": ["str", "/a b/c"],
        "QUERY_STRING": ["str", "d=%20e&f"],
        "REQUEST_URI": ["str", "/a%20b/c?d=%20e&f"],
        "SERVER_NAME": ["str", "127.0.0.1"],
        "SERVER_PORT": ["str", str(port)],
        "SERVER_PROTOCOL": ["str", "HTTP/1.1"],
        "SERVER_SOFTWARE": ["str", "Caddy"],
        "REMOTE_ADDR": ["str", "127.0.0.1"],
        "REMOTE_PORT": ["str", str(client_port)],
        "HTTP_HOST": ["str", f"127.0.0.1:{port}"],
        "HTTP_X_SOME_NAME": ["str", "v"],
        "wsgi.version": ["tuple", [1, 0]],
        "wsgi.url_scheme": ["str", "http"],
        "wsgi.input": ["InputWrapper", None],
        "wsgi.errors": ["ErrorWrapper", None],
        "wsgi.multithread": ["bool", True],
        "wsgi.multiprocess": ["bool", False],
        "wsgi.run_once": ["bool", False],
        "wsgi.input_terminated": ["bool", True],
        "wsgi.file_wrapper": ["type", None],
    }


def test_environ_over_tls_and_http2(secure: Server) -> None:
    with secure.new_client(http1=False, http2=True) as client:
        shown = environ(client.get("/"))
    assert shown["HTTPS"] == "on"
    assert shown["wsgi.url_scheme"] == "https"
    assert shown["SERVER_PROTOCOL"] == "HTTP/2.0"
    assert shown["HTTP_HOST"] == f"127.0.0.1:{secure.port.number}"


@pytest.mark.parametrize(
    ("host", "name", "port"),
    [
        (b"shop.example", "shop.example", "80"),
        (b"shop.example:8080", "shop.example", "8080"),
        (b"[::1]:81", "::1", "81"),
    ],
)
def test_server_name_and_port_are_those_of_the_host(plain: Server, host: bytes, name: str, port: str) -> None:
    with Connection(plain) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: ", host, b"\r\n\r\n")
        shown = environ(client.response())
    assert (shown["SERVER_NAME"], shown["SERVER_PORT"], shown["HTTP_HOST"]) == (name, port, host.decode())


def test_http_1_0_without_a_host(plain: Server) -> None:
    with Connection(plain) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        shown = environ(client.response())
    assert shown["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert "HTTP_HOST" not in shown
    assert (shown["SERVER_NAME"], shown["SERVER_PORT"]) == ("127.0.0.1", str(plain.port.number)), "must never be empty"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_request_method(plain: Server, method: str) -> None:
    assert environ(plain.request(method, "/"))["REQUEST_METHOD"] == method


def test_content_type_and_length_are_there_when_they_were_sent(plain: Server) -> None:
    shown = environ(plain.post("/", content=b"12345", headers={"Content-Type": "text/csv; header=present"}))
    assert (shown["CONTENT_TYPE"], shown["CONTENT_LENGTH"]) == ("text/csv; header=present", "5")
    shown = environ(plain.post("/", content=b""))
    assert shown["CONTENT_LENGTH"] == "0"
    assert "CONTENT_TYPE" not in shown
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & shown.keys()


def test_content_length_is_absent_when_the_body_is_chunked(plain: Server) -> None:
    shown = environ(plain.post("/", content=iter([b"12345"])))
    assert not {"CONTENT_LENGTH", "CONTENT_TYPE"} & shown.keys()
    assert shown["wsgi.input_terminated"] is True


def test_a_repeated_header_is_one_value(plain: Server) -> None:
    with Connection(plain) as client:
        response = client.get(b"/", b"X-A: 1", b"Cookie: a=1", b"X-A: 2, 3", b"Cookie: b=2")
    shown = environ(response)
    assert shown["HTTP_X_A"] in ("1,2, 3", "1, 2, 3")
    assert shown["HTTP_COOKIE"] == "a=1; b=2"


def test_strings_are_the_raw_bytes_as_latin_1(plain: Server) -> None:
    """PEP 3333, "Unicode Issues": each byte above 127 is one character."""
    with Connection(plain) as client:
        response = client.get("/Zo%C3%AB/%FF/ë?q=ë&%C3%AB".encode(), "X-Name: Zoë".encode(), b"X-Byte: \xff")
    shown = environ(response)
    utf8 = "ë".encode().decode("latin-1")
    assert shown["PATH_INFO"] == f"/Zo{utf8}/\xff/{utf8}"
    assert shown["QUERY_STRING"] == f"q={utf8}&%C3%AB"
    assert shown["REQUEST_URI"] == f"/Zo%C3%AB/%FF/{utf8}?q={utf8}&%C3%AB"
    assert shown["HTTP_X_NAME"] == f"Zo{utf8}"
    assert shown["HTTP_X_BYTE"] == "\xff"


def is_line(line: str, entry: Entry) -> bool:
    """Whether the entry is this line of a worker's output."""
    return entry.get("line") == line


def test_wsgi_errors_ends_in_the_log(wsgi: Cases) -> None:
    key = wsgi.key()
    wsgi.get("errors", key)
    for line in (f"{key} from write", f"{key} from writelines"):
        entry = wsgi.server.log.wait_for(partial(is_line, line))
        assert (entry["stream"], entry["worker"]) == ("stderr", 1)


# The input (PEP 3333, "Input and Error Streams").

READERS = {
    "read": ["7", "1000", "65536", "1000000", "1", "100000"],
    "read_negative": [],
    "readline": [],
    "readline_sized": ["5", "70001", "100"],
    "readlines": [],
    "readlines_hint": ["1000"],
    "iterate": [],
}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("how", READERS)
def test_the_body_is_read_in_any_way(wsgi: Cases, how: str, chunked: bool) -> None:
    query = "&".join([f"how={how}", *(f"size={size}" for size in READERS[how])])
    for body in (b"", b"short\nbody", BODY):
        content = iter([body[:1], body[1:200_001], body[200_001:]]) if chunked else body
        got = wsgi.post("read", query, content=content).json()
        assert (got["size"], got["sha256"], got["after"]) == (len(body), hashlib.sha256(body).hexdigest(), 0)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_read_without_a_size_reads_to_the_end(bare: Cases, chunked: bool) -> None:
    got = bare.post("read", "how=read_all", content=iter([BODY]) if chunked else BODY).json()
    assert got["sha256"] == hashlib.sha256(BODY).hexdigest()


@pytest.mark.parametrize("how", ["iterate", "readline", "readlines"])
def test_lines_keep_their_ends(wsgi: Cases, how: str) -> None:
    lines = ["one\n", "\n", "two\r\n", "x" * 200_000 + "\n", "last"]
    assert wsgi.post("read_lines", how, content="".join(lines)).json() == lines


def test_the_input_streams(plain: Server) -> None:
    """A line is given back before the next one is sent."""
    with Connection(plain) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: test\r\nCase: echo\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"11170\r\n", b"x" * 70_000, b"\r\n")
        client.send(b"1\r\n\n\r\n")
        client.head()
        echoed = client.chunks()
        got = b""
        while len(got) < 70_001:
            got += next(echoed)
        for line in (b"second\n", b"third\n"):
            client.send(b"%x\r\n" % len(line), line, b"\r\n")
            assert next(echoed) == line
        client.send(b"0\r\n\r\n")
        assert list(echoed) == []


def test_unread_input_does_no_harm(wsgi: Cases) -> None:
    for _ in range(3):
        assert wsgi.post("one_block", content=BODY).text == "a single block"


# start_response, write and the result (PEP 3333, "Specification Details").


def test_status_and_headers_go_out_as_they_are(wsgi: Cases) -> None:
    response = wsgi.get("headers")
    assert response.status_code == 200
    assert response.headers.get_list("set-cookie") == ["b=1", "a=2"], "one name's values keep their order"
    assert dict(response.headers.raw)[b"x-name" if wsgi.http2 else b"X-Name"] == b"Zo\xeb"


@pytest.mark.expect_errors("hop-by-hop")
def test_headers_about_the_connection_are_caddys(bare: Cases) -> None:
    response = bare.get("connection_headers")
    assert response.text == "body"
    assert not {"connection", "keep-alive", "transfer-encoding"} & response.headers.keys()


def test_one_block_gets_a_content_length(bare: Cases) -> None:
    response = bare.get("one_block")
    assert (response.headers["content-length"], response.text) == ("14", "a single block")


def test_the_apps_content_length_is_kept(wsgi: Cases) -> None:
    response = wsgi.get("length", "10")
    assert (response.headers["content-length"], response.text) == ("10", "1234567890")


def test_no_more_is_sent_than_the_content_length(wsgi: Cases) -> None:
    response = wsgi.get("length", "7")
    assert (response.headers["content-length"], response.text) == ("7", "1234567")


@pytest.mark.expect_errors("declared Content-Length: 11 and gave 10 bytes")
def test_less_than_the_content_length_is_a_truncated_response(wsgi: Cases) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        wsgi.get("length", "11")


def test_the_answer_to_head_has_no_body(wsgi: Cases) -> None:
    response = wsgi.request("HEAD", "length", "10")
    assert (response.status_code, response.headers["content-length"], response.content) == (200, "10", b"")
    assert wsgi.request("HEAD", "one_block").content == b""
    assert wsgi.get("one_block").text == "a single block", "the connection is in order"


def test_no_byte_follows_the_head_of_a_response_without_a_body(plain: Server) -> None:
    with Connection(plain) as client:
        for method, code in (("HEAD", 200), ("GET", 204), ("GET", 304)):
            client.send(f"{method} /?{code} HTTP/1.1\r\nHost: test\r\nCase: status\r\nBare: 1\r\n\r\n".encode())
            response = client.response(method)
            assert response.status == code
            assert response.values(b"transfer-encoding") == []
            assert response.values(b"content-length") == ([b"6"] if code == 200 else [])
        client.end()
        assert list(client.responses()) == []


@pytest.mark.parametrize("code", [200, 201, 299, 404, 418, 500, 599])
def test_any_status(wsgi: Cases, code: int) -> None:
    response = wsgi.get("status", str(code))
    assert (response.status_code, response.text) == (code, "a body")


def test_start_response_may_be_called_for_the_first_block(wsgi: Cases) -> None:
    response = wsgi.get("late_start")
    assert (response.status_code, response.text) == (202, "late")


def test_exc_info_replaces_a_response_that_has_not_begun(wsgi: Cases) -> None:
    response = wsgi.get("replaced")
    assert (response.status_code, response.text) == (503, "replaced")
    assert "x-first" not in response.headers
    assert response.headers["x-second"] == "2"


@pytest.mark.expect_errors("ValueError: after it began")
def test_exc_info_raises_once_the_response_has_begun(wsgi: Cases) -> None:
    key = wsgi.key()
    with pytest.raises(httpx.RemoteProtocolError):
        wsgi.get("not_replaced", key)
    assert wsgi.notes(key) == ["the same"]


@pytest.mark.expect_errors("start_response() was called a second time")
def test_start_response_twice_without_exc_info_is_an_error(bare: Cases) -> None:
    assert bare.get("twice").status_code == 500


@pytest.mark.expect_errors("before it called start_response()")
def test_a_body_without_start_response_is_an_error(bare: Cases) -> None:
    assert bare.get("no_response").status_code == 500


def test_write_sends_before_it_returns(wsgi: Cases) -> None:
    key = wsgi.key()
    with wsgi.stream("GET", "write", key) as response:
        blocks = response.iter_raw()
        assert next(blocks) == b"written, "
        wsgi.open(key)
        assert b"".join(blocks) == b"written too, returned"


def test_file_wrapper_sends_the_file_and_closes_it(wsgi: Cases) -> None:
    key = wsgi.key()
    assert wsgi.get("file", key).content == b"0123456789" * 12_345
    wsgi.wait_noted(key, "closed")


def test_each_block_is_on_the_wire_before_the_next_is_asked_for(wsgi: Cases) -> None:
    key = wsgi.key()
    with wsgi.stream("GET", "blocks", key) as response:
        blocks = response.iter_raw()
        made = []
        for block in ("first", "second", "third"):
            assert next(blocks) == block.encode()
            made.append(f"made {block}")
            if block != "third":
                assert wsgi.notes(key) == made, "the next block waits at its gate"
                wsgi.open(key)
        assert list(blocks) == []


# close() (PEP 3333, "Specification Details").


def test_close_is_called_at_the_end(wsgi: Cases) -> None:
    key = wsgi.key()
    with wsgi.stream("GET", "blocks", key) as response:
        wsgi.open(key)
        wsgi.wait_noted(key, "made second")
        wsgi.open(key)
        assert response.read() == b"firstsecondthird"
    wsgi.wait_noted(key, "closed")
    assert wsgi.notes(key).count("closed") == 1


@pytest.mark.expect_errors("no first block")
def test_close_is_called_after_an_error(wsgi: Cases) -> None:
    key = wsgi.key()
    assert wsgi.get("broken", key).status_code == 500
    assert wsgi.notes(key) == ["closed"]


def test_close_is_called_when_the_client_goes(wsgi: Cases) -> None:
    key = wsgi.key()
    client = Cases(wsgi.server, http2=wsgi.http2, headers=wsgi.client.headers)
    with client.stream("GET", "endless", key) as response:
        next(response.iter_raw())
        client.client.close()
    wsgi.wait_noted(key, "closed")


def test_close_is_called_when_the_client_gives_up_an_http2_stream(secure: Server) -> None:
    key = Cases.key()
    with http2.Connection(secure) as client, Cases(secure) as cases:
        number = client.request(f"/?{key}", [(b"case", b"endless")])
        while not client.streams[number].body:
            client.read()
        client.reset(number)
        cases.wait_noted(key, "closed")
