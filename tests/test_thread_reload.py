"""Workers as threads of one interpreter inside Caddy: how an app is imported anew.

All that does not depend on where a worker runs is tested with both runtimes elsewhere.
"""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.check import Servers
from support.load import Load
from support.log import Entry
from support.memory import MB
from support.polling import wait_until
from support.server import Server
from support.siege import share
from support.thread_apps import ASGI_SOURCE, handler, two_apps, write_app
from support.worker import Worker

pytestmark = pytest.mark.only_thread


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


def shop_and_blog(folder: Path, *settings: str) -> tuple[Path, str]:
    """Two apps, `settings` for the first, and an env file that they have in common: that, and their site."""
    common = folder / "common.env"
    common.write_text("RELEASE=1\n")
    write_app(folder / "a", "shop", "1")
    write_app(folder / "b", "blog", "1")
    shop = handler("shop", folder / "a", f"env_file {common}", *settings)
    return common, two_apps(shop, handler("blog", folder / "b", f"env_file {common}"))


@pytest.mark.expect_errors("reloading a python app", "request error", "failed to start")
def test_apps_with_one_env_file_change_over_together(serve: Servers, tmp_path: Path) -> None:
    common, site = shop_and_blog(tmp_path)
    server = serve(site)

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
    common, site = shop_and_blog(tmp_path, "autoreload")
    server = serve(site)
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
