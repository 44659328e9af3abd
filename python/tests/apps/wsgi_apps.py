"""WSGI apps for the tests. `app` picks a view by the path; `checked` is the same behind wsgiref.validate."""

from __future__ import annotations

import contextvars
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], None]]

events: list[str] = []  # what happened after a response, for /events
gate = threading.Event()  # /wait waits for /open
barrier = threading.Barrier(4, timeout=20)
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
at_import: contextvars.ContextVar[str] = contextvars.ContextVar("at_import", default="unset")
at_import.set("set")


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    view = globals()["view_" + environ["PATH_INFO"].strip("/").replace("/", "_")]
    return view(environ, start_response)


checked = validator(app)

PLAIN = [("Content-Type", "text/plain")]


def view_hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
    return [b"hello"]


def view_one_block(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    return (b"one block",) if environ["QUERY_STRING"] == "tuple" else [b"one block"]


def view_two_blocks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    return [b"", b"two ", b"", b"blocks"]


def view_read_after(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Sends all of its response, then reads the body."""
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])(b"hello")
    try:
        while environ["wsgi.input"].read(1000):
            pass
        events.append("end")
    except OSError as exc:
        events.append(type(exc).__name__)
    return []


def view_read_between(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Sends what it reads, which is all of the body, then reads on."""
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])(environ["wsgi.input"].read(5))
    try:
        events.append(repr(environ["wsgi.input"].read(1000)))
    except OSError as exc:
        events.append(type(exc).__name__)
    return []


