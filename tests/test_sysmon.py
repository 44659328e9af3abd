"""The monitor of Go's runtime does not take processors away from workers."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.check import Servers
from support.load import Load
from support.polling import wait_until
from support.server import Server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such scheduling policies")

SITE = """
    python {
        module_wsgi worker_app:app
        workers 2
        import worker
    }
"""

# The system calls that the monitor may be in: usleep, or the wait for others to work. Threads that run Go are in more.
NANOSLEEP, FUTEX = {"x86_64": ("35", "202"), "aarch64": ("101", "98")}.get(platform.machine(), ("", ""))


@pytest.fixture
def batch() -> Iterator[None]:
    """What is started meanwhile is started under SCHED_BATCH."""
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    yield
    os.sched_setscheduler(0, before, os.sched_param(0))


def policies(pid: int) -> dict[str, int]:
    """The scheduling policy of each thread of a process, by its number."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # the thread has ended
            found[task.name] = os.sched_getscheduler(int(task.name))
    return found


def caddy(server: Server) -> int:
    """Caddy's process."""
    assert server.process is not None
    return server.process.pid


@pytest.mark.skipif(not NANOSLEEP, reason="the numbers of system calls are not known here")
def test_the_monitor_alone_waits_for_its_turn(serve: Servers) -> None:
    server = serve(SITE, GOGC="25")
    pid = caddy(server)
    load = Load(server)

    def one_in_batch() -> str | None:
        load.wait_for(10)
        found = [number for number, policy in policies(pid).items() if policy == os.SCHED_BATCH]
        return found[0] if len(found) == 1 else None

    # Threads that the monitor starts inherit from it, until garbage is collected the next time.
    monitor = wait_until(one_in_batch, "one thread under SCHED_BATCH", 60)
    seen: set[str] = set()

    def asleep() -> bool:
        seen.add(Path(f"/proc/{pid}/task/{monitor}/syscall").read_text().split()[0])
        return NANOSLEEP in seen

    wait_until(asleep, "the monitor between two looks")
    load.stop()
    assert seen <= {NANOSLEEP, FUTEX, "running"}
    for worker in server.worker_pids() - {pid}:
        assert set(policies(worker).values()) == {os.SCHED_OTHER}, "workers do not inherit it"


def test_a_policy_of_the_users_own_stays(batch: None, serve: Servers) -> None:
    server = serve(SITE)
    load = Load(server)
    load.wait_for(100)
    load.stop()
    for pid in (caddy(server), *server.worker_pids()):
        assert set(policies(pid).values()) == {os.SCHED_BATCH}
