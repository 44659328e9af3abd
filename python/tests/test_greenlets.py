"""`runtime gevent`: the process is patched, each request is a greenlet. test_wsgi.py has what a request may do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Launch
from driver import APPS, ERROR, PACKAGE, RESPONSE, STOP, WINDOW, Worker, frame


@pytest.fixture
def worker(launch: Launch) -> Worker:
    return launch("gevent_apps:app", "wsgi", runtime="gevent").start()


def test_the_process_is_patched_before_the_app_is_imported(worker: Worker) -> None:
    assert worker.get("/patched").body == b"True True"


def test_thousands_of_requests_wait_at_once(worker: Worker) -> None:
    """More of them than threads could be, and none is declined."""
    streams = worker.burst(["/sleep?0.2"] * 2000)
    assert {worker.response(stream).body for stream in streams} == {b"slept"}


def test_what_is_finished_is_not_held_by_a_slow_request_behind_it(worker: Worker) -> None:
    fast, _, _ = streams = worker.burst(["/patched", "/spin?0.1", "/spin?0.5"])
    assert worker.response(fast).closed == RESPONSE
    assert worker.waiting(streams[2]) == []
    assert [worker.response(stream).body for stream in streams[1:]] == [b"spun", b"spun"]


def test_threat_27_a_request_finds_nothing_of_another(worker: Worker) -> None:
    seen = {worker.response(stream).body for stream in worker.burst(["/fresh"] * 100)}
    seen |= {worker.get("/fresh").body for _ in range(10)}
    assert seen == {b"fresh fresh"}


def test_threat_27_a_requests_own_values_stay_while_others_run(worker: Worker) -> None:
    texts = [f"request-{number}" for number in range(200)]
    streams = worker.burst([f"/kept?{text}" for text in texts])
    assert [worker.response(stream).body.decode() for stream in streams] == [f"{text} {text}" for text in texts]


def test_a_request_that_is_killed_is_an_error_of_the_request_alone(worker: Worker) -> None:
    got = worker.get("/killed")
    assert (got.status, got.closed) == (0, ERROR)
    assert got.error is not None
    assert got.error[0] == "GreenletExit"
    assert worker.get("/timeout").body == b"in time"
    assert worker.get("/threadpool").body == b"3"


@pytest.mark.parametrize("name", ["SystemExit", "SystemError"])
def test_what_a_greenlet_of_the_apps_own_raises_is_printed_and_the_worker_goes_on(worker: Worker, name: str) -> None:
    other = worker.request("/sleep?0.2")
    assert worker.get(f"/spawned?{name}").body == b"survived"
    assert worker.response(other).body == b"slept"
    assert worker.stop() == 0
    assert f"{name}: in a greenlet of the app's own" in worker.output()


def test_stop_waits_for_greenlets_that_still_run(launch: Launch) -> None:
    worker = launch("gevent_apps:stops", "wsgi", runtime="gevent").start()
    assert worker.get("/").body == b"body"
    worker.write(frame(STOP, 0, 0))
    assert worker.wait() == 0
    assert worker.output() == "closed\n"


def test_stop_waits_for_a_response(worker: Worker) -> None:
    stream = worker.request("/sleep?0.2")
    worker.write(frame(STOP, 0, 0))
    assert worker.response(stream).body == b"slept"
    assert worker.wait() == 0


def test_a_body_with_a_hole_is_never_whole(launch: Launch) -> None:
    worker = launch("gevent_apps:hole", "wsgi", runtime="gevent").start()
    got = worker.response(worker.request("/"), grant=False)
    assert len(got.body) == WINDOW
    assert got.closed == ERROR
    assert got.error is not None
    assert got.error[0].startswith("half a block of the body has been sent: Timeout")


def test_a_warning_of_gevents_about_its_patches_is_an_error(launch: Launch) -> None:
    message, _ = launch("patches_again:app", "wsgi", runtime="gevent").failure()
    assert "MonkeyPatchWarning" in message
    assert "Patching more than once" in message


def test_a_process_that_cannot_be_patched_does_not_start(launch: Launch, tmp_path: Path) -> None:
    """A startup file of Python's has used ssl before anything of ours runs."""
    (tmp_path / "sitecustomize.py").write_text("import ssl\nclass Context(ssl.SSLContext): pass\n")
    worker = launch("gevent_apps:app", "wsgi", runtime="gevent", env={"PYTHONPATH": str(tmp_path)})
    message, _ = worker.failure()
    assert message.startswith("runtime gevent: gevent cannot patch the process")
    assert "ssl" in message
    assert "sitecustomize.py" in message
    assert "\n" not in message


def test_a_greenlet_that_does_not_end_does_not_hold_up_the_exit(launch: Launch) -> None:
    worker = launch("stuck:wsgi", "wsgi", runtime="gevent").start()
    stream = worker.request("/stuck")
    assert worker.next(stream).data == b"begun"
    worker.reset(stream)
    assert worker.stop() == 0
    assert worker.log_entry("did not end")[2] == {"count": 1}


def test_without_gevent_the_message_names_the_interpreter_and_the_command(launch: Launch) -> None:
    """-S: an interpreter without the packages that are installed for it."""
    message, _ = launch("wsgi_apps:app", "wsgi", runtime="gevent", python=["-S"]).failure()
    assert message.startswith("runtime gevent: gevent is not installed in ")
    assert message.endswith("/bin/python -m pip install gevent`")


def test_other_runtimes_import_nothing_of_gevent() -> None:
    program = (
        "import sys\nsys.path.insert(0, sys.argv[1])\n"
        "from caddysnake import worker, wsgi, asgi\nprint('gevent' in sys.modules)"
    )
    command = [sys.executable, "-c", program, PACKAGE.parent]
    assert subprocess.run(command, capture_output=True, text=True, cwd=APPS, check=True).stdout == "False\n"
