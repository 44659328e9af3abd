"""Workers as threads of one interpreter inside Caddy: what apps share there.

All that does not depend on where a worker runs is tested with both runtimes elsewhere.
"""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.check import Servers
from support.polling import wait_until
from support.server import Server
from support.thread_apps import ASGI_SOURCE, handler, two_apps, write_app
from support.worker import APPS, Worker

pytestmark = pytest.mark.only_thread


def refusal(serve: Servers, site: str) -> str:
    """Why `caddy validate` refuses a site."""
    server = serve.new()
    server.write_caddyfile(site)
    result = server.command("validate", "--config", str(server.caddyfile))
    assert result.returncode == 1
    return result.stderr


def failed_start(serve: Servers, site: str) -> str:
    """Why `caddy run` fails."""
    server = serve.new()
    server.write_caddyfile(site)
    server.launch("run", "--config", str(server.caddyfile))
    assert server.wait_exit() == 1
    return server.log.path.read_text()


@pytest.fixture
def plain(serve: Servers) -> Server:
    return serve("python {\nmodule_wsgi thread_app:app\nimport worker\n}")


def interpreter(server: Server) -> dict[str, Any]:
    answer: dict[str, Any] = server.get("/interpreter").json()
    return answer


def test_an_app_runs_in_caddys_process_but_python_is_the_interpreter(plain: Server, worker: Worker) -> None:
    seen = interpreter(plain)
    assert seen["pid"] == plain.caddy.pid
    assert seen["executable"] == str(worker.python)
    assert not seen["in_main_thread"]


def test_one_worker_is_said_in_the_log(serve: Servers, worker: Worker) -> None:
    server = serve("python {\nmodule_wsgi thread_app:app\nworkers 4\nimport worker\n}")
    said = [entry for entry in server.log.entries() if "global interpreter lock" in entry["msg"]]
    [started] = [entry for entry in server.log.entries() if entry["msg"] == "python app started"]
    assert started["workers"] == worker.count(4)
    if not worker.free_threaded:
        [entry] = said
        assert (entry["workers_set"], entry["app"]) == (4, "thread_app:app")


# Signals are Caddy's.


def test_a_child_process_can_be_asked_to_end(plain: Server) -> None:
    assert plain.get("/terminate_child").text == "-15"


def test_a_write_to_a_closed_pipe_does_not_end_caddy(plain: Server) -> None:
    assert plain.get("/write_to_nobody").text == "BrokenPipeError"
    assert interpreter(plain)["pid"] == plain.caddy.pid


def test_a_signal_that_comes_to_a_python_thread_is_caddys(plain: Server) -> None:
    assert plain.get("/ask_caddy_to_end").text == "asked"
    assert plain.wait_exit() == 0


@pytest.mark.expect_errors("the app is shutting down", "cut off", "the worker ended")
def test_a_thread_that_never_ends_does_not_keep_caddy(serve: Servers) -> None:
    server = serve("python {\nmodule_wsgi thread_app:app\nthreads 2\ndrain_timeout 1s\nimport worker\n}")
    with ThreadPoolExecutor() as pool, server.new_client() as client:
        answer = pool.submit(client.get, "/never_end")
        server.log.wait_for(lambda entry: entry.get("line") == "holding fast")
        assert server.stop(40) == 0
        assert answer.exception() is not None or answer.result().status_code >= 500


@pytest.mark.expect_errors("")
def test_a_worker_for_which_there_is_no_thread_costs_caddy_nothing_else(serve: Servers, tmp_path: Path) -> None:
    write_app(tmp_path / "b", "blog", "the blog")
    few = ("workers 1", "threads 2", "request_timeout 1m")
    server = serve(two_apps(handler("thread_app", APPS, *few), handler("blog", tmp_path / "b", *few)))
    # The main thread, and of each app the worker's, two that run requests, and two that watch them and those that wait.
    wait_until(lambda: server.get("/first/interpreter").json()["threads"] == 11, "all threads")
    assert server.get("/first/refuse_threads").text == "refused"
    descriptors = server.caddy.num_fds()
    result = server.command("python-reload", "blog:app", "--config", str(server.caddyfile))
    assert result.returncode == 1
    assert "can't start new thread" in result.stderr
    wait_until(lambda: server.caddy.num_fds() <= descriptors, "as many descriptors as before")
    assert server.get("/second/").text == "the blog"
    assert server.get("/first/allow_threads").text == "allowed"
    assert server.command("python-reload", "--config", str(server.caddyfile)).returncode == 0
    assert server.get("/second/").text == "the blog"


