"""What workers write that are threads. The interpreter has one sys.stdout; each worker has a pipe of its own.

Caddy logs the lines that come through it.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from contextvars import ContextVar
from threading import Thread
from typing import Any, TextIO

_streams: ContextVar[dict[str, TextIO]] = ContextVar("streams")
_newest: list[dict[str, TextIO]] = [{}]  # for threads of which nobody knows whose they are


def enter(streams: dict[str, TextIO]) -> None:
    """From now on the calling thread, and what it starts, writes to these, by their names in sys."""
    _streams.set(streams)
    _newest[0] = streams


def follow_threads() -> None:
    """Has threads write where the code does that starts them; Python gives them no context of its."""
    start = Thread.start

    def start_here(self: Thread) -> None:
        streams, run = _streams.get(None), self.run
        if streams is not None:

            def run_here() -> None:
                _streams.set(streams)
                run()

            self.run = run_here  # type: ignore[method-assign]
        start(self)

    Thread.start = start_here  # type: ignore[method-assign]


def open_stream(descriptor: int) -> TextIO:
    """Returns a text stream that owns a descriptor of a pipe."""
    if sys.platform == "win32":
        import msvcrt

        descriptor = msvcrt.open_osfhandle(descriptor, os.O_NOINHERIT)
    else:
        os.set_blocking(descriptor, True)
    raw = io.FileIO(descriptor, "w")
    # Each write goes out at once, as PYTHONUNBUFFERED has it in a worker that is a process.
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)


class Raw(io.RawIOBase):
    """The bytes below an Output. What an app puts around it may outlive the worker that it was made for."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def write(self, data: Any) -> int:
        target = self._output.target().buffer
        target.write(data)
        return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._output.fileno()

    def close(self) -> None:
        """Does nothing: it belongs to all."""


class Output(io.TextIOBase):
    """sys.stdout or sys.stderr of all workers: what it is written goes to the worker that the writing code runs for.

    Without one, it goes to the worker that was started last, and to `descriptor` once that has ended.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        super().__init__()
        self._name = name
        self._own = open_stream(descriptor)
        self._raw = Raw(self)
        self._lent = -1  # what fileno() has returned

    def restore(self) -> None:
        """Becomes what sys has by its name, in place of what an app has put there, which may be of no use to others."""
        setattr(sys, self._name, self)

    def end(self) -> None:
        """Closes `descriptor`."""
        if self._is_lent():
            os.close(self._lent)
        self._own.close()

    def target(self) -> TextIO:
        """Where the calling code's output goes."""
        for streams in (_streams.get({}), _newest[0]):
            stream = streams.get(self._name)
            if stream is not None and not stream.closed:
                return stream
        return self._own

    def write(self, text: str) -> int:
        return self.target().write(text)

    def flush(self) -> None:
        self.target().flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """Returns a descriptor that nobody else uses: who opens it as a file closes it some time, and might close
        another one by then. What is written to it is no worker's."""
        if not self._is_lent():
            self._lent = os.dup(self._own.fileno())
        return self._lent

    def _is_lent(self) -> bool:
        with contextlib.suppress(OSError):
            return self._lent >= 0 and os.path.samestat(os.fstat(self._lent), os.fstat(self._own.fileno()))
        return False

    def reconfigure(self, **settings: object) -> None:
        """Does nothing: each write goes out at once, as UTF-8."""

    def close(self) -> None:
        """Does nothing: it belongs to all."""

    @property
    def name(self) -> str:
        return f"<{self._name}>"

    @property
    def mode(self) -> str:
        return "w"

    @property
    def buffer(self) -> Any:
        return self._raw

    @property
    def line_buffering(self) -> bool:
        return True

    @property
    def write_through(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"
