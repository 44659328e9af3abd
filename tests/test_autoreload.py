"""`autoreload`: an app is what its files are, and says so when they do not run."""

import os
import shutil
import statistics
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as futures_wait
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.check import Servers
from support.polling import wait_until
from support.project import DOES_NOT_RUN, Project, instances, version
from support.server import Server, isolated_environment
from support.siege import SIEGE
from support.websocket import WebSocket
from support.worker import Worker

DEBOUNCE = 0.5  # seconds
SERVED = 1.0 if SIEGE else 3.0  # seconds; siege has the machine
FLASK = "module_wsgi version_app:flask"
BROKEN = "raise RuntimeError('<script>alert(1)</script>')\n"


def reloads(server: Server) -> list[dict[str, Any]]:
    """The log entries of the reloads so far."""
    return [entry for entry in server.log.entries() if entry["msg"] == "python app reloaded"]


def wait_for(server: Server, wanted: str) -> None:
    """Wait until another version answers, after one that does or does not run."""

    def answers() -> bool:
        answer = server.get("/")
        return answer.status_code == 200 and answer.json()["version"] == wanted

    wait_until(answers, f"version {wanted}", 30)


def wait_failed(server: Server) -> httpx.Response:
    """Wait until the app does not run any more."""
    wait_until(lambda: server.get("/").status_code == 500, "an app that does not run", 30)
    return server.get("/")


@pytest.mark.parametrize("app", [FLASK, "module_asgi version_app:app"], ids=["wsgi", "asgi"])
def test_a_save(serve: Servers, worker: Worker, project: Project, app: str) -> None:
    server = serve(project.site("autoreload", app=app))
    old, caddy = server.worker_pids() - {server.caddy.pid}, server.caddy.pid
    before = instances(server)
    project.write("2")
    wait_for(server, "2")
    assert not instances(server) & before
    [entry] = reloads(server)
    assert (entry["changed"], entry["files"]) == (["version.py"], 1)
    assert 0 < entry["duration"] < 20
    wait_until(lambda: not old & server.worker_pids(), "end of the old workers")
    assert server.caddy.pid == caddy
    if worker.runtime == "thread":
        assert {server.get("/").json()["pid"]} == {caddy}, "it reloads in place"


@pytest.mark.only_thread
@pytest.mark.expect_errors("python app not reloaded", "python app does not run")
def test_a_module_that_a_thread_was_left_with_is_named(serve: Servers, project: Project) -> None:
    """Nothing ends an import that hangs, nor lets another thread import the module."""
    server = serve(project.site("autoreload", "start_timeout 3s"))
    project.module.write_text("import threading\nthreading.Event().wait()\n")
    server.log.wait_for(lambda entry: "did not start within 3s" in str(entry.get("error")))
    wait_failed(server)
    project.write("3")
    entry = server.log.wait_for(lambda entry: "left behind" in str(entry.get("error")))
    assert "'version_app' is still being imported by a thread that an earlier start left behind" in entry["error"]
    assert "restart Caddy" in entry["error"]
    assert "left behind" in server.get("/").text


