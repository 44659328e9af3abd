"""Frames between Caddy and a worker, and the credit that bounds what is under way. docs/internals.md has the format.

Nothing here waits or locks: the callers own the socket and say who may touch what.
"""

from __future__ import annotations

import socket
from collections import deque
from marshal import dumps, loads
from struct import Struct
from typing import Any

REQUEST = 1
DATA = 2
RESPONSE = 3
CREDIT = 4
RESET = 5
ERROR = 6
DECLINE = 7
START = 8
READY = 9
FAILED = 10
STOP = 11
LOG = 12
ACCEPT = 13
TEXT = 14
BINARY = 15
CLOSE = 16
TRAILERS = 17
HINT = 18
FILE = 19
DRAINED = 20
HELD = 21

STOP_GRACE = 5.0  # seconds that requests have beyond those that STOP gives them; then shutdown goes on without them

END = 0x80  # flag beside the type: the last of its stream's data in this direction

HEADER_SIZE = 12
MAX_FRAME = 4 << 20  # bytes of head and data together
MAX_DATA = 64 << 10  # bytes of data in one frame
WINDOW = 256 << 10  # bytes of data that may be under way in one direction of one stream
MESSAGE_COST = 64  # bytes that a TEXT or BINARY frame costs on top of its data: empty messages are not free
MARSHAL_VERSION = 2  # no references, nothing that Caddy's decoder does not know

PARTS = 3  # what a frame is held as: prefix, head, data
_HOLD = 0.002  # seconds that a finished response waits for others: each send has others take the processor from the app
# So many frames made within so few seconds, and it is Caddy that is behind, not the app: it gets them at once. An app
# that takes longer is not interrupted so soon.
_EARLY_FRAMES = 8
_EARLY_TIME = 0.0002

_BUFFER = 256 << 10
_NOTHING = memoryview(b"")
# Few and large parts are not worth copying together. The system takes a bounded number; POSIX promises 16.
_MANY, _LARGE = 16 if hasattr(socket.socket, "sendmsg") else 0, 8 << 10  # Windows takes one

header = Struct("<III")  # length, stream, head << 8 | flags and type
pack_header = header.pack
unpack_header = header.unpack_from

Frame = tuple[int, int, Any, bytes]  # type with flags, stream, decoded head or None, data


class ProtocolError(Exception):
    """The other side broke the protocol; the connection cannot be used any more."""


class Decoder:
    """Cuts a byte stream into frames, out of one buffer that is filled in place.

    Use: `n = sock.recv_into(decoder.room()); decoder.fill(n)`, then take from `frames` as long as there are some or
    `decode()` says so. Not thread-safe: one thread at a time, see threads.py.

    Attributes:
        frames: decoded and not yet taken, the oldest first.
    """

    __slots__ = ("_buffer", "_end", "_error", "_start", "_view", "frames")

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._start = 0  # of the first frame not yet decoded
        self._end = 0  # of what was received
        self._error: ProtocolError | None = None  # what comes after `frames`

    def room(self) -> memoryview:
        """Returns where the next received bytes belong. It is never empty once `decode()` has returned False."""
        return self._view[self._end :]

    def fill(self, count: int) -> None:
        """Says that `count` bytes were received into `room()`."""
        self._end += count

    def next(self) -> Frame | None:
        """Takes the next whole frame, or returns None if more bytes are needed. Raises what `decode` does."""
        return self.frames.popleft() if self.frames or self.decode() else None

    def decode(self) -> bool:
        """Decodes all the whole frames that there are, when `frames` is empty. Returns whether there was one.

        Together they cost half of what they would one at a time, between requests of an app's.

        Raises ProtocolError for a frame that must not be, when those before it have been taken: nothing is allocated
        for it.
        """
        if self._error is not None:
            raise self._error
        frames, buffer, view, start, end = self.frames, self._buffer, self._view, self._start, self._end
        need = HEADER_SIZE
        try:
            while end - start >= HEADER_SIZE:
                length, stream, word = unpack_header(buffer, start)
                size = word >> 8
                if length > MAX_FRAME or size > length:
                    raise ProtocolError(f"a frame of {length} bytes with a head of {size}")
                head_at = start + HEADER_SIZE
                data_at = head_at + size
                stop = head_at + length
                if stop > end:
                    need = HEADER_SIZE + length
                    break
                try:
                    head = loads(view[head_at:data_at]) if size else None
                except Exception as exc:
                    raise ProtocolError(f"a head of {size} bytes does not decode: {exc}") from exc
                frames.append((word & 0xFF, stream, head, bytes(view[data_at:stop]) if stop > data_at else b""))
                start = stop
        except ProtocolError as exc:
            if not frames:
                raise
            self._error = exc
            return True
        self._start = start
        self._make_room(need)
        return bool(frames)

    def _make_room(self, need: int) -> None:
        """Makes sure that the `need` bytes from `_start` on fit; gives memory back when nothing is left to take."""
        have = self._end - self._start
        size = len(self._buffer)
        wanted = size if need <= size and (have or size == _BUFFER) else max(need, _BUFFER)
        if wanted != size:
            old = self._view[self._start : self._end]
            self._buffer = bytearray(wanted)
            self._view = memoryview(self._buffer)
            self._view[:have] = old
        elif have and self._start + need <= size:
            return
        elif have:
            self._view[:have] = self._view[self._start : self._end]
        self._start, self._end = 0, have


