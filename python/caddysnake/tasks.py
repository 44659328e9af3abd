"""Where an asyncio task waits: `request_timeout`."""

from __future__ import annotations

import asyncio
from types import FrameType
from typing import Any

_MAX_DEPTH = 1000  # of coroutines that wait for one another

# The attributes of what can be waited for: its frame, and what it waits for itself.
_KINDS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def frames(task: asyncio.Task[Any]) -> list[tuple[FrameType, int]]:
    """Returns the frames of a task that waits, with their lines, outermost first, and of the tasks that it waits for.

    `Task.get_stack` has the outermost one alone. The event loop calls this.
    """
    found: list[tuple[FrameType, int]] = []
    waiter: Any = task
    while isinstance(waiter, asyncio.Task) and len(found) < _MAX_DEPTH:
        step: Any = waiter.get_coro()
        while step is not None and len(found) < _MAX_DEPTH:
            step = _next(step, found)
        waiter = waiter._fut_waiter  # type: ignore[attr-defined]
    return found


def _next(step: Any, found: list[tuple[FrameType, int]]) -> Any:
    """Adds the frame of a coroutine or generator, and returns what that waits for."""
    for frame_of, waits_for in _KINDS:
        if hasattr(step, frame_of):
            frame = getattr(step, frame_of)
            if frame is not None:
                found.append((frame, frame.f_lineno))
            return getattr(step, waits_for)
    return None
