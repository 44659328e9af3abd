"""ESGI WebSockets, seen from Caddy's side of the socket: frames, credit, ends. docs/esgi.md has what apps are told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Launch, shared
from driver import (
    ACCEPT,
    BINARY,
    CLOSE,
    CREDIT,
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
    Worker,
    esgi_scope,
    frame,
    until,
)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    yield from shared("esgi_apps:app", "esgi")


def shake_hands(worker: Worker, path: str) -> int:
    """Asks for a WebSocket; its stream."""
    [stream] = worker.next_streams(1)
    headers = {"host": "localhost", "sec-websocket-protocol": ["talk, chat", "not a token"]}
    worker.write(frame(REQUEST, stream, esgi_scope(path, proto="ws", scheme="ws", headers=headers)))
    return stream


def connect(worker: Worker, path: str) -> int:
    """A WebSocket that is accepted."""
    stream = shake_hands(worker, path)
    got = worker.next(stream)
    assert (got.kind, got.head) == (ACCEPT, ("", []))
    return stream


def test_echo_of_parts(worker: Worker) -> None:
    stream = connect(worker, "/ws/echo")
    worker.write(frame(TEXT, stream, None, b"in ") + frame(TEXT, stream, None, b"two") + frame(TEXT | END, stream))
    assert worker.next(stream)[:2] == (TEXT, True)
    worker.write(frame(BINARY | END, stream, None, b"\xff"))
    got = worker.next(stream)
    assert (got.kind, got.end, got.data) == (BINARY, True, b"\xff")
    worker.write(frame(CLOSE | END, stream, (4000, "bye")))
    assert worker.response(stream).closed == RESET


def test_a_large_message_is_sent_as_credit_allows(worker: Worker) -> None:
    stream = connect(worker, f"/ws/large?{2 * WINDOW}")
    received, cost = b"", 0
    while len(received) < 2 * WINDOW:
        got = worker.next(stream)
        assert got.kind == BINARY
        assert len(got.data) <= min(MAX_DATA, WINDOW - cost)
        received += got.data
        cost += len(got.data) + MESSAGE_COST
        assert got.end == (len(received) == 2 * WINDOW)
        if cost >= WINDOW // 2:
            worker.credit(stream, cost)
            cost = 0
    assert worker.next(stream).kind == CLOSE


def test_a_message_longer_than_the_window_gets_credit_when_the_app_waits_for_it(worker: Worker) -> None:
    stream = connect(worker, "/ws/count")
    left, credit = 3 * WINDOW, WINDOW
    while left:
        while credit <= 0:
            got = worker.next(stream)
            assert got.kind == CREDIT
            credit += int.from_bytes(got.data, "little")
        part = min(left, credit, MAX_DATA)
        left -= part
        credit -= part + MESSAGE_COST
        worker.write(frame(BINARY if left else BINARY | END, stream, None, bytes(part)))
    until(lambda: worker.next(stream).data == str(3 * WINDOW).encode(), "the size")
    worker.write(frame(CLOSE | END, stream, (1000, "")))
    assert worker.response(stream).closed == RESET


def test_what_the_app_does_not_receive_gets_no_credit(worker: Worker) -> None:
    stream = connect(worker, "/ws/wait")
    for _ in range(WINDOW // (MAX_DATA + MESSAGE_COST)):
        worker.write(frame(BINARY | END, stream, None, bytes(MAX_DATA)))
    assert worker.get("/hello").body == b"hello"
    assert worker.waiting(stream) == []
    worker.get("/open")
    assert worker.next(stream).kind == CREDIT


@pytest.mark.parametrize(
    "late", [frame(BINARY | END, 1, None, bytes(WINDOW + 1)), frame(BINARY, 1, None, bytes(WINDOW)) * 2]
)
def test_messages_beyond_the_credit_end_the_worker(launch: Launch, late: bytes) -> None:
    worker = launch("esgi_apps:app", "esgi").start()
    assert connect(worker, "/ws/wait") == 1
    worker.write(late)
    assert worker.wait() == 1
    assert "credit" in worker.output()


def test_a_message_for_a_request_ends_the_worker(launch: Launch) -> None:
    worker = launch("esgi_apps:app", "esgi").start()
    worker.write(frame(TEXT | END, worker.request("/wait"), None, b"x"))
    assert worker.wait() == 1


def test_ends(worker: Worker) -> None:
    assert worker.next(shake_hands(worker, "/ws/reject")).kind == CLOSE
    assert worker.response(shake_hands(worker, "/ws/nothing")).error is not None
    assert worker.response(connect(worker, "/ws/raise")).closed == ERROR
    stream = connect(worker, "/ws/leave")
    got = worker.next(stream)
    assert (got.kind, got.head) == (CLOSE, (1000, ""))


def test_subclasses_of_str_are_sent(worker: Worker) -> None:
    for _ in range(2):
        stream = shake_hands(worker, "/ws/words")
        assert worker.next(stream).head == ("chat", [("x-room", "1")])
        assert worker.next(stream).head == (4000, "bye")


def test_what_was_refused_has_done_nothing_and_a_long_reason_is_cut_between_characters(worker: Worker) -> None:
    worker.get("/events")
    stream = shake_hands(worker, "/ws/refused")
    assert worker.next(stream).head == ("chat", [])
    assert worker.next(stream).head == (4000, "é" * 61)
    errors = worker.get("/events").body.decode().split()
    assert errors == [*["ValueError"] * 4, "TypeError", "ValueError", "TypeError", "UnicodeEncodeError"]


@pytest.mark.parametrize(("how", "levels"), [("other", ["error"]), ("because", ["debug"]), ("send", [])])
@pytest.mark.parametrize("end", [(CLOSE | END, (1000, "")), (RESET, None)])
def test_an_app_that_raises_after_the_client_has_gone_is_logged_unless_that_is_why(
    worker: Worker, how: str, levels: list[str], end: tuple[int, Any]
) -> None:
    worker.logs.clear()
    stream = connect(worker, f"/ws/after?{how}")
    worker.write(frame(end[0], stream, end[1]))
    assert worker.response(stream).closed == RESET
    assert worker.get("/raise/after").body == b"whole"
    while not worker.logs or worker.logs[-1][2]["error"] != "ValueError: afterwards":
        worker.logs.append(worker.next(0).head)
    assert [level for level, _, fields in worker.logs if "the client went" in fields["error"]] == levels


def test_stop_ends_a_websocket_whose_client_has_been_told(launch: Launch) -> None:
    worker = launch("esgi_apps:app", "esgi").start()
    stream = connect(worker, "/ws/echo")
    worker.write(frame(CLOSE | END, stream, (1012, "")) + frame(STOP, 0, 0))
    assert worker.response(stream).closed == RESET
    assert worker.wait() == 0


def test_requests_go_on_beside_idle_websockets(worker: Worker) -> None:
    streams = [connect(worker, "/ws/echo") for _ in range(100)]
    assert worker.get("/hello").closed == RESPONSE
    for stream in streams:
        worker.write(frame(CLOSE | END, stream, (1000, "")))
    assert {worker.response(stream).closed for stream in streams} == {RESET}
