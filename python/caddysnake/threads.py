"""Which thread of a WSGI worker reads the socket, and which runs the app.

One interpreter has one lock, so handing each request to another thread would cost more than a short app does. Hence two
states:

    fast   The *leader*, one of the `threads` app threads, reads the socket and runs what it read itself, one request
           after another. Finished responses are held and leave together: when nothing is left to run, when 64 KiB are
           held, after 2 ms, or as soon as there are so many that Caddy cannot have kept up.
    slow   The watchdog thread reads. Each request goes to an idle thread; a request beyond `threads` is declined, so
           that Caddy can give it to another worker. Each response leaves at once.

               the leader waits inside the app, and has been there for 1 ms
        fast ───────────────────────────────────────────────> slow
             <───────────────────────────────────────────────
               16 requests in a row were short, or it is time to try

Who may read is the lock `role`. Whoever holds it may touch the decoder, the socket's receiving side and `leader`. The
leader lets go of it while it is inside the app and takes it back with `acquire(False)`. If that fails, somebody has
taken the lead meanwhile and this thread is an ordinary one from now on:

    leader:    [role: decode] -> release -> run the app -> acquire(False) -> yes: go on   no: flush, be idle
    watchdog:  at each look: role free, and the last request began 1 ms ago? -> acquire(False) -> slow

A thread whose response is complete counts as free, for Caddy too, although its app may go on for long, in `close()`
say. A request that has waited while no thread became free for CLOSING goes back to Caddy, which is told how many
threads are *held* in that way: so many fewer requests come, until they are back.

A leader whose app waits for its body or for credit takes the role back too and *pumps*: it reads and sorts frames until
its own have come. If a request arrives meanwhile and a thread is idle, that thread gets the lead.

A leader that computes is left alone for 20 ms: with one interpreter lock, nobody is served sooner if another thread
reads. It gives itself away by the lock: the watchdog, which wants to look, has to wait for it. Nor is anything gained
while the system lets others run in the leader's place. What the leader has finished before leaves at that look.

Each look costs the leader the interpreter for a moment, so the watchdog looks every millisecond at first and, the
longer the fast state has lasted, the less often, down to every 5 ms: a stuck leader costs at most a twentieth of what
it gained.

`lock` guards everything else that threads share: `streams`, `_pending`, `_idle`, each stream's body, credit, waiter and
closing. `_out_lock` guards what is to be sent. Order of taking: role, lock, _out_lock. No lock but `role` is held
during I/O, except `_out_lock` during a send: Caddy always reads.

Nothing here needs a global interpreter lock. What is read without one of these locks (`_leader`, `_began`, `_out`,
`_pending`, `_reading`, `_short`, a stream's `gone` and `credit`) is a hint: acted upon when a lock has confirmed it, or
else late by a moment at worst.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import socket
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep

from . import wire
from .stream import ClientGone, NewStream, RequestTimeout, Stream, end_process
from .wire import END, HEADER_SIZE, is_due, newest

LIMIT = 0.001  # seconds inside the app after which the leader counts as stuck
MIN_TICK, MAX_TICK = 0.001, 0.005  # seconds between two looks of the watchdog
COMPUTING = 0.02  # seconds inside the app after which it does not matter any more whether the leader computes
TICK_SHARE = 1 / 20  # of how long the fast state has lasted; each look takes the interpreter away from the app
CLOSING = 0.005  # seconds without a thread that becomes free after which requests are not left to wait for one
LINGER = 0.05  # seconds without work after which the watchdog stops looking
SHORT_RUN = 16  # this many short requests in a row end the slow state
PROVEN = 64  # requests after which a fast state counts as a success
JOIN = 1.0  # seconds that threads may take to end when the worker does
MIN_PAUSE, MAX_PAUSE = 0.016, 1.0  # seconds in the slow state before the fast one is tried again; doubles on failure

_MAX_HELD = 64 << 10  # bytes


class Thread:
    """One app thread: what it is to do next, and the lock it sleeps on until it is told."""

    __slots__ = ("bell", "held", "leads", "number", "stream")

    def __init__(self) -> None:
        self.number = 0  # of the system's
        self.bell = threading.Lock()
        self.bell.acquire()
        self.stream: Stream | None = None
        self.leads = False
        self.held = False  # Caddy knows that it runs on behind its response


class Scheduler:
    """Serves one connection with `threads` app threads. `new_stream` makes a Stream of a REQUEST."""

    expected: tuple[type[BaseException], ...] = (ClientGone, RequestTimeout)
    left = False

    def __init__(self, sock: socket.socket, decoder: wire.Decoder, threads: int, new_stream: NewStream) -> None:
        self.lock = threading.Lock()
        self.streams: dict[int, Stream] = {}  # open: begun or in _pending, and not closed
        self._sock = sock
        self._decoder = decoder
        self._threads = threads
        self._new_stream = new_stream
        # A context for each request, with what was set at import: what one request sets, no other sees.
        self._fresh = contextvars.copy_context().copy

        self._role = threading.Lock()
        self._leader: Thread | None = None  # None: slow
        self._began = 0.0  # when the leader's last request began
        self._reading = False  # the holder of the role is inside recv
        self._last = 0  # the highest stream number used
        self._led_from = 0  # _last when the fast state began
        self._led_since = monotonic()  # when it began
        self._short = 0  # short requests in a row, in the slow state
        self._pause = MIN_PAUSE

        self._pending: deque[Stream] = deque()  # waits for a thread that is about to become idle
        self._impatient = False  # somebody looks whether it does; if not, waits for _pending_bell
        self._pending_bell = threading.Lock()
        self._pending_bell.acquire()
        self._all: list[Thread] = []
        self._idle: list[Thread] = []  # the one that slept least long is taken first
        self._resting = False  # the leader has nothing to run
        self._asleep = False  # the watchdog waits for _bell
        self._bell = threading.Lock()
        self._bell.acquire()

        self._out_lock = threading.Lock()
        self._out: list[bytes | memoryview] = []
        self._out_size = 0

        self._stopping = False
        self._running: list[threading.Thread] = []
        self._done = threading.Event()
        self._error: BaseException | None = None
        _schedulers.add(self)

    def serve(self) -> None:
        """Runs until STOP has come and all requests are through, those that take longer than STOP_GRACE excepted, or
        until Caddy has gone.

        Raises what broke the connection: ProtocolError, or a defect of this package; RuntimeError if the system has no
        room for the threads.
        """
        self._role.acquire()
        try:
            for number in range(self._threads):
                thread = Thread()
                self._all.append(thread)
                if number == 0:
                    self._leader = thread
                    thread.leads = True
                    thread.bell.release()
                self._start(f"wsgi-{number + 1}", self._work, thread)
            self._start("wsgi-watchdog", self._watch)
            self._start("wsgi-pending", self._watch_pending)
            self._done.wait()
            self._put_control(wire.frame(wire.DRAINED, 0))
        finally:
            self._done.set()
            self._end()
        if self._error is not None:
            raise self._error

    def put(
        self, stream: Stream, prefix: bytes, head: bytes = b"", data: bytes | memoryview = b"", flush: bool = False
    ) -> None:
        """Adds a frame to what is to be sent, and sends it all unless the leader may hold it."""
        with self._out_lock:
            self._out += (prefix, head, data)
            self._out_size += HEADER_SIZE + len(head) + len(data)
        # Read after the frame is there: who takes the lead first sets _leader, then flushes.
        if flush or self._leader is not stream.thread or self._out_size >= _MAX_HELD:
            self.flush()

    def add(self, prefix: bytes, head: bytes = b"", data: bytes | memoryview = b"") -> None:
        """Adds a frame to what the next `flush()` sends. It may be called with `lock` held."""
        with self._out_lock:
            self._out += (prefix, head, data)
            self._out_size += HEADER_SIZE + len(head) + len(data)

    def flush(self) -> None:
        """Sends everything that is held."""
        with self._out_lock:
            if not self._out:
                return
            parts, self._out = self._out, []
            size, self._out_size = self._out_size, 0
            with contextlib.suppress(ConnectionError):  # Caddy has gone; whoever reads sees it too
                rest = wire.send(self._sock, parts, size)
                if rest:  # a signal came between
                    self._sock.sendall(rest)

    def wait(self, stream: Stream, ready: Callable[[], bool]) -> None:
        """Returns as soon as `ready()`, which only a frame for `stream` can bring about."""
        if self._leader is stream.thread and self._role.acquire(False):
            if self._leader is not stream.thread:
                self._role.release()
            elif self._pump(ready):
                return
        while True:
            with self.lock:
                if ready():
                    return
                waiter = threading.Lock()
                waiter.acquire()
                stream.waiter = [*(stream.waiter or ()), waiter]  # the app may read on one thread and write on another
            waiter.acquire()

    def wake(self, stream: Stream) -> None:
        """Wakes the threads that wait for `stream`, if any do. Call it with `lock` held."""
        waiters, stream.waiter = stream.waiter, None
        for waiter in waiters or ():
            waiter.release()

    # App threads

    def _start(self, name: str, target: Callable[..., None], *args: object) -> None:
        def run() -> None:
            try:
                target(*args)
            except BaseException as exc:
                self._error = exc
                self._done.set()

        # A daemon, so that an app that hangs cannot keep the interpreter from exiting.
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        self._running.append(thread)

    def _end(self) -> None:
        """Ends the threads, but those that an app holds fast: none is to run while the interpreter exits, nor to stay
        in one that does not."""
        with self.lock:
            left = self._threads - len(self._idle) - self._resting
        if self._stopping and left:
            message = "requests, or what they do behind their responses, did not end after stop; they are left"
            self._put_control(wire.log("warn", message, count=left))
        with contextlib.suppress(OSError):  # Caddy has gone
            self._sock.shutdown(socket.SHUT_RD)  # wakes who reads
        with self.lock:
            idle, self._idle = self._idle, []
            if not self._impatient:
                self._impatient = True
                self._pending_bell.release()
        for thread in idle:
            thread.bell.release()
        deadline = monotonic() + JOIN
        for running in self._running:
            running.join(max(0, deadline - monotonic()))

    def _work(self, thread: Thread) -> None:
        thread.number = threading.get_native_id()
        if not thread.leads:
            self._sleep(thread)
        else:
            thread.bell.acquire()
        fresh = self._fresh
        while not self._done.is_set():
            stream = thread.stream
            if thread.leads:
                thread.leads = False
                self._lead(thread, stream)
            elif stream is not None:
                began = monotonic()
                stream.thread = thread
                fresh().run(stream.run)
                if self._out:  # put() has held the response, if this thread was still taken for the leader
                    self.flush()
                self._short = self._short + 1 if monotonic() - began < LIMIT else 0
            if self.left:
                end_process(None)
            thread.stream = stream = None  # nothing of a request outlives it
            self._sleep(thread)

    def _sleep(self, thread: Thread) -> None:
        """Gives the thread its next stream, now or when there is one."""
        with self.lock:
            if self._done.is_set():
                return
            was_held, thread.held = thread.held, False
            if was_held:
                self._tell_held()
            is_idle = not self._pending
            if is_idle:
                self._idle.append(thread)
                self._check_done()
            else:
                thread.stream = self._pending.popleft()
        if was_held:
            self.flush()
        if is_idle:
            thread.bell.acquire()

    def _lead(self, thread: Thread, stream: Stream | None) -> None:
        """Reads and runs, from when this thread holds the role until another one does or Caddy has gone."""
        role, streams, fresh = self._role, self.streams, self._fresh
        frames, decode = self._decoder.frames, self._decoder.decode
        held_since = 0.0
        while True:
            if stream is None:
                if not frames and not decode():
                    if self._pending:
                        with self.lock:
                            stream = self._pending.popleft() if self._pending else None
                    elif self._out:
                        self.flush()
                    elif not self._receive(resting=True):
                        role.release()
                        return
                    if stream is None:
                        continue
                else:
                    kind, number, head, data = frame = frames.popleft()
                    if kind & ~END != wire.REQUEST:
                        self._on_frame(frame)
                        continue
                    self._last = newest(self._last, number)
                    stream = self._new_stream(self, number, head, data, kind >= END)
                    streams[number] = stream
            stream.thread = thread
            thread.stream = stream
            self._began = now = monotonic()
            if not self._out:
                held_since = now
            elif is_due(now - held_since, len(self._out)):
                self.flush()
                held_since = now
            role.release()
            fresh().run(stream.run)
            thread.stream = stream = None
            if self._leader is not thread or not role.acquire(False):
                break
            if self._leader is not thread:
                role.release()
                break
        self.flush()

    def _pump(self, ready: Callable[[], bool]) -> bool:
        """Reads, as the leader inside its app, until `ready()`. Returns False if the lead went to another thread."""
        while not ready():
            frame = self._decoder.next()
            if frame is None:
                self.flush()
                if not self._receive():
                    break
            elif frame[0] & ~END == wire.REQUEST and self._pass_lead(frame):
                return False
            else:
                self._dispatch(frame)
        self._began = monotonic()
        self._role.release()
        return True

    def _pass_lead(self, frame: wire.Frame | None = None) -> bool:
        """Makes an idle thread the leader, with the REQUEST `frame` to begin with. Returns False if none is idle."""
        with self.lock:
            if not self._idle:
                return False
            thread = self._idle.pop()
            if frame is not None:
                thread.stream = self._open(frame)
            thread.leads = True
            self._began = monotonic()
            self._leader = thread
        thread.bell.release()
        return True

    # Requests that wait for a thread

    def _watch_pending(self) -> None:
        last: Stream | None = None  # what came first at the last look
        while not self._done.wait(CLOSING):
            with self.lock:
                first = self._pending[0] if self._pending else None
                is_late = first is not None and first is last
                if is_late:
                    self._hand_back()
                    first = None
                self._impatient = first is not None
            if is_late:
                self.flush()
            if first is None:
                self._pending_bell.acquire()
            last = first

    def _hand_back(self) -> None:
        # With `lock` held. Caddy is told first, or the same requests would come again.
        for thread in self._all:
            stream = thread.stream
            # Whoever leads does not pass by _sleep, which lets go: it loses the lead first.
            thread.held = stream is not None and stream.closed and thread is not self._leader
        self._tell_held()
        for stream in self._pending:
            del self.streams[stream.id]
            stream.closed = True
            self.add(wire.frame(wire.DECLINE, stream.id))
        self._pending.clear()

    def _tell_held(self) -> None:
        self.add(wire.frame(wire.HELD, 0, sum(thread.held for thread in self._all)))

    # The watchdog

    def _watch(self) -> None:
        while not self._done.is_set():
            slept = monotonic()
            tick = min(max((slept - self._led_since) * TICK_SHARE, MIN_TICK), MAX_TICK)
            sleep(tick)
            now = monotonic()
            if self._role.locked():
                if self._reading and now - self._began > LINGER:
                    with self.lock:
                        if not self._reading:
                            continue
                        self._asleep = True
                    self._bell.acquire()
            elif (stuck := now - self._began) >= LIMIT:
                # Woken late, this thread had to wait for the interpreter: the leader computes. Or the system has given
                # the leader's processor to somebody else. Nobody would get on sooner if another thread read.
                computes = now - slept - tick >= LIMIT or _wants_processor(self._leader)
                if (stuck >= COMPUTING or not computes) and self._role.acquire(False):
                    self._leader = None
                    self._read_slowly()
                else:
                    self.flush()

    def _read_slowly(self) -> None:
        """The slow state: reads and hands out, until an idle thread gets the lead."""
        proven = (self._last - self._led_from) & 0xFFFFFFFF >= PROVEN
        self._pause = MIN_PAUSE if proven else min(self._pause * 2, MAX_PAUSE)
        until = monotonic() + self._pause
        self._short = 0
        self.flush()
        while True:
            # Looked at when something has just come, because then the threads have had time to become idle.
            if self._short >= SHORT_RUN or monotonic() >= until:
                self._led_from, self._led_since = self._last, monotonic()
                if self._pass_lead():
                    return
            while (frame := self._decoder.next()) is not None:
                self._dispatch(frame)
            if not self._receive():
                self._role.release()
                return

    # For the holder of the role

    def _receive(self, resting: bool = False) -> bool:
        """Waits for bytes. Returns False if Caddy has gone. `resting`: this thread has nothing else to do."""
        with self.lock:
            self._reading = True
            self._resting = resting
            self._check_done()
        try:
            count = self._sock.recv_into(self._decoder.room())
        except ConnectionError:
            count = 0
        with self.lock:
            self._reading = self._resting = False
            if self._asleep:
                self._asleep = False
                self._bell.release()
            if count:
                self._decoder.fill(count)
                return True
            for stream in self.streams.values():
                stream.gone = True
                self.wake(stream)
        self._done.set()
        return False

    def _dispatch(self, frame: wire.Frame) -> None:
        """Sorts a frame when this thread cannot run it: a REQUEST goes to a thread or back to Caddy."""
        kind, number = frame[:2]
        if kind & ~END != wire.REQUEST:
            self._on_frame(frame)
            return
        with self.lock:
            # Counted as Caddy counts: a thread that has sent its response but is still in close() is about to be idle.
            declined = len(self.streams) >= self._threads
            if not declined:
                stream = self._open(frame)
                if self._idle:
                    thread = self._idle.pop()
                    thread.stream = stream
                    thread.bell.release()
                else:
                    self._pending.append(stream)
                    if not self._impatient:
                        self._impatient = True
                        self._pending_bell.release()
        if declined:
            self._last = newest(self._last, number)
            self._put_control(wire.frame(wire.DECLINE, number))

    def _open(self, frame: wire.Frame) -> Stream:
        kind, number, head, data = frame
        self._last = newest(self._last, number)
        stream = self._new_stream(self, number, head, data, kind >= END)
        self.streams[number] = stream
        return stream

    def _on_frame(self, frame: wire.Frame) -> None:
        kind, number, head, data = frame
        with self.lock:
            stream = self.streams.get(number)
            if kind == wire.STOP:
                self._stopping = True
                self._start("wsgi-stop", self._give_up, wire.stop_grace(head))
                return
            if kind & ~END not in (wire.DATA, wire.CREDIT, wire.RESET):
                raise wire.ProtocolError(f"a frame of type {kind & ~END}")
            if stream is None:
                if (number - self._last - 1) & 0xFFFFFFFF < 1 << 31:
                    raise wire.ProtocolError(f"a frame for stream {number}, which was never used")
                return  # late: it has been closed
            if kind & ~END == wire.DATA:
                if stream.body is None:
                    raise wire.ProtocolError("a body that goes on after its end")
                stream.body.feed(data, kind >= END)
            elif kind == wire.CREDIT:
                stream.credit += wire.credit_size(data)
            elif stream in self._pending:
                self._pending.remove(stream)
                del self.streams[number]
                stream.closed = True
            else:
                stream.gone = True
            self.wake(stream)
        if stream.closed and stream.thread is None:
            self._put_control(wire.frame(wire.RESET, number))

    def _give_up(self, grace: float) -> None:
        if not self._done.wait(min(grace, threading.TIMEOUT_MAX)):
            self._done.set()

    def _put_control(self, frame: bytes) -> None:
        with self._out_lock:
            self._out.append(frame)
            self._out_size += len(frame)
        self.flush()

    def _check_done(self) -> None:
        # With `lock` held, whenever a thread becomes idle or the leader rests.
        if self._stopping and not self.streams and len(self._idle) + self._resting == self._threads:
            self._done.set()


_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()


def _leave() -> None:
    """Serves no more: this is a process that the app has forked. It has one thread, that of the request."""
    for scheduler in _schedulers:
        scheduler.left = True
        scheduler._leader = None
        scheduler._out, scheduler._out_size = [], 0
        for lock in (scheduler.lock, scheduler._out_lock):  # other threads may have held them
            lock._at_fork_reinit()  # type: ignore[attr-defined]
        for stream in scheduler.streams.values():
            stream.gone = True


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_leave)


def _wants_processor(thread: Thread | None) -> bool:
    """Whether the system says that a thread runs, or would if a processor were free. Only Linux says (proc(5))."""
    if thread is None:
        return False
    try:
        with open(f"/proc/self/task/{thread.number}/stat", "rb", buffering=0) as stat:
            return stat.read(512).rpartition(b") ")[2].startswith(b"R")
    except OSError:
        return False
