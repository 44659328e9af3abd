"""Caddy's part, played by the tests: starts a real worker process and talks frames with it.

It shares no code with the package under test: frames are made and read from their description in docs/internals.md.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parent.parent / "caddysnake"
APPS = Path(__file__).parent / "apps"

REQUEST, DATA, RESPONSE, CREDIT, RESET, ERROR = 1, 2, 3, 4, 5, 6
DECLINE, START, READY, FAILED, STOP, LOG = 7, 8, 9, 10, 11, 12
ACCEPT, TEXT, BINARY, CLOSE, FILE, DRAINED, HELD = 13, 14, 15, 16, 19, 20, 21
END = 0x80
WINDOW = 256 << 10
MAX_DATA = 64 << 10
MESSAGE_COST = 64  # bytes of credit that a message's frame takes beside its data

DEADLINE = 20.0  # seconds until a test gives up


class Frame(NamedTuple):
    kind: int
    end: bool
    stream: int
    head: Any
    data: bytes


class Response(NamedTuple):
    """What came on one stream: status 0 without RESPONSE, the head of ERROR, the closing frame's type."""

    status: int
    headers: list[tuple[Any, Any]]
    body: bytes
    error: tuple[str, str] | None
    closed: int

    def header(self, name: str | bytes) -> Any:
        """The value of a header, None if there is none; the test fails if there are several."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, self.headers
        return values[0] if values else None


def frame(kind: int, stream: int, head: object = None, data: bytes = b"") -> bytes:
    """Makes a frame; `kind` may carry END."""
    packed = b"" if head is None else marshal.dumps(head, 4)
    return struct.pack("<III", len(packed) + len(data), stream, len(packed) << 8 | kind) + packed + data


def settings(app: str, interface: str, **changes: Any) -> dict[str, Any]:
    """The head of START."""
    defaults = {
        "interface": interface,
        "app": app,
        "worker": 1,
        "runtime": {"wsgi": "sync", "asgi": "native", "esgi": "gevent"}[interface],
        "threads": 4,
        "multithread": True,
        "multiprocess": False,
        "lifespan": "off",
        "working_dir": str(APPS),
        "descriptors": 0,
        "monitor": 0,
    }
    return {**defaults, **changes}


def environ(path: str = "/", method: str = "GET", **changes: Any) -> tuple[Any, ...]:
    """The head of a WSGI REQUEST, as Caddy writes it."""
    path, _, query = path.partition("?")
    named = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_URI": path,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "9080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.url_scheme": "http",
    }
    others = {"REMOTE_PORT": "50000", **changes}
    return (*(others.pop(name, value) for name, value in named.items()), others)


def scope(path: str = "/", method: str = "GET", **changes: Any) -> tuple[Any, ...]:
    """The head of an ASGI REQUEST, as Caddy writes it. With `subprotocols` it is a WebSocket's handshake.

    What a test has to say to its app, "test.*", is where the app expects what Caddy knows of TLS.
    """
    path, _, query = path.partition("?")
    defaults = {
        "method": method,
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 9080),
        "extensions": 0,
        "tls": None,
        "subprotocols": None,
    }
    said = {name: changes.pop(name) for name in list(changes) if name.startswith("test.")}
    values = {**defaults, "tls": said or None, **changes}
    assert list(values) == list(defaults), values
    return tuple(values.values())


def esgi_scope(path: str = "/", method: str = "GET", **changes: Any) -> dict[str, Any]:
    """The head of an ESGI REQUEST, as Caddy writes it."""
    path, _, query = path.partition("?")
    defaults = {
        "proto": "http",
        "esgi_version": "0.1",
        "http_version": "1.1",
        "server": "127.0.0.1:9080",
        "client": "127.0.0.1:50000",
        "scheme": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": {"host": "localhost"},
        "authority": "localhost",
    }
    return {**defaults, **changes}


class Worker:
    """One worker process. Frames are read when a test asks for them; `close()` makes sure that nothing is left.

    With `monitored` it can be asked to end a request. With `files` it can send descriptors, of which only a few are
    held at a time until `descriptor()` takes them.
    """

    def __init__(
        self,
        app: str,
        interface: str,
        *,
        python: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
        monitored: bool = False,
        files: bool = False,
        **changes: Any,
    ) -> None:
        self.head = {"wsgi": environ, "asgi": scope, "esgi": esgi_scope}[interface]
        self.logs: list[tuple[str, str, dict[str, Any]]] = []
        self.ready: dict[str, Any] = {}
        self._settings = settings(app, interface, **changes)
        self._last = 0
        self._received = b""
        self._frames: dict[int, deque[Frame]] = {}
        self.sock, theirs = socket.socketpair()
        self._monitor, asked = socket.socketpair()
        self._descriptors, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as little as there can be
        for end in (self._monitor, self._descriptors):
            end.settimeout(DEADLINE)
        inherited = [theirs.fileno()]
        for wanted, name, end in ((monitored, "monitor", asked), (files, "descriptors", sending)):
            if wanted:
                self._settings[name] = end.fileno()
                inherited.append(end.fileno())
        with theirs, asked, sending:
            command = [sys.executable, *python, PACKAGE, str(theirs.fileno()), self._settings["runtime"], app]
            self.process = subprocess.Popen(
                command,
                pass_fds=inherited,
                cwd=self._settings["working_dir"],
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": "", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        try:
            self.write(frame(START, 0, self._settings))
        except OSError as exc:
            raise AssertionError(f"the worker has not started: {self.output()}") from exc

    def start(self) -> Worker:
        """Waits for READY."""
        got = self.control()
        assert got.kind == READY, got
        self.ready = got.head
        return self

    def failure(self) -> tuple[str, str]:
        """Waits for FAILED and the exit: message and traceback."""
        got = self.control()
        assert got.kind == FAILED, got
        assert self.wait() == 1
        message, trace = got.head
        return message, trace

    def control(self) -> Frame:
        """The next frame on stream 0 that is no LOG."""
        while True:
            got = self.next(0)
            if got.kind != LOG:
                return got
            self.logs.append(got.head)

    def log_entry(self, part: str) -> tuple[str, str, dict[str, Any]]:
        """Waits for a LOG entry whose message has this part."""
        while True:
            for entry in self.logs:
                if part in entry[1]:
                    return entry
            got = self.next(0)
            assert got.kind in (LOG, DRAINED), got
            if got.kind == LOG:
                self.logs.append(got.head)

    def write(self, data: bytes) -> None:
        """Sends bytes, and reads what comes meanwhile."""
        view = memoryview(data)
        deadline = time.monotonic() + DEADLINE
        while view:
            readable, writable, _ = select.select([self.sock], [self.sock], [], max(0, deadline - time.monotonic()))
            assert readable or writable, "the worker takes nothing"
            if readable:
                self._receive()
            if writable:
                view = view[self.sock.send(view, socket.MSG_DONTWAIT) :]

    def request(self, path: str = "/", method: str = "GET", body: bytes = b"", end: bool = True, **changes: Any) -> int:
        """Sends a REQUEST and returns its stream."""
        kind = REQUEST | END if end else REQUEST
        stream = self.next_streams(1)[0]
        self.write(frame(kind, stream, self.head(path, method, **changes), body))
        return stream

    def burst(self, paths: list[str]) -> list[int]:
        """Sends many requests in one write, as Caddy does under load, and returns their streams."""
        streams = self.next_streams(len(paths))
        parts = [frame(REQUEST | END, stream, self.head(path)) for stream, path in zip(streams, paths, strict=True)]
        self.write(b"".join(parts))
        return streams

    def next_streams(self, count: int) -> list[int]:
        """Takes numbers for so many streams."""
        self._last += count
        return list(range(self._last - count + 1, self._last + 1))

    def get(self, path: str = "/", method: str = "GET", body: bytes = b"", **changes: Any) -> Response:
        """Sends a REQUEST and waits for the whole response."""
        return self.response(self.request(path, method, body, **changes))

    def upload(self, path: str, body: bytes, method: str = "POST", **changes: Any) -> Response:
        """Sends a REQUEST with its first 64 KiB of body, and the rest as the worker gives credit."""
        stream = self.request(path, method, body[:MAX_DATA], end=len(body) <= MAX_DATA, **changes)
        self.send_rest(stream, body[MAX_DATA:])
        return self.response(stream)

    def send_rest(self, stream: int, body: bytes, credit: int = 0, last: bool = True) -> None:
        """Sends a further part of a body, the `last` one, as the worker gives credit; stops if it answers instead."""
        while body:
            while not credit:
                got = self.peek(stream)
                if got.kind != CREDIT:
                    return
                credit += int.from_bytes(self.next(stream).data, "little")
            part = body[: min(credit, MAX_DATA)]
            body = body[len(part) :]
            credit -= len(part)
            self.write(frame(DATA if body or not last else DATA | END, stream, None, part))

    def response(self, stream: int, grant: bool = True) -> Response:
        """Reads until the closing frame; gives credit for what comes if `grant`."""
        status, headers, body, credit = 0, [], [], WINDOW
        while True:
            got = self.next(stream)
            if got.kind == CREDIT:
                continue
            if got.kind == RESPONSE:
                status, headers = got.head
            error = got.head if got.kind == ERROR else None
            if got.end or got.kind in (ERROR, DECLINE, RESET):
                body.append(got.data)
                late = self._frames.pop(stream)
                assert not late, "frames after the closing one"
                return Response(status, headers, b"".join(body), error, got.kind)
            body.append(got.data)
            credit -= len(got.data)
            assert credit >= 0, "the worker sends without credit"
            if grant and got.data:
                credit += len(got.data)
                self.credit(stream, len(got.data))

    def credit(self, stream: int, size: int) -> None:
        """Gives the worker credit."""
        self.write(frame(CREDIT, stream, None, size.to_bytes(4, "little")))

    def reset(self, stream: int) -> None:
        """Says that the client has gone."""
        self.write(frame(RESET, stream))

    def end(self, stream: int) -> None:
        """Asks the worker's monitor to end a request."""
        self._monitor.sendall(stream.to_bytes(4, "little"))

    def verdict(self) -> tuple[bool, str]:
        """Waits for the monitor's answer: whether the request was told to end, and its stack."""
        size = int.from_bytes(self._monitor.recv(4, socket.MSG_WAITALL), "little")
        ended, stack = marshal.loads(self._monitor.recv(size, socket.MSG_WAITALL))
        return bool(ended), stack

    def descriptor(self) -> int:
        """Takes the next descriptor off, closes it, and returns its stream."""
        data, descriptors, _, _ = socket.recv_fds(self._descriptors, 4, 1)
        for descriptor in descriptors:
            os.close(descriptor)
        assert len(descriptors) == 1
        return int.from_bytes(data, "little")

    def next(self, stream: int) -> Frame:
        """The next frame of a stream."""
        self.peek(stream)
        return self._frames[stream].popleft()

    def peek(self, stream: int) -> Frame:
        """The next frame of a stream, which stays the next one."""
        frames = self._frames.setdefault(stream, deque())
        deadline = time.monotonic() + DEADLINE
        while not frames:
            readable, _, _ = select.select([self.sock], [], [], max(0, deadline - time.monotonic()))
            assert readable, f"nothing came on stream {stream} for {DEADLINE} s"
            assert self._receive(), f"the worker has gone: {self.output()}"
        return frames[0]

    def waiting(self, stream: int) -> list[Frame]:
        """The frames of a stream that are there already."""
        while select.select([self.sock], [], [], 0)[0] and self._receive():
            pass
        return list(self._frames.get(stream, ()))

    def unread(self) -> dict[int, list[Frame]]:
        """All frames that are there and that no test has asked for.

        But for HELD: on a machine under load a thread may be so late in becoming idle that it looks as if it were in
        close().
        """
        self.waiting(0)
        found = {stream: [got for got in frames if got.kind != HELD] for stream, frames in self._frames.items()}
        return {stream: frames for stream, frames in found.items() if frames}

    def stop(self, milliseconds: int = 0) -> int:
        """Sends STOP, with so many milliseconds for what runs, and returns the exit status."""
        self.write(frame(STOP, 0, milliseconds))
        return self.wait()

    def wait(self) -> int:
        """Waits for the exit."""
        return self.process.wait(DEADLINE)

    def output(self) -> str:
        """Ends the process if need be, and returns all it wrote."""
        self.sock.close()
        self._monitor.close()
        self._descriptors.close()
        try:
            self.wait()
        finally:
            self._kill_group()
        out, err = self.process.communicate(timeout=DEADLINE)
        return (out + err).decode()

    def close(self) -> None:
        """Ends the worker as Caddy's death would, and checks that it goes."""
        if self.process.stdout is None or not self.process.stdout.closed:
            self.output()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # there is only something to kill after a failure
            os.killpg(self.process.pid, signal.SIGKILL)

    def _receive(self) -> bool:
        try:
            data = self.sock.recv(1 << 20)
        except ConnectionResetError:
            return False
        self._received += data
        at = 0
        while len(self._received) - at >= 12:
            length, stream, word = struct.unpack_from("<III", self._received, at)
            if len(self._received) - at < 12 + length:
                break
            packed = self._received[at + 12 : at + 12 + (word >> 8)]
            rest = self._received[at + 12 + (word >> 8) : at + 12 + length]
            got = Frame(word & 0x7F, bool(word & END), stream, marshal.loads(packed) if packed else None, rest)
            self._frames.setdefault(stream, deque()).append(got)
            at += 12 + length
        self._received = self._received[at:]
        return bool(data)


def until(condition: Callable[[], Any], what: str) -> Any:
    """Polls until the condition holds and returns its value."""
    deadline = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.005)
    return value
