"""What a process has of Caddy's that an app in a thread of Caddy has forked, and that it must not keep.

Go closes all it has at exec, but a process that is just forked, as multiprocessing's are with "fork", has Caddy's
listeners: clients that the system sends there get no answer, also from the next Caddy on that port. It has its clients'
connections too, which do not end while it lives.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator


def leave_servers() -> None:
    """Lets go of what listens in this process, and of connections to it. It does nothing where /proc is not there."""
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return
    sockets = list(_sockets(descriptors))
    ports = {port for _, port, listens in sockets if listens}
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for descriptor, port, _ in sockets:
            if port in ports:
                # The number stays taken: an object of the app's may have it too, and close it some time.
                os.dup2(nothing, descriptor, inheritable=False)
    finally:
        os.close(nothing)


def _sockets(descriptors: list[int]) -> Iterator[tuple[int, object, bool]]:
    """Yields the descriptor of each bound socket of the Internet's families or at a path, its port or path, and whether
    it listens."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # it is closed by now, or no socket that we know
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                sock = socket.socket(fileno=descriptor)
                try:
                    name = sock.getsockname()
                    listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
                finally:
                    sock.detach()
                port = name[1] if sock.family in (socket.AF_INET, socket.AF_INET6) else name
                if port:
                    yield descriptor, port, listens
