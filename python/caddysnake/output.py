"""What workers write that are threads. The interpreter has one sys.stdout; each worker has a pipe of its own.

Caddy logs the lines that come through it.
"""

from __future__ import annotations

import io
import os
import sys
from contextvars import ContextVar
from typing import Any, TextIO

_streams: ContextVar[dict[str, TextIO]] = ContextVar("streams")
_newest: list[dict[str, TextIO]] = [{}]  # for threads that an app has started by itself, which have no context


def enter(streams: dict[str, TextIO]) -> None:
    """From now on the calling thread, and what it starts in its context, writes to these, by their names in sys."""
    _streams.set(streams)
    _newest[0] = streams


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


class Output(io.TextIOBase):
    """sys.stdout or sys.stderr of all workers: what it is written goes to the worker that the writing code runs for.

    Without one, it goes to the worker that was started last, and to `descriptor` once that has ended.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        super().__init__()
        self._name = name
        self._own = open_stream(descriptor)

    def end(self) -> None:
        """Closes `descriptor`."""
        self._own.close()

    def _target(self) -> TextIO:
        for streams in (_streams.get({}), _newest[0]):
            stream = streams.get(self._name)
            if stream is not None and not stream.closed:
                return stream
        return self._own

    def write(self, text: str) -> int:
        return self._target().write(text)

    def flush(self) -> None:
        self._target().flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._target().fileno()

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
        return self._target().buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"
