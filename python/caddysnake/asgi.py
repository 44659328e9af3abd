"""ASGI HTTP (spec 3.0, HTTP 2.5): from a REQUEST to a task that runs the app, and from its messages to a RESPONSE."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import extensions, monitor, scopes, tasks, wire
from .errors import Place, StartError, places
from .exchange import ClientGone, Exchange
from .files import Channel
from .headers import ByteHeaders, byte_head, check_status
from .lifespan import Lifespan
from .wire import END, HEADER_SIZE, MAX_DATA, is_due, newest, pack_header

if TYPE_CHECKING:
    from .websocket import WebSocket

App = Callable[..., Any]

_TO_STREAMS = frozenset({wire.DATA, wire.TEXT, wire.BINARY, wire.CREDIT, wire.CLOSE, wire.RESET})

LONG_HOLD = 0.003  # seconds: a frame held for so long has waited for a step of the app's that blocks the loop
WARY = 64  # how often all is sent at once after such a step, since there may be more of them
UNHEARD = 2.0  # seconds after which an app that has no way to hear that its client has gone is cancelled
CANCEL = 1.0  # seconds that cancelled requests may take at the end
NAMED = 5  # so many of them, at most, are named in the log
START_HOLD = 0.004  # seconds that a lone http.response.start waits for the body, or for hints, which precede it
_MAX_HELD = 64 << 10  # bytes

# What an app returns without that has sent no part of a body.
_NO_BODY = (
    "the app returned without a complete response; if that was to be a file, middleware may have dropped "
    "http.response.pathsend: take that out of scope['extensions'] before it"
)
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


def new_loop(runtime: str) -> tuple[asyncio.AbstractEventLoop, str]:
    """Returns an event loop for "native", "uvloop" or "auto", and a warning for the log or "".

    Raises StartError if uvloop is asked for and not installed.
    """
    if runtime != "native":
        try:
            import uvloop
        except ImportError as exc:
            fix = f"install it with `{sys.executable} -m pip install uvloop`"
            warning = f"uvloop is not installed, asyncio runs the app: {fix}, or say `runtime native`"
            if runtime == "uvloop":
                raise StartError(f"runtime uvloop: uvloop is not installed ({exc}): {fix}") from None
            return asyncio.SelectorEventLoop(), warning if sys.platform != "win32" else ""
        if threading.current_thread() is not threading.main_thread():
            from . import children

            return children.Loop(), ""
        return uvloop.new_event_loop(), ""
    return asyncio.SelectorEventLoop(), ""  # on Windows the usual one cannot watch a socket


async def serve(
    sock: socket.socket, decoder: wire.Decoder, app: App, settings: dict[str, Any], ready: Callable[[], None]
) -> None:
    """Runs the app's lifespan startup, calls `ready()`, serves until STOP or end of file, runs lifespan shutdown.

    Raises StartError, or what broke the connection.
    """
    server = Server(sock, decoder, app, settings["descriptors"])
    mode = settings["lifespan"]
    lifespan = Lifespan(app, server.log, required=mode == "on") if mode != "off" else None
    if lifespan is not None:
        await lifespan.startup()
        server.state = lifespan.state
    ready()
    if settings["monitor"] is not None:
        settings["monitor"].start(monitor.Loop(server.loop.call_soon_threadsafe, server.end).end)
    try:
        await server.serve()
        if lifespan is not None:
            await server.shut_down(lifespan)
    finally:
        server.stop_reading()
    server.flush()


class Server:
    """Serves one connection on the running event loop. Everything happens in the loop's thread."""

    def __init__(self, sock: socket.socket, decoder: wire.Decoder, app: App, channel: Channel | None) -> None:
        self.channel = channel  # for the descriptors of files; None: they cannot be sent
        self.state: dict[str, Any] | None = None  # of the lifespan, copied into each scope
        self.headers = ByteHeaders()
        self.streams: dict[int, Exchange] = {}  # open, and still running
        self.running: set[Exchange] = set()  # those whose app has not returned
        self.starts: list[Request] = []  # have a head that waits for the first part of the body
        self.held: list[bytes | memoryview] = []  # frames that leave at the end of this turn of the loop
        self.held_since = 0.0  # when the first of them came
        self.frames = decoder.frames  # read, and not begun
        self.with_file: set[Request] = set()  # have one that leaves with a file, which waits for room
        self.loop = asyncio.get_running_loop()
        from .websocket import WebSocket  # which needs this module

        self._web_socket = WebSocket
        self._app = app
        self._sock = sock
        self._decoder = decoder
        self._last = 0  # the highest stream number used
        self._held_size = 0
        self._sent_at = 0.0  # when the last flush was
        self._wary = 0  # so often what is put is not held
        self._flushing = False  # a flush will come in this turn of the loop
        self._unsent = memoryview(b"")  # what the socket did not take
        self._stopping = False
        self._finished: asyncio.Future[None] = self.loop.create_future()
        self._shutdown: asyncio.Future[None] | None = None  # lifespan shutdown, when all is finished

    async def serve(self) -> None:
        """Returns when STOP has come and all requests are through, or when Caddy has gone."""
        self._sock.setblocking(False)
        if self.channel is not None:
            self.channel.setblocking(False)
        self.loop.add_reader(self._sock.fileno(), self._on_readable)
        # What came together with START.
        self.loop.call_soon(self._take_frames)
        await self._finished
        self.put(wire.frame(wire.DRAINED, 0), b"", b"")
        self.flush()

    async def shut_down(self, lifespan: Lifespan) -> None:
        """Runs lifespan shutdown, for as long as Caddy waits for it: nothing else would end it in a thread."""
        self._shutdown = asyncio.ensure_future(lifespan.shutdown())
        await self._shutdown

    def stop_reading(self) -> None:
        """No more frames are taken, and what is sent from now on waits until Caddy has taken it."""
        self.loop.remove_reader(self._sock.fileno())
        self._sock.setblocking(True)

    def put(self, prefix: bytes, head: bytes, data: bytes) -> None:
        """Adds a frame to what leaves at the end of this turn of the loop, or now if little is going on."""
        now = monotonic()
        since = self.held_since
        if not self.held:
            self.held_since = now
            since = self._sent_at
        self.held += (prefix, head, data)
        self._held_size += HEADER_SIZE + len(head) + len(data)
        if self._held_size >= _MAX_HELD or self._wary or now - since > LONG_HOLD:
            self.flush()
        elif not self._flushing:
            self.flush_soon()

    def flush_soon(self) -> None:
        """Makes sure that a flush comes in this turn of the loop."""
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._end_turn)

    def flush(self) -> None:
        """Sends all that is held, as far as the socket takes it; the rest follows by itself."""
        if self.starts:
            self._hold_starts()
        if self._unsent or not self.held:
            return
        parts, self.held = self.held, []
        size, self._held_size = self._held_size, 0
        self._sent_at = now = monotonic()
        if self._wary:
            self._wary -= 1
        elif now - self.held_since > LONG_HOLD:
            self._wary = WARY
        try:
            self._unsent = wire.send(self._sock, parts, size)
        except OSError as exc:
            self._break(exc)
        if self._unsent:
            self.loop.add_writer(self._sock.fileno(), self._on_writable)

    def _hold_starts(self) -> None:
        alone = [request for request in self.starts if request.head is not None and not request.closed]
        self.starts = []
        if alone:
            # Only after the turn in which that is over: it may have been long, and an app be about to send more.
            self.loop.call_later(START_HOLD, self.loop.call_soon, self._send_starts, alone)

    def _send_starts(self, requests: list[Request]) -> None:
        for request in requests:
            if request not in self.with_file:
                request.send_start()

    def log(self, level: str, message: str, **fields: str | int | float | bool) -> None:
        """Adds an entry to Caddy's log."""
        self.put(wire.log(level, message, **fields), b"", b"")

    def end(self, number: int) -> list[Place]:
        """Ends a request that runs for too long, as if its client had gone. Returns where it was, [] if it is over."""
        request = self.streams.get(number)
        if request is None or request.task is None:
            return []
        where = places(tasks.frames(request.task))
        request.gone = True
        request.wake()
        request.task.cancel()
        return where

    def through(self, request: Exchange) -> None:
        """The app has returned from a request or WebSocket that did not end in its first step."""
        self.running.discard(request)
        self._check_finished()

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
                kind, number, head, data = frames.popleft()
                if kind & ~END == wire.REQUEST:
                    begin(number, head, data, kind >= END)
                else:
                    self._on_frame(kind, number, head, data)
        except Exception as exc:
            self._break(exc)
        self._end_turn()

    def _begin(self, number: int, head: scopes.Head, data: bytes, ended: bool) -> None:
        self._last = newest(self._last, number)
        request: Request | WebSocket
        if ended or head[-1] is None:
            scope = scopes.of_request(head, self.channel is not None)
            request = Request(self, number, data, ended)
        else:
            scope = scopes.of_websocket(head)
            request = self._web_socket(self, number)
        if self.state is not None:
            scope["state"] = self.state.copy()
        # In a context of its own: a copy of this callback's, in which nothing is ever set.
        task = asyncio.Task(request.run(self._app, scope), loop=self.loop, **_EAGER)
        if not task.done():
            request.task = task
            self.running.add(request)
            if not request.closed:
                self.streams.setdefault(number, request)  # a WebSocket may already be denied
            request.suspended()

    def _on_frame(self, kind: int, number: int, head: Any, data: bytes) -> None:
        if kind == wire.STOP:
            self._stopping = True
            self._check_finished()
            self.loop.call_later(wire.stop_grace(head), self._give_up)
            return
        bare = kind & ~END
        if bare not in _TO_STREAMS:
            raise wire.ProtocolError(f"a frame of type {bare}")
        request = self.streams.get(number)
        if request is None:
            if (number - self._last - 1) & 0xFFFFFFFF < 1 << 31:
                raise wire.ProtocolError(f"a frame for stream {number}, which was never used")
            return  # late: it has been closed
        if bare == wire.DATA:
            request.feed(data, kind >= END)
        elif bare == wire.TEXT or bare == wire.BINARY:
            request.feed_message(bare, data, kind >= END)
        elif bare == wire.CREDIT:
            request.credit += wire.credit_size(data)
        elif bare == wire.CLOSE:
            request.shut(*head)
        else:
            request.lose()
        request.wake()

    def _check_finished(self) -> None:
        if self._stopping and not self.running:
            self._finish()

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    def _give_up(self) -> None:
        """STOP's time is over: cancels what still runs, and goes on without it if that has no effect."""
        if not self._finished.done():
            some = ", ".join(request.asked() for request in list(self.running)[:NAMED])
            message = "requests, or what they left in the background, did not end after stop; they are cancelled"
            self.log("warn", message, count=len(self.running), requests=some)
            self._cancel()
            self.loop.call_later(CANCEL, self._finish)

    def _cancel(self) -> None:
        for request in list(self.running):
            request.gone = True  # nobody waits for it
            if request.task is not None:
                request.task.cancel()

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
            self.loop.remove_writer(self._sock.fileno())
            self.flush()

    def _break(self, exc: Exception) -> None:
        """Ends it all: with the exception, unless that only says that Caddy has gone."""
        if isinstance(exc, ConnectionError):
            self.loop.call_soon(self._lose)
        elif not self._finished.done():
            self._finished.set_exception(exc)

    def _lose(self) -> None:
        """Caddy has gone: nobody waits for an answer any more."""
        self.loop.remove_reader(self._sock.fileno())
        if self._shutdown is not None:
            self._shutdown.cancel()
        self._stopping = True
        for request in list(self.running):
            request.gone = True
            request.wake()
        self._cancel()
        self._check_finished()


