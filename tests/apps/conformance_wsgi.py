"""One small WSGI app for each clause of PEP 3333; see conformance/test_wsgi.py.

The header Case names the app. Without one, the answer is the environ. The query string is the app's argument, often the
key of a gate and of what the app notes for the test to see.
"""

import hashlib
import io
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any
from urllib.parse import parse_qs
from wsgiref.validate import validator

import gates
from odd_errors import odd_error

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

PLAIN = ("Content-Type", "text/plain")

_cases: dict[str, App] = {}
_notes: defaultdict[str, list[str]] = defaultdict(list)


def case(app: App) -> App:
    """A decorator: requests can name this app."""
    _cases[app.__name__] = app
    return app


@case
def environ(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with the type and, as far as JSON can tell, the value of everything in the environ."""
    shown = {key: [type(value).__name__, _plain(value)] for key, value in environ.items()}
    return _json(start_response, shown)


@case
def notes(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with what was noted under a key."""
    return _json(start_response, _notes[environ["QUERY_STRING"]])


@case
def open_gate(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Opens a gate."""
    gates.open(environ["QUERY_STRING"])
    return _json(start_response, "open")


@case
def read(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Reads the body in one of the ways that there are, with sizes that go round; see _readers."""
    query = parse_qs(environ["QUERY_STRING"])
    sizes = [int(size) for size in query.get("size", [])]
    parts = _readers[query["how"][0]](environ["wsgi.input"], sizes)
    body = b"".join(parts)
    shown = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "longest": max(map(len, parts), default=0)}
    shown["after"] = len(environ["wsgi.input"].read(1)) + len(environ["wsgi.input"].readline())
    return _json(start_response, shown)


@case
def read_lines(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with the lines of the body, as read by `how`."""
    body = environ["wsgi.input"]
    lines = _readers[environ["QUERY_STRING"]](body, [])
    return _json(start_response, [line.decode("latin-1") for line in lines])


@case
def echo(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Gives back each line of the body as soon as it has come."""
    start_response("200 OK", [PLAIN])
    yield from iter(environ["wsgi.input"].readline, b"")


@case
def errors(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Writes to wsgi.errors in every way."""
    key, stream = environ["QUERY_STRING"], environ["wsgi.errors"]
    stream.write(f"{key} from write\n")
    stream.writelines([f"{key} from ", "writelines\n"])
    stream.flush()
    return _json(start_response, "written")


class File(io.BytesIO):
    """A file that notes when it is closed."""

    def __init__(self, content: bytes, key: str) -> None:
        super().__init__(content)
        self.key = key

    def close(self) -> None:
        """Note it, and close."""
        if not self.closed:
            _notes[self.key].append("closed")
        super().close()


@case
def file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with a file, in blocks of 1,000 bytes."""
    start_response("200 OK", [PLAIN])
    content: Iterable[bytes] = environ["wsgi.file_wrapper"](File(b"0123456789" * 12_345, environ["QUERY_STRING"]), 1000)
    return content


@case
def one_block(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """One block, no Content-Length."""
    start_response("200 OK", [PLAIN])
    return [b"a single block"]


@case
def length(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers in two blocks with the Content-Length that the query string says; the blocks make 10 bytes."""
    start_response("200 OK", [PLAIN, ("Content-Length", environ["QUERY_STRING"])])
    return iter([b"12345", b"67890"])


@case
def status(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with a status, and with blocks even where that status has no body."""
    code = environ["QUERY_STRING"]
    start_response(f"{code} Some Words", [] if code in ("204", "304") else [PLAIN])
    return [b"a body"]


@case
def headers(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with headers of one name, in order, a value in latin-1, and headers about the connection."""
    start_response("200 OK", [("Set-Cookie", "b=1"), PLAIN, ("X-Name", "Zo\xeb"), ("Set-Cookie", "a=2")])
    return [b"body"]


@case
def connection_headers(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with headers that are the server's business."""
    start_response("200 OK", [PLAIN, ("Connection", "close"), ("Transfer-Encoding", "chunked"), ("Keep-Alive", "9")])
    return [b"body"]


@case
def no_response(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Does not call start_response."""
    return [b"body"]


@case
def late_start(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Calls start_response when it is asked for the first block."""
    start_response("202 Accepted", [PLAIN])
    yield b"late"


@case
def replaced(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Replaces a response that has not begun."""
    start_response("200 OK", [PLAIN, ("X-First", "1")])
    try:
        raise ValueError("before the response")
    except ValueError:
        start_response("503 Sorry", [PLAIN, ("X-Second", "2")], sys.exc_info())
    yield b"replaced"


@case
def not_replaced(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Tries to replace a response that has begun."""
    start_response("200 OK", [PLAIN])
    yield b"begun"
    try:
        raise ValueError("after it began")
    except ValueError as error:
        try:
            start_response("503 Sorry", [PLAIN], sys.exc_info())
        except ValueError as raised:
            _notes[environ["QUERY_STRING"]].append("the same" if raised is error else repr(raised))
            raise


@case
def twice(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Calls start_response twice without exc_info."""
    start_response("200 OK", [PLAIN])
    start_response("200 OK", [PLAIN])
    return [b"body"]


@case
def write(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Sends two blocks by write(), a gate between them, and returns one more."""
    send = start_response("200 OK", [PLAIN])
    send(b"written, ")
    gates.wait(environ["QUERY_STRING"])
    send(b"written too, ")
    return iter([b"returned"])


class Blocks:
    """Blocks that wait for one another: the second needs a gate that the test opens when it has the first.

    Notes which block is asked for, and when it is closed.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.parts = self._parts()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.parts)

    def _parts(self) -> Iterator[bytes]:
        for block in (b"first", b"second", b"third"):
            if block != b"first":
                gates.wait(self.key)
            _notes[self.key].append(f"made {block.decode()}")
            yield block

    def close(self) -> None:
        """Note it."""
        _notes[self.key].append("closed")


@case
def blocks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """See Blocks."""
    start_response("200 OK", [PLAIN])
    return Blocks(environ["QUERY_STRING"])


class Broken(Blocks):
    """Fails at the first block."""

    def _parts(self) -> Iterator[bytes]:
        raise ValueError("no first block")
        yield b""


@case
def broken(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """See Broken."""
    start_response("200 OK", [PLAIN])
    return Broken(environ["QUERY_STRING"])


class Endless(Blocks):
    """Never ends."""

    def _parts(self) -> Iterator[bytes]:
        while True:
            _notes[self.key][:] = [str(1 + int((_notes[self.key] or ["0"])[0]))]
            yield b"." * 65536


@case
def endless(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Blocks of 64 KiB without end; their number is noted."""
    start_response("200 OK", [PLAIN])
    return Endless(environ["QUERY_STRING"])


@case
def raises(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Raises before the response."""
    raise RuntimeError("a bug in the app")


@case
def raises_oddly(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Raises what is hard to show."""
    raise odd_error(environ["QUERY_STRING"])


@case
def raises_late(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Raises after the first block."""
    start_response("200 OK", [PLAIN, *[("Content-Length", "100")] * (environ["QUERY_STRING"] == "length")])
    yield b"begun"
    raise RuntimeError("a bug in the app")


@case
def illegal(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with a header that would split the response."""
    start_response("200 OK", [PLAIN, ("X-Name", "value\r\nX-Injected: yes")])
    return [b"body"]


def _json(start_response: StartResponse, shown: object) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shown).encode()]


def _plain(value: object) -> object:
    return value if isinstance(value, (str, int, tuple)) else None


def _rounds(step: Callable[[int], bytes], sizes: list[int]) -> list[bytes]:
    parts: list[bytes] = []
    while part := step(sizes[len(parts) % len(sizes)]):
        parts.append(part)
    return parts


# Each takes wsgi.input and sizes, and returns the parts of the whole body.
_readers: dict[str, Callable[[Any, list[int]], list[bytes]]] = {
    "read": lambda body, sizes: _rounds(body.read, sizes),
    "read_all": lambda body, sizes: [body.read()],
    "read_negative": lambda body, sizes: [body.read(-1)],
    "readline": lambda body, sizes: list(iter(body.readline, b"")),
    "readline_sized": lambda body, sizes: _rounds(body.readline, sizes),
    "readlines": lambda body, sizes: body.readlines(),
    "readlines_hint": lambda body, sizes: list(chain(*iter(lambda: body.readlines(sizes[0]), []))),
    "iterate": lambda body, sizes: list(body),
}


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The case that the request names."""
    return _cases[environ.get("HTTP_CASE", "environ")](environ, start_response)


validated = validator(app)
