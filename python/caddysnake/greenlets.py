"""Each request of a worker in a greenlet of its own: `runtime gevent`.

Everything happens in one thread. A watcher of gevent's hub reads the socket and begins each request that it has read at
once: its greenlet runs until it first waits, then the next one begins. What one turn of the loop produces leaves in one
write, unless a slow request would hold it. docs/adr/0009-gevent-hub.md says why the hub reads and no greenlet does.

Nothing is locked: a greenlet goes on until it waits, and nothing here waits but `wait()` and `serve()`.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import socket
from collections.abc import Callable
from time import monotonic

import gevent
from gevent.event import Event

from . import monitor, wire
from .errors import Place, places
from .files import Channel
from .stream import ClientGone, NewStream, RequestTimeout, Stream
from .wire import END, HEADER_SIZE, newest

HOLD = 0.0005  # seconds that a finished response may wait for others before it is sent
KILL = 1.0  # seconds that killed greenlets may take at the end

_TO_STREAMS = frozenset({wire.DATA, wire.TEXT, wire.BINARY, wire.CREDIT, wire.CLOSE, wire.RESET})
_MAX_HELD = 64 << 10  # bytes
_READ, _WRITE = 1, 2  # what a watcher waits for


class Scheduler:
    """Serves one connection on the hub of the thread it is made in. `new_stream` makes a Stream of a REQUEST; `asked`
    is to end those that run for too long; `channel` is what their files leave by.
    """

    expected: tuple[type[BaseException], ...] = (ClientGone, RequestTimeout, gevent.GreenletExit)
    left = False  # all greenlets go on in a process that the app forks, see threads.py
    lock = contextlib.nullcontext()

    def __init__(
        self,
        sock: socket.socket,
        decoder: wire.Decoder,
        new_stream: NewStream,
        asked: monitor.Monitor | None,
        channel: Channel | None,
    ) -> None:
        self.streams: dict[int, Stream] = {}  # open: not closed
        self._sock = sock
        self._decoder = decoder
        self._new_stream = new_stream
        # A context for each request, with what was set at import: what one request sets, no other sees.
        self._fresh = contextvars.copy_context().copy
        hub = gevent.get_hub()
        # What a greenlet of the app's own raises is printed; a SystemExit would end the worker and all its requests.
        hub.SYSTEM_ERROR = (KeyboardInterrupt,)
        hub.NOT_ERROR = (gevent.GreenletExit,)
        self._loop = hub.loop
        self._reader = self._loop.io(sock.fileno(), _READ)
        self._writer = self._loop.io(sock.fileno(), _WRITE)
        self._grace = self._loop.timer(0.0)  # from STOP on
        self._told = self._loop.async_()  # any thread may send it
        self._look: Callable[[], None] = lambda: None  # what the monitor wants to have done
        self._asked = asked
        self._channel = channel
        self._running: set[gevent.Greenlet] = set()  # of the requests that are not through
        self._last = 0  # the highest stream number used
        self._out: list[bytes | memoryview] = []
        self._out_size = 0
        self._held_since = 0.0
        self._flushing = False  # a flush will come in this turn of the loop
        self._unsent = memoryview(b"")  # what the socket did not take
        self._stopping = False
        self._done = Event()
        self._error: BaseException | None = None

    def serve(self) -> None:
        """Runs until STOP has come and all requests are through, those that take longer than STOP_GRACE excepted, or
        until Caddy has gone. What still runs then is killed.

        Raises what broke the connection: ProtocolError, or a defect of this package.
        """
        self._sock.setblocking(False)
        if self._channel is not None:  # gevent lets one greenlet at a time wait for a socket
            self._channel.setblocking(False)
        os.register_at_fork(after_in_child=self._leave)
        self._reader.start(self._on_readable)
        self._loop.run_callback(self._take_frames)  # what came together with START
        if self._asked is not None:
            self._told.start(self._on_told)
            self._asked.start(monitor.Loop(self._tell, self._end).end)
        try:
            self._done.wait()
            self._out.append(wire.frame(wire.DRAINED, 0))
            self.flush()
            if self._running:
                message = "requests, or what they do behind their responses, did not end after stop; they are killed"
                self._out.append(wire.log("warn", message, count=len(self._running)))
                for greenlet in self._running:
                    greenlet.args[0].gone = True  # nobody waits for it
                with contextlib.suppress(gevent.Timeout):
                    gevent.killall(list(self._running), timeout=KILL)
        finally:
            for watcher in (self._reader, self._writer, self._grace, self._told):
                watcher.stop()
                watcher.close()
            self._sock.setblocking(True)
        if self._error is not None:
            raise self._error
        held, self._out = (self._unsent, *self._out), []  # or a flush that is due would send it once more
        with contextlib.suppress(ConnectionError):  # Caddy has gone
            self._sock.sendall(b"".join(held))

    def put(
        self, stream: Stream, prefix: bytes, head: bytes = b"", data: bytes | memoryview = b"", flush: bool = False
    ) -> None:
        """Adds a frame to what leaves at the end of this turn of the loop, or now with `flush`."""
        if not self._out:
            self._held_since = monotonic()
        self._out += (prefix, head, data)
        self._out_size += HEADER_SIZE + len(head) + len(data)
        if flush or self._out_size >= _MAX_HELD:
            self.flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.run_callback(self._end_turn)

    def add(self, prefix: bytes, head: bytes = b"", data: bytes | memoryview = b"") -> None:
        """Adds a frame to what the next `flush()` sends."""
        if not self._out:
            self._held_since = monotonic()
        self._out += (prefix, head, data)
        self._out_size += HEADER_SIZE + len(head) + len(data)

    def wait(self, stream: Stream, ready: Callable[[], bool]) -> None:
        """Returns as soon as `ready()`, which only a frame for `stream` can bring about. Other greenlets go on."""
        while not ready():
            if stream.waiter is None:
                stream.waiter = Event()
            stream.waiter.wait()

    def wake(self, stream: Stream) -> None:
        """Wakes the greenlets that wait for `stream`."""
        waiter, stream.waiter = stream.waiter, None
        if waiter is not None:
            waiter.set()

    # What the hub calls. An exception must not leave it: the hub would print it and go on.

    def _on_readable(self) -> None:
        try:
            count = self._sock.recv_into(self._decoder.room())
        except BlockingIOError:
            return
        except ConnectionError:
            count = 0
        if not count:
            self._lose()
            return
        self._decoder.fill(count)
        self._take_frames()

    def _take_frames(self) -> None:
        self._flushing = True  # at the end of this method
        frames, decode, begin = self._decoder.frames, self._decoder.decode, self._begin
        try:
            while frames or decode():
                frame = frames.popleft()
                if frame[0] & ~END == wire.REQUEST:
                    begin(frame)
                else:
                    self._on_frame(frame)
        except BaseException as exc:
            self._break(exc)
        self._end_turn()

    def _end_turn(self) -> None:
        self.flush()
        self._flushing = False

    def _on_writable(self) -> None:
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError as exc:
            self._unsent = self._unsent[:0]
            self._break(exc)
        if not self._unsent:
            self._writer.stop()
            self.flush()

    # Requests

    def _begin(self, frame: wire.Frame) -> None:
        kind, number, head, data = frame
        self._last = newest(self._last, number)
        stream = self._new_stream(self, number, head, data, kind >= END)
        self.streams[number] = stream
        greenlet = gevent.Greenlet(self._run, stream)  # of gevent's class, which an app may kill, link and ask
        stream.thread = greenlet
        self._running.add(greenlet)
        greenlet.gr_context = self._fresh()
        greenlet.switch()  # the hub takes over when it waits or ends

    def _run(self, stream: Stream) -> None:
        # Who is done does not wait for all others of the same turn.
        if self._out and monotonic() - self._held_since > HOLD:
            self.flush()
        stream.run()
        self._running.discard(stream.thread)
        stream.thread = None
        self._check_done()

    def _on_frame(self, frame: wire.Frame) -> None:
        kind, number, head, data = frame
        if kind == wire.STOP:
            self._stopping = True
            self._grace = self._loop.timer(wire.stop_grace(head))
            self._grace.start(self._done.set)
            self._check_done()
            return
        bare = kind & ~END
        if bare not in _TO_STREAMS:
            raise wire.ProtocolError(f"a frame of type {bare}")
        stream = self.streams.get(number)
        if stream is None:
            if (number - self._last - 1) & 0xFFFFFFFF < 1 << 31:
                raise wire.ProtocolError(f"a frame for stream {number}, which was never used")
            return  # late: it has been closed
        if bare == wire.DATA:
            if stream.body is None:
                raise wire.ProtocolError("a body that goes on after its end")
            stream.body.feed(data, kind >= END)
        elif bare == wire.TEXT or bare == wire.BINARY:
            stream.feed_message(bare, data, kind >= END)
        elif bare == wire.CREDIT:
            stream.credit += wire.credit_size(data)
        elif bare == wire.CLOSE:
            stream.shut(*head)
        else:
            stream.gone = True
        self.wake(stream)

    # Requests that have run for too long

    def _tell(self, look: Callable[[], None]) -> None:
        """Has the hub call `look`. It is called by the monitor."""
        self._look = look
        self._told.send()

    def _on_told(self) -> None:
        self._look()

    def _end(self, number: int) -> list[Place]:
        stream = self.streams.get(number)
        if stream is None or stream.thread is None:
            return []
        greenlet = stream.thread
        frames, frame = [], greenlet.gr_frame
        while frame is not None:
            frames.append((frame, frame.f_lineno))
            frame = frame.f_back
        where = places(frames[::-1])
        stream.gone = True
        self.wake(stream)
        greenlet.kill(RequestTimeout(), block=False)
        return where

    # The connection

    def flush(self) -> None:
        """Sends all that is held, as far as the socket takes it; the rest follows by itself."""
        if self._unsent or not self._out:
            return
        parts, self._out = self._out, []
        size, self._out_size = self._out_size, 0
        try:
            self._unsent = wire.send(self._sock, parts, size)
        except OSError as exc:
            self._break(exc)
        if self._unsent:
            self._writer.start(self._on_writable)

    def _leave(self) -> None:
        """Serves no more: this is a process that the app has forked, where the hub and its greenlets go on.

        The socket is closed here, and libev aborts a process that watches a closed descriptor.
        """
        for watcher in (self._reader, self._writer, self._grace, self._told):
            watcher.stop()
        self._unsent = memoryview(bytes(1))  # it never leaves, and nothing behind it

    def _check_done(self) -> None:
        if self._stopping and not self._running:
            self._done.set()

    def _break(self, exc: BaseException) -> None:
        """Ends it all: with the exception, unless that only says that Caddy has gone."""
        if isinstance(exc, ConnectionError):
            self._lose()
        elif self._error is None:
            self._error = exc
            self._done.set()

    def _lose(self) -> None:
        """Caddy has gone: nobody waits for an answer any more."""
        self._reader.stop()
        for stream in list(self.streams.values()):
            stream.gone = True
            self.wake(stream)
        self._done.set()
