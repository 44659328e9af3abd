"""Dynamic apps: many apps by one directive, each started when somebody asks for it."""

import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from support.check import Servers
from support.memory import Growth
from support.polling import wait_until
from support.porter import Porter
from support.raw import Connection
from support.server import Server
from support.siege import SIEGE, share
from support.tenants import DOMAIN, Tenants, answered, connect_tls, get, handshake, serve_tls, started
from support.websocket import WebSocket
from support.worker import Worker

NewTenants = Callable[..., Tenants]


@pytest.fixture
def tenants(tmp_path: Path) -> NewTenants:
    """Makes a folder with these tenants."""
    return lambda *names: Tenants(tmp_path / "tenants", names)


def test_each_host_has_its_own_app_which_starts_when_it_is_asked_for(serve: Servers, tenants: NewTenants) -> None:
    server = serve(tenants("alice", "bob").site())
    assert server.workers() == []
    alice = answered(server, "alice")
    assert started(server) == ["alice"], "in one worker"
    assert answered(server, "bob") != alice
    assert answered(server, "alice") == alice
    assert get(server, "ALICE").text == f"alice {alice}", "hosts are the same in any case"
    assert server.worker_pids() == {alice, answered(server, "bob")}


def test_many_tenants_with_few_places(serve: Servers, tenants: NewTenants) -> None:
    names = [f"t{number}" for number in range(share(200))]
    places = 20 if SIEGE else 4
    server = serve(tenants(*names).site(f"max_dynamic_apps {places}"))
    most = 0
    order = random.Random(1)
    # Twice: the second time, all but a few have been stopped since.
    with Growth([server.caddy]) as growth, ThreadPoolExecutor(places) as pool:
        for turn in range(2):
            waiting = [pool.submit(ask_with_own_client, server, name) for name in order.sample(names, len(names))]
            while not all(future.done() for future in waiting):
                most = max(most, len(server.workers()))
            for future in waiting:
                future.result()
            if turn == 0:
                memory = server.caddy.memory_info().rss
    assert most <= places, "workers at a time"
    wait_until(lambda: len(server.workers()) == places, "workers of those that may stay")
    assert server.caddy.memory_info().rss - memory < 16 << 20
    assert max(growth.megabytes().values()) < 64
    assert Counter(started(server)).keys() == set(names)


def test_the_app_that_nobody_has_asked_for_longest_leaves_first(serve: Servers, tenants: NewTenants) -> None:
    server = serve(tenants("alice", "bob", "carol", "dave").site("max_dynamic_apps 3"))
    alice, bob, carol = (answered(server, name) for name in ("alice", "bob", "carol"))
    assert answered(server, "alice") == alice
    dave = answered(server, "dave")
    assert server.worker_pids() == {alice, carol, dave}, f"all but bob's, {bob}"
    assert [answered(server, name) for name in ("alice", "carol", "dave")] == [alice, carol, dave]


def test_no_limit(serve: Servers, tenants: NewTenants) -> None:
    names = ["alice", "bob", "carol"]
    server = serve(tenants(*names).site("max_dynamic_apps 0"))
    assert {answered(server, name) for name in names} == server.worker_pids()


def ask_with_own_client(server: Server, tenant: str) -> None:
    with server.new_client() as client:
        response = get(server, tenant, client=client)
    assert response.status_code == 200, response.status_code
    assert response.text.split()[0] == tenant


def test_a_thousand_first_requests_start_an_app_once(serve: Servers, tenants: NewTenants) -> None:
    site = tenants("alice")
    (site.root / "alice/held").touch()
    server = serve(site.site())
    connections = [Connection(server) for _ in range(1000)]
    try:
        for connection in connections:
            connection.send(f"GET / HTTP/1.1\r\nHost: alice.{DOMAIN}\r\n\r\n".encode())
        server.log.wait_for(lambda entry: str(entry.get("line", "")).startswith("started"))
        for connection in connections[:100]:
            connection.close()  # those who leave stop nothing for the others
        (site.root / "alice/held").unlink()
        answers = {connection.response().body for connection in connections[100:]}
    finally:
        for connection in connections:
            connection.close()
    assert len(answers) == 1
    assert started(server) == ["alice"]


