"""WSGI (PEP 3333): from a REQUEST to a call of the app, and from what it returns to a RESPONSE."""

from __future__ import annotations

import io
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from . import files, interrupts, threads, wire
from .headers import BODYLESS, TextHeaders, remember, text_head
from .stream import ClientGone, NewStream, RequestTimeout, Scheduler, Stream

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def serve(sock: socket.socket, decoder: wire.Decoder, app: App, settings: dict[str, Any]) -> None:
    """Serves `app` on `sock` until STOP or end of file; see `threads.Scheduler.serve`.

    Files leave by the channel for descriptors; without one they are read here.
    """
    worker = Worker(app, settings["descriptors"], settings["multithread"], settings["multiprocess"])
    asked = settings["monitor"]
    if settings["runtime"] == "gevent":
        from . import greenlets  # imports gevent, which need not be there

        greenlets.Scheduler(sock, decoder, partial(Request, worker), asked, settings["descriptors"]).serve()
        return
    new_request: NewStream = partial(Request if asked is None else TimedRequest, worker)
    scheduler = threads.Scheduler(sock, decoder, settings["threads"], new_request)
    if asked is not None:
        asked.start(interrupts.Threads(scheduler).end)
    scheduler.serve()


class Worker:
    """What all requests of one worker share. `multithread` and `multiprocess` are those of the environ."""

    __slots__ = ("_statuses", "app", "channel", "errors", "headers", "multiprocess", "multithread", "starts")

    def __init__(self, app: App, channel: files.Channel | None, multithread: bool, multiprocess: bool) -> None:
        self.app = app
        self.channel = channel
        self.multithread = multithread
        self.multiprocess = multiprocess
        self.errors = sys.stderr
        self.headers = TextHeaders()
        # Of responses that name their length: from status line and headers to status, length and head.
        self.starts: dict[tuple[Any, ...], tuple[int, int, bytes]] = {}
        self._statuses: dict[str, int] = {}  # status lines seen, so that each is checked once

    def check_status(self, status: str) -> int:
        """Returns the number in a status line. Raises TypeError or ValueError for what is none."""
        code = self._statuses.get(status)
        if code is None:
            code = _check_status(status)
            if len(self._statuses) < 256:
                self._statuses[status] = code
        return code


class FileWrapper:
    """`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").

    A real file that the app returns in it goes out from Caddy, from its position on. Anything else, and whatever
    iterates over this, reads the file in blocks of `block_size` bytes.
    """

    def __init__(self, file: Any, block_size: int = wire.MAX_DATA) -> None:
        self.file = file
        self.block_size = block_size
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(self.block_size), b"")


