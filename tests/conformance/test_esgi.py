"""ESGI 0.1 over HTTP, clause by clause of docs/esgi.md, over real HTTP."""

import ast
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support import raw
from support.cases import Cases
from support.check import Servers
from support.polling import wait_until
from support.server import Server
from support.websocket import Rejected, WebSocket

SITE = """
    @function header Function *
    python @function {
        module_esgi conformance_esgi:function
        workers 1
        import worker
    }
    python /ws/* {
        module_esgi conformance_esgi_websocket:app
        workers 1
        import worker
    }
    handle_path /mounted/* {
        python {
            module_esgi conformance_esgi:app
            workers 1
            import worker
        }
    }
    python {
        module_esgi conformance_esgi:app
        runtime gevent
        workers 1
        import worker
    }
"""

# More than the kernel's buffers hold between the app and a client that does not read, far less than an app can make.
HELD_BACK = 16 << 20


@pytest.fixture(params=["http1", "http1-function", "http2"])
def esgi(request: pytest.FixtureRequest, plain: Server, secure: Server) -> Iterator[Cases]:
    """The cases over HTTP/1.1 and HTTP/2, and with an app that is a function."""
    http2 = request.param == "http2"
    function = {"Function": "1"} if request.param == "http1-function" else {}
    with Cases(secure if http2 else plain, http2=http2, headers=function) as cases:
        yield cases


def scope(response: httpx.Response | raw.Response) -> dict[str, Any]:
    """The scope that a response shows."""
    body = response.content if isinstance(response, httpx.Response) else response.body
    shown: dict[str, Any] = ast.literal_eval(body.decode())
    return shown


# The app.


def test_init_has_run_before_the_first_request_and_del_runs_at_the_end(serve: Servers) -> None:
    server = serve("python {\nmodule_esgi conformance_esgi:app\nworkers 2\nimport worker\n}")
    with Cases(server) as cases:
        assert cases.get("begun").text.startswith("True ")
    pids = server.worker_pids()
    assert server.stop() == 0
    assert {int(line.split()[1]) for line in server.log.output("stdout") if line.startswith("ended")} == pids


@pytest.mark.expect_errors("")
def test_an_init_that_fails_fails_the_start_with_the_apps_own_message(serve: Servers, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "class App:\n    def __esgi__(self, scope, protocol): ...\n"
        "    def __esgi_init__(self):\n        raise ValueError('no database')\napp = App()\n"
    )
    server = serve.new()
    server.write_caddyfile(
        f"python {{\nmodule_esgi main:app\nworkers 1\nimport interpreter\nworking_dir {tmp_path}\n}}"
    )
    server.launch("run", "--config", str(server.caddyfile))
    assert server.wait_exit() == 1
    assert "the app's __esgi_init__ failed: ValueError: no database" in server.log.path.read_text()


# The scope.


def test_scope_has_every_key_with_its_type(plain: Server) -> None:
    port = plain.port.number
    with raw.Connection(plain) as client:
        client_port = client.socket.getsockname()[1]
        client.send(f"GET /a%20b/c?d=%20e&f HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Some-Name: v\r\n\r\n".encode())
        shown = scope(client.response())
    assert shown == {
        "proto": "http",
        "esgi_version": "0.1",
        "http_version": "1.1",
        "server": f"127.0.0.1:{port}",
        "client": f"127.0.0.1:{client_port}",
        "scheme": "http",
        "method": "GET",
        "path": "/a b/c",
        "query_string": "d=%20e&f",
        "headers": {"host": (f"127.0.0.1:{port}", [f"127.0.0.1:{port}"]), "x-some-name": ("v", ["v"])},
        "authority": f"127.0.0.1:{port}",
    }


def test_scope_over_tls_and_http2(secure: Server) -> None:
    with secure.new_client(http1=False, http2=True) as client:
        shown = scope(client.get("/"))
    assert (shown["http_version"], shown["scheme"]) == ("2", "https")
    assert shown["authority"] == f"127.0.0.1:{secure.port.number}"
    assert not [name for name in shown["headers"] if name.startswith(":")]


