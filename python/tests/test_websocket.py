"""ASGI WebSockets, seen from Caddy's side of the socket: handshake, messages, credit, ends."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from caddysnake.messages import Messages
from conftest import Launch, shared
from driver import (
    ACCEPT,
    BINARY,
    CLOSE,
    CREDIT,
    DATA,
    END,
    ERROR,
    MAX_DATA,
    MESSAGE_COST,
    REQUEST,
    RESET,
    RESPONSE,
    STOP,
    TEXT,
    WINDOW,
    Frame,
    Worker,
    frame,
    scope,
    until,
)

Message = dict[str, Any]

ACCEPTED: Message = {"type": "websocket.accept"}
HELLO: Message = {"type": "websocket.send", "text": "hello"}
CLOSED: Message = {"type": "websocket.close"}


@pytest.fixture(scope="module", params=["native", "uvloop"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    yield from shared("websocket_apps:app", "asgi", runtime=request.param)


@pytest.fixture(autouse=True)
def no_old_events(request: pytest.FixtureRequest) -> None:
    if "worker" in request.fixturenames:
        events(request.getfixturevalue("worker"))


def events(worker: Worker) -> list[str]:
    return worker.get("/events").body.decode().splitlines()


def happened(worker: Worker, *expected: str) -> None:
    """Waits for these events, and no others."""
    seen: list[str] = []

    def enough() -> bool:
        seen.extend(events(worker))
        return len(seen) >= len(expected)

    until(enough, f"{expected}")
    assert seen == list(expected)


def shake_hands(worker: Worker, path: str, **changes: Any) -> int:
    """Asks for a WebSocket; its stream."""
    [stream] = worker.next_streams(1)
    worker.write(frame(REQUEST, stream, scope(path, scheme="ws", subprotocols=[], **changes)))
    return stream


def connect(worker: Worker, path: str, **changes: Any) -> int:
    """A WebSocket that is accepted."""
    stream = shake_hands(worker, path, **changes)
    got = worker.next(stream)
    assert (got.kind, got.head) == (ACCEPT, ("", [])), got
    return stream


def sending(worker: Worker, *messages: Message, **changes: Any) -> int:
    """A WebSocket whose app sends these messages."""
    return shake_hands(worker, "/send", **{"test.messages": list(messages), **changes})


def leave(worker: Worker, stream: int, code: int = 1000, reason: str = "") -> None:
    """Closes the client's side, and checks that the worker closes the stream."""
    worker.write(frame(CLOSE | END, stream, (code, reason)))
    until(lambda: worker.next(stream).kind == RESET, "the stream closes")


def to_close(worker: Worker, stream: int) -> list[Frame]:
    """All frames up to the CLOSE."""
    received = [worker.next(stream)]
    while received[-1].kind != CLOSE:
        received.append(worker.next(stream))
    return received


def message(worker: Worker, stream: int) -> tuple[int, bytes]:
    """The next message, of one frame: TEXT or BINARY, and the data."""
    got = worker.next(stream)
    assert got.end
    return got.kind, got.data


def late_error(worker: Worker) -> tuple[str, Any]:
    """Waits for the log entry of an app that raised when its stream was closed: the level and the error."""
    level, _, fields = worker.log_entry("app raised after its response")
    worker.logs.clear()
    return level, fields["error"]


def credit_size(got: Frame) -> int:
    return int.from_bytes(got.data, "little")


# The handshake