class Input(io.RawIOBase):
    """A body that is still arriving. `io.BufferedReader` makes `wsgi.input` of it, with all ways to read."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._rest = memoryview(b"")
        self._size = 0  # of what has come

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(self._receive())
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def readall(self) -> bytes:
        parts: list[bytes | memoryview] = [self._rest]
        self._rest = memoryview(b"")
        while data := self._receive():
            parts.append(data)
        return b"".join(parts)

    def _receive(self) -> bytes:
        """Raises ClientGone, also when the response has ended and the body has not: that would look like its end."""
        data, body = self._request.receive(), self._request.body
        self._size += len(data)
        if not data and body is not None and not body.finished and not self._request.has_sent(self._size):
            raise ClientGone("the response has ended, and the request's body with it")
        return data


class Request(Stream):
    """One WSGI request. `run()` calls the app and sends what it returns; no exception leaves it."""

    __slots__ = ("_environ", "_head", "_headers", "_is_head", "_left", "_length", "_started", "_status", "_worker")

    def __init__(
        self, worker: Worker, scheduler: Scheduler, stream: int, head: tuple[Any, ...], data: bytes, ended: bool
    ) -> None:
        Stream.__init__(self, scheduler, stream, None if ended else wire.Body(data))
        method, script, path, query, uri, server, port, protocol, address, scheme, others = head
        self._environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": script,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_URI": uri,
            "SERVER_NAME": server,
            "SERVER_PORT": port,
            "SERVER_PROTOCOL": protocol,
            "SERVER_SOFTWARE": "Caddy",
            "REMOTE_ADDR": address,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scheme,
            "wsgi.input": io.BytesIO(data) if ended else io.BufferedReader(Input(self), wire.MAX_DATA),
            "wsgi.errors": worker.errors,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.multithread": worker.multithread,
            "wsgi.multiprocess": worker.multiprocess,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,  # the body ends where the input does, also without a Content-Length
            **others,
        }
        self._worker = worker
        self._is_head = method == "HEAD"  # the app may change the environ
        self._status = 0  # 0: start_response has not been called
        self._headers: list[tuple[str, str]] = []
        self._head: bytes | None = None  # made of them, if the app says the length
        self._length: int | None = None  # the app's Content-Length
        self._left = 0  # of that, how much is not yet sent
        self._started = False  # RESPONSE has been sent

    def has_sent(self, size: int) -> bool:
        """Whether that is all that the client has announced. Its end may come later, by itself, or not any more."""
        return self._environ.get("CONTENT_LENGTH") == str(size)

    def run(self) -> None:
        try:
            result = self._worker.app(self._environ, self.start_response)
            kind = type(result)
            if kind is list and len(result) == 1 and self._is_whole(result[0]):  # type: ignore[arg-type,index]
                self._started = True
                self.send(self._head, result[0], True)  # type: ignore[index]
            elif kind is list or kind is tuple:
                last = len(result) - 1  # type: ignore[arg-type]
                for index, block in enumerate(result):
                    self._send_block(block, index == last)
                self._finish()
            else:
                self._iterate(result)
        except BaseException as exc:  # SystemExit too: a request must not end its worker
            self.fail(exc)

    def asked(self) -> dict[str, str]:
        environ = self._environ  # in which the app may have moved a part of the path
        path = f"{environ.get('SCRIPT_NAME')}{environ.get('PATH_INFO')}".encode("latin-1", "replace")
        return {"method": str(environ.get("REQUEST_METHOD")), "path": path.decode("utf-8", "replace")}

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """PEP 3333 start_response().

        Raises TypeError or ValueError for what cannot be sent, AssertionError for a second call without exc_info.
        """
        if exc_info:
            try:
                if self._started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # breaks a reference cycle
        elif self._status:
            raise AssertionError("start_response() was called a second time without exc_info")
        worker = self._worker
        key = None
        try:
            if type(headers) is list:
                key = (status, *headers)
                known = worker.starts.get(key)
                if known is not None:
                    self._status, self._length, self._head = known
                    return self.write
        except TypeError:  # pairs that are lists have no hash
            key = None
        code = worker.check_status(status)
        self._headers, self._length = worker.headers.check(headers)
        self._head = None
        if self._length is not None:
            self._head = text_head(code, self._headers)
            if key is not None and len(self._headers) == len(headers):  # or the key may be larger than the head
                remember(worker.starts, key, (code, self._length, self._head), len(status) + len(self._head))
        self._status = code
        return self.write

    def write(self, data: bytes) -> None:
        """PEP 3333 write(): has sent `data` when it returns."""
        self._send_block(data, False)

    def _iterate(self, result: Iterable[bytes]) -> None:
        try:
            if type(result) is not FileWrapper or not self._send_file(result.file):
                for block in result:
                    self._send_block(block, False)
                    if self.closed and self._is_bodyless():
                        break  # nobody gets the rest, which may be endless
            self._finish()
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def _send_file(self, file: Any) -> bool:
        """Has Caddy send the rest of a real file. Returns False if it is to be read here."""
        channel, real = self._worker.channel, files.real_file(file)
        if channel is None or real is None or not self._status or self.closed:
            return False
        if real.writable():
            real.flush()
        try:
            size = files.size_of(real.fileno())
        except ValueError:  # a pipe, a device
            return False
        offset = real.tell()
        count = max(0, size - offset)
        wanted = self._left if self._started and self._length is not None else self._length
        if not size or (wanted is not None and wanted > count):  # files of /proc say that they are empty
            return False
        if not self._started and wanted is None and self._status not in BODYLESS:
            self._headers.append(("Content-Length", str(count)))
            self._length = count
        if not self._started and self._status in BODYLESS:
            self._start(b"", True)
            return True
        # For HEAD too: Caddy sends the headers that it adds for GET, and of the file nothing.
        count = count if wanted is None else wanted
        return not count or self._hand_over(channel, real.fileno(), offset, count)

    def _hand_over(self, channel: files.Channel, theirs: int, offset: int, count: int) -> bool:
        try:
            descriptor, shared = files.reopen(theirs)
        except OSError:
            return False
        try:
            head = b"" if self._started else self._head or text_head(self._status, self._headers)
            self.send_file(channel, head, files.Part(descriptor, offset, count, shared))
        except ClientGone:
            raise
        except OSError:  # too many descriptors are under way
            return False
        finally:
            os.close(descriptor)
        self._started = True
        self._left = 0
        return True

    def _send_block(self, block: bytes, last: bool) -> None:
        """Sends a block; `last` if it is known that no other one follows."""
        if type(block) is not bytes:
            block = _to_bytes(block)
        if not block:
            return
        if self._started:
            if self._length is not None:
                block = block[: self._left]
                self._left -= len(block)
                last = not self._left
            if block and not self.closed:
                self.send(None, block, last)
            return
        if not self._status:
            raise AssertionError("the app sent a body before it called start_response()")
        if self._is_bodyless():
            if last and self._length is None and self._status not in BODYLESS:
                self._headers.append(("Content-Length", str(len(block))))
            self._start(b"", True)
        elif self._length is not None:
            block = block[: self._length]
            self._left = self._length - len(block)
            self._start(block, not self._left)
        else:
            if last:
                self._headers.append(("Content-Length", str(len(block))))
            self._start(block, last)

    def _start(self, block: bytes, end: bool) -> None:
        head = self._head or self._worker.headers.head(self._status, self._headers)
        self._started = True
        self.send(head, block, end)

    def _finish(self) -> None:
        """Ends the response when the app has given all of it."""
        if self.closed:
            return
        if not self._started:
            if not self._status:
                raise AssertionError("the app returned without calling start_response()")
            if not self._is_bodyless():
                if self._length is None:
                    self._headers.append(("Content-Length", "0"))
                self._left = self._length or 0
            self._start(b"", not self._left)
        elif not self._left:
            self.send(None, b"", True)
        if self._left:
            sent = (self._length or 0) - self._left
            raise AssertionError(f"the app declared Content-Length: {self._length} and gave {sent} bytes")

    def _is_whole(self, block: bytes) -> bool:
        """Whether this is all of the response, and nothing has been sent."""
        return (
            self._head is not None
            and type(block) is bytes
            and len(block) == self._length
            and not self._started
            and not self._is_bodyless()
        )

    def _is_bodyless(self) -> bool:
        return self._is_head or self._status in BODYLESS


class TimedRequest(Request):
    """A request whose thread may be told to end it."""

    __slots__ = ("interruption",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.interruption = interrupts.Interruption()

    def run(self) -> None:
        interruption, lock = self.interruption, self.scheduler.lock
        try:
            interruption.begin(lock)
            try:
                super().run()
            finally:
                interruption.finish(lock)
        except RequestTimeout as exc:  # it came when the app had just returned
            if not self.closed:
                self.fail(exc)


def _check_status(status: str) -> int:
    if not isinstance(status, str):
        raise TypeError(f"the status is a str such as '200 OK', not {status!r}")
    digits = status[:3]
    if not (digits.isascii() and digits.isdigit() and status[3:4] in ("", " ") and status.isprintable()):
        raise ValueError(f"the status is a str such as '200 OK', not {status!r}")
    code = int(digits)
    if not 200 <= code <= 999:
        raise ValueError(f"the status of a response is 200 or more, not {status!r}")
    return code


def _to_bytes(block: object) -> bytes:
    if isinstance(block, (bytes, bytearray, memoryview)):
        return bytes(block)
    raise TypeError(f"the body of a WSGI response is made of bytes, not {type(block).__name__}")