@pytest.mark.expect_errors("new worker did not start")
def test_a_worker_that_fails_early_leaves_no_descriptor(serve: Servers, tmp_path: Path) -> None:
    write_app(tmp_path / "a", "main", "1")
    server = serve(handler("main", tmp_path / "a", "request_timeout 1m", "max_requests 1"))
    descriptors = server.caddy.num_fds()
    shutil.rmtree(tmp_path / "a")
    assert server.get("/").text == "1"
    server.close_client()
    entry = server.log.wait_for(lambda entry: entry["msg"].startswith("new worker did not start"))
    assert "FileNotFoundError" in entry["error"]
    wait_until(lambda: server.caddy.num_fds() <= descriptors, "as many descriptors as before")


def test_handlers_of_faults_stay_gos(serve: Servers) -> None:
    """Python's would end Caddy where Go recovers; images of Python often set this variable."""
    server = serve("python {\nmodule_wsgi thread_app:app\nimport worker\n}", PYTHONFAULTHANDLER="1")
    assert interpreter(server)["fault_handlers"] is False


# What an app does to the process.

# Moves to another folder at its import, and lets nobody else read what it writes; says where it is.
MOVED = """
import os

os.chdir("/")
os.umask(0o077)


def app(environ, start_response):
    start_response("200 OK", [])
    return [os.getcwd().encode()]
"""


def test_an_app_in_the_folder_that_caddy_was_started_in_does_not_move_caddy(serve: Servers) -> None:
    server = serve.new()
    (server.folder / "main.py").write_text(MOVED)
    (server.folder / "note.txt").write_text("a note")
    server.start(f"file_server /note.txt {{\nroot .\n}}\nhandle /app {{\n{handler('main', server.folder)}}}\n")
    assert server.get("/app").text == "/"
    assert server.get("/note.txt").text == "a note"
    assert server.caddy.cwd() == str(server.folder)
    umask = Path(f"/proc/{server.caddy.pid}/status").read_text().partition("Umask:")[2].split()[0]
    assert umask != "0077"


# Several apps.


def test_apps_that_share_an_interpreter_keep_their_own_modules_folders_and_output(
    serve: Servers, tmp_path: Path
) -> None:
    write_app(tmp_path / "a", "shop", "the shop")
    write_app(tmp_path / "b", "blog", "the blog")
    server = serve(two_apps(handler("shop", tmp_path / "a"), handler("blog", tmp_path / "b")))
    expected = {"first": "the shop", "second": "the blog"}

    def check(number: int) -> None:
        name = ("first", "second")[number % 2]
        path = ("", "lazy", "file", "print")[number // 2 % 4]
        response = client.get(f"/{name}/{path}")
        assert (response.status_code, response.text) == (200, expected[name])

    with server.new_client() as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(check, range(200)))
    entries = [entry for entry in server.log.entries() if str(entry.get("line")).startswith("printed by")]
    apps = {(entry["app"], entry["line"]) for entry in entries}
    assert apps == {("shop:app", "printed by the shop"), ("blog:app", "printed by the blog")}


def test_an_app_has_the_packages_of_its_own_virtual_environment(serve: Servers, worker: Worker, tmp_path: Path) -> None:
    """Though the interpreter is that of another app's."""
    write_app(tmp_path / "a", "shop", "the shop")
    write_app(tmp_path / "b", "blog", "the blog")
    environment = tmp_path / "b" / ".venv"
    subprocess.run([worker.python, "-m", "venv", "--without-pip", environment], check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "blog_helper").mkdir()
    (packages / "blog_helper" / "__init__.py").write_text("VERSION = 'a package'\n")
    (tmp_path / "b" / "blog_helper.py").unlink()
    blog = handler("blog", tmp_path / "b").replace("import interpreter", f"venv {environment}\nworkers_runtime thread")
    server = serve(handler("shop", tmp_path / "a"))
    assert server.reload(two_apps(handler("shop", tmp_path / "a"), blog)).returncode == 0
    assert server.get("/second/lazy").text == "a package"


@pytest.mark.expect_errors("")
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_module_that_is_missing_is_looked_for_in_the_apps_own_folder(
    serve: Servers, tmp_path: Path, interface: str
) -> None:
    """Though another app starts meanwhile: this one's package waits for it."""
    started = tmp_path / "started"
    write_app(tmp_path / "a", "shop", "the shop")
    with open(tmp_path / "a" / "shop.py", "a") as file:
        file.write(f"{ASGI_SOURCE}\nopen({str(started)!r}, 'w').close()\n")
    (tmp_path / "b" / "blog").mkdir(parents=True)
    wait = f"import os, time\nwhile not os.path.exists({str(started)!r}): time.sleep(0.01)\n"
    (tmp_path / "b" / "blog" / "__init__.py").write_text(wait)
    site = two_apps(handler("shop", tmp_path / "a"), handler("blog.mian", tmp_path / "b"))
    said = failed_start(serve, site.replace("module_wsgi", f"module_{interface}"))
    assert f"neither {tmp_path / 'b' / 'blog' / 'mian'}.py nor" in said