def test_accept_carries_the_subprotocol_and_headers_in_lower_case(worker: Worker) -> None:
    headers = [(b"X-Room", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    stream = sending(worker, {**ACCEPTED, "subprotocol": "chat", "headers": headers})
    got = worker.next(stream)
    assert (got.kind, got.data) == (ACCEPT, b"")
    assert got.head == ("chat", [(b"x-room", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])


def test_types_that_are_like_the_ones_asked_for(worker: Worker) -> None:
    stream = shake_hands(worker, "/kinds")
    assert worker.next(stream).head == ("", [(b"x-array", b"view")])
    received = [message(worker, stream) for _ in range(4)]
    assert received == [(BINARY, b"array"), (BINARY, b"view"), (BINARY, b""), (TEXT, b"")]


def test_subclasses_of_str_are_sent(worker: Worker) -> None:
    stream = shake_hands(worker, "/words")
    assert worker.next(stream).head == ("chat", [])
    assert worker.next(stream).head == (4000, "bye")


@pytest.mark.parametrize("subprotocol", ["not a token", "chat, talk", "ch\xe4t", b"chat"])
def test_a_subprotocol_is_a_token(worker: Worker, subprotocol: Any) -> None:
    stream = connect(worker, "/try_again", **{"test.accept": {"subprotocol": subprotocol}})
    assert b"subprotocol" in message(worker, stream)[1]


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ([(b"x-large", b"a" * (1 << 20))], "ValueError: the headers of a response have 1048"),
        ([(b"sec-websocket-protocol", b"chat")], "ValueError: the header sec-websocket-protocol is the server's own"),
        ([(b"Sec-WebSocket-Extensions", b"x")], "ValueError: the header sec-websocket-extensions is the server's own"),
        ([(b"x-evil", b"a\r\nb: c")], "ValueError: illegal value of the response header x-evil"),
        ([("x-text", "value")], "TypeError: the name and value of a response header are bytes"),
        ([b"x-alone"], "TypeError: a response header is a pair of bytes"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused_and_the_app_may_try_again(
    worker: Worker, headers: list[Any], error: str
) -> None:
    stream = connect(worker, "/try_again", **{"test.accept": {"headers": headers}})
    kind, data = message(worker, stream)
    assert (kind, data.decode()[: len(error)]) == (TEXT, error)


def test_close_before_accept_rejects_the_handshake(worker: Worker) -> None:
    """Caddy answers 403, which has no place for a code, so the app may give any."""
    stream = sending(worker, {**CLOSED, "code": 403, "reason": "not you"}, **{"test.wait": True})
    got = worker.next(stream)
    assert (got.kind, got.head) == (CLOSE, (1000, ""))
    happened(worker, "websocket.close", "disconnect 1006 ''")


def test_a_client_that_goes_before_accept(worker: Worker) -> None:
    stream = sending(worker, **{"test.wait": True})
    worker.reset(stream)
    assert worker.response(stream).closed == RESET
    happened(worker, "disconnect 1006 ''")


# Denial responses


def deny(kind: str, **rest: Any) -> Message:
    return {"type": f"websocket.http.response.{kind}", **rest}


def test_a_denial_response_is_a_response_of_one_frame(worker: Worker) -> None:
    start = deny("start", status=401, headers=[(b"www-authenticate", b"Basic")])
    stream = sending(worker, start, deny("body", body=b"who are you?"))
    assert worker.response(stream) == (401, [(b"www-authenticate", b"Basic")], b"who are you?", None, RESPONSE)


def test_a_denial_begins_before_its_body_also_after_a_wrong_one(worker: Worker) -> None:
    stream = shake_hands(worker, "/deny_again")
    got = worker.next(stream)
    assert (got.kind, got.head) == (RESPONSE, (403, []))
    worker.reset(stream)
    assert worker.response(stream).closed == RESET


def test_a_long_denial_waits_for_credit(worker: Worker) -> None:
    body = b"d" * (WINDOW + MAX_DATA)
    stream = sending(worker, deny("start", status=403), deny("body", body=body))
    until(lambda: sum(len(got.data) for got in worker.waiting(stream)) == WINDOW, "all that there is credit for")
    happened(worker, "websocket.http.response.start")
    worker.credit(stream, WINDOW)
    got = worker.response(stream)
    assert (got.status, got.body, got.closed) == (403, body, DATA)


def test_receive_says_disconnect_after_a_denial(worker: Worker) -> None:
    assert worker.response(shake_hands(worker, "/listen_while_denying")).body == b"later"
    happened(worker, "disconnect 1006 ''")


def test_a_client_that_goes_during_a_denial(worker: Worker) -> None:
    stream = sending(worker, deny("start", status=403), deny("body", body=bytes(2 * WINDOW), more_body=True))
    until(lambda: sum(len(got.data) for got in worker.waiting(stream)) == WINDOW, "all that there is credit for")
    worker.reset(stream)
    assert worker.response(stream).closed == RESET
    happened(worker, "websocket.http.response.start", "ClientGone: the client has gone")


@pytest.mark.parametrize(
    "messages",
    [
        [deny("start", status=403)],
        [deny("start", status=403), deny("body", body=b"part", more_body=True)],
    ],
)
def test_a_denial_that_is_not_whole_is_an_error(worker: Worker, messages: list[Message]) -> None:
    assert worker.response(sending(worker, *messages)).error == ("", "")


# Messages from the client


def test_text_and_bytes_both_ways(worker: Worker) -> None:
    stream = connect(worker, "/echo")
    for kind, data in [(TEXT, "grüße".encode()), (BINARY, b"\xff\x00"), (TEXT, b""), (BINARY, b"")]:
        worker.write(frame(kind | END, stream, None, data))
        assert message(worker, stream) == (kind, data)
    leave(worker, stream)


def test_parts_are_put_together_even_within_a_character(worker: Worker) -> None:
    stream = connect(worker, "/echo")
    parts = [frame(TEXT, stream, None, b"gr\xc3"), frame(TEXT, stream, None, b"\xbcn"), frame(TEXT | END, stream)]
    worker.write(parts[0])
    assert worker.get("/hello").body == b"hello"
    assert worker.waiting(stream) == []
    worker.write(parts[1] + parts[2] + frame(BINARY | END, stream, None, b"next"))
    assert message(worker, stream) == (TEXT, "grün".encode())
    assert message(worker, stream) == (BINARY, b"next")
    leave(worker, stream)


def test_many_messages_in_one_write_stay_in_order(worker: Worker) -> None:
    stream = connect(worker, "/echo")
    worker.write(b"".join(frame(TEXT | END, stream, None, b"%d" % number) for number in range(1000)))
    assert [message(worker, stream)[1] for _ in range(1000)] == [b"%d" % number for number in range(1000)]
    leave(worker, stream)


def test_what_the_app_does_not_receive_gets_no_credit(worker: Worker) -> None:
    stream = connect(worker, "/idle")
    for _ in range(WINDOW // (MAX_DATA + MESSAGE_COST)):
        worker.write(frame(BINARY | END, stream, None, bytes(MAX_DATA)))
    assert worker.get("/hello").body == b"hello"
    assert worker.waiting(stream) == []
    worker.get("/open")
    assert credit_size(worker.next(stream)) >= WINDOW // 2
    leave(worker, stream)


def test_a_message_longer_than_the_window_gets_credit_while_the_app_waits_for_it(worker: Worker) -> None:
    stream = connect(worker, "/sizes")
    left, credit = 3 * WINDOW, WINDOW
    while left:
        while credit <= 0:
            got = worker.next(stream)
            assert got.kind == CREDIT
            credit += credit_size(got)
        part = min(left, credit, MAX_DATA)
        left -= part
        credit -= part + MESSAGE_COST
        worker.write(frame(BINARY if left else BINARY | END, stream, None, bytes(part)))
    until(lambda: worker.next(stream).data == b"%d" % (3 * WINDOW), "the size")
    leave(worker, stream)


def test_empty_messages_cost_credit_and_get_it_back(worker: Worker) -> None:
    stream = connect(worker, "/sizes")
    for _ in range(2):
        worker.write(frame(TEXT | END, stream) * (WINDOW // MESSAGE_COST))
        answers, credit = 0, 0
        while answers < WINDOW // MESSAGE_COST or credit < WINDOW:
            got = worker.next(stream)
            if got.kind == CREDIT:
                credit += credit_size(got)
            else:
                assert (got.kind, got.data) == (TEXT, b"0")
                answers += 1
                worker.credit(stream, 1 + MESSAGE_COST)
        assert credit == WINDOW
    leave(worker, stream)


@pytest.mark.parametrize(
    "beyond",
    [
        frame(BINARY | END, 1, None, bytes(WINDOW + 1)),
        frame(BINARY, 1, None, bytes(WINDOW)) + frame(BINARY | END, 1),
        frame(TEXT | END, 1) * (WINDOW // MESSAGE_COST + 1),
    ],
    ids=["one", "two", "empty"],
)
def test_messages_beyond_the_credit_end_the_worker(launch: Launch, beyond: bytes) -> None:
    worker = launch("websocket_apps:app", "asgi").start()
    assert connect(worker, "/idle") == 1
    worker.write(beyond)
    assert worker.wait() == 1
    assert "with credit for" in worker.output()


# Messages to the client


def test_a_large_message_is_sent_in_parts_as_credit_allows(worker: Worker) -> None:
    large = {"type": "websocket.send", "bytes": bytes(2 * WINDOW)}
    stream = sending(worker, ACCEPTED, large, CLOSED)
    assert worker.next(stream).kind == ACCEPT
    received, cost = 0, 0
    while received < 2 * WINDOW:
        got = worker.next(stream)
        assert got.kind == BINARY
        assert len(got.data) <= min(MAX_DATA, WINDOW - cost)
        received += len(got.data)
        cost += len(got.data) + MESSAGE_COST
        assert got.end == (received == 2 * WINDOW)
        if cost >= WINDOW:
            assert worker.waiting(stream) == []
            assert events(worker)[1:] == []  # send() waits
            worker.credit(stream, cost)
            cost = 0
    assert worker.next(stream).kind == CLOSE


def test_empty_messages_wait_for_credit_too(worker: Worker) -> None:
    free = WINDOW // MESSAGE_COST
    stream = connect(worker, f"/flood?{free + 2}")
    assert [message(worker, stream) for _ in range(free)] == [(TEXT, b"")] * free
    assert worker.get("/hello").body == b"hello"
    assert worker.waiting(stream) == []
    worker.credit(stream, 1)
    assert message(worker, stream) == (TEXT, b"")
    worker.credit(stream, MESSAGE_COST - 1)
    assert worker.get("/hello").body == b"hello"
    assert worker.waiting(stream) == []
    worker.credit(stream, 1)
    assert message(worker, stream) == (TEXT, b"")
    assert worker.next(stream).kind == CLOSE


@pytest.mark.parametrize(("what", "kinds"), [("send", [TEXT, CLOSE]), ("close", [CLOSE])])
def test_nothing_comes_between_the_parts_of_a_message(worker: Worker, what: str, kinds: list[int]) -> None:
    stream = connect(worker, f"/together?{WINDOW + MAX_DATA}")
    until(lambda: sum(len(got.data) for got in worker.waiting(stream)) >= WINDOW - 4 * MESSAGE_COST, "half of it")
    more = (2 * MAX_DATA).to_bytes(4, "little")
    worker.write(frame(TEXT | END, stream, None, what.encode()) + frame(CREDIT, stream, None, more))
    received = to_close(worker, stream)
    parts, last = received[: -len(kinds) - 1], received[-len(kinds) - 1]
    assert {(got.kind, got.end) for got in parts} == {(BINARY, False)}
    assert (last.kind, last.end) == (BINARY, True)
    assert [got.kind for got in received[-len(kinds) :]] == kinds


def test_a_message_that_is_cancelled_midway_ends_the_websocket(worker: Worker) -> None:
    stream = connect(worker, f"/half?{2 * WINDOW}")
    until(lambda: sum(len(got.data) for got in worker.waiting(stream)) >= WINDOW - 4 * MESSAGE_COST, "half of it")
    worker.get("/open")
    *parts, last = to_close(worker, stream)
    assert {(got.kind, got.end) for got in parts} == {(BINARY, False)}
    assert (last.kind, last.head) == (CLOSE, (1011, ""))
    happened(worker, "disconnect 1011 ''")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"text": 1}, "TypeError: websocket.send has a text, a str, or bytes, not int"),
        ({"bytes": "text"}, "TypeError: the bytes of websocket.send are bytes, not str"),
        ({}, "TypeError: websocket.send has a text, a str, or bytes, not NoneType"),
        ({"text": "\ud800"}, "UnicodeEncodeError: 'utf-8' codec can't encode"),
    ],
    ids=["text", "bytes", "neither", "surrogate"],
)
def test_a_message_that_cannot_be_sent_is_the_apps_error(worker: Worker, wrong: Message, error: str) -> None:
    stream = sending(worker, ACCEPTED, {"type": "websocket.send", **wrong})
    got = worker.response(stream)
    assert got.error is not None
    assert got.error[0].startswith(error)


# Ends


def test_the_client_closes(worker: Worker) -> None:
    stream = connect(worker, "/echo")
    worker.write(frame(CLOSE | END, stream, (4000, "bye")))
    assert worker.response(stream).closed == RESET
    happened(worker, "disconnect 4000 'bye'", "True")


def test_messages_that_came_before_the_close_are_received_before_it(worker: Worker) -> None:
    stream = connect(worker, "/idle")
    worker.write(frame(TEXT | END, stream, None, b"x") * 3 + frame(CLOSE | END, stream, (1001, "")))
    worker.get("/open")
    assert worker.response(stream).closed == RESET
    happened(worker, "3 messages", "disconnect 1001 ''")


def test_the_connection_is_lost(worker: Worker) -> None:
    stream = connect(worker, "/echo")
    worker.reset(stream)
    assert worker.response(stream).closed == RESET
    happened(worker, "disconnect 1006 ''", "True")


def test_the_app_closes_while_another_task_receives(worker: Worker) -> None:
    stream = connect(worker, "/listen")
    got = worker.next(stream)
    assert (got.kind, got.end, got.head) == (CLOSE, False, (4001, "enough"))
    happened(worker, "disconnect 4001 'enough'")


def test_what_has_not_been_received_at_the_apps_close_is_dropped(worker: Worker) -> None:
    stream = connect(worker, "/close_unread")
    worker.write(frame(TEXT | END, stream, None, b"x") * 3)
    worker.get("/open")
    assert worker.next(stream).head == (4002, "")
    happened(worker, "disconnect 4002 ''")


@pytest.mark.parametrize("given", [{}, {"code": None, "reason": None}, {"code": 1000, "reason": ""}])
def test_a_close_without_code_and_reason_is_a_normal_one(worker: Worker, given: Message) -> None:
    stream = sending(worker, ACCEPTED, {**CLOSED, **given})
    worker.next(stream)
    assert worker.next(stream).head == (1000, "")


@pytest.mark.parametrize("code", [1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000])
def test_codes_that_may_not_be_sent(worker: Worker, code: int) -> None:
    got = worker.response(sending(worker, ACCEPTED, {**CLOSED, "code": code}))
    assert got.error is not None
    assert got.error[0] == f"ValueError: a WebSocket cannot be closed with code {code}"


@pytest.mark.parametrize(("given", "sent"), [("é" * 100, "é" * 61), ([1, 2], "[1, 2]")])
def test_a_long_reason_is_cut_between_characters_and_a_list_is_one(worker: Worker, given: Any, sent: str) -> None:
    stream = sending(worker, ACCEPTED, {**CLOSED, "reason": given})
    assert [worker.next(stream).head for _ in range(2)][1] == (1000, sent)


def test_an_app_that_returns_has_closed_normally(worker: Worker) -> None:
    stream = sending(worker, ACCEPTED, HELLO)
    assert [worker.next(stream).kind for _ in range(2)] == [ACCEPT, TEXT]
    got = worker.next(stream)
    assert (got.kind, got.head) == (CLOSE, (1000, ""))


def test_an_app_that_returns_without_an_answer_to_the_handshake(worker: Worker) -> None:
    assert worker.response(sending(worker)).error == ("", "")


@pytest.mark.parametrize("messages", [[], [ACCEPTED], [ACCEPTED, HELLO]], ids=["before", "after", "midway"])
def test_an_app_that_raises(worker: Worker, messages: list[Message]) -> None:
    stream = sending(worker, *messages, **{"test.raise": True})
    *_, got = [worker.next(stream) for _ in [*messages, "the end"]]
    assert got.kind == ERROR
    text, trace = got.head
    assert text == "ValueError: boom"
    assert "view_send" in trace


def test_an_app_that_raises_after_its_close_is_logged(worker: Worker) -> None:
    stream = sending(worker, ACCEPTED, CLOSED, **{"test.raise": True})
    assert [worker.next(stream).kind for _ in range(2)] == [ACCEPT, CLOSE]
    assert late_error(worker) == ("error", "ValueError: boom")
    assert worker.waiting(stream) == []


@pytest.mark.parametrize("then", ["", "raise"])
def test_nothing_can_be_sent_after_disconnect(worker: Worker, then: str) -> None:
    stream = connect(worker, f"/after?{then}")
    worker.write(frame(CLOSE | END, stream, (1000, "")))
    got = worker.response(stream)
    assert (got.closed, got.error) == (RESET, None)
    happened(worker, "disconnect 1000 ''", "send raised ClientGone", "close raised ClientGone")


@pytest.mark.parametrize(("how", "level"), [("other", "error"), ("because", "debug"), ("group", "debug")])
def test_an_app_that_raises_after_the_client_has_gone_is_logged_unless_that_is_why(
    worker: Worker, how: str, level: str
) -> None:
    stream = connect(worker, f"/after?{how}")
    leave(worker, stream)
    logged, error = late_error(worker)
    assert logged == level
    assert "after the client went" in error


def test_a_send_that_waits_ends_when_the_client_goes(worker: Worker) -> None:
    stream = sending(worker, ACCEPTED, {"type": "websocket.send", "bytes": bytes(2 * WINDOW)})
    until(lambda: sum(len(got.data) for got in worker.waiting(stream)) >= WINDOW - 4 * MESSAGE_COST, "half of it")
    worker.reset(stream)
    until(lambda: worker.next(stream).kind == RESET, "the stream closes")
    happened(worker, "websocket.accept", "ClientGone: the client has gone")


# Messages out of order


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([HELLO], "websocket.send was sent before websocket.accept"),
        ([ACCEPTED, ACCEPTED], "websocket.accept was sent twice"),
        ([ACCEPTED, deny("start", status=403)], "websocket.http.response.start was sent after websocket.accept"),
        ([deny("body", body=b"x")], "http.response.body was sent before http.response.start"),
        ([deny("start", status=403), ACCEPTED], "websocket.accept was sent after websocket.http.response.start"),
        ([deny("start", status=403), HELLO], "websocket.send was sent before websocket.accept"),
        ([deny("start", status=403), CLOSED], "websocket.close was sent after websocket.http.response.start"),
        ([ACCEPTED, {"type": "websocket.receive"}], "unexpected message 'websocket.receive'"),
        ([{"type": "http.response.start", "status": 200}], "unexpected message 'http.response.start'"),
    ],
)
def test_messages_out_of_order(worker: Worker, messages: list[Message], error: str) -> None:
    got = worker.response(sending(worker, *messages))
    assert got.error is not None
    assert got.error[0] == f"RuntimeError: {error}"


@pytest.mark.parametrize("late", [ACCEPTED, HELLO, CLOSED, deny("start", status=403)], ids=lambda late: late["type"])
def test_messages_after_the_close(worker: Worker, late: Message) -> None:
    stream = sending(worker, ACCEPTED, CLOSED, late)
    assert [worker.next(stream).kind for _ in range(2)] == [ACCEPT, CLOSE]
    assert late_error(worker) == ("error", f"RuntimeError: {late['type']} was sent after the end of the websocket")


# Frames out of place


def test_late_frames_are_ignored(worker: Worker) -> None:
    stream = sending(worker, ACCEPTED, CLOSED)
    assert [worker.next(stream).kind for _ in range(2)] == [ACCEPT, CLOSE]
    worker.write(frame(TEXT | END, stream, None, b"late") + frame(BINARY, stream, None, b"half"))
    worker.credit(stream, 100)
    worker.write(frame(CLOSE | END, stream, (1000, "")))
    worker.reset(stream)
    assert worker.get("/hello").body == b"hello"
    assert worker.waiting(stream) == []


@pytest.mark.parametrize("kind", [TEXT, BINARY, CLOSE])
def test_a_frame_for_a_stream_that_was_never_used_ends_the_worker(launch: Launch, kind: int) -> None:
    worker = launch("websocket_apps:app", "asgi").start()
    worker.write(frame(kind | END, 7, (1000, "") if kind == CLOSE else None))
    assert worker.wait() == 1
    assert "stream 7" in worker.output()


@pytest.mark.parametrize("kind", [TEXT, BINARY, CLOSE])
def test_a_websocket_frame_for_a_request_ends_the_worker(launch: Launch, kind: int) -> None:
    worker = launch("websocket_apps:app", "asgi").start()
    worker.write(frame(kind | END, worker.request("/wait"), (1000, "") if kind == CLOSE else None))
    assert worker.wait() == 1


def test_a_body_for_a_websocket_ends_the_worker(launch: Launch) -> None:
    worker = launch("websocket_apps:app", "asgi").start()
    worker.write(frame(DATA | END, connect(worker, "/echo"), None, b"x"))
    assert worker.wait() == 1


# Beside others


def test_requests_go_on_beside_idle_websockets(worker: Worker) -> None:
    streams = [connect(worker, "/echo") for _ in range(1000)]
    assert worker.get("/hello").closed == RESPONSE
    for stream in streams:
        worker.write(frame(CLOSE | END, stream, (1000, "")))
    assert {worker.response(stream).closed for stream in streams} == {RESET}


def test_stop_ends_a_websocket_whose_client_has_been_told(launch: Launch) -> None:
    worker = launch("websocket_apps:app", "asgi").start()
    stream = connect(worker, "/echo")
    worker.write(frame(CLOSE | END, stream, (1012, "")) + frame(STOP, 0, 0))
    assert worker.response(stream).closed == RESET
    assert worker.wait() == 0


def test_a_message_in_many_parts_takes_no_more_memory_than_its_bytes() -> None:
    size = 200_000
    arriving = Messages()
    tracemalloc.start()
    try:
        for number in range(size):
            arriving.feed(BINARY, b"x", number == size - 1)
            if number < size - 1:
                assert arriving.take() is None
            arriving.grant()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert arriving.take() == (BINARY, b"x" * size)
    assert most < 4 * size
