"""How a request that runs in a thread is ended when it has run for too long: `request_timeout` under WSGI.

Nothing ends a thread from outside, but Python raises in one what `PyThreadState_SetAsyncExc` says, as soon as it is
back from C code: a loop ends, a query that hangs in its driver does not, and Caddy replaces the worker then. This
package's own code must never be hit: it holds other requests' responses. So the exception is raised while the app runs
and no function of this package that it has called, and taken back when the app has returned before it came: whoever
returns waits for the scheduler's lock before anybody else sees anything of it, and the lock is held meanwhile.

Without a global interpreter lock the thread would go on meanwhile: then nothing is raised.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from contextlib import AbstractContextManager
from ctypes import c_ulong, py_object, pythonapi
from typing import TYPE_CHECKING, Any

from . import monitor, output
from .errors import Place, is_ours, places
from .stream import RequestTimeout

if TYPE_CHECKING:
    from .threads import Scheduler

_HAS_LOCK = getattr(sys, "_is_gil_enabled", lambda: True)()

_raise_in = pythonapi.PyThreadState_SetAsyncExc


class Interruption:
    """What may befall the thread that runs a request. The scheduler's lock guards it."""

    __slots__ = ("raised", "thread")

    def __init__(self) -> None:
        self.thread = 0  # that runs the request; 0: none
        self.raised = False

    def begin(self, lock: AbstractContextManager[Any, Any]) -> None:
        """From now on the calling thread may be interrupted."""
        with lock:
            self.thread = get_ident()

    def finish(self, lock: AbstractContextManager[Any, Any]) -> None:
        """From now on it may not; what it was to be told and has not been, it will not be."""
        with lock:
            if self.raised:
                _raise_in(c_ulong(self.thread), None)
            self.thread = 0


class Threads:
    """Ends the requests of a scheduler, whose streams have an `interruption`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def end(self, number: int) -> tuple[bool, list[Place]]:
        """See `monitor.End`."""
        scheduler = self._scheduler
        with scheduler.lock:
            stream: Any = scheduler.streams.get(number)
            if stream is None:
                return True, []
            interruption: Interruption = stream.interruption
            thread = interruption.thread
            if not thread:
                return True, []  # it has not begun, and Caddy's RESET will see to it that it does not
            frames = monitor.thread_frames(thread)
            stream.gone = True
            scheduler.wake(stream)
            if _HAS_LOCK and not interruption.raised and _is_in_app(thread):
                _raise_in(c_ulong(thread), py_object(RequestTimeout))
                # It may have gone on since the look. If it still is in the app, the exception comes there, or where the
                # next function is called; if not, it may wait for the lock, behind which none must come.
                interruption.raised = _is_in_app(thread)
                if not interruption.raised:
                    _raise_in(c_ulong(thread), None)
        return True, places(frames)  # now that no request waits for the lock: an app's locals may end with its frames


def _is_in_app(thread: int) -> bool:
    """Whether a thread runs the app, and no function of this package that the app has called, but for sys.stdout's.

    A thread whose frames do not lead back here is taken for one that does not: nobody knows what it is in.
    """
    frame = sys._current_frames().get(thread)
    called = False
    while frame is not None and (not is_ours(frame) or frame.f_code.co_filename == output.__file__):
        called = True
        frame = frame.f_back
    return called and frame is not None and frame.f_code.co_name in ("run", "_iterate")