def test_after_a_save_nobody_gets_old_code(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload", workers=1))
    with WebSocket(server) as socket:
        project.module.write_text("import time\ntime.sleep(1)\nVERSION = '2'\n")
        assert socket.end() == (1012, ""), "which is how pages learn of it; nobody waits for their WebSockets"
    assert version(server) == "2", "the request waits for the new app"


def waits(server: Server) -> bool:
    """Whether requests have to wait for new workers."""
    [app] = server.admin_request("GET", "/python/").json()
    workers: list[object] = app["workers"]
    return not workers


def test_requests_wait_from_the_first_change_on(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload", workers=1))
    version_ = 1
    while not waits(server):  # before nothing has changed for a while
        version_ += 1
        project.write(str(version_))
        assert version_ < 1000
    assert version(server) == str(version_), "the request waits for the last one"


def test_files_that_keep_changing_keep_nobody_waiting(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload", workers=1))
    stopped, written = threading.Event(), threading.Event()

    def write() -> None:
        for _ in range(2_000):
            project.write("2")
            written.set()
            if stopped.wait(0.02):
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(30)
        wait_until(lambda: waits(server), "change")
        assert version(server) == "1"
    finally:
        stopped.set()
        writer.join()
    wait_for(server, "2")


@pytest.mark.expect_errors("the app is shutting down")
def test_a_request_that_waits_is_answered_when_the_app_goes(serve: Servers, project: Project, tmp_path: Path) -> None:
    server = serve(project.site("autoreload", workers=1))
    gate = tmp_path / "gate"
    wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nVERSION = '2'\n"
    project.module.write_text(wait)
    with ThreadPoolExecutor() as pool, server.new_client() as client:
        waiting = pool.submit(client.get, "/")
        while not futures_wait([waiting], timeout=1).not_done:
            waiting = pool.submit(client.get, "/")  # that one came before the change was seen
        assert server.reload("respond other").returncode == 0
        assert waiting.result(timeout=20).status_code == 503
        gate.touch()


@pytest.mark.alone
def test_a_save_is_served_within_a_second_of_the_debounce(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload", app=FLASK, workers=1))
    durations = []
    for number in range(2, 7):
        project.write(str(number))
        saved = time.monotonic()
        wait_for(server, str(number))
        durations.append(time.monotonic() - saved)
    assert min(durations) > DEBOUNCE
    assert statistics.median(durations) < DEBOUNCE + SERVED, durations


def test_a_request_that_has_begun_ends_with_the_old_code(serve: Servers, project: Project, tmp_path: Path) -> None:
    server = serve(project.site("autoreload", app=FLASK, workers=1))
    gate = tmp_path / "gate"
    with ThreadPoolExecutor() as pool, server.new_client() as client:
        held = pool.submit(client.get, "/hold", params={"file": str(gate)})
        server.log.wait_for(lambda entry: entry.get("line") == "holding")
        project.write("2")
        wait_for(server, "2")
        gate.touch()
        assert held.result().json()["version"] == "1"


@pytest.mark.expect_errors(*DOES_NOT_RUN, "SyntaxError", "invalid syntax", "python app")
def test_a_syntax_error_and_its_fix(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload", app=FLASK))
    project.module.write_text("VERSION = = 2\n")
    answer = wait_failed(server)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert "SyntaxError" in answer.text
    assert "VERSION = = 2" in answer.text, "the traceback"
    assert str(project.module) in answer.text
    project.write("3")
    wait_for(server, "3")


@pytest.mark.expect_errors(*DOES_NOT_RUN)
def test_who_may_know_why_the_app_does_not_run(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload", app=FLASK))
    project.module.write_text(BROKEN)
    wait_failed(server)
    html = {"Accept": "text/html,application/xhtml+xml"}
    page = server.get("/", headers=html)
    assert (page.status_code, page.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert "&lt;script&gt;alert(1)" in page.text
    assert "<script" not in page.text
    assert server.request("HEAD", "/").status_code == 500
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        remote = server.get("/", headers=html | {header: "127.0.0.1"})
        assert (remote.status_code, remote.text) == (500, ""), "it comes through a proxy"
    project.write("2")
    wait_for(server, "2")


@pytest.mark.expect_errors(*DOES_NOT_RUN)
def test_with_debug_everybody_may_know_it(serve: Servers, project: Project) -> None:
    project.module.write_text(BROKEN)
    server = serve(project.site("autoreload", app=FLASK), "debug")
    assert "RuntimeError" in server.get("/", headers={"X-Forwarded-For": "192.0.2.1"}).text
    project.write("2")
    wait_for(server, "2")


@pytest.mark.expect_errors(*DOES_NOT_RUN)
def test_an_app_that_does_not_run_at_first_does_not_keep_caddy_from_starting(serve: Servers, project: Project) -> None:
    project.module.write_text(BROKEN)
    server = serve(f"respond /health healthy\n{project.site('autoreload')}")
    assert server.get("/health").text == "healthy"
    assert "RuntimeError" in server.get("/").text
    assert server.reload(f"respond /health other\n{project.site('autoreload')}").returncode == 0
    assert server.get("/").status_code == 500
    project.write("2")
    wait_for(server, "2")


def test_a_new_folder(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload"))
    package = project.folder / "parts" / "inner"
    package.mkdir(parents=True)
    (package / "part.py").write_text("VERSION = '2'\n")
    project.module.write_text("from parts.inner.part import VERSION\n")
    wait_for(server, "2")
    (package / "part.py").write_text("VERSION = '3'\n")
    wait_for(server, "3")
    assert reloads(server)[-1]["changed"] == ["parts/inner/part.py"]
    (project.folder / "parts").rename(project.folder / "pieces")
    (project.folder / "pieces" / "inner" / "part.py").write_text("VERSION = '4'\n")
    project.module.write_text("from pieces.inner.part import VERSION\n")
    wait_for(server, "4")
    (project.folder / "pieces" / "inner" / "part.py").write_text("VERSION = '5'\n")
    wait_for(server, "5")


def test_a_rename_and_an_editors_atomic_save(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload"))
    (project.folder / "other.txt").write_text("VERSION = '2'\n")
    (project.folder / "other.txt").rename(project.module)
    wait_for(server, "2")
    temporary = project.folder / ".version.py.1234"
    with open(temporary, "w") as file:
        file.write("VERSION = '3'\n")
        os.fsync(file.fileno())
    temporary.rename(project.module)
    wait_for(server, "3")
    assert [entry["changed"] for entry in reloads(server)] == [["version.py"]] * 2


@pytest.mark.expect_errors(*DOES_NOT_RUN)
def test_a_file_that_is_removed(serve: Servers, project: Project) -> None:
    server = serve(project.site("autoreload"))
    content = project.module.read_text()
    project.module.unlink()
    assert "No module named 'version'" in wait_failed(server).text
    project.module.write_text(content)
    wait_for(server, "1")


@pytest.mark.expect_errors(*DOES_NOT_RUN, "working_dir")
def test_another_folder_in_the_place_of_the_old_one(serve: Servers, project: Project, tmp_path: Path) -> None:
    server = serve(project.site("autoreload"))
    assert version(server) == "1"
    project.folder.rename(tmp_path / "old")
    Project(tmp_path / "new", "2").folder.rename(project.folder)
    wait_for(server, "2")
    project.write("3")
    wait_for(server, "3")


@pytest.mark.expect_errors(*DOES_NOT_RUN, "working_dir", "python app raised an error", "FileNotFoundError")
def test_a_folder_that_is_removed_and_made_anew(serve: Servers, project: Project, tmp_path: Path) -> None:
    """The system does not say that a folder has gone as long as a process is in it."""
    server = serve(project.site("autoreload"))
    assert version(server) == "1"
    with subprocess.Popen(["cat"], cwd=project.folder, stdin=subprocess.PIPE) as inside:
        shutil.rmtree(project.folder)
        Project(tmp_path / "new", "2").folder.rename(project.folder)
        wait_for(server, "2")
        project.write("3")
        wait_for(server, "3")
        assert inside.poll() is None


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_a_file_of_an_earlier_time_while_nobody_watched(
    serve: Servers, project: Project, tmp_path: Path, how: str
) -> None:
    """What counts is when the file came there, not what its time of modification says."""
    server = serve(f"respond /health 1\n{project.site()}")
    assert version(server) == "1"
    other = Project(tmp_path / "new", "2").module
    os.utime(other, (1, 1))
    if how == "renamed":
        other.rename(project.module)
    else:
        shutil.copy2(other, project.module)
    assert server.reload(f"respond /health 2\n{project.site('autoreload')}").returncode == 0
    server.close_client()
    wait_for(server, "2")


def test_a_save_and_a_reload_of_the_configuration(serve: Servers, project: Project) -> None:
    """The workers stay, for their settings do; what was saved just before, or while nobody watched, is not lost."""
    server = serve(f"respond /health 1\n{project.site()}")
    project.write("2")
    assert server.reload(f"respond /health 2\n{project.site('autoreload')}").returncode == 0
    wait_for(server, "2")
    project.write("3")
    assert server.reload(f"respond /health 3\n{project.site('autoreload')}").returncode == 0
    server.close_client()  # its idle connection goes with the old configuration
    wait_for(server, "3")
    assert version(server) == "3"


def test_another_site_with_the_same_app(serve: Servers, project: Project) -> None:
    """The two share their workers; autoreload is one's alone."""
    other = project.site().replace("python {", "python /other* {")
    server = serve(f"{other}\n{project.site('autoreload')}")
    before = server.get("/other").json()["instance"]
    assert before in instances(server)
    with WebSocket(server, "/other") as open_before:
        project.write("2")
        wait_for(server, "2")
        assert server.get("/other").json()["version"] == "1"
        with WebSocket(server, "/other") as open_after:
            for socket in (open_before, open_after):
                socket.text("hello")
                assert socket.message() == "1 hello"


def test_a_checkout_of_200_files(serve: Servers, project: Project, tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", *arguments]
        (tmp_path / "tmp").mkdir(exist_ok=True)
        subprocess.run(command, cwd=project.folder, env=isolated_environment(tmp_path), check=True, capture_output=True)

    def write(number: int) -> None:
        for part in range(200):
            (project.folder / f"package/part_{part}.py").write_text(f"VERSION = {number}\n")
        names = ", ".join(f"part_{part}" for part in range(200))
        imports = f"from package import {names}\nversions = {{part.VERSION for part in ({names})}}\n"
        project.module.write_text(f"{imports}assert versions == {{{number}}}, versions\nVERSION = '{number}'\n")

    (project.folder / "package").mkdir()
    git("init", "--initial-branch", "one")
    write(1)
    git("add", ".")
    git("commit", "-m", "one")
    git("checkout", "-b", "two")
    write(2)
    git("commit", "-am", "two")
    git("checkout", "one")
    server = serve(project.site("autoreload"))
    assert version(server) == "1"
    git("checkout", "two")
    wait_for(server, "2")
    assert sum(entry["files"] for entry in reloads(server)) >= 201
    assert len(reloads(server)) < 5, "not one for each file"


def test_what_is_left_out(serve: Servers, project: Project) -> None:
    for name in ("node_modules", "__pycache__", ".hidden", "env"):
        (project.folder / name / "inner").mkdir(parents=True)
    (project.folder / "env" / "pyvenv.cfg").touch()
    server = serve(project.site("autoreload"))
    for name in ("node_modules", "__pycache__", ".hidden", "env"):
        (project.folder / name / "inner" / "module.py").touch()
        (project.folder / name / "module.py").touch()
    (project.folder / "later").mkdir()
    (project.folder / "later" / "pyvenv.cfg").touch()
    (project.folder / "later" / "module.py").touch()
    for name in (".#version.py", "version.pyc", "page.html"):
        (project.folder / name).touch()
    project.module.chmod(0o600)
    project.write("2")
    wait_for(server, "2")
    [entry] = reloads(server)
    assert set(entry["changed"]) <= {"version.py", "later/module.py"}


def test_another_save_while_the_app_starts(serve: Servers, project: Project, tmp_path: Path) -> None:
    server = serve(project.site("autoreload", workers=1))
    begun = tmp_path / "begun"
    wait = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)\n"
    if server.worker.runtime == "thread":
        wait = wait.replace("600", "2")  # nothing can end a thread
    project.module.write_text(wait)
    wait_until(begun.exists, "the start of the new app")
    project.write("3")
    wait_for(server, "3")
    assert len(reloads(server)) == 1, "what was interrupted is none"


def test_python_reload_and_autoreload_together(serve: Servers, tmp_path: Path) -> None:
    releases = [Project(tmp_path / f"release-{number}", str(number)) for number in (1, 2)]
    current = tmp_path / "current"
    current.symlink_to(releases[0].folder)
    server = serve(releases[0].site("autoreload").replace(str(releases[0].folder), str(current)))
    assert version(server) == "1"
    current.unlink()
    current.symlink_to(releases[1].folder)
    assert server.command("python-reload", "--config", str(server.caddyfile)).returncode == 0
    assert version(server) == "2"
    releases[1].write("3")
    wait_for(server, "3")


def test_python_server(serve: Servers, worker: Worker, project: Project) -> None:
    server = serve.new()
    runtime = ["--workers-runtime", worker.runtime, "--python-path", str(worker.python)]
    app = ["--server-type", "wsgi", "--app", "version_app:flask", "--working-dir", str(project.folder)]
    server.launch("python-server", *app, *runtime, "--autoreload", "--listen", f"127.0.0.1:{server.port.number}")
    server.wait_accepting(server.port)
    assert version(server) == "1"
    project.write("2")
    wait_for(server, "2")
