"""Waiting for something to become true."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, seconds: float = 15) -> T:
    """Call `condition` until it returns something true, and return that.

    Args:
        condition: called every few milliseconds.
        what: what is waited for, named when it does not come.
        seconds: the deadline. It is there to end a test that fails, so it is far longer than any success takes.

    Raises:
        AssertionError: `condition` was still false at the deadline.
    """
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s there was still no {what}")
        time.sleep(0.01)
