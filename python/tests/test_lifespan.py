"""The ASGI lifespan protocol, on asyncio and on uvloop."""

from __future__ import annotations

import pytest
from conftest import Launch
from driver import APPS, LOG


@pytest.mark.parametrize("runtime", ["native", "uvloop"])
def test_startup_precedes_ready_and_shutdown_the_exit(launch: Launch, runtime: str) -> None:
    worker = launch("lifespan_apps:good", "asgi", lifespan="on", runtime=runtime).start()
    assert worker.process.stdout is not None
    assert worker.process.stdout.readline() == b"startup\n"
    assert worker.get("/hello").body == b"hello"
    assert worker.stop() == 0
    assert worker.output() == "shutdown\n"


def test_each_request_gets_its_own_copy_of_the_state(launch: Launch) -> None:
    worker = launch("lifespan_apps:good", "asgi", lifespan="on").start()
    # The copy is shallow: what the state holds is shared, what a request sets is not.
    assert worker.get("/state").body == b"0 False []"
    assert worker.get("/state").body == b"0 False [0]"


def test_without_lifespan_the_app_gets_none_and_no_state(launch: Launch) -> None:
    worker = launch("lifespan_apps:good", "asgi", lifespan="off").start()
    assert b"state" not in worker.get("/scope").body
    assert worker.stop() == 0
    assert worker.output() == ""


@pytest.mark.parametrize(
    ("app", "expected", "in_trace"),
    [
        ("fails", "the app's lifespan startup failed: no database", ""),
        ("fails_silently", "the app's lifespan startup failed: it gave no message", ""),
        ("raises", "the app's lifespan startup failed: ValueError: no cache", "lifespan_apps.py"),
        ("exits", "the app's lifespan startup failed: SystemExit: no disk", "lifespan_apps.py"),
        ("refuses", "the app's lifespan startup failed: AssertionError", "in refuses"),
    ],
)
def test_a_failed_startup_fails_the_start_with_the_apps_own_message(
    launch: Launch, app: str, expected: str, in_trace: str
) -> None:
    message, trace = launch(f"lifespan_apps:{app}", "asgi", lifespan="on").failure()
    assert message.startswith(expected)
    assert ("say `lifespan auto` or `off`" in message) == bool(in_trace)
    assert in_trace in trace
    assert str(APPS) in trace or not in_trace


def test_an_app_that_raises_behind_its_failure_is_told_of_once(launch: Launch) -> None:
    """As Starlette does."""
    worker = launch("lifespan_apps:fails_and_raises", "asgi", lifespan="on")
    assert worker.failure() == ("the app's lifespan startup failed: no database", "")
    assert worker.logs == []
    worker = launch("lifespan_apps:shutdown_fails_and_raises", "asgi", lifespan="on").start()
    assert worker.stop() == 0
    [entry] = [got.head for got in worker.unread()[0] if got.kind == LOG]
    assert (entry[1], entry[2]["error"]) == ("app's lifespan shutdown failed", "could not save")


TRACEBACK = """Traceback (most recent call last):
  File "/srv/main.py", line 7, in lifespan
    raise ValueError("no cache")
ValueError: no cache
  which is bad
"""
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/srv/main.py", line 5, in lifespan
  |     async with anyio.create_task_group() as group:
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/srv/main.py", line 9, in refresh
    |     raise ValueError("no cache")
    | ValueError: no cache
    +------------------------------------
"""


@pytest.mark.parametrize(
    ("text", "message", "trace"),
    [
        (TRACEBACK, "ValueError: no cache", TRACEBACK),
        (GROUP, "ValueError: no cache", GROUP),
        ("no database\non port 5432", "no database on port 5432", ""),
    ],
)
def test_what_a_framework_gives_as_its_message_becomes_one_line_and_a_traceback(
    launch: Launch, text: str, message: str, trace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILURE", text)
    got = launch("lifespan_apps:fails_as_told", "asgi", lifespan="on").failure()
    assert got == (f"the app's lifespan startup failed: {message}", trace)


@pytest.mark.parametrize("app", ["refuses", "raises", "ignores"])
def test_auto_serves_an_app_that_does_not_speak_lifespan(launch: Launch, app: str) -> None:
    worker = launch(f"lifespan_apps:{app}", "asgi", lifespan="auto").start()
    assert worker.log_entry("runs without")[0] == "info"
    assert worker.get("/hello").body == b"hello"
    assert b"state" not in worker.get("/scope").body
    assert worker.stop() == 0


@pytest.mark.parametrize(("app", "expected"), [("fails", "no database"), ("exits", "SystemExit: no disk")])
def test_auto_fails_the_start_of_an_app_that_says_so(launch: Launch, app: str, expected: str) -> None:
    assert expected in launch(f"lifespan_apps:{app}", "asgi", lifespan="auto").failure()[0]


def test_auto_runs_the_lifespan_of_an_app_that_has_one(launch: Launch) -> None:
    worker = launch("lifespan_apps:good", "asgi", lifespan="auto").start()
    assert worker.get("/state").body == b"0 False []"
    assert worker.stop() == 0
    assert worker.output() == "startup\nshutdown\n"


def test_an_app_that_answers_nothing_runs_without_lifespan(launch: Launch) -> None:
    worker = launch("lifespan_apps:ignores", "asgi", lifespan="on").start()
    assert worker.log_entry("without an answer")[0] == "warn"
    assert worker.get("/hello").body == b"hello"
    assert b"state" not in worker.get("/scope").body
    assert worker.stop() == 0


def test_an_app_that_ends_its_lifespan_early_is_served(launch: Launch) -> None:
    worker = launch("lifespan_apps:ends", "asgi", lifespan="on").start()
    assert worker.get("/state").body == b"0 False []"
    assert worker.stop() == 0


def test_a_lifespan_that_crashes_later_is_logged_with_what_the_app_says(launch: Launch) -> None:
    worker = launch("lifespan_apps:crashes", "asgi", lifespan="on").start()
    assert worker.get("/hello").body == b"hello"
    assert worker.stop() == 0
    level, _, fields = worker.log_entry("lifespan ended")
    assert (level, fields["error"]) == ("error", "the background task is lost")
    assert len(worker.logs) == 1


@pytest.mark.parametrize(
    ("app", "error"),
    [("shutdown_fails", "could not save"), ("shutdown_raises", "ValueError: could not close")],
)
def test_a_failed_shutdown_is_logged(launch: Launch, app: str, error: str) -> None:
    worker = launch(f"lifespan_apps:{app}", "asgi", lifespan="on").start()
    assert worker.stop() == 0
    level, _, fields = worker.log_entry("shutdown failed")
    assert (level, fields["error"]) == ("error", error)


def test_shutdown_runs_although_a_request_does_not_end(launch: Launch) -> None:
    worker = launch("stuck:deaf", "asgi", lifespan="on").start()
    assert worker.next(worker.request()).data == b"begun"
    assert worker.stop() == 0
    assert worker.log_entry("did not end")[2] == {"count": 1, "requests": "GET /"}
    assert worker.output().splitlines()[:2] == ["cancelled", "shutdown"]