def view_empty(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("204 No Content" if environ["QUERY_STRING"] == "204" else "200 OK", [])
    return []


def view_events(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    got = "\n".join(events).encode()
    events.clear()
    return [got]


def view_context(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """What a request sees of the context variables that others set."""
    seen = f"{at_import.get()} {variable.get()}"
    variable.set(environ["QUERY_STRING"])
    start_response("200 OK", list(PLAIN))
    yield seen.encode()
    assert variable.get() == environ["QUERY_STRING"]


def view_environ(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    parts = [type(environ["wsgi.input"]).__name__, environ["wsgi.file_wrapper"].__name__]
    parts += [f"{name}={environ['wsgi.' + name]}" for name in ("multithread", "multiprocess", "run_once", "version")]
    environ["wsgi.errors"].write("to wsgi.errors\n")
    environ["wsgi.errors"].writelines(["one\n", "two\n"])
    environ["wsgi.errors"].flush()
    return [" ".join(parts).encode()]


def view_echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Reads the body in the way that the query names."""
    stream = environ["wsgi.input"]
    how, _, size = environ["QUERY_STRING"].partition("=")
    got: list[bytes] = []
    if how == "all":
        got = [stream.read(-1)]
    elif how == "read":
        while data := stream.read(int(size)):
            got.append(data)
    elif how == "line":
        while data := stream.readline():
            got.append(data)
    elif how == "sized_line":
        while data := stream.readline(int(size)):
            assert len(data) <= int(size)
            got.append(data)
    elif how == "lines":
        got = stream.readlines()
    elif how == "hint":
        got = [*stream.readlines(int(size)), stream.read(-1)]
    elif how == "iterate":
        got = list(stream)
    elif how == "mixed":
        got = [stream.read(3), stream.readline(), next(iter(stream)), stream.read(0), stream.read(1), stream.read(-1)]
    assert stream.read(-1) == b""
    assert stream.read(10) == b""
    assert stream.readline() == b""
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("X-Parts", str(len(got)))])
    return [b"".join(got)]


def view_count(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    stream, total = environ["wsgi.input"], 0
    while data := stream.read(1 << 16):
        total += len(data)
    start_response("200 OK", list(PLAIN))
    return [str(total).encode()]


def view_stream(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """As many blocks of 1000 bytes as the query says."""
    start_response("200 OK", list(PLAIN))
    return Blocks(int(environ["QUERY_STRING"]))


class Blocks:
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self.count):
            events.append(f"block {number}")
            yield b"x" * 1000
        events.append("exhausted")

    def close(self) -> None:
        events.append("close")


def view_steps(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Gives a second block when /open has been called."""
    gate.clear()
    start_response("200 OK", list(PLAIN))
    yield b"first"
    assert gate.wait(20)
    yield b"second"


def view_open(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    gate.set()
    start_response("200 OK", list(PLAIN))
    return [b"opened"]


def view_wait(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers when /open has been called."""
    gate.clear()
    events.append("waiting")
    assert gate.wait(20)
    start_response("200 OK", list(PLAIN))
    return [b"waited"]


def view_slow_close(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Its close() takes as many seconds as the query says."""
    start_response("200 OK", [*PLAIN, ("Content-Length", "4")])
    return SlowClose(float(environ["QUERY_STRING"]))


class SlowClose:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __iter__(self) -> Iterator[bytes]:
        yield b"slow"

    def close(self) -> None:
        time.sleep(self.seconds)
        events.append("closed slowly")
        print("left close()")


def view_wait_in_close(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Its close() returns when /open has been called."""
    gate.clear()
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
    return WaitInClose()


class WaitInClose:
    def __iter__(self) -> Iterator[bytes]:
        yield b"waits"

    def close(self) -> None:
        assert gate.wait(20)
        events.append("closed")


def view_fork(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with the exit status of a process that it forks, which ends as the query says."""
    child, how = os.fork(), environ["QUERY_STRING"]
    if not child and how == "message":
        sys.exit("said by the child")
    if not child and how == "raise":
        raise ValueError("raised by the child")
    if not child and how != "return":
        sys.exit(int(how))
    status, deadline = None, time.monotonic() + 10
    while child and status is None:
        ended, said = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(said) if ended else None
        if not ended and time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.001)
    start_response("200 OK", list(PLAIN))
    return [f"{status}".encode()]


def view_meet(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers when four requests are in it at once."""
    barrier.wait()
    start_response("200 OK", list(PLAIN))
    return [b"met"]


def view_sleep(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    time.sleep(float(environ["QUERY_STRING"]))
    start_response("200 OK", list(PLAIN))
    return [b"slept"]


def view_sum(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Computes in C code, which keeps the interpreter's lock all the time: so many additions as the query says."""
    total = sum(range(int(environ["QUERY_STRING"])))
    start_response("200 OK", list(PLAIN))
    return [str(total).encode()]


def view_spin(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Computes for as many milliseconds as the query says."""
    until = time.perf_counter() + int(environ["QUERY_STRING"]) / 1000
    while time.perf_counter() < until:
        pass
    start_response("200 OK", list(PLAIN))
    return [b"spun"]


def view_thread(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    return [threading.current_thread().name.encode()]


def view_download(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """One block of as many bytes as the query says."""
    start_response("200 OK", list(PLAIN))
    return [b"d" * int(environ["QUERY_STRING"])]


def view_endless(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Never ends by itself."""
    start_response("200 OK", list(PLAIN))
    try:
        while True:
            yield b"e" * 1000
    finally:
        events.append("endless closed")


def view_file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    file = io.BytesIO(b"f" * 200_000)
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](file, 8192)


def view_source(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](open("children.py", "rb"))


def view_length(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Declares 5 bytes, and gives as many blocks of 3 as the query says."""
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
    return Blocks3(int(environ["QUERY_STRING"]))


class Blocks3:
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self.count):
            yield b"abc"


def view_first_block_is_all(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The first block is as long as declared; what comes behind it waits for /open."""
    gate.clear()
    start_response("200 OK", [*PLAIN, ("Content-Length", "3")])
    yield b"all"
    assert gate.wait(20)
    events.append("after the last block")


def view_write(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", list(PLAIN))
    write(b"written ")
    events.append("written")
    if environ["QUERY_STRING"] == "wait":
        gate.clear()
        assert gate.wait(20)
    write(b"twice ")
    return [b"and returned"]


def view_late_start(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Calls start_response only when its body is asked for (PEP 3333 allows it until the first block)."""
    if environ["QUERY_STRING"] == "empty":
        yield b""
    start_response("201 Created", list(PLAIN))
    yield b"late"


def view_no_start(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return [b"body"] if environ["QUERY_STRING"] == "body" else []


def view_twice(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    start_response("200 OK", list(PLAIN))
    return [b"never"]


def view_replace(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("X-First", "1"), *PLAIN])
    try:
        raise ValueError("replaced")
    except ValueError:
        start_response("500 Oh", list(PLAIN), sys.exc_info())
    return [b"replaced"]


def view_replace_late(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    yield b"begun"
    try:
        raise ValueError("too late")
    except ValueError:
        start_response("500 Oh", list(PLAIN), sys.exc_info())
    yield b"never"


def view_raise(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    name, _, message = environ["QUERY_STRING"].partition("=")
    errors: dict[str, type[BaseException]] = {
        "ValueError": ValueError,
        "SystemExit": SystemExit,
        "KeyboardInterrupt": KeyboardInterrupt,
        "GeneratorExit": GeneratorExit,
    }
    raise errors[name](message)


def view_raise_midway(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    return RaiseMidway()


class RaiseMidway:
    def __iter__(self) -> Iterator[bytes]:
        yield b"begun"
        raise ValueError("midway")

    def close(self) -> None:
        events.append("closed after an error")


def view_raise_in_close(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    return RaiseInClose()


class RaiseInClose:
    def __iter__(self) -> Iterator[bytes]:
        yield b"whole"

    def close(self) -> None:
        raise ValueError("in close")


class Str(str):
    pass


def view_header(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Sets the status and headers that environ["test.response"] holds."""
    status, headers = environ["test.response"]
    if environ["QUERY_STRING"] == "catch":
        try:
            start_response(status, headers)
        except (TypeError, ValueError) as exc:
            start_response("400 Bad", list(PLAIN))
            return [f"{type(exc).__name__}: {exc}".encode()]
    start_response(status, headers)
    return [b"sent"]


def view_subclasses(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response(Str("200 OK"), [(Str("X-Name"), Str("value")), *PLAIN])
    return [b"sent"]


def view_generated(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Has its headers in what can be read once."""
    start_response("200 OK", iter([("X-First", "1"), ("X-Second", "2"), *PLAIN]))  # type: ignore[arg-type]
    return [b"body"]


def view_mutate(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Changes the list of headers after it was checked."""
    headers = list(PLAIN)
    start_response("200 OK", headers)
    headers.append(("X-Split", "a\r\nb"))
    return [b"sent"]


def view_body(environ: Environ, start_response: StartResponse) -> Iterable[Any]:
    """Returns the kind of body that the query names."""
    start_response("200 OK", list(PLAIN))
    bodies: dict[str, Any] = {"str": ["text"], "none": None, "bytearray": [bytearray(b"array")], "bytes": b"abc"}
    return bodies[environ["QUERY_STRING"]]


def view_read_in_thread(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Reads its body in another thread than its own."""
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(environ["wsgi.input"].read(-1)))
    reader.start()
    reader.join()
    start_response("200 OK", list(PLAIN))
    return [str(len(got[0])).encode()]


def view_duplex(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Read on one thread and write on another, both at once."""
    got: list[int] = []
    reader = threading.Thread(target=lambda: got.append(len(environ["wsgi.input"].read())))
    time.sleep(0.05)  # another thread reads the socket from now on
    start_response("200 OK", list(PLAIN))
    reader.start()
    yield bytes(int(environ["QUERY_STRING"]))
    reader.join()
    yield b" %d" % got[0]


def view_swallow(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Catches the error of a client that has gone, and goes on."""
    try:
        environ["wsgi.input"].read(-1)
    except OSError as exc:
        events.append(f"read raised {type(exc).__name__}")
    start_response("200 OK", list(PLAIN))
    return [b"nobody reads this"]


def view_pid(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    return [str(os.getpid()).encode()]


def view_main(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """What an app sees of the process."""
    start_response("200 OK", list(PLAIN))
    ours = [name for name in ("wire", "wsgi", "threads") if name in sys.modules]
    return ["\n".join([sys.path[0], os.getcwd(), *sys.argv[1:], *ours]).encode()]
