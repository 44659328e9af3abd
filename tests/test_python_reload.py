"""`caddy python-reload` and the admin API: another version takes over, and nobody notices."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.check import Servers
from support.load import Load
from support.polling import wait_until
from support.project import Project, instances, version
from support.server import Server
from support.thread_apps import handler, two_apps, write_app
from support.websocket import WebSocket
from support.worker import Worker


def reload(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`caddy python-reload`."""
    return server.command("python-reload", *arguments, "--config", str(server.caddyfile))


def test_another_version_takes_over_and_no_request_notices(serve: Servers, worker: Worker, project: Project) -> None:
    server = serve(project.site())
    old = server.worker_pids() - {server.caddy.pid}
    load = Load(server, "/")
    for number in range(2, 5):
        load.wait_for(20)
        project.write(str(number))
        result = reload(server, "version_app:app")
        assert (result.returncode, result.stdout) == (0, f"version_app:app reloaded from {project.folder}\n"), result
        assert version(server) == str(number)
    load.wait_for(20)
    load.stop()
    wait_until(lambda: not old & server.worker_pids(), "end of the old workers")
    wait_until(lambda: len(server.workers()) == worker.count(2), "end of all but the newest workers")
    assert len(instances(server)) == worker.count(2)


def test_websockets_are_closed_with_1012_at_the_end(serve: Servers, project: Project) -> None:
    server = serve(project.site("drain_timeout 2s", workers=1))
    with WebSocket(server) as socket:
        project.write("2")
        assert reload(server).returncode == 0
        socket.text("hello")
        assert socket.message() == "1 hello"
        assert socket.end() == (1012, "")
    with WebSocket(server) as socket:
        socket.text("hello")
        assert socket.message() == "2 hello"


def test_an_app_that_went_and_came_back_while_it_drained(serve: Servers, project: Project) -> None:
    site = project.site("drain_timeout 2s", workers=1)
    server = serve(site)
    assert reload(server).returncode == 0
    with WebSocket(server) as socket:  # keeps the workers from ending
        assert server.reload("respond gone").returncode == 0
        assert server.reload(site).returncode == 0
        assert version(server) == "1"
        assert socket.end() == (1012, "")
    ended = "python app stopped"
    wait_until(lambda: [entry["msg"] for entry in server.log.entries()].count(ended) == 2, "end of the old workers")
    project.write("2")
    assert reload(server).returncode == 0
    assert version(server) == "2"


@pytest.mark.expect_errors("failed to start", "reloading a python app", "request error")
def test_a_version_that_does_not_start_leaves_the_old_one(serve: Servers, project: Project) -> None:
    server = serve(project.site())
    before = instances(server)
    project.module.write_text("raise RuntimeError('<broken>')\n")
    result = reload(server, "version_app:app")
    assert result.returncode == 1
    assert f"RuntimeError: <broken> (working_dir {project.folder})" in result.stderr
    assert "HTTP 500" not in result.stderr
    assert instances(server) == before
    project.write("2")
    assert reload(server).returncode == 0
    assert version(server) == "2"


@pytest.mark.expect_errors("request error", "reloading a python app")
def test_a_link_is_followed_to_where_it_points_now(serve: Servers, tmp_path: Path) -> None:
    releases = [Project(tmp_path / f"release-{number}", str(number)) for number in (1, 2, 3)]
    current = tmp_path / "current"

    def switch(release: Project) -> None:
        new = tmp_path / "new"
        new.symlink_to(release.folder)
        new.rename(current)

    switch(releases[0])
    site = releases[0].site().replace(str(releases[0].folder), str(current))
    server = serve(site)
    assert version(server) == "1"
    switch(releases[1])
    assert server.reload(site).returncode == 0
    assert version(server) == "1", "the configuration is the same, so Caddy has not loaded it"
    assert reload(server).returncode == 0
    answer = server.get("/").json()
    assert (answer["version"], answer["cwd"]) == ("2", str(releases[1].folder))
    before = instances(server)
    with_health = "respond /health 200\n" + site
    assert server.reload(with_health).returncode == 0
    assert instances(server) == before, "the new workers are those of this configuration too"
    switch(releases[2])
    assert server.reload(with_health, force=True).returncode == 0
    assert version(server) == "3"
    current.unlink()
    result = reload(server)
    assert result.returncode == 1
    assert f'working_dir: "{current}": no such file or directory; give the folder that the app is in' in result.stderr
    assert version(server) == "3"