def test_http_1_0_without_a_host_has_no_authority(plain: Server) -> None:
    with raw.Connection(plain) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        shown = scope(client.response())
    assert (shown["http_version"], shown["authority"], shown["headers"]) == ("1.0", None, {})
    assert shown["server"] == f"127.0.0.1:{plain.port.number}"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_method(plain: Server, method: str) -> None:
    assert scope(plain.request(method, "/"))["method"] == method


def test_headers_are_a_mapping_of_lower_case_names_and_get_all_gives_each_value(plain: Server) -> None:
    lines = [b"X-A: 1", b"Cookie: b=1", b"x-a: 2, 3", b"Cookie: a=2", b"X-A:", b"X-B: \xc3\xab \xff"]
    with raw.Connection(plain) as client:
        headers = scope(client.get(b"/", *lines))["headers"]
    assert headers["x-a"] == ("1, 2, 3, ", ["1", "2, 3", ""])
    assert headers["cookie"] == ("b=1; a=2", ["b=1; a=2"])
    assert headers["x-b"][0] == b"\xc3\xab \xff".decode("latin-1")
    assert all(name == name.lower() for name in headers)


def test_path_is_decoded_and_query_string_is_as_it_was_sent(plain: Server) -> None:
    with raw.Connection(plain) as client:
        shown = scope(client.get("/Zo%C3%AB/ë/%2F/%FF?q=%C3%AB&ë".encode()))
    assert shown["path"] == "/Zoë/ë///\N{REPLACEMENT CHARACTER}", "what is no UTF-8 is replaced"
    assert shown["query_string"] == "q=%C3%AB&" + "ë".encode().decode("latin-1")


def test_the_path_of_a_mounted_app_is_what_is_left(plain: Server) -> None:
    assert scope(plain.get("/mounted/a/b"))["path"] == "/a/b"


# The request's body.


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("how", ["read_body", "iter_body", "iterate"])
def test_the_body_is_read_in_any_way(esgi: Cases, how: str, chunked: bool) -> None:
    for body in (b"", b"short", os.urandom(400_000)):
        content = iter([body[:1], body[1:200_001], body[200_001:]]) if chunked else body
        got = esgi.post(how, content=content).json()
        assert (got["size"], got["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        assert set(got["types"]) <= {"bytes"}


def test_the_body_streams(plain: Server) -> None:
    """A part is given back before the next one is sent; the response begins before the body has come."""
    with raw.Connection(plain) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: test\r\nCase: echo\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.head()
        echoed = client.chunks()
        assert next(echoed) == b"begun"
        for part in (b"first", b"second", b"third"):
            client.send(b"%x\r\n" % len(part), part, b"\r\n")
            assert next(echoed) == part
        client.send(b"0\r\n\r\n")
        assert list(echoed) == []


def test_a_body_that_is_not_read_does_no_harm(esgi: Cases) -> None:
    for _ in range(3):
        assert esgi.post("ignore", content=bytes(300_000)).text == "ignored"


# The response.


@pytest.mark.parametrize("status", [200, 201, 404, 418, 500, 599])
def test_an_empty_response(esgi: Cases, status: int) -> None:
    response = esgi.get("empty", str(status))
    assert (response.status_code, response.content, response.headers["content-length"]) == (status, b"", "0")
    assert response.headers.get_list("set-cookie") == ["b=1", "a=2"], "one name's values keep their order"
    assert dict(response.headers.raw)[b"x-name" if esgi.http2 else b"X-Name"] == b"Zo\xeb"


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_that_has_no_body_has_no_length(esgi: Cases, status: int) -> None:
    response = esgi.get("empty", str(status))
    assert (response.status_code, response.content) == (status, b"")
    assert "content-length" not in response.headers


def test_text_and_bytes(esgi: Cases) -> None:
    response = esgi.get("text")
    assert (response.status_code, response.content) == (201, "blå".encode())
    assert response.headers["content-length"] == "4"
    assert esgi.get("data").content == b"\xff\x00\xfe"
    assert esgi.get("large", "10000000").content == bytes(10_000_000)


def test_the_answer_to_head_has_the_length_and_no_body(esgi: Cases) -> None:
    response = esgi.request("HEAD", "text")
    assert (response.status_code, response.headers["content-length"], response.content) == (201, "4", b"")
    assert esgi.request("HEAD", "length", "10").headers["content-length"] == "10"
    assert esgi.get("text").status_code == 201, "the connection is in order"


def test_an_endless_stream_ends_at_once_where_nobody_gets_it(esgi: Cases) -> None:
    for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304)):
        response = esgi.request(method, "endless", str(status))
        assert (response.status_code, response.content) == (status, b"")
        assert esgi.get("text").status_code == 201, "neither the worker nor the connection waits for it"


