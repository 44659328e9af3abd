"""PEP 3333, clause by clause: on one thread, on several, in greenlets, and with wsgiref.validate around the app."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Launch, shared
from driver import CREDIT, DATA, DECLINE, END, ERROR, MAX_DATA, RESET, RESPONSE, WINDOW, Worker, frame, until

PLAIN = ("Content-Type", "text/plain")


ONE, TWO, FOUR = ({"threads": count} for count in (1, 2, 4))
GREENLETS = {"runtime": "gevent"}


@pytest.fixture(
    scope="module",
    params=[(ONE, "app"), (FOUR, "app"), (FOUR, "checked"), (GREENLETS, "app"), (GREENLETS, "checked")],
    ids=["1", "4", "4-validated", "gevent", "gevent-validated"],
)
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    settings, app = request.param
    yield from shared(f"wsgi_apps:{app}", "wsgi", **settings)


@pytest.fixture(scope="module", params=[ONE, FOUR, GREENLETS], ids=["1", "4", "gevent"])
def liberal(request: pytest.FixtureRequest) -> Iterator[Worker]:
    """For apps that wsgiref.validate would not let pass."""
    yield from shared("wsgi_apps:app", "wsgi", **request.param)


@pytest.fixture(params=[TWO, GREENLETS], ids=["2", "gevent"])
def fresh(launch: Launch, request: pytest.FixtureRequest) -> Worker:
    """A worker of its own that runs two requests at once."""
    return launch("wsgi_apps:app", "wsgi", **request.param).start()


def events(worker: Worker, last: str = "") -> list[str]:
    """What the app has noted, and forgets; it waits for `last`, which may be noted after the response."""
    found: list[str] = []

    def come() -> bool:
        found.extend(worker.get("/events").body.decode().splitlines())
        return not last or last in found

    until(come, last)
    return found


# The response


def test_status_headers_and_body(worker: Worker) -> None:
    got = worker.get("/hello")
    assert got == (200, [PLAIN, ("Content-Length", "5")], b"hello", None, RESPONSE)


@pytest.mark.parametrize("kind", ["list", "tuple"])
def test_a_body_of_one_block_gets_a_content_length_and_travels_with_the_head(liberal: Worker, kind: str) -> None:
    got = liberal.get(f"/one/block?{kind}")
    assert got.body == b"one block"
    assert got.header("Content-Length") == "9"
    assert got.closed == RESPONSE


def test_empty_blocks_are_skipped(worker: Worker) -> None:
    got = worker.get("/two/blocks")
    assert got.body == b"two blocks"
    assert got.header("Content-Length") is None


def test_the_answer_to_head_has_no_body_and_the_length_of_it(liberal: Worker) -> None:
    got = liberal.get("/one/block", "HEAD")
    assert (got.body, got.header("Content-Length"), got.closed) == (b"", "9", RESPONSE)
    assert liberal.get("/stream?3", "HEAD").body == b""
    assert events(liberal, "close")[-1] == "close"


def test_an_endless_body_ends_where_nobody_gets_it(liberal: Worker) -> None:
    events(liberal)
    assert liberal.get("/endless", "HEAD").body == b""
    assert events(liberal, "endless closed") == ["endless closed"]


def test_a_body_that_was_not_read_before_the_response_ended_has_no_end(worker: Worker) -> None:
    events(worker)
    stream = worker.request("/read/after", "POST", b"first", end=False)
    got = worker.next(stream)
    assert (got.kind, got.end) == (RESPONSE, True)
    worker.write(frame(DATA | END, stream, None, b"late"))
    assert events(worker, "ClientGone") == ["ClientGone"]


def test_a_body_that_is_there_has_an_end_although_nobody_says_so_after_the_response(worker: Worker) -> None:
    events(worker)
    stream = worker.request("/read/between", "POST", b"whole", end=False, CONTENT_LENGTH="5")
    got = worker.next(stream)
    assert (got.kind, got.end, got.data) == (RESPONSE, True, b"whole")
    assert events(worker, "b''") == ["b''"]
    worker.write(frame(DATA | END, stream))


def test_an_empty_response_has_content_length_0_where_that_is_allowed(liberal: Worker) -> None:
    assert liberal.get("/empty").headers == [("Content-Length", "0")]
    assert liberal.get("/empty", "HEAD").headers == []
    assert liberal.get("/empty?204").headers == []


def test_a_large_block_is_split_and_waits_for_credit(worker: Worker) -> None:
    stream = worker.request(f"/download?{WINDOW + 2 * MAX_DATA}")
    until(lambda: sum(len(got.data) for got in worker.waiting(stream)) == WINDOW, "all that there is credit for")
    frames = worker.waiting(stream)
    assert [(got.kind, got.end, len(got.data)) for got in frames] == [
        (RESPONSE, False, MAX_DATA),
        *[(DATA, False, MAX_DATA)] * 3,
    ]
    worker.credit(stream, WINDOW)
    assert worker.response(stream).body == b"d" * (WINDOW + 2 * MAX_DATA)


def test_10_megabytes_are_streamed(worker: Worker) -> None:
    got = worker.get(f"/download?{10 << 20}")
    assert got.status == 200
    assert len(got.body) == 10 << 20


def test_each_block_is_sent_before_the_next_is_asked_for(fresh: Worker) -> None:
    stream = fresh.request("/steps")
    assert fresh.next(stream).data == b"first"
    assert fresh.get("/open").body == b"opened"
    assert fresh.response(stream).body == b"second"


def test_a_block_that_is_all_ends_the_response_before_the_app_goes_on(fresh: Worker) -> None:
    got = fresh.get("/first/block/is/all")
    assert (got.body, got.closed) == (b"all", RESPONSE)
    fresh.get("/open")
    assert events(fresh, "after the last block")


def test_close_is_called_after_the_last_block(worker: Worker) -> None:
    events(worker)
    assert worker.get("/stream?2").body == b"x" * 2000
    assert events(worker, "close") == ["block 0", "block 1", "exhausted", "close"]


def test_close_is_called_after_an_error(worker: Worker) -> None:
    got = worker.get("/raise/midway")
    assert (got.status, got.body, got.closed) == (200, b"begun", ERROR)
    assert events(worker, "closed after an error")


def test_close_is_called_when_the_client_has_gone(worker: Worker) -> None:
    stream = worker.request("/endless")
    assert worker.next(stream).kind == RESPONSE
    worker.reset(stream)
    assert worker.response(stream, grant=False).closed == RESET
    assert events(worker, "endless closed")


def test_write_has_sent_when_it_returns(worker: Worker) -> None:
    assert worker.get("/write").body == b"written twice and returned"


def test_write_sends_at_once(fresh: Worker) -> None:
    stream = fresh.request("/write?wait")
    assert fresh.next(stream).data == b"written "
    fresh.get("/open")
    assert fresh.response(stream).body == b"twice and returned"


def test_the_file_wrapper_sends_a_file(worker: Worker) -> None:
    assert worker.get("/file").body == b"f" * 200_000


def test_start_response_may_come_with_the_first_block(worker: Worker) -> None:
    got = worker.get("/late/start")
    assert (got.status, got.body) == (201, b"late")


def test_start_response_may_come_after_an_empty_block(liberal: Worker) -> None:
    got = liberal.get("/late/start?empty")
    assert (got.status, got.body) == (201, b"late")


def test_a_response_can_be_replaced_until_it_has_begun(worker: Worker) -> None:
    got = worker.get("/replace")
    assert (got.status, got.body) == (500, b"replaced")
    assert got.header("X-First") is None


def test_a_response_that_has_begun_cannot_be_replaced(worker: Worker) -> None:
    got = worker.get("/replace/late")
    assert (got.status, got.body, got.closed) == (200, b"begun", ERROR)
    assert got.error is not None
    assert got.error[0] == "ValueError: too late"


def test_more_than_the_content_length_is_not_sent(worker: Worker) -> None:
    got = worker.get("/length?3")
    assert (got.body, got.closed) == (b"abcab", DATA)


def test_less_than_the_content_length_is_an_error(worker: Worker) -> None:
    got = worker.get("/length?1")
    assert (got.body, got.closed) == (b"abc", ERROR)
    assert got.error is not None
    assert "declared Content-Length: 5 and gave 3 bytes" in got.error[0]


# The request's body


@pytest.mark.parametrize("size", [0, 1, 100, MAX_DATA, MAX_DATA + 1, 3 * WINDOW])
@pytest.mark.parametrize(
    "how", ["all", "read=1000", "read=65536", "read=1000000", "line", "lines", "hint=1", "iterate", "sized_line=5"]
)
def test_a_body_is_read_in_any_way(worker: Worker, how: str, size: int) -> None:
    body = (b"line of text\n" * (size // 13 + 1))[:size]
    got = worker.upload(f"/echo?{how}", body)
    assert got.status == 200, got
    assert hashlib.sha256(got.body).digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize("size", [40, MAX_DATA + 40])
def test_the_ways_to_read_can_be_mixed(worker: Worker, size: int) -> None:
    body = b"abcdef\n" + b"0123456\n" * (size // 8)
    assert worker.upload("/echo?mixed", body).body == body


def test_a_part_of_a_body_can_be_read_before_the_rest_has_come(worker: Worker) -> None:
    stream = worker.request("/echo?line", "POST", b"first\n", end=False)
    credit = worker.next(stream)
    assert credit.kind == CREDIT
    worker.send_rest(stream, b"second\n", int.from_bytes(credit.data, "little"))
    assert worker.response(stream).body == b"first\nsecond\n"


def test_10_megabytes_are_uploaded(worker: Worker) -> None:
    assert worker.upload("/count", b"u" * (10 << 20)).body == b"%d" % (10 << 20)


def test_no_credit_is_given_for_a_body_that_nobody_reads(worker: Worker) -> None:
    stream = worker.request("/hello", "POST", b"u" * MAX_DATA, end=False)
    assert worker.next(stream).kind == RESPONSE
    assert worker.waiting(stream) == []


def test_a_body_can_be_read_in_another_thread(fresh: Worker) -> None:
    for _ in range(20):
        assert fresh.upload("/read/in/thread", b"u" * (WINDOW + 5)).body == b"%d" % (WINDOW + 5)
    assert fresh.stop() == 0


def test_the_app_learns_that_the_client_went_while_it_reads(worker: Worker) -> None:
    events(worker)
    stream = worker.request("/swallow", "POST", b"first", end=False)
    assert worker.next(stream).kind == CREDIT
    worker.reset(stream)
    got = worker.response(stream)
    assert (got.status, got.closed) == (0, RESET)
    assert events(worker, "read raised ClientGone") == ["read raised ClientGone"]


def test_the_environ_has_what_caddy_does_not_send(launch: Launch) -> None:
    worker = launch("wsgi_apps:checked", "wsgi", multithread=False, multiprocess=True).start()
    said = "InputWrapper FileWrapper multithread=False multiprocess=True run_once=False version=(1, 0)"
    assert worker.get("/environ").body.decode() == said
    assert worker.stop() == 0
    assert "to wsgi.errors\none\ntwo\n" in worker.output()


# Errors


@pytest.mark.parametrize("name", ["ValueError", "SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_an_exception_is_an_error_of_the_request_alone(worker: Worker, name: str) -> None:
    got = worker.get(f"/raise?{name}=boom")
    assert (got.status, got.closed) == (0, ERROR)
    assert got.error is not None
    message, trace = got.error
    assert message == f"{name}: boom"
    assert "in view_raise" in trace
    assert trace.startswith("Traceback")
    assert "caddysnake" not in trace
    assert worker.get("/hello").status == 200


def test_an_exception_after_the_response_is_logged(worker: Worker) -> None:
    worker.logs.clear()
    assert worker.get("/raise/in/close", SCRIPT_NAME="/mounted").body == b"whole"
    level, _, fields = worker.log_entry("after its response")
    assert (level, fields["error"]) == ("error", "ValueError: in close")
    assert (fields["method"], fields["path"]) == ("GET", "/mounted/raise/in/close")
    assert "in close" in fields["traceback"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/no/start", "without calling start_response"),
        ("/no/start?body", "before it called start_response"),
        ("/twice", "second time without exc_info"),
        ("/body?str", "made of bytes, not str"),
        ("/body?none", "NoneType"),
        ("/body?bytes", "made of bytes, not int"),
    ],
)
def test_what_is_no_wsgi_response_is_an_error_that_says_why(liberal: Worker, path: str, message: str) -> None:
    got = liberal.get(path)
    assert (got.status, got.closed) == (0, ERROR)
    assert got.error is not None
    assert message in got.error[0]


def test_each_response_has_its_own_head_whatever_was_sent_before(liberal: Worker) -> None:
    for number in (*range(300), 0, 299):  # more than are remembered
        headers = [("X-Number", str(number)), PLAIN]
        for status in ("200 OK", "404 Not Found"):
            got = liberal.get("/header", **{"test.response": (status, headers)})
            assert (got.status, got.headers[:2]) == (int(status[:3]), headers)


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        ("200 OK", [("X-A", "a\r\nX-B: b")], "a control character"),
        ("200 OK", [("X-A", "a\nb")], "a control character"),
        ("200 OK", [("X-A", "a\0b")], "a control character"),
        ("200 OK", [("X-A", "a\x7fb")], "a control character"),
        ("200 OK", [("X-A", "\u20ac")], "latin-1"),
        ("200 OK", [("X\nA", "a")], "illegal name"),
        ("200 OK", [("X A", "a")], "illegal name"),
        ("200 OK", [("", "a")], "illegal name"),
        ("200 OK", [("X-\xe9", "a")], "illegal name"),
        ("200 OK", [(b"X-A", "a")], "are str"),
        ("200 OK", [("X-A", b"a")], "are str"),
        ("200 OK", [("X-A", 1)], "are str"),
        ("200 OK", [("X-A",)], "tuple"),
        ("200 OK", ["X-A"], "tuple"),
        ("200 OK", [("Content-Length", "five")], "number of bytes"),
        ("200 OK", [("Content-Length", "-1")], "number of bytes"),
        ("200 OK\r\nX-A: b", [], "such as '200 OK'"),
        ("OK", [], "such as '200 OK'"),
        ("2000", [], "such as '200 OK'"),
        ("", [], "such as '200 OK'"),
        ("101 Switching", [], "200 or more"),
        (200, [], "is a str"),
        (b"200 OK", [], "is a str"),
    ],
)
def test_threat_5_what_cannot_be_sent_raises_in_the_app(
    liberal: Worker, status: Any, headers: list[Any], message: str
) -> None:
    for _ in range(2):  # no cache may let it pass the second time
        got = liberal.get("/header", **{"test.response": (status, headers)})
        assert (got.status, got.closed) == (0, ERROR), got
        assert got.error is not None
        assert message in got.error[0]
    got = liberal.get("/header?catch", **{"test.response": (status, headers)})
    assert got.status == 400
    assert message in got.body.decode()


def test_threat_5_every_byte_in_a_name_a_value_and_a_status(liberal: Worker) -> None:
    token = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for code in range(256):
        char = chr(code)
        got = liberal.get("/header", **{"test.response": ("200 OK", [(f"X{char}Y", "v"), PLAIN])})
        assert (got.status == 200) == (code in token), (code, got)
        got = liberal.get("/header", **{"test.response": ("200 OK", [("X", f"a{char}b"), PLAIN])})
        assert (got.status == 200) == (char == "\t" or (code >= 32 and code != 127)), (code, got)
        if got.status == 200:
            assert got.header("X") == f"a{char}b"
        got = liberal.get("/header", **{"test.response": (f"200 a{char}b", [PLAIN])})
        assert got.status == 200 or not char.isprintable(), (code, got)


def test_threat_5_headers_that_are_too_large_fail_the_request_alone(liberal: Worker) -> None:
    got = liberal.get("/header", **{"test.response": ("200 OK", [("X-A", "a" * (1 << 20))])})
    assert (got.status, got.closed) == (0, ERROR)
    assert got.error is not None
    assert got.error[0].endswith("at most 1048576 are allowed")
    assert liberal.get("/header", **{"test.response": ("200 OK", [("X-A", "a" * 1_000_000)])}).status == 200


def test_threat_5_two_lengths_that_differ_are_refused_although_each_is_known(liberal: Worker) -> None:
    lengths = [("Content-Length", "4"), ("content-length", "3")]
    for headers in (lengths[:1], lengths[1:], lengths[:1] * 2):
        assert liberal.get("/header", **{"test.response": ("200 OK", headers)}).status == 200
    got = liberal.get("/header?catch", **{"test.response": ("200 OK", lengths)})
    assert (got.status, got.body) == (400, b"ValueError: a response with two lengths, Content-Length: 4 and 3")


def test_headers_about_the_connection_are_left_out(liberal: Worker) -> None:
    headers = [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("X-Kept", "1"), ("Upgrade", "h2c")]
    for _ in range(2):
        got = liberal.get("/header", **{"test.response": ("200 OK", headers)})
        assert got.headers == [("X-Kept", "1"), ("Content-Length", "4")]


def test_headers_of_one_name_stay_apart_and_in_order(worker: Worker) -> None:
    headers = [("Set-Cookie", "a=1"), PLAIN, ("Set-Cookie", "b=2"), ("Set-Cookie", "a=1")]
    got = worker.get("/header", **{"test.response": ("200 OK", headers)})
    assert [header for header in got.headers if header[0] != "Content-Length"] == headers


def test_subclasses_of_str_are_sent(liberal: Worker) -> None:
    for _ in range(2):
        assert liberal.get("/subclasses").headers == [("X-Name", "value"), PLAIN, ("Content-Length", "4")]


def test_headers_out_of_a_generator_are_all_sent(liberal: Worker) -> None:
    for _ in range(2):
        got = liberal.get("/generated").headers
        assert got == [("X-First", "1"), ("X-Second", "2"), PLAIN, ("Content-Length", "4")]


def test_a_list_of_headers_changed_later_changes_nothing(liberal: Worker) -> None:
    assert liberal.get("/mutate").headers == [PLAIN, ("Content-Length", "4")]


def test_a_bytearray_is_a_body(liberal: Worker) -> None:
    assert liberal.get("/body?bytearray").body == b"array"


# Context variables


def test_threat_27_each_request_has_a_context_of_its_own(worker: Worker) -> None:
    for number in range(3):
        assert worker.get(f"/context?{number}").body == b"set unset"
    answers = [worker.response(stream) for stream in worker.burst([f"/context?{number}" for number in range(64)])]
    # A worker on a busy machine may decline some.
    assert {answer.body for answer in answers if answer.closed != DECLINE} == {b"set unset"}