def test_the_client_who_asked_first_may_leave(serve: Servers, tenants: NewTenants) -> None:
    site = tenants("alice")
    (site.root / "alice/held").touch()
    server = serve(site.site())
    with Connection(server) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: alice.{DOMAIN}\r\n\r\n".encode())
        wait_until(lambda: started(server), "start")
    (site.root / "alice/held").unlink()
    pid = answered(server, "alice")
    assert server.worker_pids() == {pid}
    assert started(server) == ["alice"]


def test_hosts_without_an_app_are_not_found(serve: Servers, tenants: NewTenants) -> None:
    site = tenants("alice")
    (site.root / "file").touch()
    (site.root / "outside").symlink_to("/")
    (site.root / "itself").symlink_to(".")
    server = serve(site.site())
    for name in ("nobody", "file", "outside", "itself", "..", ".", "a..b", "al%2fice", "-alice", "_alice", "x" * 64):
        assert get(server, name).status_code == 404, name
    assert server.get("/", headers={"Host": DOMAIN}).status_code == 404, "no such label"
    assert started(server) == []
    (site.root / "alias").symlink_to("alice")
    assert get(server, "alias").text.split()[0] == "alice", "a symlink that stays inside"
    site.add("nobody")
    assert answered(server, "nobody")


@pytest.mark.expect_errors("this tenant is broken", "the app could not start")
def test_a_broken_app_hurts_no_other_and_recovers(serve: Servers, tenants: NewTenants) -> None:
    site = tenants("alice", "broken")
    (site.root / "broken/broken").touch()
    server = serve(site.site("max_dynamic_apps 1"))
    response = get(server, "broken")
    assert response.status_code == 503
    assert 1 <= int(response.headers["Retry-After"]) <= 3
    assert "this tenant is broken" not in response.text
    tries = started(server).count("broken")
    for _ in range(20):
        assert get(server, "broken").status_code == 503
        assert answered(server, "alice"), "the broken one holds no place"
    assert started(server).count("broken") <= tries + 2, "it is not tried for each request"
    assert started(server).count("alice") <= started(server).count("broken"), "nor does it drive out others for each"
    (site.root / "broken/broken").unlink()
    wait_until(lambda: get(server, "broken").status_code == 200, "recovery")
    [entry] = [entry for entry in server.log.entries() if entry["msg"] == "dynamic app could not start"][:1]
    expected = ("main:wsgi", ["broken"], f"{site.root}/broken/")
    assert (entry["app"], entry["values"], entry["working_dir"]) == expected


@pytest.mark.expect_errors("all places for dynamic apps are taken")
def test_a_busy_app_is_never_stopped_for_another(serve: Servers, tenants: NewTenants) -> None:
    settings = ("max_dynamic_apps 2", "dynamic_idle_timeout 50ms")
    server = serve(tenants("stream", "socket", "third").site(*settings, interface="asgi"))
    stream = Connection(server)
    stream.send(f"GET /endless HTTP/1.1\r\nHost: stream.{DOMAIN}\r\n\r\n".encode())
    assert stream.head()[0] == 200
    with WebSocket(server, "/", host=f"socket.{DOMAIN}"):
        busy = server.worker_pids()
        assert len(busy) == 2
        for _ in range(10):
            response = get(server, "third")
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "1"
        assert server.worker_pids() == busy, "they are not idle either"
    wait_until(lambda: get(server, "third").status_code == 200, "place of the WebSocket's app")
    stream.close()
    wait_until(lambda: server.workers() == [], "end of all, which are idle now")


@pytest.mark.expect_errors("all places for dynamic apps are taken")
def test_nobody_waits_for_the_place_of_a_busy_app_whose_folder_has_gone(serve: Servers, tenants: NewTenants) -> None:
    site = tenants("gone", "other")
    text = site.site("max_dynamic_apps 1", interface="asgi")
    server = serve(text)
    with WebSocket(server, "/", host=f"gone.{DOMAIN}"):
        (site.root / "gone").rename(site.root / "away")
        assert server.reload("respond /health 200\n" + text).returncode == 0
        wait_until(lambda: get(server, "gone").status_code == 404, "end of the one whose folder has gone")
        assert get(server, "other").status_code == 503
    wait_until(lambda: get(server, "other").status_code == 200, "place of the one that has gone")


def test_idle_apps_leave_and_come_back(serve: Servers, tenants: NewTenants) -> None:
    server = serve(tenants("alice").site("dynamic_idle_timeout 200ms"))
    first = answered(server, "alice")
    wait_until(lambda: server.workers() == [], "end of the idle app")
    assert answered(server, "alice") != first


