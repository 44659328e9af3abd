"""uvloop in a thread of Caddy: processes that the app starts with it leave signals fit for Go.

While such a process runs, libuv has a handler of SIGCHLD (`uv_spawn`), which runs on whichever thread gets the signal,
one of Go's too. Those run on stacks of a few KiB, so Go wants SA_ONSTACK of each handler (os/signal, "Go programs that
use cgo or SWIG"), which libuv does not set. asyncio's own loops have no handler here.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any

import uvloop


class Loop(uvloop.Loop):
    """A loop whose handler of SIGCHLD uses the stack for signals of the thread that it comes to."""

    __module__ = uvloop.Loop.__module__  # by which some tell loops apart

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        return await _Spawning(super().subprocess_exec(*args, **kwargs))

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> Any:
        return await _Spawning(super().subprocess_shell(*args, **kwargs))


class _Spawning(Awaitable[Any]):
    """Runs what spawns a process: the handler is there after its first step."""

    def __init__(self, spawn: Coroutine[Any, Any, Any]) -> None:
        self._spawn = spawn

    def __await__(self) -> Generator[Any, None, Any]:
        steps = self._spawn.__await__()
        try:
            first = next(steps)
        except StopIteration as done:
            return done.value
        finally:
            _use_signal_stack()
        yield first
        return (yield from steps)


def _use_signal_stack() -> None:
    """Sets the flags that Go wants of SIGCHLD's handler, if there is one."""
    python = ctypes.pythonapi
    python.PyOS_getsig.restype = ctypes.c_void_p
    python.PyOS_setsig.restype, python.PyOS_setsig.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    number = int(signal.SIGCHLD)
    if handler := python.PyOS_getsig(number):
        python.PyOS_setsig(number, handler)  # with SA_ONSTACK (Python/pylifecycle.c, since 3.10)
        signal.siginterrupt(number, False)  # SA_RESTART, which that has taken away