class Request(Exchange):
    """One HTTP request: its `receive` and `send`, and what they share."""

    __slots__ = ("_body", "_first", "_open", "_started", "_told", "head", "trailers")

    def __init__(self, server: Server, stream: int, data: bytes, ended: bool) -> None:
        # What Exchange.__init__ does, without the call: so much is there of each request.
        self.server = server
        self.stream = stream
        self._waiters = None
        self.credit = wire.WINDOW
        self.gone = False
        self.closed = False
        self.task = None
        self._first: bytes | None = data  # the first part of the body; None: the last part has been received
        self._body: wire.Body | None = None if ended else wire.Body(data)
        self.head: bytes | None = None  # of RESPONSE, until that is sent
        self._started = False  # http.response.start has come, or a part of a body that nobody got
        self._open = False  # the body may go on: http.response.start has come, and not the end of the body
        self._told = False  # http.disconnect has been received
        self.trailers: list[tuple[bytes, bytes]] | None = None  # so far; None: none will come

    async def run(self, app: App, scope: dict[str, Any]) -> None:
        """Runs the app and closes the stream. No exception leaves it: SystemExit would stop the loop."""
        server = self.server
        # Who is done does not wait for all others of the same turn.
        if server.held and is_due(monotonic() - server.held_since, len(server.held)):
            server.flush()
        try:
            await app(scope, self.receive, self.send)
            if not self.closed:
                self.finish()
        except BaseException as exc:
            self.fail(exc, scope)
        if self.task is not None:
            server.through(self)

    def lack(self) -> str:
        """Returns what is wrong if the app has returned without a whole response."""
        bodiless = self.head is not None or not self._started
        return _NO_BODY if bodiless and self.server.channel is not None else ""

    async def receive(self) -> dict[str, Any]:
        """ASGI receive(): http.request until the body has been received, then http.disconnect when it is over."""
        body = self._body
        if body is None:
            data = self._first
            if data is not None and not self.gone and not self.closed:
                self._first = None
                return {"type": "http.request", "body": data, "more_body": False}
        elif self._first is not None:
            while not self.gone and not self.closed:
                size = body.grant()
                if size:
                    self.server.put(wire.credit(self.stream, size), b"", b"")
                data = body.take()
                if data is not None or body.ended:
                    more = not body.finished
                    if not more:
                        self._first = None
                    return {"type": "http.request", "body": data or b"", "more_body": more}
                await self._change()
        while not self.gone and not self.closed:
            await self._change()
        self._told = True
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        """ASGI send(). Waits while the client is slow.

        Raises ClientGone, RuntimeError for a message out of order, TypeError or ValueError for what cannot be sent.
        """
        if self.gone:
            if self._must_hear(message):
                raise ClientGone("the client has gone")
            self._drop(message)
            return
        kind = message["type"]
        if kind == "http.response.body":
            if not self._open or self.closed:
                self.check_body(kind)
            data = message.get("body", b"")
            if type(data) is not bytes:
                data = _to_bytes(data)
            end = not message.get("more_body", False)
            if end and self.trailers is not None:
                end = self.ends_body(end)
            size = len(data)
            if size > MAX_DATA or size > self.credit:
                await self._wait_to_send(self._send_parts(data, end), message)
            elif size or end:
                self.send_data(data, end)
        elif kind == "http.response.start":
            if self._started:
                raise RuntimeError("http.response.start was sent twice")
            server = self.server
            status, headers = message["status"], message.get("headers", ())
            if message.get("trailers"):
                headers = extensions.before_trailers(server.headers.check(headers))
                self.head = byte_head((check_status(status), headers))
                self.trailers = []
            else:
                self.head = server.headers.head(status, headers)
            self._started = self._open = True
            if self.task is not None:  # else this is the app's first step, and `suspended` comes after it
                server.starts.append(self)
                server.flush_soon()
        else:
            await self._wait_to_send(extensions.send(self, kind, message), message)

    def suspended(self) -> None:
        """Sees to a head whose body the first step has not brought."""
        if self.head is not None:
            self.server.starts.append(self)

    def lose(self) -> None:
        """The client has gone. What runs is told by http.disconnect, if it asks, or else by what `send` raises."""
        super().lose()
        if self._started:
            self._end_unheard()

    def _end_unheard(self) -> None:
        self.server.loop.call_later(UNHEARD, self._cancel_unheard)

    def _cancel_unheard(self) -> None:
        """Ends a response that neither asks nor sends: it might go on for ever (docs/adr/0020-lost-clients.md)."""
        if self.task is not None and not self._told and not self.closed:
            self.task.cancel()

    async def _wait_to_send(self, sending: Coroutine[Any, Any, None], message: dict[str, Any]) -> None:
        try:
            await sending
        except ClientGone:  # meanwhile
            if self._must_hear(message):
                raise
            self._drop(message)

    def _must_hear(self, message: dict[str, Any]) -> bool:
        """Whether `send` raises because the client has gone: in an app that knows, or that goes on sending.

        A whole response is just let go. What the app does after it (a background task) is to be done for a client that
        has not waited as well. Starlette's middleware makes two parts of one, the second one empty.
        """
        return self._told or (self._started and bool(message.get("more_body")))

    def _drop(self, message: dict[str, Any]) -> None:
        if message["type"] in ("http.response.start", "http.response.early_hint"):
            self._end_unheard()
        elif message.get("more_body"):
            self._started = True
        elif not self.closed:
            self._close(wire.RESET, None)

    # What extensions.py needs

    @property
    def begun(self) -> bool:
        """Whether the head has been sent."""
        return self._started and self.head is None

    @property
    def body_ended(self) -> bool:
        """Whether the end of the body has come."""
        return self._started and not self._open

    def check_body(self, kind: str) -> None:
        """Raises RuntimeError if this message, a part of the body, is out of order."""
        if not self._started:
            raise RuntimeError(f"{kind} was sent before http.response.start")
        if not self._open or self.closed:
            raise RuntimeError(f"{kind} was sent after the end of the response")

    def ends_body(self, end: bool) -> bool:
        """Notes whether the body ends with the message at hand. Returns whether the response ends with it too."""
        if end and self.trailers is not None:
            self._open = False
            return False
        return end

    def check_open(self) -> None:
        """Raises ClientGone or RuntimeError if nothing can be sent any more."""
        if self.gone:
            raise ClientGone("the client has gone")
        if self.closed:
            raise RuntimeError("the response has ended meanwhile")

    async def reserve(self, size: int) -> None:
        """Takes `size` bytes of credit, waiting for them. Raises ClientGone, or RuntimeError when the response ends."""
        while self.credit < size:
            await self._change()
            self.check_open()
        self.credit -= size

    def take_head(self) -> bytes:
        """Returns the head if it has not been sent, which it is now, or else nothing."""
        head, self.head = self.head, None
        return head or b""

    def put(self, kind: int, head: bytes, data: bytes) -> None:
        """Sends a frame whose credit has been taken."""
        self.server.put(pack_header(len(head) + len(data), self.stream, len(head) << 8 | kind), head, data)

    # All else

    def feed(self, data: bytes, ended: bool) -> None:
        """Takes one DATA frame. Raises ProtocolError."""
        if self._body is None:
            raise wire.ProtocolError("a body that goes on after its end")
        self._body.feed(data, ended)

    def send_start(self) -> None:
        """Sends the head alone if the body has not come so far."""
        if self.head is not None and not self.closed:
            self.send_data(b"", False)

    def send_data(self, data: bytes, end: bool) -> None:
        """Sends one frame: RESPONSE if the head has not been sent, else DATA."""
        size = len(data)
        head = self.head
        if head is None:
            kind, head = wire.DATA, b""
        else:
            kind = wire.RESPONSE
            self.head = None
        if end:
            kind |= END
            self.end()
        self.credit -= size
        server = self.server
        server.put(pack_header(len(head) + size, self.stream, len(head) << 8 | kind), head, data)
        # In the first step of the last request that there is nothing is gained by waiting for what it does next.
        if self.task is None and (end or head) and not server.frames:
            server.flush()

    async def _send_parts(self, data: bytes, end: bool) -> None:
        at, size = 0, len(data)
        while True:
            part = min(size - at, self.credit, MAX_DATA)
            if part:
                self.send_data(data[at : at + part], end and at + part == size)
                at += part
            if at == size:
                return
            while not self.credit:
                try:
                    await self._change()
                except BaseException:  # cancelled, maybe by a timeout that the app goes on after
                    if at:
                        self._open, self.trailers = False, None  # nothing can follow half of a part
                    raise
                self.check_open()


def _to_bytes(data: object) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"the body of http.response.body is bytes, not {type(data).__name__}")