@pytest.mark.expect_errors("")
def test_a_package_that_is_missing_is_said_to_be_in_the_apps_own_environment(
    serve: Servers, worker: Worker, tmp_path: Path
) -> None:
    """And not in that of the app for which the interpreter was started."""
    write_app(tmp_path / "a", "shop", "the shop")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "blog.py").write_text("import no_such_package\n")
    environment = tmp_path / "b" / ".venv"
    subprocess.run([worker.python, "-m", "venv", "--without-pip", environment], check=True)
    blog = handler("blog", tmp_path / "b").replace("import interpreter", f"venv {environment}\nworkers_runtime thread")
    server = serve(handler("shop", tmp_path / "a"))
    result = server.reload(two_apps(handler("shop", tmp_path / "a"), blog))
    assert "No module named 'no_such_package'" in result.stderr
    assert str(next(environment.glob("lib/python*/site-packages"))) in result.stderr
    assert str(worker.python) not in result.stderr


def test_two_apps_with_modules_of_one_name_are_refused(serve: Servers, tmp_path: Path) -> None:
    write_app(tmp_path / "a", "main", "a")
    write_app(tmp_path / "b", "main", "b")
    said = refusal(serve, two_apps(handler("main", tmp_path / "a"), handler("main", tmp_path / "b")))
    assert f'"main:app\\" in {tmp_path / "a"}' in said or f'"main:app" in {tmp_path / "a"}' in said
    assert str(tmp_path / "b") in said
    assert "workers_runtime process" in said


def test_two_apps_with_helpers_of_one_name_are_refused(serve: Servers, tmp_path: Path) -> None:
    """The second one would get the first one's, when it imports its own in the midst of a request."""
    for folder, module in (("a", "shop"), ("b", "blog")):
        write_app(tmp_path / folder, module, folder)
        (tmp_path / folder / "helpers.py").touch()
    said = refusal(serve, two_apps(handler("shop", tmp_path / "a"), handler("blog", tmp_path / "b")))
    assert "helpers" in said
    assert str(tmp_path / "a") in said and str(tmp_path / "b") in said


def test_two_apps_with_different_variables_are_refused(serve: Servers, tmp_path: Path) -> None:
    write_app(tmp_path / "a", "shop", "the shop")
    write_app(tmp_path / "b", "blog", "the blog")
    site = two_apps(
        handler("shop", tmp_path / "a", "env_var KEY one"), handler("blog", tmp_path / "b", "env_var KEY two")
    )
    said = refusal(serve, site)
    assert "KEY" in said and "shop:app" in said and "blog:app" in said


def other_interpreter(folder: Path, worker: Worker, change: str) -> Path:
    """An interpreter that says something else of itself: `change` is a statement about `found`."""
    python = folder / "python"
    program = f"import json, sys; found = json.load(sys.stdin); {change}; print(json.dumps(found))"
    python.write_text(f'#!/bin/sh\n"{worker.python}" "$@" | "{worker.python}" -c \'{program}\'\n')
    python.chmod(0o755)
    return python


@pytest.mark.expect_errors("")
def test_two_interpreters_are_refused(serve: Servers, worker: Worker, tmp_path: Path) -> None:
    library = tmp_path / "libpython-other.so"
    library.touch()
    python = other_interpreter(tmp_path, worker, f'found["library"] = "{library}"')
    write_app(tmp_path / "b", "blog", "the blog")
    other = handler("blog", tmp_path / "b").replace(
        "import interpreter", f"python_path {python}\nworkers_runtime thread"
    )
    server = serve(handler("thread_app", APPS))
    result = server.reload(two_apps(handler("thread_app", APPS), other))
    assert result.returncode == 1
    assert "cannot run in this Caddy" in result.stderr
    assert "thread_app:app" in result.stderr and "blog:app" in result.stderr
    assert "workers_runtime process" in result.stderr
    assert server.get("/interpreter").status_code == 200


@pytest.mark.expect_errors("")
def test_an_interpreter_without_a_shared_library_is_refused(serve: Servers, worker: Worker, tmp_path: Path) -> None:
    python = other_interpreter(tmp_path, worker, 'found["library"] = ""')
    site = (
        f"python {{\nmodule_wsgi thread_app:app\nworking_dir {APPS}\npython_path {python}\nworkers_runtime thread\n}}"
    )
    said = failed_start(serve, site)
    assert f"{python} has no shared libpython (looked for " in said
    assert "or set workers_runtime process" in said
