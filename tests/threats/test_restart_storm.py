"""Threat 2: restart storm.

A worker that keeps dying is started again after a pause that grows, with jitter (slot.go). While there is none, and the
last attempt has failed, requests are refused at once (pool.go).
"""

import signal
import time
from pathlib import Path

import pytest

from support.check import Servers
from support.pace import Pace
from support.polling import wait_until
from support.siege import SIEGE

SECONDS, SPAWNS = (60, 12) if SIEGE else (6, 8)

pytestmark = pytest.mark.alone

SITE = """
    handle /neighbour {
        python {
            module_asgi pressure_app:asgi
            workers 1
            import worker
        }
    }
    python {
        module_wsgi pressure_app:wsgi
        workers 1
        env_var SPAWNS {$SPAWNS}
        env_var BROKEN {$BROKEN}
        import worker
    }
"""


@pytest.mark.expect_errors("python app failed to start", "worker exited", "the app does not start")
@pytest.mark.expect_errors("the worker ended before it answered")
def test_threat_2_an_app_that_crashes_at_import_is_not_started_all_the_time(serve: Servers, tmp_path: Path) -> None:
    spawns, broken = tmp_path / "spawns", tmp_path / "broken"
    server = serve(SITE, SPAWNS=str(spawns), BROKEN=str(broken))
    own = int(server.get("/pid").text)
    broken.touch()
    spawns.write_text("")
    with Pace(server, "/neighbour", 100) as neighbour, Pace(server, "/pid", 20) as pace:
        [victim] = [process for process in server.workers() if process.pid == own]
        victim.send_signal(signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > SECONDS, "end of the storm", SECONDS + 10)
    assert 2 <= len(spawns.read_text().splitlines()) <= SPAWNS
    assert neighbour.statuses().keys() == {200}
    assert pace.statuses().keys() <= {200, 502, 503}
    assert pace.statuses()[503] > pace.statuses().total() / 2
    assert any("this app is broken" in str(entry.get("error")) for entry in server.log.entries())
    broken.unlink()
    wait_until(lambda: server.get("/pid").status_code == 200, "answer of the app", 60)
