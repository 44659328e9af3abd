"""Files whose bytes leave without passing through Python: an open descriptor goes to Caddy, which sends what it reads.

Descriptors travel on a socketpair of their own, each before the FILE frame that speaks of it (docs/internals.md,
"Files"). Caddy opens no path for an app: what a worker cannot open, its clients cannot get.
"""

from __future__ import annotations

import io
import os
import socket
from array import array
from stat import S_ISREG
from struct import Struct
from typing import Any, NamedTuple

from .wire import ProtocolError

FILE_COST = 64 << 10  # bytes of credit that a FILE frame takes unless it is the last frame

_STREAM = Struct("<I")
_PART = Struct("<QQ?")
_READABLE = (io.FileIO, io.BufferedReader, io.BufferedRandom)


class Channel:
    """The worker's end of the socketpair for descriptors. Any thread may send."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def setblocking(self, flag: bool) -> None:
        """Says whether `send` waits while Caddy is slow, or raises BlockingIOError."""
        self._sock.setblocking(flag)

    def close(self) -> None:
        """Closes the socket. What has been sent arrives."""
        self._sock.close()

    def send(self, stream: int, descriptor: int) -> None:
        """Sends a copy of a descriptor for the next FILE frame of `stream`, which must follow. Raises OSError."""
        rights = array("i", [descriptor])
        self._sock.sendmsg([_STREAM.pack(stream)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def channel(descriptor: int) -> Channel | None:
    """Returns the channel that START names, None for 0. Raises ProtocolError if there is no socket."""
    if not descriptor:
        return None
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as exc:
        raise ProtocolError(f"descriptor {descriptor} is no socket: {exc}") from exc
    sock.set_inheritable(False)
    return Channel(sock)


class Part(NamedTuple):
    """A part of an open file that is to be sent."""

    descriptor: int
    offset: int
    size: int
    shared: bool  # somebody else may move the descriptor's position

    def data(self) -> bytes:
        """The data of the FILE frame."""
        return _PART.pack(self.offset, self.size, self.shared)


def open_path(path: str | os.PathLike[str]) -> int:
    """Opens a regular file for `http.response.pathsend`. Raises OSError; a pipe or a folder is a ValueError."""
    # O_NONBLOCK: to open a pipe would wait for its writer. It means nothing to a regular file.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        size_of(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def size_of(descriptor: int) -> int:
    """Returns a regular file's size in bytes. Raises ValueError for anything else that is open."""
    info = os.fstat(descriptor)
    if not S_ISREG(info.st_mode):
        raise ValueError("only a regular file can be sent, not a folder, pipe, socket or device")
    return info.st_size


def reopen(descriptor: int) -> tuple[int, bool]:
    """Returns the same file with a position of its own, or else a copy that shares it, and which: True for a copy.

    The caller closes it. A position is shared with whatever the app does to its file meanwhile, another response too.
    """
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC), False
    except OSError:  # not Linux, no /proc, or the permissions have changed
        return os.dup(descriptor), True


def real_file(file: Any) -> io.FileIO | io.BufferedReader | io.BufferedRandom | None:
    """Returns the open file whose bytes `file.read()` returns unchanged, or None if there is none.

    A fileno() alone says little: that of a GzipFile belongs to what is compressed. So it is asked whose method read()
    is; this sees through wrappers that pass it on, as Django's and tempfile's do.
    """
    read = getattr(file, "read", None)
    real: Any = getattr(getattr(read, "__wrapped__", read), "__self__", None)
    if type(real) not in _READABLE or real.closed:
        return None
    raw = getattr(real, "raw", real)
    return real if type(raw) is io.FileIO and real.readable() else None