def test_a_configuration_that_is_loaded_during_a_slow_reload_serves_at_once(serve: Servers, tmp_path: Path) -> None:
    for name in ("slow", "fast"):
        write_app(tmp_path / name, name, "1")
    sites = two_apps(handler("slow", tmp_path / "slow"), handler("fast", tmp_path / "fast"))
    server = serve("respond /number 1\n" + sites)
    gate = tmp_path / "gate"
    for name in ("slow", "fast"):
        write_app(tmp_path / name, name, "2")
    with (tmp_path / "slow/slow.py").open("a") as module:
        module.write(f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists():\n    time.sleep(0.005)\n")
    with ThreadPoolExecutor() as pool:
        try:
            reloading = pool.submit(reload, server, "slow:app")
            server.log.wait_for(lambda entry: entry.get("line") == "this is 2")
            since = server.log.position()
            loading = pool.submit(server.reload, "respond /number 2\n" + sites)
            server.log.wait_for(lambda entry: entry.get("uri") == "/load", since)
            # Each connection is accepted by the old configuration or the new one, as the system likes.
            with server.new_client(timeout=5, headers={"Connection": "close"}) as client:
                for _ in range(100):
                    assert [client.get(path).text for path in ("/first/", "/second/")] == ["1", "1"]
            assert not loading.done()
        finally:
            gate.touch()
        assert reloading.result().returncode == 0
        assert loading.result().returncode == 0
    assert server.get("/number").text == "2"
    assert {server.get("/first/").text for _ in range(20)} == {"2"}
    assert {server.get("/second/").text for _ in range(20)} == {"1"}, "nobody has reloaded it"


@pytest.mark.expect_errors("request error")
def test_the_admin_api(serve: Servers, worker: Worker, project: Project) -> None:
    server = serve(project.site("max_requests 1000"))
    with WebSocket(server):
        for _ in range(4):
            server.get("/")
        [app] = server.admin_request("GET", "/python/").json()
    workers = app.pop("workers")
    assert app == {
        "app": "version_app:app",
        "interface": "asgi",
        "workers_runtime": worker.runtime,
        "working_dir": str(project.folder),
        "waiting": 0,
    }
    assert [entry["worker"] for entry in workers] == list(range(1, worker.count(2) + 1))
    assert {entry["pid"] for entry in workers} == server.worker_pids()
    assert {entry["state"] for entry in workers} == {"ready"}
    assert sum(entry["requests"] for entry in workers) == 5
    assert (sum(entry["open"] for entry in workers), sum(entry["websockets"] for entry in workers)) == (0, 1)

    answer = server.admin_request("POST", "/python/reload", params={"app": "version_app:app"})
    assert (answer.status_code, answer.json()[0]["app"]) == (200, "version_app:app")
    assert answer.json()[0]["workers"][0]["requests"] == 0

    unknown = server.admin_request("POST", "/python/reload", params={"app": "main:app"})
    assert unknown.status_code == 404
    assert unknown.json() == {"error": 'there is no python app "main:app"; there are version_app:app'}
    assert server.admin_request("GET", "/python/reload").status_code == 405
    assert server.admin_request("POST", "/python/").status_code == 405
    assert server.admin_request("GET", "/python/none").status_code == 404


def test_an_app_that_is_not_there(serve: Servers, project: Project) -> None:
    server = serve.new()
    result = server.command("python-reload", "--address", f"127.0.0.1:{server.admin.number}")
    assert result.returncode == 1
    assert "connection refused" in result.stderr
