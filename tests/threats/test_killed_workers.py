"""Threat 1: a dead worker stays dead.

The exit of a worker, and the end of its connection, are waited for (worker.go), its slot starts another (slot.go), and
a request that is safe to repeat is repeated (exchange.go). One that is stopped does not answer its monitor,
and is not asked (timeout.go).
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
WORKERS = 4
KILLS = share(100)
STOPS = share(60)
BACK = 1.0 if SIEGE else 5.0  # seconds, at the 99th percentile, until a new worker answers; siege has the machine

pytestmark = pytest.mark.alone

SITE = f"""
    python {{
        module_asgi pressure_app:asgi
        workers {WORKERS}
        %s
        import worker
    }}
"""


def signal_workers(server: Server, pace: Pace, number: int, times: int) -> list[float]:
    """Send a signal to a random worker each second. How long it took each time until a new worker answered."""
    back = []
    for _ in range(times):
        known = {answer.body for answer in pace.answers} | {str(pid) for pid in server.worker_pids()}
        sent = time.time()
        random.choice([worker for worker in server.workers() if worker.status() != "stopped"]).send_signal(number)

        def first(known: set[str] = known) -> float:
            return next((a.at for a in pace.answers[-RATE:] if a.body.isdigit() and a.body not in known), 0)

        back.append(wait_until(first, "answer of a new worker") - sent)
        # A worker that dies before it has served for a second is replaced after a pause.
        wait_until(lambda end=sent + 1: time.time() > end, "next second")  # type: ignore[misc]
    return back


def p99(durations: list[float]) -> float:
    """The 99th percentile: of fewer than a hundred, the longest but one in a hundred."""
    return sorted(durations)[max(0, len(durations) * 99 // 100 - 1)]


@pytest.mark.expect_errors("worker exited")
def test_threat_1_a_killed_worker_is_replaced_and_nobody_notices(serve: Servers) -> None:
    server = serve(SITE % "")
    with Pace(server, "/pid", RATE) as pace:
        back = signal_workers(server, pace, signal.SIGKILL, KILLS)
    assert pace.statuses().keys() == {200}, pace.statuses()
    assert p99(back) < BACK, sorted(back)


@pytest.mark.expect_errors("worker killed", "worker exited", "python request timed out", "did not begin its response")
@pytest.mark.expect_errors("the worker ended before it answered")
def test_threat_1_a_stopped_worker_is_replaced_and_only_its_requests_fail(serve: Servers) -> None:
    server = serve(SITE % "request_timeout 250ms")
    with Pace(server, "/pid", RATE) as pace:
        back = signal_workers(server, pace, signal.SIGSTOP, STOPS)
    assert p99(back) < BACK, sorted(back)
    assert len(server.workers()) == WORKERS
    statuses = pace.statuses()
    # A request that timed out at a worker that was stopped, or that was repeated once and came to another of them.
    assert statuses.keys() <= {200, 502, 504}, statuses
    timeouts = [entry for entry in server.log.entries() if entry["msg"] == "python request timed out"]
    assert statuses[504] == len(timeouts)
    assert all("a signal has stopped it" in entry["problem"] for entry in timeouts)
    assert statuses[502] <= statuses[504], statuses
    assert statuses[502] + statuses[504] < statuses.total() / 20, statuses
