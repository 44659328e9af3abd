"""Two requests that meet: one waits at a gate until the other opens it."""

import asyncio
import threading
from collections import defaultdict

_gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)


def wait(key: str) -> None:
    """Wait until somebody opens this gate; TimeoutError if nobody does."""
    if not _gates[key].wait(20):
        raise TimeoutError(f"nobody opened gate {key}")
    del _gates[key]


async def wait_async(key: str) -> None:
    """`wait`, without keeping the event loop from other work."""
    await asyncio.to_thread(wait, key)


def open(key: str) -> None:
    """Let the one who waits at this gate, or will, go on."""
    _gates[key].set()
