"""One small WSGI app for each kind of object that wsgi.file_wrapper is given; see conformance/test_files.py.

The path names the app. The query string has its arguments: `path` of the file, `seek`, `read`, and response headers.
"""

import gzip
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import IO, Any
from urllib.parse import parse_qsl

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], None]]
Open = Callable[[str], Any]

_kinds: dict[str, Open] = {}
_closed: list[str] = []


def kind(open_file: Open) -> Open:
    """A decorator: requests can name this kind of file."""
    _kinds[open_file.__name__] = open_file
    return open_file


@kind
def buffered(path: str) -> IO[bytes]:
    """What open() gives."""
    return open(path, "rb")


@kind
def unbuffered(path: str) -> IO[bytes]:
    """A FileIO."""
    return open(path, "rb", buffering=0)


@kind
def temporary(path: str) -> Any:
    """A wrapper around a file that the app has just written."""
    return _copy(path, tempfile.NamedTemporaryFile())


@kind
def nameless(path: str) -> Any:
    """A file that is in no folder."""
    return _copy(path, tempfile.TemporaryFile())


@kind
def in_memory(path: str) -> IO[bytes]:
    """No file at all."""
    with open(path, "rb") as file:
        return io.BytesIO(file.read())


@kind
def compressed(path: str) -> Any:
    """Its fileno() is that of the compressed file."""
    with gzip.open(f"{path}.gz", "wb") as packed, open(path, "rb") as file:
        packed.write(file.read())
    return gzip.open(f"{path}.gz", "rb")


class Upper:
    """A wrapper that has the fileno() of a file and reads something else."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb")  # noqa: SIM115
        self.fileno, self.close = self._file.fileno, self._file.close

    def read(self, size: int = -1) -> bytes:
        """Reads in capitals."""
        return self._file.read(size).upper()


kind(Upper)


@kind
def pipe(path: str) -> IO[bytes]:
    """An open file that is no regular one."""
    reader, writer = os.pipe()
    with open(path, "rb") as file, open(writer, "wb") as end:
        end.write(file.read(1000))
    return open(reader, "rb")


def _copy(path: str, to: Any) -> Any:
    with open(path, "rb") as file:
        to.write(file.read())
    to.seek(0)
    return to


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with a file of the kind that the path names, the CPU time of this process, or which files were closed."""
    name = environ["PATH_INFO"].strip("/")
    arguments = dict(parse_qsl(environ["QUERY_STRING"]))
    if name in ("", "cpu", "closed"):
        start_response("200 OK", [])
        return [str(time.process_time()).encode() if name != "closed" else " ".join(_closed).encode()]
    file = _kinds[name](arguments["path"])
    if "seek" in arguments:
        file.seek(int(arguments["seek"]))
    if "read" in arguments:
        file.read(int(arguments["read"]))
    named = ("Content-Length", "ETag", "Last-Modified", "Content-Range")
    headers = [(key, value) for key, value in arguments.items() if key in named]
    write = start_response(arguments.get("status", "200 OK"), headers)
    if "write" in arguments:
        write(arguments["write"].encode())
    if "key" in arguments:
        file = Noting(file, arguments["key"])
    content: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 1000)
    return content


class Noting:
    """A proxy of a file, as frameworks make them, that notes its close()."""

    def __init__(self, file: Any, key: str) -> None:
        self._file = file
        self.read = file.read
        self._key = key

    def close(self) -> None:
        """Closes the file."""
        _closed.append(self._key)
        self._file.close()
