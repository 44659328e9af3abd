"""Workers as threads of one interpreter inside Caddy: what apps share there, and how one is imported anew.

All that does not depend on where a worker runs is tested with both runtimes elsewhere.
"""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.check import Servers
from support.load import Load
from support.log import Entry
from support.memory import MB
from support.polling import wait_until
from support.server import Server
from support.siege import share
from support.worker import APPS, Worker

pytestmark = pytest.mark.only_thread

# An app that tells of itself, and imports a module of its own only when it is asked to.
SOURCE = """
import os

VERSION = {version!r}
print("this is", VERSION)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/lazy":
        import {helper} as helper
        body = helper.VERSION
    elif environ["PATH_INFO"] == "/file":
        with open("note.txt") as file:
            body = file.read()
    elif environ["PATH_INFO"] == "/release":
        body = os.environ["RELEASE"]
    elif environ["PATH_INFO"] == "/print":
        print("printed by", VERSION)
        body = VERSION
    else:
        body = VERSION
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
"""


# Makes it one for ASGI.
ASGI_SOURCE = """

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": VERSION.encode()})
"""


def write_app(folder: Path, module: str, version: str) -> None:
    """An app `module:app` in `folder`, with a module that it imports late, and a file that it reads."""
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(SOURCE.format(version=version, helper=f"{module}_helper"))
    (folder / f"{module}_helper.py").write_text(f"VERSION = {version!r}\n")
    (folder / "note.txt").write_text(version)


def handler(module: str, folder: Path, *settings: str) -> str:
    lines = "\n".join(settings)
    return f"python {{\nmodule_wsgi {module}:app\nimport interpreter\nworking_dir {folder}\n{lines}\n}}\n"


def two_apps(first: str, second: str) -> str:
    return f"handle_path /first/* {{\n{first}}}\nhandle_path /second/* {{\n{second}}}\n"


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
    # The main thread, and of each app the worker's, two that run requests and the one that watches them.
    wait_until(lambda: server.get("/first/interpreter").json()["threads"] == 9, "all threads")
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


# Reload in place.


def versions(server: Server, path: str) -> Iterator[str]:
    for _ in range(20):
        yield server.get(path).text


@pytest.mark.parametrize("place", ["the same folder", "another folder"])
def test_a_reload_imports_the_app_anew_and_drops_no_request(serve: Servers, tmp_path: Path, place: str) -> None:
    old = tmp_path / "release-1"
    new = old if place == "the same folder" else tmp_path / "release-2"
    write_app(old, "main", "1")
    server = serve(handler("main", old, "env_var RELEASE 1"))
    assert server.get("/lazy").text == "1"
    load = Load(server, "/", retry=True)
    load.wait_for(20)
    write_app(new, "main", "22")
    assert server.reload(handler("main", new, "env_var RELEASE 2")).returncode == 0
    load.wait_for(20)
    load.stop()
    for path in ("/", "/lazy", "/file"):
        assert set(versions(server, path)) == {"22"}


def test_an_apps_folder_may_be_a_virtual_environment_and_have_caddys_data(
    serve: Servers, worker: Worker, tmp_path: Path
) -> None:
    """As a home folder may. What is installed there, and Caddy's own, stays; the app is imported anew."""
    home = tmp_path / "home"
    subprocess.run([worker.python, "-m", "venv", "--without-pip", home], check=True)
    write_app(home, "main", "1")
    site = f"python {{\nmodule_wsgi main:app\nworking_dir {home}\nvenv {home}\nworkers_runtime thread\n}}"
    server = serve(site, XDG_DATA_HOME=str(home / "data"))
    assert list(home.glob("data/caddy/python/*/caddysnake"))
    assert server.get("/lazy").text == "1"
    write_app(home, "main", "22")
    assert reload_python(server).returncode == 0
    for path in ("/", "/lazy"):
        assert set(versions(server, path)) == {"22"}


