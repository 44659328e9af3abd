"""ASGI HTTP, on asyncio and on uvloop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Launch, shared
from driver import CREDIT, DATA, END, ERROR, MAX_DATA, REQUEST, RESET, RESPONSE, STOP, WINDOW, Worker, frame, until

PLAIN = (b"content-type", b"text/plain")


@pytest.fixture(scope="module", params=["native", "uvloop"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    yield from shared("asgi_apps:app", "asgi", runtime=request.param)


def events(worker: Worker) -> list[str]:
    return worker.get("/events").body.decode().splitlines()


# The response


def test_start_and_whole_body_travel_in_one_frame(worker: Worker) -> None:
    assert worker.get("/hello") == (200, [PLAIN], b"hello", None, RESPONSE)


@pytest.mark.parametrize("runtime", ["native", "uvloop"])
def test_a_start_waits_for_an_app_that_is_about_to_run(launch: Launch, runtime: str) -> None:
    worker = launch("asgi_apps:preempted()", "asgi", runtime=runtime).start()
    stream = worker.request("/hints")
    assert [worker.next(stream).data for _ in range(2)] == [b"</1>", b"</2>"]
    assert worker.response(stream).body == b"hinted"


def test_what_has_a_default_can_be_left_out(worker: Worker) -> None:
    assert worker.get("/minimal") == (200, [], b"", None, RESPONSE)


def test_an_awaitable_that_is_no_coroutine_is_an_app(launch: Launch) -> None:
    worker = launch("asgi_apps:future", "asgi").start()
    assert worker.get("/pause").body == b"first last"


def test_the_app_runs_in_a_task_of_the_loop_that_there_was_at_its_import(worker: Worker) -> None:
    assert worker.get("/task").body == b"Task"


@pytest.mark.parametrize("runtime", ["native", "uvloop"])
@pytest.mark.parametrize(
    ("app", "body"),
    [("imports_run:app", b"run"), ("imports_within:app", b"within"), ("imports_common:make_app()", b"made")],
)
def test_an_app_may_run_a_loop_at_import_or_ask_for_the_one_that_runs(
    launch: Launch, runtime: str, app: str, body: bytes
) -> None:
    worker = launch(app, "asgi", runtime=runtime).start()
    assert worker.get("/").body == body
    assert worker.stop() == 0
    assert worker.output() == ""


def test_parts_come_in_order_whatever_is_awaited_between_them(worker: Worker) -> None:
    assert worker.get("/pause").body == b"first last"
    assert worker.get("/stream?100").body == b"x" * 100_000


def test_a_batch_is_answered_by_each_for_itself(worker: Worker) -> None:
    streams = worker.burst(["/hello", "/pause", "/stream?3", "/context?1"] * 50)
    for at, stream in enumerate(streams):
        expected = [b"hello", b"first last", b"x" * 3000, b"set unset"][at % 4]
        assert worker.response(stream).body == expected


def test_a_thousand_requests_are_in_flight_at_once(worker: Worker) -> None:
    streams = worker.burst(["/wait"] * 2000)
    assert worker.get("/hello").body == b"hello"
    assert worker.get("/open").body == b"opened"
    assert {worker.response(stream).body for stream in streams} == {b"waited"}


def test_a_start_leaves_although_its_body_is_awaited(worker: Worker) -> None:
    stream = worker.request("/start/wait")
    got = worker.next(stream)
    assert (got.kind, got.end, got.data) == (RESPONSE, False, b"")
    worker.get("/open")
    assert worker.response(stream).body == b"late"


def test_a_part_leaves_although_the_next_is_awaited(worker: Worker) -> None:
    stream = worker.request("/stream/wait")
    assert worker.next(stream).data == b"first"
    worker.get("/open")
    assert worker.response(stream).body == b"second"


def test_what_is_finished_is_not_held_by_slow_requests_behind_it(worker: Worker) -> None:
    first, *others = worker.burst(["/hello", "/block?0.3", "/block?0.3"])
    assert worker.response(first).body == b"hello"
    assert worker.waiting(others[1]) == []  # it was not waited for
    assert [worker.response(stream).body for stream in others] == [b"blocked"] * 2


def test_what_is_finished_is_not_held_where_the_app_blocks_the_loop_again_and_again(worker: Worker) -> None:
    for _ in range(3):
        for stream in worker.burst(["/hello", "/block?0.05"]):
            worker.response(stream)
    hello, block = worker.burst(["/hello", "/block?0.5"])
    assert worker.response(hello).body == b"hello"
    assert worker.waiting(block) == []  # it was not waited for
    assert worker.response(block).body == b"blocked"


def test_send_waits_for_credit(worker: Worker) -> None:
    events(worker)
    stream = worker.request(f"/download?{WINDOW + 2 * MAX_DATA}")
    until(lambda: sum(len(got.data) for got in worker.waiting(stream)) == WINDOW, "all that there is credit for")
    assert events(worker) == []
    worker.credit(stream, WINDOW)
    assert worker.response(stream).body == b"d" * (WINDOW + 2 * MAX_DATA)
    assert events(worker) == ["sent"]


def test_10_megabytes_are_streamed(worker: Worker) -> None:
    assert len(worker.get(f"/download?{10 << 20}").body) == 10 << 20
    assert len(worker.get(f"/stream?{10_000}").body) == 10_000_000


def test_a_caddy_that_reads_late_gets_everything(worker: Worker) -> None:
    """More than the socket takes is under way before anything is read."""
    streams = worker.burst([f"/download?{WINDOW}"] * 120)
    assert worker.get("/hello").body == b"hello"
    assert {len(worker.response(stream).body) for stream in streams} == {WINDOW}


def test_types_that_are_like_the_ones_asked_for(worker: Worker) -> None:
    got = worker.get("/kinds")
    assert (got.status, got.headers, got.body) == (201, [(b"x-array", b"view")], b"array view")


def test_a_buffer_can_be_used_again_after_send(worker: Worker) -> None:
    assert worker.get("/reuse").body == b"original"


# The request's body


def test_a_body_in_the_first_frame(worker: Worker) -> None:
    assert worker.get("/echo", "POST", b"body").body == b"body"
    assert worker.get("/echo").body == b""


@pytest.mark.parametrize("size", [MAX_DATA, MAX_DATA + 1, 3 * WINDOW + 1])
def test_a_body_in_many_frames(worker: Worker, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    assert worker.upload("/echo", body[:size]).body == body[:size]


def test_10_megabytes_are_uploaded(worker: Worker) -> None:
    assert worker.upload("/echo", b"u" * (10 << 20)).body == b"u" * (10 << 20)


def test_a_body_may_end_with_an_empty_frame(worker: Worker) -> None:
    stream = worker.request("/echo", "POST", b"first", end=False)
    assert worker.next(stream).kind == CREDIT
    worker.write(frame(DATA | END, stream))
    assert worker.response(stream).body == b"first"


def test_a_response_may_begin_before_the_body_has_come(worker: Worker) -> None:
    stream = worker.request("/duplex", "POST", b"first ", end=False)
    got = worker.next(stream)
    assert (got.kind, got.data) == (RESPONSE, b"FIRST ")
    assert worker.next(stream).kind == CREDIT
    worker.write(frame(DATA, stream, None, b"second "))
    assert worker.next(stream).data == b"SECOND "
    worker.write(frame(DATA | END, stream, None, b"last"))
    assert worker.response(stream).body == b"LAST"


def test_no_credit_is_given_for_a_body_that_nobody_reads(worker: Worker) -> None:
    stream = worker.request("/ignore/body", "POST", b"u" * MAX_DATA, end=False)
    got = worker.next(stream)
    assert (got.kind, got.end) == (RESPONSE, True)
    worker.write(frame(DATA | END, stream, None, b"late"))
    assert worker.get("/hello").body == b"hello"
    assert worker.waiting(stream) == []


# The client goes


def test_disconnect_is_received_and_send_raises(worker: Worker) -> None:
    for query, logged in [("", False), ("?raise", False), ("?other", True)]:
        events(worker)
        worker.logs.clear()
        stream = worker.request("/disconnect" + query)
        worker.get("/hello")
        worker.reset(stream)
        got = worker.response(stream)
        assert (got.status, got.closed) == (0, RESET)
        assert events(worker) == ["http.disconnect", "send raised ClientGone"]
        if logged:
            level, _, fields = worker.log_entry("after its response")
            assert (level, fields["error"]) == ("debug", "ValueError: after the client went")


def test_send_raises_while_it_waits_for_credit(worker: Worker) -> None:
    events(worker)
    stream = worker.request("/endless")
    until(lambda: sum(len(got.data) for got in worker.waiting(stream)) > WINDOW - 1000, "all credit is used")
    worker.reset(stream)
    assert worker.response(stream, grant=False).closed == RESET
    assert events(worker) == ["send raised ClientGone"]


def test_a_task_that_listens_hears_the_client_go(worker: Worker) -> None:
    events(worker)
    stream = worker.request("/listen")
    assert worker.next(stream).data == b"streaming"
    worker.reset(stream)
    assert worker.response(stream).closed == RESET
    assert events(worker) == ["heard", "cancelled"]


@pytest.mark.parametrize(("parts", "done"), [(0, True), (1, True), (2, False)])
def test_what_an_app_does_after_its_response_is_done_although_the_client_went_before_it(
    worker: Worker, parts: int, done: bool
) -> None:
    events(worker)
    stream = worker.request(f"/order?{parts}")
    worker.get("/hello")
    worker.reset(stream)
    worker.get("/open")
    got = worker.response(stream)
    assert (got.status, got.closed) == (0, RESET)
    assert events(worker) == ["done after the response"] * done, "streams are told by an OSError"


@pytest.mark.parametrize("query", ["", "?late"])
def test_a_response_that_would_never_hear_that_its_client_has_gone_is_cancelled(worker: Worker, query: str) -> None:
    events(worker)
    worker.logs.clear()
    stream = worker.request("/quiet" + query)
    if query:
        worker.get("/hello")
    else:
        assert worker.next(stream).data == b"first"
    worker.reset(stream)
    worker.get("/open")
    assert worker.response(stream).closed == RESET
    assert events(worker) == ["ended"]
    assert worker.logs == []


def test_a_response_that_has_heard_it_goes_on(worker: Worker) -> None:
    events(worker)
    quiet, told = worker.request("/quiet"), worker.request("/told")
    for stream in (quiet, told):
        assert worker.next(stream).data == b"first"
        worker.reset(stream)
    assert worker.response(quiet).closed == RESET
    assert worker.waiting(told) == []
    worker.get("/open")
    assert worker.response(told).closed == RESET
    assert events(worker) == ["http.disconnect", "ended", "done"]


def test_disconnect_is_received_after_the_response(worker: Worker) -> None:
    events(worker)
    assert worker.get("/after").body == b"over"
    assert events(worker) == ["http.disconnect"] * 2
    assert worker.get("/listen/twice").body == b"sent"
    assert until(lambda: events(worker), "the end of the task") == ["http.disconnect"]


def test_a_reset_after_the_response_changes_nothing(worker: Worker) -> None:
    stream = worker.request("/background")
    assert worker.response(stream).body == b"answered"
    worker.reset(stream)
    worker.get("/open")
    assert until(lambda: events(worker), "the end of the background task") == ["background done"]
    assert worker.waiting(stream) == []


def test_a_body_with_a_hole_is_never_whole(worker: Worker) -> None:
    stream = worker.request("/skip")
    got = worker.response(stream, grant=False)
    assert len(got.body) == WINDOW
    assert got.closed == ERROR


# Apps that block the loop


@pytest.mark.parametrize("pause", [0.01] + [0.0] * (sys.version_info >= (3, 12)))
@pytest.mark.parametrize("where", ["after", "within"])
def test_what_was_sent_leaves_before_the_app_blocks_the_loop(
    worker: Worker, tmp_path: Path, where: str, pause: float
) -> None:
    for number in range(3):
        path = tmp_path / str(number)
        stream = worker.request(f"/blocks?{pause},{where},{path}")
        assert worker.next(stream).data == (b"whole" if where == "after" else b"first")
        path.touch()
        if where != "after":
            assert worker.next(stream).data == b"second"
        assert worker.get("/hello").body == b"hello"


# Errors


@pytest.mark.parametrize("path", ["/raise", "/raise/later"])
@pytest.mark.parametrize("name", ["ValueError", "SystemExit", "KeyboardInterrupt", "CancelledError"])
def test_an_exception_is_an_error_of_the_request_alone(worker: Worker, path: str, name: str) -> None:
    got = worker.get(f"{path}?{name}=boom")
    assert (got.status, got.closed) == (0, ERROR)
    assert got.error is not None
    message, trace = got.error
    assert message == f"{name}: boom"
    assert "in view_raise" in trace
    assert "caddysnake" not in trace
    assert worker.get("/hello").status == 200


def test_an_exception_between_start_and_body_is_a_500(worker: Worker) -> None:
    got = worker.get("/raise/after/start")
    assert (got.status, got.closed) == (0, ERROR)


def test_an_exception_within_the_body_cuts_it(worker: Worker) -> None:
    got = worker.get("/raise/midway")
    assert (got.status, got.body, got.closed) == (200, b"begun", ERROR)


def test_an_exception_after_the_response_is_logged(worker: Worker) -> None:
    worker.logs.clear()
    assert worker.get("/raise/after").body == b"whole"
    level, _, fields = worker.log_entry("after its response")
    assert (level, fields["error"]) == ("error", "ValueError: after it")
    assert (fields["method"], fields["path"]) == ("GET", "/raise/after")
    assert "view_raise_after" in fields["traceback"]


@pytest.mark.parametrize(("query", "status"), [("", 0), ("?start", 0), ("?body", 200)])
def test_an_app_that_returns_too_early_is_an_error(worker: Worker, query: str, status: int) -> None:
    got = worker.get("/nothing" + query)
    assert (got.status, got.closed, got.error) == (status, ERROR, ("", ""))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("body_first", "RuntimeError: http.response.body was sent before http.response.start"),
        ("two_starts", "RuntimeError: http.response.start was sent twice"),
        ("unknown", "RuntimeError: unexpected message 'http.response.push'"),
        ("str", "TypeError: the body of http.response.body is bytes, not str"),
        ("status", "ValueError: the status of a response is 200 or more, not 101"),
        ("bad_status", "ValueError: "),
        ("no_status", "KeyError: 'status'"),
        ("no_type", "KeyError: 'type'"),
    ],
)
def test_a_wrong_message_raises_in_the_app(worker: Worker, query: str, message: str) -> None:
    got = worker.get(f"/wrong?{query}")
    assert got.error is not None
    assert got.error[0].startswith(message)


def test_a_body_after_the_end_raises_in_the_app(worker: Worker) -> None:
    worker.logs.clear()
    assert worker.get("/wrong?after_end").body == b"x"
    fields = worker.log_entry("after its response")[2]
    assert fields["error"] == "RuntimeError: http.response.body was sent after the end of the response"


# Headers


def test_header_names_are_sent_in_lower_case_and_values_in_order(worker: Worker) -> None:
    headers = [(b"Set-Cookie", b"a=1"), (b"X-Caf\xc3\xa9".replace(b"\xc3\xa9", b"e"), b"\xe9"), (b"set-cookie", b"b=2")]
    for _ in range(2):
        got = worker.get("/header", **{"test.headers": headers})
        assert got.headers == [(b"set-cookie", b"a=1"), (b"x-cafe", b"\xe9"), (b"set-cookie", b"b=2")]


def test_each_response_has_its_own_head_whatever_was_sent_before(worker: Worker) -> None:
    for number in (*range(300), 0, 299):  # more than are remembered
        headers = [(b"x-number", str(number).encode())]
        for status in (200, 404):
            got = worker.get("/header", **{"test.headers": headers, "test.status": status})
            assert (got.status, got.headers) == (status, headers)
        got = worker.get("/header", **{"test.headers": [list(pair) for pair in headers]})
        assert (got.status, got.headers) == (200, headers)


@pytest.mark.parametrize("kind", ["readonly", "writable"])
def test_a_header_that_is_a_view_is_sent_as_it_is_now(worker: Worker, kind: str) -> None:
    sent = [worker.get(f"/header_view?{kind}").headers for _ in range(4)]
    assert sent == [[(b"x-view", b"first ")], [(b"x-view", b"second")]] * 2


def test_headers_about_the_connection_are_left_out(worker: Worker) -> None:
    headers = [(b"Connection", b"close"), (b"transfer-encoding", b"chunked"), (b"x-kept", b"1")]
    for _ in range(2):
        assert worker.get("/header", **{"test.headers": headers}).headers == [(b"x-kept", b"1")]


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([(b"x-a", b"a\r\nx-b: b")], "a control character"),
        ([(b"x-a", b"a\x7f")], "a control character"),
        ([(b"x-a", b"a" * (1 << 20))], "at most 1048576"),
        ([(b"x\na", b"a")], "illegal name"),
        ([(b"", b"a")], "illegal name"),
        ([(b"x-\xe9", b"a")], "illegal name"),
        ([("x-a", b"a")], "are bytes"),
        ([(b"x-a", "a")], "are bytes"),
        ([(b"x-a", 1)], "are bytes"),
        ([(b"x-a",)], "pair of bytes"),
        ([1], "pair of bytes"),
        (None, "not iterable"),
    ],
)
def test_threat_5_what_cannot_be_sent_raises_in_the_app(worker: Worker, headers: Any, message: str) -> None:
    for _ in range(2):  # no cache may let it pass the second time
        got = worker.get("/header", **{"test.headers": headers})
        assert got.status == 400
        assert message in got.body.decode()


def test_threat_5_every_byte_in_a_name_and_a_value(worker: Worker) -> None:
    token = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for code in range(256):
        char = bytes([code])
        got = worker.get("/header", **{"test.headers": [(b"x" + char, b"v")]})
        assert (got.status == 200) == (code in token), (code, got)
        got = worker.get("/header", **{"test.headers": [(b"x", b"a" + char + b"b")]})
        assert (got.status == 200) == (char == b"\t" or (code >= 32 and code != 127)), (code, got)
        if got.status == 200:
            assert got.headers == [(b"x", b"a" + char + b"b")]


def test_threat_5_two_lengths_that_differ_are_refused_although_each_is_known(worker: Worker) -> None:
    lengths = [(b"content-length", b"4"), (b"Content-Length", b"5")]
    for headers in (lengths[:1], lengths[1:], lengths[:1] * 2):
        assert worker.get("/header", **{"test.headers": headers}).status == 200
    got = worker.get("/header", **{"test.headers": lengths})
    assert (got.status, got.body) == (400, b"ValueError: a response with two lengths, Content-Length: 4 and 5")


# Context variables


def test_threat_27_each_request_has_a_context_of_its_own(worker: Worker) -> None:
    for number in range(3):
        assert worker.get(f"/context?{number}").body == b"set unset"
    streams = worker.burst([f"/context?{number}" for number in range(64)])
    assert {worker.response(stream).body for stream in streams} == {b"set unset"}


# The loop


def test_uvloop_is_used_where_it_is_installed(launch: Launch) -> None:
    worker = launch("loops:app", "asgi", runtime="auto").start()
    assert worker.get("/").body == b"uvloop"
    assert worker.logs == []
    assert launch("loops:app", "asgi", runtime="native").start().get("/").body.startswith(b"asyncio")


def test_without_uvloop_auto_warns_and_asyncio_runs(launch: Launch) -> None:
    worker = launch("loops:app", "asgi", runtime="auto", python=["-c", WITHOUT_UVLOOP]).start()
    ((level, message, _),) = worker.logs
    assert level == "warn"
    assert f"{sys.executable} -m pip install uvloop" in message
    assert worker.get("/").body.startswith(b"asyncio")


def test_without_uvloop_runtime_uvloop_fails_with_the_fix(launch: Launch) -> None:
    message, _ = launch("loops:app", "asgi", runtime="uvloop", python=["-c", WITHOUT_UVLOOP]).failure()
    assert message.startswith("runtime uvloop: uvloop is not installed")
    assert f"{sys.executable} -m pip install uvloop" in message


# Runs the package as a script does, in an interpreter that has no uvloop.
WITHOUT_UVLOOP = """
import runpy, sys
sys.modules["uvloop"] = None
del sys.argv[0]
sys.path[0] = sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


