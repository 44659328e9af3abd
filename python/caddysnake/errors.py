"""What went wrong, in the two texts that Caddy logs: one line, and a traceback that begins in the user's code."""

from __future__ import annotations

import linecache
import os
import traceback
from time import monotonic
from types import FrameType
from typing import Any

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_MAX_MESSAGE = 8 << 10  # characters; an exception may carry a megabyte
_MAX_TRACEBACK = 128 << 10
_LOOKING_UP = 0.5  # seconds that a stack may take to look up its lines

# Where code is: its file, line, function and global names.
Place = tuple[str, int, str, dict[str, Any]]


class StartError(Exception):
    """The app cannot be served. `str()` is one line for the user; `trace` is the app's traceback or ""."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


def describe(exc: BaseException) -> tuple[str, str]:
    """Returns one line such as "ValueError: boom", and the whole traceback without this package's own frames on top.

    Both are bounded in length and can be encoded as UTF-8.
    """
    name = type(exc).__qualname__
    try:
        text = str(exc)
    except BaseException:  # a broken __str__ must not hide the error itself, nor end what answers requests
        text = "<no message: its __str__ raises>"
    message = f"{name}: {text}" if text else name
    frames = exc.__traceback__
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    try:
        trace = "".join(traceback.format_exception(type(exc), exc, frames))
    except BaseException:  # it reads attributes of the exception, such as a SyntaxError's, which may be anything
        trace = "".join(["Traceback (most recent call last):\n", *traceback.format_tb(frames), message, "\n"])
    return _utf8(message[:_MAX_MESSAGE]), _utf8(trace[-_MAX_TRACEBACK:])


def stems_from(exc: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """Whether an exception is of these kinds, was raised while one of them was handled, or is a group of such."""
    seen: set[int] = set()
    following: BaseException | None = exc
    while following is not None and id(following) not in seen:
        group = getattr(following, "exceptions", None)
        if isinstance(following, kinds):
            return True
        if isinstance(group, tuple) and group and all(stems_from(one, kinds) for one in group):
            return True
        seen.add(id(following))
        following = following.__cause__ or following.__context__
    return False


def places(frames: list[tuple[FrameType, int]]) -> list[Place]:
    """Returns where frames are, from them and their current lines, outermost first, without what runs the app."""
    start = 0
    for index, (frame, _) in enumerate(frames):
        if frame.f_code.co_name == "run" and is_ours(frame):
            start = index + 1  # what runs a request is the innermost of these
    while start < len(frames) and is_ours(frames[start][0]):
        start += 1
    return [(frame.f_code.co_filename, line, frame.f_code.co_name, frame.f_globals) for frame, line in frames[start:]]


def stack(where: list[Place]) -> str:
    """Returns places, outermost first, as a traceback shows them, "" for none.

    It is bounded in length and can be encoded as UTF-8, and in time: where every thread computes, each access to a file
    costs the interpreter's lock. What was not looked up in time is shown without its line, unless that is known.
    """
    if not where:
        return ""
    deadline = monotonic() + _LOOKING_UP
    checked: set[str] = set()
    found: list[traceback.FrameSummary] = []
    for file, number, name, names in reversed(where):  # the innermost first, which say what hangs
        if file not in checked and monotonic() < deadline:
            checked.add(file)
            linecache.checkcache(file)
        known = file in checked or file in linecache.cache
        line = linecache.getline(file, number, names) if known else ""
        found.append(traceback.FrameSummary(file, number, name, lookup_line=False, line=line))
    lines = traceback.StackSummary.from_list(found[::-1]).format()
    text = "".join(["Stack (most recent call last):\n", *lines])
    return _utf8(text[-_MAX_TRACEBACK:])


def is_ours(frame: FrameType) -> bool:
    """Whether a frame is of this package, or of Python's import system."""
    return _is_ours(frame.f_code.co_filename)


def _is_ours(filename: str) -> bool:
    return filename.startswith((_PACKAGE, "<frozen importlib")) or "/importlib/__init__.py" in filename


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
