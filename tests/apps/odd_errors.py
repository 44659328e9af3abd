"""Exceptions that break whoever shows them."""


class Unspeakable(Exception):
    """Its message cannot be made; what that raises is no Exception."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


def odd_error(which: str) -> Exception:
    """One whose traceback, or whose message, cannot be shown as usual."""
    if which == "traceback":
        return SyntaxError("bad", ("app.py", 1, 1, b"bytes"))  # type: ignore[arg-type]
    return Unspeakable()