def test_an_unrelated_reload_keeps_the_workers_and_a_config_that_goes_releases_them(
    serve: Servers, tenants: NewTenants
) -> None:
    site = tenants("alice", "bob", "carol")
    server = serve(site.site(interface="asgi"))
    pids = {answered(server, "alice"), answered(server, "bob")}
    with WebSocket(server, "/", host=f"alice.{DOMAIN}") as socket:
        assert server.reload("respond /health 200\n" + site.site(interface="asgi")).returncode == 0
        assert {answered(server, "alice"), answered(server, "bob")} == pids
        socket.text("still there?")
        assert str(socket.message()).startswith("alice")
        carol = answered(server, "carol")
        assert server.worker_pids() == {*pids, carol}
    assert server.reload("respond 204").returncode == 0
    wait_until(lambda: server.workers() == [], "end of all workers")


def test_a_reload_follows_what_has_changed_on_disk(serve: Servers, tenants: NewTenants) -> None:
    site = tenants("alice", "one", "two", "gone")
    (site.root / "alice/.env").write_text("VERSION=1\n")
    for name in ("one", "two", "gone"):
        (site.root / name / ".env").touch()
    (site.root / "current").symlink_to("one")
    text = site.site("env_file .env")
    server = serve(text)
    assert get(server, "alice", "/?VERSION").text == "1"
    assert get(server, "current").text.split()[0] == "one"
    answered(server, "gone")
    (site.root / "alice/.env").write_text("VERSION=2\n")
    (site.root / "current").unlink()
    (site.root / "current").symlink_to("two")
    (site.root / "gone").rename(site.root / "away")
    assert server.reload("respond /health 200\n" + text).returncode == 0
    wait_until(lambda: get(server, "alice", "/?VERSION").text == "2", "new variable")
    wait_until(lambda: get(server, "current").text.split()[0] == "two", "the other folder")
    wait_until(lambda: get(server, "gone").status_code == 404, "end of the one whose folder has gone")


@pytest.mark.expect_errors("it is not a regular file", "request error")
def test_a_named_pipe_in_place_of_an_env_file_keeps_nobody_waiting(serve: Servers, tenants: NewTenants) -> None:
    site = tenants("alice", "mallory")
    for name in ("alice", "mallory"):
        (site.root / name / ".env").touch()
    text = site.site("env_file .env")
    server = serve(text)
    pids = {name: answered(server, name) for name in ("alice", "mallory")}
    (site.root / "mallory/.env").unlink()
    os.mkfifo(site.root / "mallory/.env")
    result = server.command("python-reload", "--address", f"127.0.0.1:{server.admin.number}")
    assert result.returncode == 1
    assert 'env_file: ".env" in working_dir' in result.stderr
    assert "it is not a regular file" in result.stderr
    assert answered(server, "mallory") == pids["mallory"], "the old worker goes on"
    assert answered(server, "alice") != pids["alice"]
    assert server.reload("respond /health 200\n" + text).returncode == 0
    assert answered(server, "alice")


@pytest.mark.parametrize("when", ["by itself", "at a reload"])
def test_a_folder_that_is_replaced_is_another_app(serve: Servers, tenants: NewTenants, when: str) -> None:
    site = tenants("alice", "bob")
    text = site.site(*["dynamic_idle_timeout 2s"] * (when == "by itself"), interface="asgi")
    server = serve(text)
    alice, bob = answered(server, "alice"), answered(server, "bob")
    # Neither becomes idle.
    with WebSocket(server, "/", host=f"bob.{DOMAIN}"), WebSocket(server, "/", host=f"alice.{DOMAIN}"):
        (site.root / "bob").rename(site.root / "former")
        site.add("bob")
        if when == "at a reload":
            assert server.reload("respond /health 200\n" + text).returncode == 0
        wait_until(lambda: answered(server, "bob") != bob, "app of the other folder")
        assert answered(server, "alice") == alice