# The end


def test_stop_waits_for_those_that_run_and_for_background_work(launch: Launch) -> None:
    worker = launch("asgi_apps:app", "asgi").start()
    waits = worker.request("/wait")
    assert worker.get("/background").body == b"answered"
    worker.write(frame(STOP, 0, 0))
    assert worker.waiting(waits) == []
    # Caddy sends no request after STOP; a late one is answered all the same.
    assert worker.get("/open").body == b"opened"
    assert worker.response(waits).body == b"waited"
    assert worker.wait() == 0


def test_tasks_that_the_app_left_are_cancelled_at_the_end(launch: Launch) -> None:
    worker = launch("asgi_apps:app", "asgi").start()
    assert worker.get("/stop/task").body == b"left"
    assert worker.stop() == 0
    assert "task cancelled" in worker.output()


def test_eof_cancels_what_runs(launch: Launch) -> None:
    worker = launch("asgi_apps:app", "asgi").start()
    worker.request("/wait")
    assert worker.get("/hello").body == b"hello"
    worker.sock.close()
    assert worker.wait() == 0


def test_a_request_sent_together_with_start_is_served(launch: Launch) -> None:
    worker = launch("asgi_apps:app", "asgi")
    stream = worker.next_streams(1)[0]
    worker.write(frame(REQUEST | END, stream, worker.head("/hello")))
    worker.start()
    assert worker.response(stream).body == b"hello"
