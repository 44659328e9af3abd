"""Workers as threads of an interpreter inside Caddy, which Caddy's thread.go starts and embedded.go gives orders.

An order is a dict in `marshal` format, with its size as a u32 before it. Everything that a worker is, is in worker.py.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import traceback
from marshal import loads
from threading import Thread
from typing import Any

from . import django, forks, output, wire, worker
from .errors import StartError
from .shared import Shared

Order = dict[str, Any]

_CLONE_FS = 0x200  # sched.h

_sockets: set[socket.socket] = set()  # of the workers that live


def main(orders: int, reports: int, stdout: int, stderr: int) -> None:
    """Does what Caddy orders, until Caddy's end. It runs on the interpreter's main thread, where no app runs.

    Args:
        orders: descriptor of a pipe that the orders come from.
        reports: descriptor of a pipe that takes the number, a u32, of each worker that has ended, and 0 at Caddy's end.
        stdout, stderr: descriptors of pipes for what is written by no worker.
    """
    sys.stdin = open(os.devnull)  # noqa: SIM115
    own = output.Output("stdout", stdout), output.Output("stderr", stderr)
    for stream in own:
        stream.restore()
    output.follow_threads()
    shared = Shared()
    left = False

    def leave() -> None:  # in a process that an app forks, so that Caddy sees when a worker here has ended
        nonlocal left
        if left:
            return  # the numbers are those of other files by now
        left = True
        for sock in list(_sockets):
            sock.close()
        os.close(orders)
        os.close(reports)
        forks.leave_servers()

    if sys.platform != "win32":
        os.register_at_fork(after_in_child=leave)
    with open(orders, "rb", closefd=False) as pipe:
        while len(size := pipe.read(4)) == 4:
            order = loads(pipe.read(int.from_bytes(size, "little")))
            kind = order["order"]
            if kind == "start":
                for stream in own:
                    stream.restore()
                start(order, shared, reports)
            elif kind == "commit":
                shared.commit(order["generation"])
            elif kind == "roll_back":
                shared.roll_back(order["generation"])
            elif kind == "exit":
                run_exit_functions()
                for stream in own:
                    stream.end()
                os.write(reports, bytes(4))  # no worker has the number 0


def run_exit_functions() -> None:
    """Does what Python does at its end, but waits for no thread: it ends process pools and runs what atexit has."""
    pools: Any = sys.modules.get("concurrent.futures.process")
    if pools is not None:
        try:
            pools._python_exit()
        except Exception:
            traceback.print_exc()
    atexit._run_exitfuncs()


def start(order: Order, shared: Shared, reports: int) -> None:
    """Starts a worker; if the system refuses another thread, the worker's end is all that there is of it."""
    new = Worker(order, shared, reports)
    try:
        new.start()
    except RuntimeError as exc:
        new.end(f"{exc}: too many threads, or too little memory for one more")


class Worker(Thread):
    """Runs one worker from an order to start it until its end. The descriptors that the order names are its own."""

    def __init__(self, order: Order, shared: Shared, reports: int) -> None:
        super().__init__(name=f"{order['app']} worker", daemon=True)
        self._order = order
        self._shared = shared
        self._reports = reports
        self._sock = socket.socket(fileno=order["socket"])
        self._ends = worker.take_over(order)
        self._streams = {name: output.open_stream(order[name]) for name in ("stdout", "stderr")}
        _sockets.add(self._sock)

    def run(self) -> None:
        order = self._order
        root, generation = os.fsdecode(order["working_dir"]), order["generation"]
        roots, packages = ([os.fsdecode(path) for path in order[name]] for name in ("roots", "packages"))
        output.enter(self._streams)
        try:
            env = dict(os.fsdecode(entry).split("=", 1) for entry in order["env"])
            module = order["app"].partition(":")[0]
            anew = self._shared.enter(root, generation, roots, packages, env, module)

            def imported() -> None:
                if not django.is_used(self._shared.modules(root)):
                    return
                if problem := django.problem(lambda name: self._shared.finds(root, name), env):
                    raise StartError(f"{order['app']!r}: {problem}")
                if anew and roots:
                    self._sock.sendall(wire.log("warn", django.KEPT))

            try:
                if problem := _change_directory(root):
                    warning = wire.log("warn", "relative file paths do not begin at working_dir", reason=problem)
                    self._sock.sendall(warning)
                obstacle = self._shared.problem(module)
                worker.run(self._sock, obstacle, imported, ends=self._ends, packages=packages)
            finally:
                if threads := self._shared.leave(root, generation):
                    message = "threads of the app go on after the end of their version"
                    with contextlib.suppress(OSError):  # Caddy has gone, or takes nothing any more
                        self._sock.sendall(wire.log("warn", message, threads=", ".join(threads)))
        except (wire.ProtocolError, ConnectionError) as exc:
            print(f"caddysnake: the connection to Caddy is broken: {exc}", file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            self.end()

    def end(self, reason: str = "") -> None:
        """Closes what the order named and reports the end. `reason` is why the thread has never run."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # also where a process that the app has forked holds it
        self._sock.close()
        _sockets.discard(self._sock)
        for end in self._ends.values():
            if end is not None:
                end.close()
        if reason:
            self._streams["stderr"].write(f"caddysnake: {reason}\n")
        for stream in self._streams.values():
            with contextlib.suppress(OSError):  # the app has closed its descriptor
                stream.close()
        os.write(self._reports, self._order["number"].to_bytes(4, "little"))


def _change_directory(path: str) -> str:
    """Makes `path` the current directory of this thread and those that it starts. Returns "", or why it is not.

    It never becomes Caddy's: the relative paths in Caddy's configuration would change their meaning. Where Caddy's is
    `path` already, what the app does later, by os.chdir() and os.umask(), is the threads' own all the same.
    """
    problem = _leave_caddys()
    with contextlib.suppress(FileNotFoundError):  # Caddy's own has been removed
        if os.getcwd() == path:
            return ""
    if not problem:
        os.chdir(path)
    return problem


def _leave_caddys() -> str:
    """Gives this thread and those that it starts a current directory of their own. Returns "", or why it cannot."""
    if sys.platform != "linux":
        return "on this system all threads of a process have one current directory, which is Caddy's"
    try:
        if sys.version_info >= (3, 12):
            os.unshare(_CLONE_FS)
        else:
            import ctypes

            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(_CLONE_FS) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except (ImportError, OSError) as exc:
        return f"this thread cannot have a current directory of its own, the system refuses unshare(CLONE_FS): {exc}"
    return ""
