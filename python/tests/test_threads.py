"""Which thread of a WSGI worker runs a request: seen from Caddy's side of the socket."""

from __future__ import annotations

import random
import socket
import sys
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from caddysnake import threads, wire, wsgi
from conftest import Launch
from driver import (
    CREDIT,
    DATA,
    DEADLINE,
    DECLINE,
    END,
    HELD,
    MAX_DATA,
    REQUEST,
    RESET,
    RESPONSE,
    STOP,
    WINDOW,
    Worker,
    environ,
    frame,
    until,
)


@pytest.mark.parametrize("threads", [1, 4])
def test_short_requests_of_one_batch_run_on_one_thread(launch: Launch, threads: int) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=threads).start()
    streams = worker.burst(["/thread"] * 64)
    names = Counter(worker.response(stream).body for stream in streams)
    # A machine under load may stall the reading thread, and then another one helps.
    assert names.most_common(1)[0][1] > 1
    assert len(names) <= threads


def test_with_one_thread_a_request_behind_a_slow_one_is_declined(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=1).start()
    slow, *others = worker.burst(["/wait", "/hello", "/hello"])
    assert [worker.response(stream).closed for stream in others] == [DECLINE, DECLINE]
    late = worker.request("/hello")
    assert worker.response(late).closed == DECLINE
    assert worker.waiting(slow) == []


def test_a_slow_request_does_not_hold_up_the_others(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=4).start()
    slow, hello = worker.burst(["/wait", "/hello"])
    assert worker.response(hello).body == b"hello"
    assert worker.get("/open").body == b"opened"
    assert worker.response(slow).body == b"waited"


@pytest.mark.parametrize(("path", "answer"), [("/sleep?0.5", b"slept"), ("/spin?500", b"spun")])
def test_what_is_finished_is_not_held_by_a_slow_request_behind_it(launch: Launch, path: str, answer: bytes) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=1).start()
    hello, slow = worker.burst(["/hello", path])
    assert worker.response(hello).body == b"hello"
    assert worker.waiting(slow) == []  # it was not waited for
    assert worker.response(slow).body == answer


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="needs a global lock")
def test_nobody_takes_over_from_a_thread_that_computes_for_some_milliseconds(launch: Launch) -> None:
    """Nobody would be served sooner: the interpreter is taken, or the system has stopped it for a moment."""

    def taken_over() -> bool:
        worker = launch("wsgi_apps:app", "wsgi", threads=1).start()
        return any(declined(worker) for _ in range(4))

    def declined(worker: Worker) -> bool:
        busy, hello = worker.burst(["/sum?500000", "/hello"])  # about 8 ms
        assert worker.response(busy).body == b"124999750000"
        return worker.response(hello).closed == DECLINE

    # On a machine under load the thread may now and then be stopped for longer than that.
    until(lambda: not taken_over(), "a thread that computes is left alone")


def test_a_long_computation_is_taken_over(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=1).start()
    spin, hello = worker.burst(["/spin?500", "/hello"])
    assert worker.response(hello).closed == DECLINE
    assert worker.waiting(spin) == []
    assert worker.response(spin).body == b"spun"


def test_as_many_requests_run_at_once_as_there_are_threads(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=4).start()
    for _ in range(5):
        # Each waits for the three others.
        assert [worker.response(stream).body for stream in worker.burst(["/meet"] * 4)] == [b"met"] * 4


def test_requests_beyond_the_threads_are_declined_and_not_lost(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=4).start()
    streams = worker.burst(["/wait"] * 6)
    declined = [worker.response(stream).closed for stream in streams[4:]]
    assert declined == [DECLINE, DECLINE]
    assert worker.get("/hello").closed == DECLINE


def test_a_thread_that_is_still_closing_counts_as_free(launch: Launch) -> None:
    worker = launch("patient:app", "wsgi", threads=1).start()
    assert worker.get("/slow/close?0.3").body == b"slow"
    waits, beyond = worker.burst(["/hello", "/hello"])
    assert worker.response(beyond).closed == DECLINE
    assert worker.response(waits).body == b"hello"
    assert worker.get("/events").body == b"closed slowly"


def test_a_request_does_not_wait_for_a_thread_that_is_closing_for_long(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=2).start()
    upload = worker.request("/count", "POST", end=False)
    assert worker.next(upload).kind == CREDIT
    assert worker.get("/wait/in/close").body == b"waits"
    waits = worker.request("/hello")  # one thread waits for a body, the other one is in close()
    held = worker.control()
    assert (held.kind, held.head) == (HELD, 1)
    assert worker.response(waits).closed == DECLINE
    worker.write(frame(DATA | END, upload))
    assert worker.response(upload).body == b"0"
    assert worker.get("/open").body == b"opened"
    held = worker.control()
    assert (held.kind, held.head) == (HELD, 0)
    assert worker.get("/events").body == b"closed"