def test_every_value_tells_apps_apart(serve: Servers, worker: Worker, tmp_path: Path) -> None:
    """A module, a variable and an env file that requests choose; global placeholders are replaced at load."""
    folder = tmp_path / "apps"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text((Path(__file__).parent / "apps/tenant_app.py").read_text())
        (folder / f"{name}.env").write_text(f"FILE=file of {name}\n")
    (folder / "linked.py").symlink_to("one.py")
    site = """
        python {
            module_wsgi "{http.request.host.labels.2}:wsgi"
            working_dir "{env.FOLDER}"
            env_file "{http.request.host.labels.2}.env"
            env_var WHO "{http.request.host.labels.2} of {env.OWNER} at {http.request.host}"
            import interpreter
        }
    """
    server = serve(site, FOLDER=str(folder), OWNER="{http.request.uri}")
    for name in ("one", "two"):
        assert get(server, name, "/?FILE").text == f"file of {name}"
        assert get(server, name, "/?WHO").text == f"{name} of {{http.request.uri}} at {name}.{DOMAIN}"
    for name in ("os", "sys", "antigravity", "three", "linked", "o-ne", "1one"):
        assert get(server, name).status_code == 404, name
    assert len(server.workers()) == 2
    assert server.get("/?WHO", headers={"Host": "one.other.test"}).text.endswith("at one.other.test")
    assert len(server.workers()) == 3, "it is another app, because it has another variable"


def test_a_virtual_environment_for_each(serve: Servers, tenants: NewTenants, worker: Worker) -> None:
    site = tenants("alice", "bob")
    for name in ("alice", "bob"):
        assert psutil.Popen([worker.python, "-m", "venv", "--without-pip", site.root / name / ".venv"]).wait() == 0
        (site.root / name / "main.py").write_text(
            "import sys\nimport tenant_app as app\napp.FOLDER = app.Path(sys.prefix)\nwsgi = app.wsgi\n"
        )
    apps = Path(__file__).parent / "apps"
    server = serve(site.site("venv .venv", f"env_var PYTHONPATH {apps}").replace("import interpreter\n", ""))
    for name in ("alice", "bob"):
        assert get(server, name).text.split()[0] == ".venv"
        [process] = [process for process in server.workers() if process.cwd().endswith(name)]
        assert process.cmdline()[0] == f"{site.root}/{name}/.venv/bin/python"


@pytest.mark.expect_errors("python app failed to start", "python app not reloaded", "SyntaxError")
def test_autoreload_of_one_tenant_leaves_the_others(serve: Servers, tenants: NewTenants) -> None:
    site = tenants("alice", "bob")
    server = serve(site.site("autoreload"))
    alice, bob = answered(server, "alice"), answered(server, "bob")
    main = site.root / "alice/main.py"
    code = main.read_text()
    main.write_text(code.replace("FOLDER.name}", "FOLDER.name}2"))
    wait_until(lambda: get(server, "alice").text.startswith("alice2 "), "new version")
    main.write_text("def broken(:\n")
    wait_until(lambda: get(server, "alice").status_code == 500, "broken version")
    assert "SyntaxError" in get(server, "alice").text
    main.write_text(code)
    wait_until(lambda: get(server, "alice").text.startswith("alice "), "version that works again")
    assert answered(server, "alice") != alice
    assert answered(server, "bob") == bob
    assert started(server).count("bob") == 1


def test_python_reload_reloads_those_that_run(serve: Servers, tenants: NewTenants) -> None:
    server = serve(tenants("alice", "bob", "carol").site())
    before = {answered(server, "alice"), answered(server, "bob")}
    result = server.command("python-reload", "main:wsgi", "--address", f"127.0.0.1:{server.admin.number}")
    assert result.returncode == 0, result.stderr
    after = {answered(server, "alice"), answered(server, "bob")}
    assert not before & after
    wait_until(lambda: server.worker_pids() == after, "end of the old workers")


@pytest.mark.expect_errors("this tenant is broken")
def test_python_reload_says_what_failed_and_what_it_has_reloaded(serve: Servers, tenants: NewTenants) -> None:
    site = tenants("alice", "bob")
    server = serve(site.site())
    alice, bob = answered(server, "alice"), answered(server, "bob")
    (site.root / "bob/broken").touch()
    result = server.command("python-reload", "--address", f"127.0.0.1:{server.admin.number}")
    assert result.returncode == 1
    assert result.stdout == f"main:wsgi reloaded from {site.root}/alice for alice\n"
    assert f"RuntimeError: this tenant is broken (working_dir {site.root}/bob, values bob)" in result.stderr
    assert answered(server, "alice") != alice
    assert answered(server, "bob") == bob
    entry = server.log.wait_for(lambda entry: entry["msg"] == "reloading a python app")
    assert (entry["values"], entry["working_dir"]) == (["bob"], f"{site.root}/bob")
    answer = server.admin_request("POST", "/python/reload")
    assert answer.status_code == 500
    assert "this tenant is broken" in answer.json()["error"]
    assert [app["values"] for app in answer.json()["reloaded"]] == [["alice"]]