class Body:
    """A request's body that is still arriving: what has come, and what Caddy may still send.

    Not thread-safe by itself.
    """

    __slots__ = ("_allowed", "_chunks", "_held", "ended")

    def __init__(self, first: bytes) -> None:
        self._chunks = deque((first,) if first else ())
        self._held = 0  # bytes in _chunks that came out of credit; the first part is free
        self._allowed = 0  # bytes that Caddy may still send
        self.ended = False  # the last part has come; it may still be in _chunks

    def feed(self, data: bytes, ended: bool) -> None:
        """Takes one DATA frame. Raises ProtocolError when there was no credit for it, or when it is after the end."""
        size = len(data)
        if size > self._allowed or self.ended:
            raise ProtocolError(f"{size} bytes of body with credit for {self._allowed}")
        if size:
            self._chunks.append(data)
            self._allowed -= size
            self._held += size
        self.ended = ended

    def take(self) -> bytes | None:
        """Takes the next part, or returns None when none has come."""
        if not self._chunks:
            return None
        data = self._chunks.popleft()
        self._held = max(0, self._held - len(data))
        return data

    @property
    def waiting(self) -> bool:
        """Whether nothing can be taken now and more will come."""
        return not self._chunks and not self.ended

    @property
    def finished(self) -> bool:
        """Whether all of it has been taken."""
        return self.ended and not self._chunks

    def grant(self) -> int:
        """Returns how many bytes of credit to give Caddy now, and counts them as given. Call it when the app asks."""
        size = WINDOW - self._allowed - self._held
        only_first = self._chunks and not self._held  # the app has not asked for more than it has
        if self.ended or only_first or size < WINDOW // 2:
            return 0
        self._allowed += size
        return size


def send(sock: socket.socket, parts: list[bytes | memoryview], size: int) -> memoryview:
    """Sends the parts, `size` bytes in all, as far as the socket takes them in one call; returns what is left."""
    data = b""
    try:
        if len(parts) <= _MANY and size >= _LARGE * len(parts):
            sent = sock.sendmsg(parts)
        else:
            data = b"".join(parts)
            sent = sock.send(data)
    except BlockingIOError:
        sent = 0
    return _NOTHING if sent == size else memoryview(data or b"".join(parts))[sent:]


def is_due(held: float, parts: int) -> bool:
    """Whether finished responses leave though there is more to run: `parts` of them, held for `held` seconds."""
    return held > _HOLD or (held < _EARLY_TIME and parts >= _EARLY_FRAMES * PARTS)


def newest(last: int, number: int) -> int:
    """Returns the later of two stream numbers, which wrap around: requests may overtake one another on their way."""
    return number if (number - last) & 0xFFFFFFFF < 1 << 31 else last


def frame(kind: int, stream: int, head: Any = None, data: bytes = b"") -> bytes:
    """Returns one whole frame; `head` None means none. For what is not on the hot path."""
    packed = b"" if head is None else dumps(head, MARSHAL_VERSION)
    return pack_header(len(packed) + len(data), stream, len(packed) << 8 | kind) + packed + data


def credit(stream: int, size: int) -> bytes:
    """Returns a CREDIT frame: the other side may send `size` more bytes of data on `stream`."""
    return frame(CREDIT, stream, None, size.to_bytes(4, "little"))


def credit_size(data: bytes) -> int:
    """Returns what a CREDIT frame's data says. Raises ProtocolError when it is not a u32."""
    if len(data) != 4:
        raise ProtocolError(f"a CREDIT of {len(data)} bytes")
    return int.from_bytes(data, "little")


def stop_grace(head: int) -> float:
    """Returns for how many seconds what runs may go on after a STOP with this head."""
    return head / 1000 + STOP_GRACE


def log(level: str, message: str, **fields: str | int | float | bool) -> bytes:
    """Returns a LOG frame: one entry for Caddy's log; `level` is debug, info, warn or error."""
    return frame(LOG, 0, (level, message, fields))