def test_a_request_that_waits_for_a_thread_can_be_called_back(launch: Launch) -> None:
    worker = launch("patient:app", "wsgi", threads=1).start()
    assert worker.get("/slow/close?0.3").body == b"slow"
    waits, beyond = worker.burst(["/events", "/hello"])
    assert worker.response(beyond).closed == DECLINE  # so the other one has been read
    worker.reset(waits)
    assert worker.response(waits).closed == RESET


@pytest.mark.parametrize("threads", [1, 4])
def test_an_upload_in_slices_runs_beside_short_requests(launch: Launch, threads: int) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=threads).start()
    size = 10 << 20
    body = bytes(size)
    upload = worker.request("/count", "POST", body[:MAX_DATA], end=False)
    at = MAX_DATA
    answers: Counter[int] = Counter()
    while at < size:
        credit = worker.next(upload)
        assert credit.kind == CREDIT
        part = int.from_bytes(credit.data, "little")
        answers[worker.get("/hello").closed] += 1
        worker.send_rest(upload, body[at : at + part], credit=part, last=at + part >= size)
        at += part
    assert worker.response(upload).body == b"%d" % size
    if threads == 1:
        assert set(answers) == {DECLINE}
    else:
        assert set(answers) == {RESPONSE}
    assert worker.get("/hello").body == b"hello"


@pytest.mark.parametrize("threads", [1, 4])
def test_a_slow_client_holds_only_its_own_thread(launch: Launch, threads: int) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=threads).start()
    slow = worker.request(f"/download?{WINDOW + 10}")
    until(lambda: sum(len(got.data) for got in worker.waiting(slow)) == WINDOW, "all credit is used")
    for _ in range(10):
        assert worker.get("/hello").closed == (DECLINE if threads == 1 else RESPONSE)
    worker.credit(slow, WINDOW)
    assert len(worker.response(slow).body) == WINDOW + 10
    assert worker.get("/hello").body == b"hello"


def test_many_uploads_and_downloads_at_once(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=4).start()
    size = 3 * WINDOW
    uploads = [worker.request("/count", "POST", bytes(MAX_DATA), end=False) for _ in range(2)]
    downloads = [worker.request(f"/download?{size}") for _ in range(2)]
    for stream in uploads:
        worker.send_rest(stream, bytes(size - MAX_DATA))
    assert [worker.response(stream).body for stream in uploads] == [b"%d" % size] * 2
    assert [len(worker.response(stream).body) for stream in downloads] == [size] * 2


def test_an_app_may_read_on_one_thread_and_write_on_another(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=4).start()
    size = WINDOW + 10
    stream = worker.request(f"/duplex?{size}", "POST", b"first", end=False)
    until(lambda: sum(len(got.data) for got in worker.waiting(stream) if got.kind != CREDIT) == WINDOW, "both wait")
    worker.write(frame(DATA | END, stream))
    worker.credit(stream, WINDOW)
    assert worker.response(stream).body == bytes(size) + b" 5"


def test_the_fast_state_comes_back(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=4).start()

    def one_thread() -> bool:
        names = [worker.response(stream).body for stream in worker.burst(["/thread"] * 4)]
        return len(set(names)) == 1

    for _ in range(3):
        assert worker.get("/sleep?0.05").body == b"slept"
        until(one_thread, "one thread runs a whole batch again")


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_threat_3_a_random_mix_answers_every_request_once_and_with_its_own(launch: Launch, threads: int) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=threads).start()
    generator = random.Random(threads)
    open_: dict[int, str] = {}
    closed: Counter[int] = Counter()

    def settle(stream: int) -> None:
        path = open_.pop(stream)
        got = worker.response(stream)
        closed[got.closed] += 1
        if got.closed in (RESPONSE, DATA):
            assert got.body == expected(path)
        else:
            assert got.closed in (DECLINE, RESET), got

    def expected(path: str) -> bytes:
        kind, _, query = path.partition("?")
        return {
            "/hello": lambda: b"hello",
            "/spin": lambda: b"spun",
            "/sleep": lambda: b"slept",
            "/stream": lambda: b"x" * 1000 * int(query),
            "/download": lambda: b"d" * int(query),
        }[kind]()

    paths = ["/hello"] * 20 + ["/spin?1", "/spin?3", "/sleep?0.002", "/stream?3", "/download?300000"]
    for _ in range(60):
        chosen = generator.choices(paths, k=generator.randint(1, 30))
        streams = worker.burst(chosen)
        open_.update(zip(streams, chosen, strict=True))
        if generator.random() < 0.3:
            for stream in generator.sample(streams, k=min(2, len(streams))):
                worker.reset(stream)
        while len(open_) > 10:
            settle(generator.choice(list(open_)))
    for stream in list(open_):
        settle(stream)
    assert closed[RESPONSE] > 0
    # Nothing may come on a stream after its closing frame.
    assert worker.get("/hello").closed == RESPONSE
    assert worker.unread() == {}
    assert worker.stop() == 0


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("how", ["0", "3", "message", "raise", "return"])
def test_a_process_that_the_app_forks_ends_with_what_it_raises(launch: Launch, threads: int, how: str) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=threads).start()
    for _ in range(10):
        forked, *others = worker.burst([f"/fork?{how}", *["/hello"] * 20])
        status = {"message": b"1", "raise": b"1", "return": b"0"}.get(how, how.encode())
        assert worker.response(forked).body == status
        assert {worker.response(stream).body for stream in others} <= {b"hello", b""}
    assert worker.stop() == 0
    said = {"message": "said by the child", "raise": "ValueError: raised by the child"}.get(how, "")
    assert said in worker.output()


