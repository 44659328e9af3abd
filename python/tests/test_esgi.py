"""ESGI over HTTP, clause by clause of docs/esgi.md, seen from Caddy's side of the socket."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Launch, shared
from driver import CREDIT, DATA, ERROR, MAX_DATA, RESET, RESPONSE, STOP, WINDOW, Worker, frame, until

PLAIN = ("content-type", "text/plain")


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    yield from shared("esgi_apps:app", "esgi")


def events(worker: Worker) -> list[str]:
    return worker.get("/events").body.decode().splitlines()


def respond(worker: Worker, *response: Any, method: str = "GET", catch: bool = False) -> Any:
    return worker.get("/respond?catch" if catch else "/respond", method, **{"test.response": response})


# The app


def test_the_apps_own_methods_are_used(launch: Launch) -> None:
    worker = launch("esgi_apps:whole", "esgi").start()
    assert worker.get("/").body == b"begun"
    assert worker.stop() == 0
    assert worker.output() == "ended\n"


def test_a_function_may_have_hooks_too(launch: Launch) -> None:
    assert launch("esgi_apps:with_hooks", "esgi").start().get("/").body == b"begun"


def test_a_failure_of_init_fails_the_start(launch: Launch) -> None:
    message, trace = launch("esgi_apps:broken_init", "esgi").failure()
    assert message == "the app's __esgi_init__ failed: ValueError: no database"
    assert "in __esgi_init__" in trace
    assert "caddysnake" not in trace


def test_a_failure_of_del_is_logged(launch: Launch) -> None:
    worker = launch("esgi_apps:broken_del", "esgi").start()
    worker.write(frame(STOP, 0, 0))
    level, _, fields = worker.log_entry("app's __esgi_del__ failed")
    assert (level, fields["error"]) == ("error", "ValueError: no farewell")
    assert worker.wait() == 0


def test_each_request_is_a_greenlet(worker: Worker) -> None:
    assert worker.get("/greenlet").body == b"True"
    streams = worker.burst(["/sleep?0.2"] * 1000)
    assert {worker.response(stream).body for stream in streams} == {b"slept"}


def test_the_scope(worker: Worker) -> None:
    headers = {"host": "localhost", "x": ["1", "2, 3"], "y": "\xeb"}
    scope, kind, shown, every, count, *rest = worker.get("/scope?a=b", headers=headers).body.decode().splitlines()
    assert eval(scope) == {
        "proto": "http",
        "esgi_version": "0.1",
        "http_version": "1.1",
        "server": "127.0.0.1:9080",
        "client": "127.0.0.1:50000",
        "scheme": "http",
        "method": "GET",
        "path": "/scope",
        "query_string": "a=b",
        "authority": "localhost",
    }
    assert (kind, count) == ("Headers", "3")
    assert eval(shown) == {"host": "localhost", "x": "1, 2, 3", "y": "\xeb"}
    assert eval(every) == ["1", "2, 3"]
    assert rest == ["None", "[]", "True", "False"]


# The request's body


@pytest.mark.parametrize("size", [0, 1, MAX_DATA, MAX_DATA + 1, 3 * WINDOW])
@pytest.mark.parametrize("path", ["/read", "/iterate", "/iterate?protocol"])
def test_a_body_is_read_in_any_way(worker: Worker, path: str, size: int) -> None:
    body = (b"line of text\n" * (size // 13 + 1))[:size]
    got = worker.upload(path, body)
    assert got.status == 200, got
    assert hashlib.sha256(got.body).digest() == hashlib.sha256(body).digest()


def test_a_part_of_a_body_is_there_before_the_rest_has_come(worker: Worker) -> None:
    stream = worker.request("/echo", "POST", b"first", end=False)
    assert worker.next(stream).kind == RESPONSE
    assert worker.next(stream).data == b"first"
    credit = worker.next(stream)
    assert credit.kind == CREDIT
    worker.send_rest(stream, b"second", int.from_bytes(credit.data, "little"))
    assert worker.response(stream).body == b"second"


def test_no_credit_is_given_for_a_body_that_nobody_reads(worker: Worker) -> None:
    stream = worker.request("/hello", "POST", b"u" * MAX_DATA, end=False)
    assert worker.next(stream).kind == RESPONSE
    assert worker.waiting(stream) == []


@pytest.mark.parametrize("first", ["read", "iter", "for"])
@pytest.mark.parametrize("second", ["read", "iter", "for"])
def test_a_body_is_read_once(worker: Worker, first: str, second: str) -> None:
    got = worker.get(f"/read/twice?{first}&{second}", "POST", b"body")
    assert got.body == b"BodyConsumed: the body of a request can be read once"


@pytest.mark.parametrize("query", ["", "?begun"])
def test_a_body_cannot_be_read_after_the_response(worker: Worker, query: str) -> None:
    events(worker)
    stream = worker.request(f"/read/after{query}", "POST", b"first", end=False)
    assert worker.next(stream).kind == RESPONSE
    assert events(worker) == ["the body of a request cannot be read after the response"]


def test_the_app_learns_that_the_client_went_while_it_reads(worker: Worker) -> None:
    events(worker)
    stream = worker.request("/swallow", "POST", b"first", end=False)
    assert worker.next(stream).kind == CREDIT
    worker.reset(stream)
    got = worker.response(stream)
    assert (got.status, got.closed) == (0, RESET)
    assert events(worker) == ["ClientGone", "ClientGone"]


# The response


@pytest.mark.parametrize(
    ("response", "body"),
    [
        (("response_empty", 200, [PLAIN]), b""),
        (("response_str", 200, [PLAIN], "blå"), "blå".encode()),
        (("response_bytes", 200, [PLAIN], b"\xff\x00"), b"\xff\x00"),
        (("response_bytes", 200, (PLAIN,), b""), b""),
    ],
)
def test_a_response_that_is_given_at_once_is_one_frame(worker: Worker, response: Any, body: bytes) -> None:
    got = respond(worker, *response)
    assert got == (200, [PLAIN, ("Content-Length", str(len(body)))], body, None, RESPONSE)


def test_a_large_response_waits_for_credit(worker: Worker) -> None:
    stream = worker.request(f"/download?{WINDOW + 2 * MAX_DATA}")
    until(lambda: sum(len(got.data) for got in worker.waiting(stream)) == WINDOW, "all that there is credit for")
    worker.credit(stream, WINDOW)
    assert worker.response(stream).body == b"d" * (WINDOW + 2 * MAX_DATA)


@pytest.mark.parametrize("kind", ["response_str", "response_bytes", "response_file", "response_file_range"])
def test_the_answer_to_head_has_the_length_and_no_body(worker: Worker, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"body")
    arguments = {"response_str": ("body",), "response_bytes": (b"body",), "response_file": (str(file),)}
    got = respond(worker, kind, 200, [], *arguments.get(kind, (str(file), 0, 4)), method="HEAD")
    assert (got.status, got.headers, got.body) == (200, [("Content-Length", "4")], b"")


def test_responses_without_a_body_have_none(worker: Worker) -> None:
    for status in (204, 304):
        assert respond(worker, "response_str", status, [], "body")[:3] == (status, [], b"")
    assert (
        respond(worker, "response_empty", 200, [("Content-Length", "7")], method="HEAD").header("Content-Length") == "7"
    )
    assert respond(worker, "response_empty", 304, [("Content-Length", "7")]).header("Content-Length") == "7"


def test_a_file(worker: Worker, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 2000)
    got = respond(worker, "response_file", 200, [PLAIN], str(file))
    assert got.headers == [PLAIN, ("Content-Length", "512000")]
    assert got.body == bytes(range(256)) * 2000
    got = respond(worker, "response_file_range", 206, [PLAIN], str(file), 250, 260)
    assert (got.status, got.headers) == (206, [PLAIN, ("Content-Length", "10")])
    assert got.body == bytes(range(250, 256)) + bytes(range(4))
    assert respond(worker, "response_file_range", 206, [], str(file), 512_000, 512_000).body == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing",), "FileNotFoundError: "),
        ((".",), "only a regular file can be sent"),
        (("file", -1, 2), "has 4 bytes, not the range from -1 to 2"),
        (("file", 3, 2), "has 4 bytes, not the range from 3 to 2"),
        (("file", 0, 5), "has 4 bytes, not the range from 0 to 5"),
        (("file", 0, 2.0), "TypeError: "),
        (("file", 0, None), "TypeError: "),
    ],
)
def test_a_file_that_cannot_be_sent_raises_and_another_response_may_follow(
    worker: Worker, tmp_path: Path, arguments: tuple[Any, ...], message: str
) -> None:
    (tmp_path / "file").write_bytes(b"body")
    method = "response_file" if len(arguments) == 1 else "response_file_range"
    got = respond(worker, method, 200, [], str(tmp_path / arguments[0]), *arguments[1:], catch=True)
    assert got.status == 400
    assert message in got.body.decode()


def test_a_stream_sends_its_head_and_each_part_at_once(worker: Worker) -> None:
    stream = worker.request("/stream")
    got = worker.next(stream)
    assert (got.kind, got.end, got.head, got.data) == (RESPONSE, False, (200, [PLAIN]), b"")
    worker.get("/open")
    assert worker.next(stream).data == "blå ".encode()
    assert worker.next(stream).data == b"bytes "
    worker.get("/open")
    assert worker.response(stream).body == b"end"


@pytest.mark.parametrize("second", ["empty", "str", "bytes", "file", "range", "stream"])
@pytest.mark.parametrize("first", ["empty", "stream"])
def test_a_request_has_one_response(worker: Worker, first: str, second: str) -> None:
    events(worker)
    assert worker.get(f"/twice?{first}&{second}")[:3:2] == (200, b"")
    assert events(worker) == ["a request has one response"]


def test_a_response_that_was_refused_is_none(worker: Worker) -> None:
    events(worker)
    assert worker.get("/refused").body == b"accepted"
    assert len(events(worker)) == 4


def test_the_content_length_must_be_right(worker: Worker) -> None:
    got = worker.get("/length?3")
    assert (got.body, got.closed) == (b"abc", ERROR)
    assert got.error is not None
    assert "longer than its Content-Length: 3 bytes where 2 are left" in got.error[0]
    got = worker.get("/length?1")
    assert (got.body, got.closed) == (b"abc", ERROR)
    assert got.error is not None
    assert "the response ended 2 bytes before its Content-Length" in got.error[0]
    got = respond(worker, "response_str", 200, [("Content-Length", "5")], "body", catch=True)
    assert got.body == b"ValueError: Content-Length: 5 for a body of 4 bytes"


def test_data_of_the_wrong_type_raises(worker: Worker) -> None:
    assert worker.get("/wrong/data").body == b"a text is a str, not bytes\ndata is bytes, not str\n"
    for method, body in (("response_str", b"b"), ("response_bytes", "t"), ("response_bytes", None)):
        assert respond(worker, method, 200, [], body, catch=True).body.startswith(b"TypeError: ")


def test_nothing_can_be_sent_when_the_app_has_returned(worker: Worker) -> None:
    assert worker.get("/late").body == b"in time"
    assert worker.get("/too/late").body == b"Closed: the response has ended"


def test_the_app_learns_that_the_client_went_while_it_sends(worker: Worker) -> None:
    events(worker)
    stream = worker.request("/endless")
    assert worker.next(stream).kind == RESPONSE
    worker.reset(stream)
    assert worker.response(stream, grant=False).closed == RESET
    assert events(worker) == ["client gone"]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_stream_without_a_body_ends_at_once(worker: Worker, method: str, status: int) -> None:
    events(worker)
    worker.logs.clear()
    got = worker.get(f"/endless?{status}", method)
    assert (got.status, got.body, got.closed) == (status, b"", RESPONSE)
    assert events(worker) == ["client gone"]
    assert worker.get("/raise/after").body == b"whole"
    assert worker.log_entry("after its response")[2]["error"] == "ValueError: afterwards"
    assert len(worker.logs) == 1


# Errors


def test_an_app_that_returns_without_a_response_is_an_error(worker: Worker) -> None:
    got = worker.get("/nothing")
    assert (got.status, got.closed) == (0, ERROR)
    assert got.error is not None
    assert got.error[0] == "Error: the app returned without a response"


@pytest.mark.parametrize("name", ["ValueError", "SystemExit"])
def test_an_exception_is_an_error_of_the_request_alone(worker: Worker, name: str) -> None:
    got = worker.get(f"/raise?{name}")
    assert (got.status, got.closed) == (0, ERROR)
    assert got.error is not None
    message, trace = got.error
    assert message == f"{name}: boom"
    assert "in view_raise" in trace
    assert "caddysnake/esgi" not in trace
    assert worker.get("/hello").status == 200


def test_an_exception_after_the_response(worker: Worker) -> None:
    got = worker.get("/raise/midway")
    assert (got.body, got.closed) == (b"begun", ERROR)
    worker.logs.clear()
    assert worker.get("/raise/after").body == b"whole"
    level, _, fields = worker.log_entry("after its response")
    assert (level, fields["error"]) == ("error", "ValueError: afterwards")
    assert (fields["method"], fields["path"]) == ("GET", "/raise/after")


def test_a_greenlet_that_is_killed_after_its_client_has_gone_is_no_error(launch: Launch) -> None:
    worker = launch("esgi_apps:app", "esgi").start()
    stream = worker.request("/sleep?60")
    worker.reset(stream)
    worker.write(frame(STOP, 0, 0))
    assert worker.response(stream).closed == RESET
    worker.log_entry("they are killed")
    assert worker.wait() == 0
    assert worker.waiting(0) == []


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (200, [("X-A", "a\r\nX-B: b")], "a control character"),
        (200, [("X-A", "a\0b")], "a control character"),
        (200, [("X-A", "a\x7fb")], "a control character"),
        (200, [("X-A", "a" * (1 << 20))], "at most 1048576"),
        (200, [("X-A", "\u20ac")], "latin-1"),
        (200, [("X\nA", "a")], "illegal name"),
        (200, [("", "a")], "illegal name"),
        (200, [(b"X-A", "a")], "are str"),
        (200, [("X-A", 1)], "are str"),
        (200, [("X-A",)], "tuple"),
        (200, ["ab"], "tuple"),
        (200, {"ab": "c"}, "tuple"),
        (200, None, "not iterable"),
        (200, [("Content-Length", "five")], "number of bytes"),
        (100, [], "200 or more"),
        (1000, [], "200 or more"),
        ("200", [], "is an int"),
        (200.0, [], "is an int"),
    ],
)
@pytest.mark.parametrize("method", ["response_str", "response_stream"])
def test_threat_5_what_cannot_be_sent_raises_in_the_app(
    worker: Worker, method: str, status: Any, headers: Any, message: str
) -> None:
    response = (method, status, headers, *(("text",) if method == "response_str" else ()))
    for _ in range(2):  # no cache may let it pass the second time
        got = respond(worker, *response)
        assert (got.status, got.closed) == (0, ERROR), got
        assert got.error is not None
        assert message in got.error[0]
    got = respond(worker, *response, catch=True)
    assert got.status == 400
    assert message in got.body.decode()


def test_threat_5_every_byte_in_a_name_and_a_value(worker: Worker) -> None:
    token = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for code in range(256):
        char = chr(code)
        got = respond(worker, "response_empty", 200, [(f"X{char}Y", "v"), PLAIN])
        assert (got.status == 200) == (code in token), (code, got)
        got = respond(worker, "response_empty", 200, [("X", f"a{char}b"), PLAIN])
        assert (got.status == 200) == (char == "\t" or (code >= 32 and code != 127)), (code, got)
        if got.status == 200:
            assert got.header("X") == f"a{char}b"


def test_threat_5_two_lengths_that_differ_are_refused_although_each_is_known(worker: Worker) -> None:
    lengths = [("Content-Length", "4"), ("content-length", "5")]
    for headers in (lengths[:1], lengths[1:], lengths[:1] * 2):
        assert respond(worker, "response_empty", 304, headers).status == 304
    got = respond(worker, "response_empty", 304, lengths, catch=True)
    assert (got.status, got.body) == (400, b"ValueError: a response with two lengths, Content-Length: 4 and 5")


def test_late_data_means_nothing(worker: Worker) -> None:
    stream = worker.request("/hello", "POST", b"u", end=False)
    assert worker.response(stream).body == b"hello"
    worker.write(frame(DATA, stream, None, b"late"))
    assert worker.get("/hello").body == b"hello"
