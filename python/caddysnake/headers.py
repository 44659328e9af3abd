"""Which response headers an app may send (RFC 9110 section 5, PEP 3333, ASGI HTTP), checked once per distinct header.

A name is a token; a value has no control character but tabs. Headers about the connection are Caddy's own business
(PEP 3333 "Other HTTP Features" forbids them, ASGI has the server ignore them): they are left out, so that an app that
sets `Connection` works as it did behind other servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from marshal import dumps
from typing import Any, TypeVar

from .errors import describe
from .wire import MARSHAL_VERSION

HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"})

# Those that decide how a message is read, which comes too late in a trailer (RFC 9110 section 6.5.1); Caddy refuses the
# same ones.
_NOT_TRAILERS = frozenset(
    {"authorization", "cache-control", "content-encoding", "content-length", "content-range", "content-type", "expect"}
    | {"host", "max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "realm", "trailer"}
    | {"www-authenticate"}
)

MAX_HEAD = 1 << 20  # bytes that the headers of a response may have together

BODYLESS = (204, 304)  # RFC 9110: a response with such a status has no content; one to HEAD has none either

Known = TypeVar("Known")
_Pairs = list[tuple[bytes, bytes]]

_CACHE = 2048  # distinct headers remembered by one worker
_CACHED_VALUE = 256  # longest value remembered
_HEADS = 256  # distinct heads remembered by one worker
_CACHED_HEAD = 1024  # longest head remembered, in bytes

_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
has_control = re.compile(r"[\0-\x08\n-\x1f\x7f]").search  # all but the tab: Caddy refuses the same ones


class TextHeaders:
    """The headers of WSGI responses: a cache from (name, value) to what is known of it. One per worker.

    Threads share it: a race costs a second look at a header, nothing else.
    """

    __slots__ = ("_heads", "_known")

    def __init__(self) -> None:
        # None for an ordinary header, the number for a Content-Length
        self._known: dict[tuple[str, str], int | None] = {}
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def head(self, status: int, headers: list[tuple[str, str]]) -> bytes:
        """`text_head` of headers that `check` has returned, which most responses of an app have in common."""
        key = (status, *headers)
        head = self._heads.get(key)
        if head is None:
            head = text_head(status, headers)
            remember(self._heads, key, head, len(head))
        return head

    def check(self, headers: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], int | None]:
        """Returns a new list to send and the Content-Length in it, or None.

        Raises TypeError or ValueError that names the header and what is wrong with it.
        """
        if type(headers) is not list:
            headers = list(headers)  # it may be a generator, which WSGI does not allow
        known = self._known
        length = None
        try:
            for pair in headers:
                size = known[pair]
                if size is not None:
                    if length is not None and size != length:
                        break
                    length = size
            else:
                return list(headers), length
        except (KeyError, TypeError):
            pass  # and out of the handler: the traceback of a wrong header begins with the app's call
        return self._check_slowly(headers)

    def _check_slowly(self, headers: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], int | None]:
        result = []
        length = None
        for pair in headers:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(f"a response header is a (name, value) tuple, not {pair!r}")
            name, value = pair
            if not isinstance(name, str) or not isinstance(value, str):
                raise TypeError(f"the name and value of a response header are str: {name!r}: {value!r}")
            name, value = str.__str__(name), str.__str__(value)  # a subclass of str cannot be marshalled
            check_pair(name, value)
            if (lower := name.lower()) in HOP_BY_HOP or lower == "trailer":  # WSGI has no trailers to announce
                continue
            size = content_length(value) if lower == "content-length" else None
            if size is not None:
                check_lengths(size, length)
                length = size
            result.append((name, value))
            if len(value) <= _CACHED_VALUE:
                if len(self._known) >= _CACHE:
                    self._known.clear()
                self._known[name, value] = size
        return result, length


class ByteHeaders:
    """The headers of ASGI responses: a cache from a pair to the same with its name in lower case. One per worker."""

    __slots__ = ("_heads", "_known", "_lengths")

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
        self._lengths: set[tuple[bytes, bytes]] = set()  # those of them that are a Content-Length
        self._heads: dict[tuple[Any, ...], bytes] = {}

    def head(self, status: int, headers: Iterable[Any]) -> bytes:
        """The head of a RESPONSE with these headers. Raises what `check_status` and `check` do."""
        if type(headers) is not list:
            headers = list(headers)
        key = (status, *headers)
        try:
            head = self._heads.get(key)
        except (TypeError, ValueError):  # pairs that are lists, views that are writable: they have no hash
            return byte_head((check_status(status), self.check(headers)))
        if head is None:
            checked = self.check(headers)
            head = byte_head((check_status(status), checked))
            # Others may change, and with pairs that are left out the key may be larger than the head.
            lasting = isinstance(status, int) and all(type(name) is type(value) is bytes for name, value in headers)
            if lasting and len(checked) == len(headers):
                remember(self._heads, key, head, len(head))
        return head

    def check(self, headers: Iterable[Any]) -> list[tuple[bytes, bytes]]:
        """Returns a new list to send. Raises TypeError or ValueError that names the header and what is wrong."""
        if type(headers) is not list:
            headers = list(headers)  # it may be a generator
        known = self._known
        try:
            result = [known[pair] for pair in headers]
            if len(self._lengths.intersection(headers)) < 2:
                return result
        except (KeyError, TypeError, ValueError):
            pass
        return self._check_slowly(headers)

    def _check_slowly(self, headers: Iterable[Any]) -> list[tuple[bytes, bytes]]:
        result = []
        length = None
        for pair in headers:
            try:
                name, value = pair
            except (TypeError, ValueError):
                raise TypeError(f"a response header is a pair of bytes, not {pair!r}") from None
            if not isinstance(name, (bytes, bytearray, memoryview)) or not isinstance(
                value, (bytes, bytearray, memoryview)
            ):
                raise TypeError(f"the name and value of a response header are bytes: {name!r}: {value!r}")
            name, value = bytes(name).lower(), bytes(value)
            check_pair(name.decode("latin-1"), value.decode("latin-1"))
            if name.decode("latin-1") in HOP_BY_HOP:
                continue
            size = content_length(value.decode("latin-1")) if name == b"content-length" else None
            if size is not None:
                check_lengths(size, length)
                length = size
            result.append((name, value))
            if len(value) <= _CACHED_VALUE:
                if len(self._known) >= _CACHE:
                    self._known.clear()
                    self._lengths.clear()
                given = (bytes(pair[0]), value)
                self._known[given] = (name, value)
                if size is not None:
                    self._lengths.add(given)
        return result


def text_head(first: int | str, headers: list[tuple[str, str]]) -> bytes:
    """Returns the head of a RESPONSE or ACCEPT, of headers that `TextHeaders.check` has returned. Raises ValueError if
    they are too large.
    """
    try:
        head = dumps((first, headers), MARSHAL_VERSION)
    except ValueError:  # a subclass of str, equal to a header that has been checked
        plain = [(str.__str__(name), str.__str__(value)) for name, value in headers]
        head = dumps((first, plain), MARSHAL_VERSION)
    if len(head) > MAX_HEAD:
        raise _too_large(head)
    return head


def byte_head(head: tuple[int | str, _Pairs] | _Pairs) -> bytes:
    """Returns a head with headers that `ByteHeaders.check` has returned. Raises ValueError if they are too large."""
    packed = dumps(head, MARSHAL_VERSION)
    if len(packed) > MAX_HEAD:
        raise _too_large(packed)
    return packed


def remember(known: dict[tuple[Any, ...], Known], key: tuple[Any, ...], value: Known, size: int) -> None:
    """Keeps what is known of a head of `size` bytes, unless that is large."""
    if size <= _CACHED_HEAD:
        if len(known) >= _HEADS:
            known.clear()
        known[key] = value


def _too_large(head: bytes) -> ValueError:  # a frame over its cap would end the worker
    return ValueError(f"the headers of a response have {len(head)} bytes, at most {MAX_HEAD} are allowed")


def check_status(status: int) -> int:
    """Returns the status of a response as a plain int. Raises ValueError or TypeError if it is none."""
    status = int(status)  # HTTPStatus
    if not 200 <= status <= 999:
        raise ValueError(f"the status of a response is 200 or more, not {status}")
    return status


def check_pair(name: str, value: str) -> None:
    """Raises ValueError if this is no header that can be sent."""
    if not _is_token(name):
        raise ValueError(f"illegal name of a response header: {name!r}")
    if has_control(value):
        raise ValueError(f"illegal value of the response header {name}: {value!r} has a control character")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError as exc:
        raise ValueError(f"illegal value of the response header {name}: {describe(exc)[0]}") from None


def check_lengths(size: int, other: int | None) -> None:
    """Raises ValueError if a Content-Length is another one than that before it, None if there is none."""
    if other is not None and size != other:
        raise ValueError(f"a response with two lengths, Content-Length: {other} and {size}")


def check_subprotocol(subprotocol: object) -> str:
    """Returns the subprotocol of a WebSocket, "" for None. Raises TypeError, or ValueError if it is no token."""
    if subprotocol is None:
        return ""
    if not isinstance(subprotocol, str):
        raise TypeError(f"a subprotocol is a str, not {type(subprotocol).__name__}")
    plain = str.__str__(subprotocol)  # a subclass of str cannot be marshalled
    if plain and not _is_token(plain):
        raise ValueError(f"illegal subprotocol: {plain!r}")
    return plain


def check_trailer(name: bytes) -> None:
    """Raises ValueError if a header, its name in lower case, must not come as a trailer."""
    text = name.decode("latin-1")
    if text in _NOT_TRAILERS or text.startswith("if-"):
        raise ValueError(f"{text} cannot be a trailer")


def content_length(value: str) -> int:
    """Returns the number in a Content-Length. Raises ValueError if it is none (RFC 9110 section 8.6)."""
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"Content-Length must be a number of bytes, not {value!r}")
    return int(value)
