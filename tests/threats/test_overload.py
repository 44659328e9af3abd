"""Threat 14: queue starvation.

What the workers cannot take waits in one queue, in order of arrival, which is bounded in number and time (pool.go).
"""

import time

import pytest

from support.check import Servers
from support.memory import Growth
from support.pace import Pace
from support.polling import wait_until
from support.siege import SIEGE, share

SECONDS = share(60)
CAPACITY = 100  # requests a second: two threads, 20 ms each
WARM = 10_000  # answers
MEMORY = 50  # megabytes
BACK = 1.0 if SIEGE else 5.0  # seconds; siege has the machine

pytestmark = pytest.mark.alone

SITE = """
    respond /warm warm
    python {
        module_wsgi pressure_app:wsgi
        workers 1
        threads 2
        queue {
            size 200
            timeout 2s
        }
        import worker
    }
"""


@pytest.mark.expect_errors("too many requests wait for a worker", "no worker had room in time")
def test_threat_14_every_request_is_answered_at_ten_times_the_load(serve: Servers) -> None:
    server = serve(SITE)
    for _ in range(20):
        server.get("/work")
    with Pace(server, "/warm", 5_000) as pace:  # what Caddy's heap may hold at any time (gc.go) is there before
        wait_until(lambda: len(pace.answers) > WARM, "answers", 60)
    with Growth(server.caddy_and_workers()) as growth:
        with Pace(server, "/work", 10 * CAPACITY) as pace:
            began = time.monotonic()
            wait_until(lambda: time.monotonic() - began > SECONDS, "end of the overload", SECONDS + 10)
        began = time.monotonic()
        assert server.get("/work").status_code == 200
        back = time.monotonic() - began
    statuses = pace.statuses()
    assert statuses.keys() == {200, 503}, statuses
    assert statuses[200] > SECONDS * CAPACITY / 4
    assert all(b"retry-after: " in answer.headers.lower() for answer in pace.answers if answer.status == 503)
    assert max(growth.megabytes().values()) < MEMORY, growth.megabytes()
    assert back < BACK