def test_files(esgi: Cases, tmp_path: Path) -> None:
    content = os.urandom(1_000_000)
    (tmp_path / "file").write_bytes(content)
    response = esgi.get("file", str(tmp_path / "file"))
    assert (response.status_code, response.headers["x-kind"]) == (200, "file")
    assert response.headers["content-length"] == "1000000"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.content == content
    response = esgi.get("file", f"{tmp_path / 'file'}&70000&270001")
    assert (response.status_code, response.content) == (206, content[70_000:270_001])
    response = esgi.request("HEAD", "file", str(tmp_path / "file"))
    assert (response.headers["content-length"], response.content) == ("1000000", b"")
    assert response.headers["accept-ranges"] == "bytes", "as for GET"


def test_a_file_that_cannot_be_sent_raises_before_anything_is_sent(esgi: Cases, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"short")
    for argument, name in (
        ("missing", "FileNotFoundError"),
        ("pipe", "ValueError"),
        (".", "ValueError"),
        ("file&3&2", "ValueError"),
        ("file&0&6", "ValueError"),
        ("file&-1&2", "ValueError"),
    ):
        response = esgi.get("file", f"{tmp_path}/{argument}")
        assert (response.status_code, response.text) == (404, name), argument


def test_each_part_of_a_stream_is_on_the_wire_when_the_next_is_made(esgi: Cases) -> None:
    key = esgi.key()
    with esgi.stream("GET", "blocks", key) as response:
        blocks = response.iter_raw()
        made = []
        for block in ("first", "second", "third"):
            assert next(blocks) == block.encode()
            made.append(f"made {block}")
            if block != "third":
                assert esgi.notes(key) == made, "the next block waits at its gate"
                esgi.open(key)
        assert list(blocks) == []


def test_the_head_of_a_stream_leaves_before_its_body(esgi: Cases) -> None:
    key = esgi.key()
    with esgi.stream("GET", "head_alone", key) as response:
        assert response.status_code == 202
        esgi.open(key)
        assert response.read() == b"body"


def test_a_stream_may_have_a_content_length(esgi: Cases) -> None:
    response = esgi.get("length", "10")
    assert (response.headers["content-length"], response.text) == ("10", "1234567890")


