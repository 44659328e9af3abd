"""How much memory processes take while something happens."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import psutil

MB = 1 << 20


class Growth:
    """Watches the resident memory of processes from when it is made until `stop`.

    Args:
        processes: whom to watch.
    """

    def __init__(self, processes: Iterable[psutil.Process]) -> None:
        self._before = {process: process.memory_info().rss for process in processes}
        self._peak = dict(self._before)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def __enter__(self) -> Growth:
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def megabytes(self) -> dict[str, float]:
        """By how much each process has grown at most, by name and number."""
        return {
            f"{process.name()} {process.pid}": round((peak - self._before[process]) / MB, 1)
            for process, peak in self._peak.items()
        }

    def _watch(self) -> None:
        while not self._stopped.wait(0.01):
            for process, peak in self._peak.items():
                self._peak[process] = max(peak, process.memory_info().rss)
