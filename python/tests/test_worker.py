"""A worker's process: what the app sees of it, how it ends, and what it does with a broken connection."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys

import pytest
from conftest import Launch
from driver import APPS, DATA, DEADLINE, DECLINE, END, ERROR, PACKAGE, READY, REQUEST, RESPONSE, STOP, frame, until

each = pytest.mark.parametrize(
    ("app", "runtime"),
    [
        ("wsgi_apps:app", "sync"),
        ("wsgi_apps:app", "gevent"),
        ("asgi_apps:app", "native"),
        ("esgi_apps:app", "gevent"),
    ],
    ids=["wsgi", "wsgi-gevent", "asgi", "esgi"],
)


@each
def test_ready_says_which_process_and_which_python(launch: Launch, app: str, runtime: str) -> None:
    worker = launch(app, app[:4], runtime=runtime).start()
    version = ".".join(map(str, sys.version_info[:3]))
    assert worker.ready["pid"] == worker.process.pid
    assert worker.ready["python"].startswith(version)


def test_the_app_sees_its_own_folder_and_none_of_the_workers_modules(launch: Launch) -> None:
    worker = launch("wsgi_apps:app", "wsgi").start()
    seen = worker.get("/main").body.decode().splitlines()
    assert seen == [str(APPS), str(APPS)]  # sys.path[0], the current directory; no arguments, no modules


def test_the_apps_modules_may_be_called_like_the_workers(launch: Launch) -> None:
    for name in ("wsgi", "worker", "wire", "threads", "headers"):
        worker = launch(f"same_names.{name}:app", "wsgi").start()
        assert worker.get("/").body == name.encode()
        assert worker.stop() == 0
    folder = APPS / "same_names"
    worker = launch("wsgi:app", "wsgi", working_dir=str(folder)).start()
    assert worker.get("/").body == b"wsgi"


@each
def test_stop_ends_with_status_0_and_runs_atexit(launch: Launch, app: str, runtime: str) -> None:
    worker = launch("exits:" + app[:4], app[:4], runtime=runtime).start()
    assert worker.stop() == 0
    assert worker.output() == "atexit\n"


@each
def test_stop_right_after_start_ends_it(launch: Launch, app: str, runtime: str) -> None:
    worker = launch(app, app[:4], runtime=runtime)
    worker.write(frame(STOP, 0, 0))
    assert worker.control().kind == READY
    assert worker.wait() == 0


@each
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_only_caddy_ends_a_worker(launch: Launch, app: str, runtime: str, number: int) -> None:
    worker = launch(app, app[:4], runtime=runtime).start()
    os.kill(worker.process.pid, number)
    assert worker.get("/hello").body == b"hello"
    assert worker.stop() == 0


@pytest.mark.parametrize("runtime", ["sync", "gevent"])
def test_the_apps_own_processes_obey_signals(launch: Launch, runtime: str) -> None:
    worker = launch("children:app", "wsgi", runtime=runtime).start()
    # What a child ended with: the signal's number, negative.
    assert worker.get("/forked").body == b"-15"
    assert worker.get("/executed").body == b"-15"


@pytest.mark.parametrize("runtime", ["sync", "gevent"])
def test_a_fork_of_the_app_does_not_hold_the_connection(launch: Launch, runtime: str) -> None:
    worker = launch("children:app", "wsgi", runtime=runtime).start()
    worker.request("/left")  # forks, and dies before the child does
    worker.sock.settimeout(DEADLINE)
    assert worker.sock.recv(1) == b""
    assert worker.wait() == -signal.SIGKILL
    os.killpg(worker.process.pid, 0)  # the child is still there


@each
def test_threat_20_a_worker_ends_when_caddy_has_gone(launch: Launch, app: str, runtime: str) -> None:
    worker = launch(app, app[:4], runtime=runtime).start()
    assert worker.get("/hello").body == b"hello"
    worker.sock.close()
    assert worker.wait() == 0


@each
def test_threat_20_a_worker_ends_when_caddy_has_gone_whatever_the_app_does(
    launch: Launch, app: str, runtime: str
) -> None:
    worker = launch(app, app[:4], runtime=runtime).start()
    worker.burst(["/block?60" if "asgi" in app else "/sleep?60"])
    worker.sock.close()
    assert worker.wait() in (0, 1)


@pytest.mark.parametrize("runtime", ["sync", "gevent"])
def test_threat_20_a_worker_ends_when_caddy_goes_while_the_app_is_imported(launch: Launch, runtime: str) -> None:
    worker = launch("hangs:app", "wsgi", runtime=runtime)
    assert worker.process.stdout is not None
    assert worker.process.stdout.readline() == b"importing\n"
    worker.sock.close()
    assert worker.wait() == 1


@pytest.mark.parametrize("runtime", ["sync", "gevent"])
def test_a_thread_that_the_app_left_does_not_keep_a_worker_whose_caddy_has_gone(launch: Launch, runtime: str) -> None:
    worker = launch("exits:with_thread", "wsgi", runtime=runtime).start()
    worker.sock.close()
    assert worker.wait() in (0, 1)  # gevent itself may end a wait that nothing else can


BROKEN = {
    "length": struct.pack("<III", 2**32 - 1, 1, DATA),
    "head": struct.pack("<III", 0, 1, 8 << 8 | DATA),
    "undecodable": struct.pack("<III", 1, 1, 1 << 8 | DATA) + b"?",
    "type": struct.pack("<III", 0, 1, 99),
    "stream": frame(DATA, 1000, None, b"never used"),
    "response": frame(RESPONSE, 1),
    "error": frame(ERROR, 0),
}


@each
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_threat_4_a_broken_frame_ends_the_worker_with_one_line(
    launch: Launch, app: str, runtime: str, data: bytes
) -> None:
    worker = launch(app, app[:4], runtime=runtime).start()
    worker.write(data)
    assert worker.wait() == 1
    output = worker.output().splitlines()
    assert len(output) == 1
    assert "the connection to Caddy is broken" in output[0]


@each
def test_threat_4_a_body_without_credit_ends_the_worker(launch: Launch, app: str, runtime: str) -> None:
    worker = launch(app, app[:4], runtime=runtime).start()
    stream = worker.request("/ignore/body" if "asgi" in app else "/wait", "POST", end=False)
    worker.write(frame(DATA, stream, None, b"too early"))
    if "asgi" in app:
        assert worker.response(stream).body == b"did not read"
        return
    assert worker.wait() == 1


@each
def test_threat_3_a_late_frame_is_ignored_although_the_requests_came_in_another_order(
    launch: Launch, app: str, runtime: str
) -> None:
    worker = launch(app, app[:4], runtime=runtime).start()
    first, second = worker.next_streams(2)
    for stream in (second, first):
        worker.write(frame(REQUEST | END, stream, worker.head("/hello")))
        assert worker.response(stream).body == b"hello"
    worker.reset(second)
    worker.credit(first, 1000)
    assert worker.get("/hello").body == b"hello"


def test_the_first_frame_must_be_start() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, PACKAGE, str(theirs.fileno()), "sync", "wsgi_apps:app"]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, cwd=APPS)
        ours.sendall(frame(STOP, 0, 0))
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"the first frame is of type 11" in err


def test_an_interpreter_that_is_too_old_is_named_in_one_line() -> None:
    pretend = "import runpy, sys; sys.version_info, sys.version = (3, 9, 18), '3.9.18 x'; runpy.run_path(sys.argv[1])"
    command = [sys.executable, "-c", pretend, PACKAGE / "__main__.py"]
    got = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    said = f"{sys.executable} is Python 3.9.18; workers need Python 3.10 or newer: name one with python_path, or a venv"
    assert (got.returncode, got.stdout) == (1, "")
    assert got.stderr == f"{said} made with one\n"


def test_by_hand_it_says_who_starts_it() -> None:
    got = subprocess.run([sys.executable, PACKAGE], capture_output=True, text=True, timeout=20, check=False)
    assert got.returncode == 2
    assert "started by Caddy" in got.stderr
    assert len(got.stderr.splitlines()) == 1


@each
def test_threat_28_many_requests_leave_nothing_behind(launch: Launch, app: str, runtime: str) -> None:
    worker = launch(app, app[:4], runtime=runtime).start()

    def serve(count: int) -> None:
        for _ in range(count // 50):
            for stream in worker.burst(["/hello"] * 50):
                response = worker.response(stream)
                assert response.closed == DECLINE or response.body == b"hello"  # a busy machine makes it decline some

    def resident() -> int:
        with open(f"/proc/{worker.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{worker.process.pid}/fd"))

    serve(2000)
    before = resident(), descriptors()
    serve(20_000)
    assert descriptors() == before[1]
    assert resident() - before[0] < 1 << 20
    assert until(lambda: worker.unread() == {}, "nothing is left to read")