@pytest.mark.expect_errors("Content-Length")
@pytest.mark.parametrize("length", ["7", "11"])
def test_a_wrong_content_length_is_a_truncated_response(esgi: Cases, length: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        esgi.get("length", length)


# What raises.


def test_what_is_not_allowed_raises(esgi: Cases) -> None:
    key = esgi.key()
    assert esgi.post("exceptions", key, content=b"body").text.splitlines() == [
        "ValueError: the status of a response is 200 or more, not 99",
        "TypeError: the status of a response is an int, not str",
        "ValueError: illegal value of the response header X: 'a\\r\\nb' has a control character",
        "TypeError: the name and value of a response header are str: 'X': 1",
        "TypeError: a text is a str, not bytes",
        "TypeError: data is bytes, not str",
        "BodyConsumed: the body of a request can be read once",
        "BodyConsumed: the body of a request can be read once",
        "BodyConsumed: the body of a request can be read once",
        "AlreadyResponded: a request has one response",
        "AlreadyResponded: a request has one response",
        "TypeError: data is bytes, not str",
        "TypeError: a text is a str, not bytes",
    ]
    assert esgi.get("too_late", key).text == "True True the response has ended"


def test_client_gone_is_raised_while_sending(plain: Server) -> None:
    with Cases(plain) as cases:
        key = cases.key()
        with raw.Connection(plain, receive_buffer=4096) as client:
            client.send(f"GET /?{key} HTTP/1.1\r\nHost: test\r\nCase: gone\r\n\r\n".encode())
            assert client.head()[0] == 200
        cases.wait_noted(key, "True the client has gone")


def test_client_gone_is_raised_while_reading(plain: Server) -> None:
    with Cases(plain) as cases:
        key = cases.key()
        with raw.Connection(plain) as client:
            client.send(f"POST /?{key} HTTP/1.1\r\nHost: test\r\nCase: gone_while_reading\r\n".encode())
            client.send(b"Content-Length: 100000\r\n\r\n", b"x" * 1000)
        cases.wait_noted(key, "the client has gone")


@pytest.mark.expect_errors("the app returned without a response")
def test_an_app_that_returns_without_a_response_is_a_500(esgi: Cases) -> None:
    assert esgi.get("no_response").status_code == 500


@pytest.mark.expect_errors("broken on purpose")
def test_an_exception_is_a_500_or_cuts_the_connection(esgi: Cases) -> None:
    assert esgi.get("broken").status_code == 500
    with pytest.raises(httpx.RemoteProtocolError):
        esgi.get("broken_midway")
    assert esgi.get("text").status_code == 201


def test_a_slow_client_stops_its_own_app_alone(plain: Server) -> None:
    with Cases(plain) as cases, raw.Connection(plain, receive_buffer=4096) as client:
        client.send(f"GET /?{HELD_BACK} HTTP/1.1\r\nHost: test\r\nCase: large\r\n\r\n".encode())
        assert client.head()[0] == 200
        assert cases.get("text").status_code == 201


# WebSockets; test_websocket.py has what they have in common with ASGI's.


def test_scope_of_a_websocket(plain: Server) -> None:
    with WebSocket(plain, "/ws/scope?a=%20", "Sec-WebSocket-Protocol: chat, superchat", "X-A: 1") as socket:
        shown = ast.literal_eval(str(socket.message()))
        client = socket.connection.socket.getsockname()
    headers = shown.pop("headers")
    assert (headers["host"], headers["sec-websocket-protocol"], headers["x-a"]) == ("test", "chat, superchat", "1")
    assert shown == {
        "proto": "ws",
        "esgi_version": "0.1",
        "http_version": "1.1",
        "server": "test:80",
        "client": f"127.0.0.1:{client[1]}",
        "scheme": "ws",
        "method": "GET",
        "path": "/ws/scope",
        "query_string": "a=%20",
        "authority": "test",
    }


def test_a_close_before_the_accept_is_a_403(plain: Server) -> None:
    key = Cases.key()
    with pytest.raises(Rejected) as rejected:
        WebSocket(plain, f"/ws/reject?{key}")
    assert rejected.value.response.status == 403
    assert wait_until(lambda: plain.get(f"/ws/?{key}").json(), "notes") == ["AlreadyResponded", "nothing"]


def test_what_is_not_allowed_raises_in_a_websocket(plain: Server) -> None:
    key = Cases.key()
    with WebSocket(plain, f"/ws/wrong?{key}") as socket:
        assert json.loads(socket.message()) == [
            *("TypeError", "ValueError", "ValueError", "ValueError", "TypeError", "TypeError"),
            *("AlreadyResponded", "TypeError", "TypeError", "UnicodeEncodeError", "ValueError"),
        ]
        assert socket.end() == (1000, "")
    assert wait_until(lambda: plain.get(f"/ws/?{key}").json(), "notes") == ["Closed", 0, "nothing"]