def reload_python(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`caddy python-reload`."""
    return server.command("python-reload", *arguments, "--config", str(server.caddyfile))


@pytest.mark.expect_errors("reloading a python app", "request error")
def test_apps_behind_one_link_change_over_together(serve: Servers, tmp_path: Path) -> None:
    current = tmp_path / "current"
    for release in ("1", "22"):
        for module in ("shop", "blog"):
            write_app(tmp_path / release, module, release)
    current.symlink_to(tmp_path / "1")
    server = serve(two_apps(handler("shop", current), handler("blog", current)))
    assert server.get("/first/lazy").text == "1"
    current.unlink()
    current.symlink_to(tmp_path / "22")
    alone = reload_python(server, "shop:app")
    assert alone.returncode == 1
    assert 'both folders have a module "blog"' in alone.stderr
    assert "reload all: caddy python-reload" in alone.stderr
    assert set(versions(server, "/first/")) == {"1"}
    together = reload_python(server)
    assert together.returncode == 0, together.stderr
    said = [f"{app}:app reloaded from {tmp_path / '22'}" for app in ("blog", "shop")]
    assert sorted(together.stdout.splitlines()) == said
    for path in ("/first/", "/first/lazy", "/first/file", "/second/", "/second/lazy", "/second/file"):
        assert set(versions(server, path)) == {"22"}, path
    assert reload_python(server, "blog:app").returncode == 0


@pytest.mark.expect_errors("reloading a python app", "request error", "failed to start")
def test_apps_with_one_env_file_change_over_together(serve: Servers, tmp_path: Path) -> None:
    common = tmp_path / "common.env"
    write_app(tmp_path / "a", "shop", "1")
    write_app(tmp_path / "b", "blog", "1")
    common.write_text("RELEASE=1\n")
    setting = f"env_file {common}"
    server = serve(two_apps(handler("shop", tmp_path / "a", setting), handler("blog", tmp_path / "b", setting)))

    def all_say(release: str) -> None:
        wait_until(lambda: server.get("/first/release").text == release, "this environment")
        for path in ("/", "/lazy", "/release"):
            assert {*versions(server, f"/first{path}"), *versions(server, f"/second{path}")} == {release}, path

    common.write_text("RELEASE=22\n")
    alone = reload_python(server, "blog:app")
    assert alone.returncode == 1
    assert "set RELEASE differently" in alone.stderr
    assert "reload all: caddy python-reload" in alone.stderr
    all_say("1")

    write_app(tmp_path / "a", "shop", "22")
    write_app(tmp_path / "b", "blog", "22")
    source = (tmp_path / "b" / "blog.py").read_text()
    (tmp_path / "b" / "blog.py").write_text(source + "\nraise RuntimeError('too new')\n")
    failed = reload_python(server)
    assert failed.returncode == 1
    assert "too new" in failed.stderr
    all_say("1")

    (tmp_path / "b" / "blog.py").write_text(source)
    together = reload_python(server)
    assert together.returncode == 0, together.stderr
    all_say("22")


@pytest.mark.expect_errors("python app not reloaded")
def test_an_app_that_reloads_itself_says_that_all_must_be_reloaded(serve: Servers, tmp_path: Path) -> None:
    common = tmp_path / "common.env"
    write_app(tmp_path / "a", "shop", "1")
    write_app(tmp_path / "b", "blog", "1")
    common.write_text("RELEASE=1\n")
    setting = f"env_file {common}"
    shop = handler("shop", tmp_path / "a", setting, "autoreload")
    server = serve(two_apps(shop, handler("blog", tmp_path / "b", setting)))
    assert server.get("/first/").text == "1"
    common.write_text("RELEASE=22\n")
    write_app(tmp_path / "a", "shop", "22")
    wait_until(lambda: "reload all: caddy python-reload" in server.get("/first/").text, "advice")
    assert server.get("/second/release").text == "1"
    assert reload_python(server).returncode == 0
    assert (server.get("/first/").text, server.get("/first/release").text) == ("22", "22")
    assert server.get("/second/release").text == "22"


# Starts a thread that ends when it is told to, and one that nobody ends.
BACKGROUND = """
import atexit, threading

over = threading.Event()
atexit.register(over.set)


def work(end):
    end.wait()


threading.Thread(target=work, args=(over,), name="tidy", daemon=True).start()
threading.Thread(target=work, args=(threading.Event(),), name="left by " + VERSION, daemon=True).start()
"""


@pytest.mark.expect_errors("")
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_threads_that_an_app_leaves_behind_are_named(serve: Servers, tmp_path: Path, interface: str) -> None:
    def write(version: str, more: str = "") -> None:
        write_app(tmp_path / "a", "main", version)
        with open(tmp_path / "a" / "main.py", "a") as file:
            file.write((ASGI_SOURCE if interface == "asgi" else "") + BACKGROUND + more)

    def left(entry: Entry) -> bool:
        return "threads of the app go on" in str(entry["msg"])

    server = serve.new()
    write("1")
    server.start(handler("main", tmp_path / "a").replace("module_wsgi", f"module_{interface}"))
    write("2", "raise RuntimeError\n")
    assert reload_python(server).returncode == 1
    write("3")
    assert reload_python(server).returncode == 0
    assert set(server.log.wait_for(left)["threads"].split(", ")) == {"left by 1", "left by 2"}
    assert server.stop() == 0
    assert len([entry for entry in server.log.entries() if left(entry)]) == 1


@pytest.mark.expect_errors("")
def test_a_reload_that_fails_leaves_the_app_with_its_modules(serve: Servers, tmp_path: Path) -> None:
    write_app(tmp_path / "a", "main", "1")
    settings = "request_timeout 1m\nenv_var RELEASE"
    server = serve(handler("main", tmp_path / "a", f"{settings} 1"))
    assert server.get("/lazy").text == "1"
    descriptors = server.caddy.num_fds()
    write_app(tmp_path / "a", "main", "22")
    source = tmp_path / "a" / "main.py"
    source.write_text("import main_helper\n" + source.read_text() + "\nraise RuntimeError('too new')\n")
    for release in range(2, 6):
        result = server.reload(handler("main", tmp_path / "a", f"{settings} {release}"))
        assert result.returncode == 1
        assert "too new" in result.stderr
    wait_until(lambda: server.caddy.num_fds() <= descriptors, "as many descriptors as before")
    for path in ("/", "/lazy"):
        assert set(versions(server, path)) == {"1"}


@pytest.mark.expect_errors("")
def test_a_reload_that_fails_elsewhere_leaves_the_app_with_its_modules(serve: Servers, tmp_path: Path) -> None:
    """Caddy starts its apps in no particular order: here the new Python workers, then a server that cannot."""
    write_app(tmp_path / "a", "main", "1")
    server = serve(handler("main", tmp_path / "a", "env_var RELEASE 1"))
    assert server.get("/lazy").text == "1"
    write_app(tmp_path / "a", "main", "22")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        second = f"}}\nhttp://127.0.0.1:{taken.getsockname()[1]} {{\nrespond taken"

        def refused_after_python_has_started() -> bool:
            before = len([entry for entry in server.log.entries() if entry.get("line") == "this is 22"])
            assert server.reload(handler("main", tmp_path / "a", "env_var RELEASE 22") + second).returncode == 1
            return len([entry for entry in server.log.entries() if entry.get("line") == "this is 22"]) > before

        wait_until(refused_after_python_has_started, "reload in this order")
    wait_until(lambda: server.get("/release").text == "1", "the old environment")
    for path in ("/", "/lazy"):
        assert set(versions(server, path)) == {"1"}
    assert server.reload(handler("main", tmp_path / "a", "env_var RELEASE 22")).returncode == 0
    for path in ("/", "/lazy", "/release"):
        assert set(versions(server, path)) == {"22"}


@pytest.mark.memory
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_reloads_leave_nothing(serve: Servers, tmp_path: Path, interface: str) -> None:
    """With a changed and an unchanged app, while requests run: no failure, no thread, descriptor or memory more."""
    write_app(tmp_path / "a", "shop", "the shop")
    write_app(tmp_path / "b", "blog", "the blog")
    # Enough to see it when a version stays.
    for name, folder in (("shop", "a"), ("blog", "b")):
        with open(tmp_path / folder / f"{name}.py", "a") as file:
            file.write("BALLAST = bytes(2_000_000)\n")
            if interface == "asgi":
                file.write(ASGI_SOURCE)

    def site(number: int) -> str:
        # Every other reload changes the Python configuration.
        changed = handler("shop", tmp_path / "a", f"start_timeout {60 + number // 2 % 2}s")
        apps = two_apps(changed, handler("blog", tmp_path / "b")).replace("module_wsgi", f"module_{interface}")
        return f"{apps}header X-Number {number}\n"

    server = serve(site(0))
    load = Load(server, "/first/", clients=2, retry=True)
    used: list[tuple[int, int, int]] = []
    count = share(100)
    warm = 10

    def one_generation() -> bool:
        started = [entry for entry in server.log.entries() if entry["msg"] == "python app started"]
        stopped = [entry for entry in server.log.entries() if entry["msg"] == "python app stopped"]
        return len(started) - len(stopped) == 2

    for number in range(1, count + warm + 1):
        load.wait_for(5)
        assert server.reload(site(number)).returncode == 0
        wait_until(one_generation, "end of the old workers", 30)
        server.admin_request("GET", "/debug/pprof/heap?gc=1")  # or Go's heap grows for a while, whatever runs in it
        caddy = server.caddy
        used.append((caddy.num_threads(), caddy.num_fds(), caddy.memory_info().rss))
    load.stop()
    (threads, descriptors, memory), last = used[warm - 1], [min(values) for values in zip(*used[-5:], strict=True)]
    # What the load has open at the moment, and threads that Go has made for system calls, vary by a few.
    assert last[0] <= threads + 4, used
    assert last[1] <= descriptors + 4, used
    assert last[2] < memory * 1.05, [value // MB for _, _, value in used]
