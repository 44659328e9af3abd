"""Fixtures: workers that are closed after the test, whatever happened in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driver import Worker
from hypothesis import settings

settings.register_profile("default", deadline=None)  # a machine under load is no failure
settings.load_profile("default")

Launch = Callable[..., Worker]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """A function that starts a worker: `launch("mod:app", "wsgi", threads=1)`. Its worker may not be ready yet."""
    workers = []

    def start(app: str, interface: str, **changes: Any) -> Worker:
        workers.append(Worker(app, interface, **changes))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def shared(app: str, interface: str, **changes: Any) -> Iterator[Worker]:
    """One worker for all tests of a module; it must be alive and well after them."""
    worker = Worker(app, interface, **changes)
    try:
        yield worker.start()
        assert worker.stop() == 0
    finally:
        worker.close()
