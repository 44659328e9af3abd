"""What the WebSockets of all interfaces share: the messages on their way to the app, and close codes."""

from __future__ import annotations

from .wire import MESSAGE_COST, WINDOW, ProtocolError

NORMAL = 1000  # close codes: RFC 6455 section 7.4.1
LOST = 1006
BROKEN = 1011

_MAX_REASON = 123  # bytes: what a Close has room for
_RESERVED = frozenset({1004, 1005, 1006})  # codes that are never sent


class Messages:
    """Messages that are arriving: those that have come, and what Caddy may still send, by the count of
    docs/internals.md. `wire.Body` is the same for a request.

    Not thread-safe by itself.
    """

    __slots__ = ("_allowed", "_held", "_part", "_taken", "_whole")

    def __init__(self) -> None:
        self._whole: list[tuple[int, bytes, int]] = []  # TEXT or BINARY, data, what of _taken it will be
        # Of a message that is not whole. One buffer: a client may send it in parts of a byte, each of which would be an
        # object of its own.
        self._part: bytearray | None = None
        self._held = 0  # what _part will be of _taken
        self._allowed = WINDOW  # what Caddy may still send
        self._taken = 0  # what the app has taken and Caddy does not know of

    def feed(self, kind: int, data: bytes, ended: bool) -> None:
        """Takes one TEXT or BINARY frame. Raises ProtocolError when there was no credit for it."""
        if not 0 < self._allowed >= len(data):
            raise ProtocolError(f"a message of {len(data)} bytes with credit for {self._allowed}")
        cost = len(data) + MESSAGE_COST
        self._allowed -= cost
        part = self._part
        if part is None:
            if ended:
                self._whole.append((kind, data, cost))
                return
            part = self._part = bytearray()
        part += data
        self._held += cost
        if ended:
            self._whole.append((kind, bytes(part), self._held))
            self._part, self._held = None, 0

    def take(self) -> tuple[int, bytes] | None:
        """Takes the next message: TEXT or BINARY, and its data. None: none is whole.

        What has come of the next one counts as taken then: it may be longer than credit reaches.
        """
        if not self._whole:
            self._taken += self._held
            self._held = 0
            return None
        kind, data, cost = self._whole.pop(0)
        self._taken += cost
        return kind, data

    def clear(self) -> None:
        """Forgets the messages that are whole."""
        self._whole.clear()

    @property
    def changed(self) -> bool:
        """Whether there is something for `take()` to take or to count."""
        return bool(self._whole or self._held)

    def grant(self) -> int:
        """Returns how much credit to give Caddy now, and counts it as given. Call it after `take()`."""
        size = self._taken
        if size < WINDOW // 2:
            return 0
        self._allowed += size
        self._taken = 0
        return size


def check_code(code: int) -> None:
    """Raises ValueError if `code` is not one that may be sent."""
    if not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in _RESERVED:
        raise ValueError(f"a WebSocket cannot be closed with code {code}")


def cut_reason(reason: str) -> str:
    """Returns the reason of a close as far as there is room for it. Raises TypeError, or ValueError for a surrogate."""
    if not isinstance(reason, str):
        raise TypeError(f"the reason of a close is a str, not {type(reason).__name__}")
    return reason.encode()[:_MAX_REASON].decode(errors="ignore")