def test_a_worker_that_cannot_have_all_its_threads_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an interpreter that goes on they would stay for ever, as its workers that are threads would have them."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "wsgi-3":
            raise RuntimeError("can't start new thread")
        start(thread)

    def no_stream(*_: object) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(threading.Thread, "start", refuse)
    before = threading.enumerate()
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(RuntimeError, match="can't start new thread"):
        threads.Scheduler(theirs, wire.Decoder(), 4, no_stream).serve()
    assert threading.enumerate() == before


def test_stop_waits_for_those_that_run(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=2).start()
    slow = worker.request("/sleep?0.2")
    worker.write(frame(STOP, 0, 0))
    assert worker.response(slow).body == b"slept"
    assert worker.wait() == 0


def test_stop_waits_for_close(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=2).start()
    assert worker.get("/slow/close?0.3").body == b"slow"
    assert worker.stop() == 0
    assert "left close()" in worker.output()


def test_an_idle_worker_uses_no_cpu(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi", threads=4).start()
    assert worker.get("/hello").body == b"hello"

    def switches() -> int:
        total = 0
        for task in Path(f"/proc/{worker.process.pid}/task").iterdir():
            status = (task / "status").read_text()
            total += sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
        return total

    # The watchdog stops looking soon after the last request: two looks at the counters give the same.
    before = [-1]

    def unchanged() -> bool:
        now = switches()
        same, before[0] = now == before[0], now
        return same

    until(unchanged, "no thread of an idle worker wakes up")
    assert worker.get("/hello").body == b"hello"


def test_no_thread_runs_while_the_interpreter_exits(launch: Launch) -> None:
    worker = launch("stuck:wsgi", "wsgi", threads=4).start()
    assert worker.get("/").body == b"begun"
    assert worker.stop() == 0
    assert worker.output() == "[]\n"


def test_a_thread_that_does_not_end_does_not_hold_up_the_exit(launch: Launch) -> None:
    worker = launch("stuck:wsgi", "wsgi", threads=4).start()
    stream = worker.request("/stuck")
    assert worker.next(stream).data == b"begun"
    worker.reset(stream)
    assert worker.stop() == 0
    assert worker.log_entry("did not end")[2] == {"count": 1}
    assert worker.output() == "['wsgi-1']\n"


class LateLock:
    """A scheduler's lock; whoever is about to close a stream finds that `helper` has written just before."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self.helper: threading.Thread | None = None

    def __enter__(self) -> None:
        if self.helper is not None and sys._getframe(1).f_code.co_name == "_close":
            helper, self.helper = self.helper, None
            helper.start()
            helper.join()
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


def test_the_last_block_waits_for_the_credit_that_a_helper_has_just_used_up() -> None:
    first, last = b"first", bytes(MAX_DATA)

    def app(_: object, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(first)
        lock.helper = threading.Thread(target=write, args=(bytes(WINDOW - MAX_DATA),))
        return [last]

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(DEADLINE)
        new_request = partial(wsgi.Request, wsgi.Worker(app, None, True, False))
        scheduler = threads.Scheduler(theirs, wire.Decoder(), 1, new_request)
        scheduler.lock = lock = LateLock(scheduler.lock)  # type: ignore[assignment]
        serving = threading.Thread(target=scheduler.serve)
        serving.start()
        ours.sendall(frame(REQUEST | END, 1, environ()))
        received, credit, kind, decoder = 0, WINDOW, 0, wire.Decoder()
        while kind < END:
            while (got := decoder.next()) is None:
                decoder.fill(ours.recv_into(decoder.room()))
            kind, _, _, data = got
            received += len(data)
            credit -= len(data)
            assert credit >= 0, "the worker sends without credit"
            if credit == 0:
                credit = WINDOW
                ours.sendall(frame(CREDIT, 1, None, WINDOW.to_bytes(4, "little")))
        assert received == len(first) + WINDOW
        ours.sendall(frame(STOP, 0, 0))
        serving.join(DEADLINE)
        assert not serving.is_alive()