def test_python_reload_follows_a_link_to_the_app(serve: Servers, tenants: NewTenants, tmp_path: Path) -> None:
    releases = tenants("one", "two")
    current = tmp_path / "current"
    current.symlink_to(releases.root / "one")
    server = serve(f"""
        python {{
            module_wsgi main:wsgi
            working_dir {current}
            env_var TENANT {{http.request.host.labels.2}}
            import interpreter
        }}
    """)
    assert get(server, "alice").text.split()[0] == "one"
    current.unlink()
    current.symlink_to(releases.root / "two")
    assert get(server, "alice").text.split()[0] == "one", "as long as nobody says so"
    assert server.command("python-reload", "--config", str(server.caddyfile)).returncode == 0
    assert get(server, "alice").text.split()[0] == "two"
    assert get(server, "alice", "/?TENANT").text == "alice"
    wait_until(lambda: len(server.workers()) == 1, "end of the old worker")


def test_what_another_handler_keeps_during_a_reload_is_answered_by_the_new_worker(
    serve: Servers, tenants: NewTenants
) -> None:
    site = tenants("alice")
    with Porter() as porter:
        server = serve(porter.directive + site.site())
        with Connection(server) as connection:
            connection.send(f"GET / HTTP/1.1\r\nHost: alice.{DOMAIN}\r\n\r\n".encode())
            porter.await_request()
            porter.let_pass()
            first = connection.response().body
        with Connection(server) as connection:
            connection.send(f"GET / HTTP/1.1\r\nHost: alice.{DOMAIN}\r\n\r\n".encode())
            porter.await_request()
            assert server.reload(porter.directive + site.site("threads 2")).returncode == 0
            server.log.wait_for(lambda entry: entry["msg"] == "python app stopped")
            porter.let_pass()
            response = connection.response()
    assert response.status == 200
    assert response.body.startswith(b"alice ")
    assert response.body != first


@pytest.mark.expect_errors("worker exited")
def test_a_worker_that_dies_is_replaced(serve: Servers, tenants: NewTenants) -> None:
    server = serve(tenants("alice").site())
    first = answered(server, "alice")
    psutil.Process(first).kill()
    wait_until(lambda: first not in server.worker_pids() and server.workers(), "new worker")
    assert answered(server, "alice") != first


@pytest.mark.expect_errors("caddy is shutting down")
def test_caddy_stops_while_an_app_starts(serve: Servers, tenants: NewTenants) -> None:
    site = tenants("alice", "bob")
    (site.root / "alice/held").touch()
    server = serve(site.site())
    answered(server, "bob")
    with Connection(server) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: alice.{DOMAIN}\r\n\r\n".encode())
        wait_until(lambda: "alice" in started(server), "start")
        stopped: list[int] = []
        stopping = threading.Thread(target=lambda: stopped.append(server.stop()))
        stopping.start()
        assert connection.response().status == 503
        stopping.join()
    assert stopped == [0]


def test_certificates_for_tenants_and_for_nobody_else(serve: Servers, tenants: NewTenants) -> None:
    site = tenants("alice", "bob")
    server = serve_tls(serve, site)
    for name in ("alice", "bob"):
        wait_until(lambda host=f"{name}.{DOMAIN}": handshake(server, host), f"certificate of {name}", 30)  # type: ignore[misc]
        with connect_tls(server, f"{name}.{DOMAIN}") as connection:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\nConnection: close\r\n\r\n".encode())
            assert f"{name} ".encode() in connection.makefile("rb").read()
    for host in (f"carol.{DOMAIN}", f"www.alice.{DOMAIN}", DOMAIN, "alice.other.test"):
        assert not handshake(server, host), host
    site.add("carol")
    wait_until(lambda: handshake(server, f"carol.{DOMAIN}"), "certificate of the new tenant", 30)
    assert {folder.name for folder in server.certificates.iterdir()} == {
        f"{name}.{DOMAIN}" for name in ("alice", "bob", "carol")
    }


def test_validate_starts_no_python(serve: Servers, tenants: NewTenants) -> None:
    server = serve.new()
    server.write_caddyfile(tenants("alice").site())
    result = server.command("validate", "--config", str(server.caddyfile))
    assert result.returncode == 0, result.stderr
