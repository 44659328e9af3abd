"""Threat 1: a dead worker stays dead.

The exit of a worker, and the end of its connection, are waited for (worker.go), its slot starts another (slot.go), and
a request that is safe to repeat is repeated (exchange.go). One that is stopped does not answer its monitor
(timeout.go).
"""

import random
import signal
import time

import pytest

from support.check import Servers
from support.pace import Pace
from support.polling import wait_until
from support.server import Server
from support.siege import SIEGE, share

RATE = 500
KILLS = share(100)
STOPS = share(60)
BACK = 1.0 if SIEGE else 5.0  # seconds, at the 99th percentile, until a new worker answers; siege has the machine

pytestmark = pytest.mark.alone

SITE = """
    python {
        module_asgi pressure_app:asgi
        workers %d
        %s
        import worker
    }
"""


def signal_one(server: Server, number: int) -> int:
    """Send a signal to a random worker that runs; its process id."""
    running = [process for process in server.workers() if process.status() != "stopped"]
    victim = random.choice(running)
    victim.send_signal(number)
    return victim.pid


def p99(durations: list[float]) -> float:
    """The 99th percentile: of fewer than a hundred, the longest but one in a hundred."""
    return sorted(durations)[max(0, len(durations) * 99 // 100 - 1)]


@pytest.mark.expect_errors("worker exited")
def test_threat_1_a_killed_worker_is_replaced_and_nobody_notices(serve: Servers) -> None:
    server = serve(SITE % (4, ""))
    back = []
    with Pace(server, "/pid", RATE) as pace:
        for _ in range(KILLS):
            known = {answer.body for answer in pace.answers} | {str(pid) for pid in server.worker_pids()}
            killed = time.time()
            signal_one(server, signal.SIGKILL)

            def first(known: set[str] = known) -> float:
                return next((a.at for a in pace.answers[-RATE:] if a.body.isdigit() and a.body not in known), 0)

            back.append(wait_until(first, "answer of a new worker") - killed)
            # A worker that dies before it has served for a second is replaced after a pause.
            wait_until(lambda end=killed + 1: time.time() > end, "next second")  # type: ignore[misc]
    assert pace.statuses().keys() == {200}, pace.statuses()
    assert p99(back) < BACK, sorted(back)


@pytest.mark.expect_errors("worker killed", "worker exited", "python request timed out", "did not begin its response")
@pytest.mark.expect_errors("the worker ended before it answered")
def test_threat_1_a_stopped_worker_is_replaced_and_only_its_requests_fail(serve: Servers) -> None:
    server = serve(SITE % (8, "request_timeout 500ms"))
    stopped = set()
    with Pace(server, "/pid", RATE) as pace:
        for count in range(1, STOPS + 1):
            began = time.monotonic()
            stopped.add(signal_one(server, signal.SIGSTOP))
            wait_until(lambda end=began + 1: time.monotonic() > end, f"second {count}")  # type: ignore[misc]
        wait_until(lambda: not stopped & server.worker_pids(), "end of all stopped workers", 30)
        wait_until(lambda: len(server.workers()) == 8, "as many workers as before", 30)
    statuses = pace.statuses()
    # A request that timed out at a worker that was stopped, or that was repeated once and came to another of them.
    assert statuses.keys() <= {200, 502, 504}, statuses
    timeouts = [entry for entry in server.log.entries() if entry["msg"] == "python request timed out"]
    assert statuses[504] == len(timeouts)
    assert all("the worker does not answer" in entry["problem"] for entry in timeouts)
    assert statuses[502] <= statuses[504], statuses
    assert statuses[502] + statuses[504] < statuses.total() / 50, statuses
