"""`caddy python-server`: each flag, a failed start, the end by Ctrl-C."""

import re
import signal
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.check import Servers
from support.polling import wait_until
from support.server import Server
from support.worker import APPS, Worker

FLASK = ("--server-type", "wsgi", "--app", "flask_app:app")
FASTAPI = ("--server-type", "asgi", "--app", "fastapi_app:app")
WORKER_APP = ("--server-type", "wsgi", "--app", "worker_app:app", "--workers", "1")


def launch(servers: Servers, *arguments: str, **env: str) -> Server:
    """Run `caddy python-server` with these arguments, the suite's worker and tests/apps; do not wait for it."""
    server = servers.new(**env)
    worker = server.worker
    listen = ("--listen", f"127.0.0.1:{server.port.number}")
    common = (*listen, "--python-path", str(worker.python), "--workers-runtime", worker.runtime)
    server.launch("python-server", *common, "--working-dir", str(APPS), *arguments)
    return server


def run(servers: Servers, *arguments: str, **env: str) -> Server:
    """`launch`, and wait until requests are answered."""
    server = launch(servers, *arguments, **env)
    server.wait_accepting(server.port)
    return server


def process(server: Server) -> dict[str, Any]:
    """What worker_app says about its process."""
    answer: dict[str, Any] = server.get("/process").json()
    return answer


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """A folder of static files."""
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "site.css").write_text("body { color: teal }\n" * 100)
    return folder


@pytest.mark.parametrize("app", [FLASK, FASTAPI], ids=["flask", "fastapi"])
def test_app_with_static_files(serve: Servers, static: Path, app: tuple[str, ...]) -> None:
    server = run(serve, *app, "--static-path", str(static))
    assert "Hello from" in server.get("/").text
    assert server.get("/items/7?color=red").json() == {"id": 7, "color": "red"}
    response = server.get("/static/site.css")
    assert response.text == (static / "site.css").read_text()
    assert response.headers["content-type"].startswith("text/css")
    assert server.get("/static/missing.css").status_code == 404


def test_static_route(serve: Servers, static: Path) -> None:
    server = run(serve, *FLASK, "--static-path", str(static), "--static-route", "/assets")
    assert server.get("/assets/site.css").status_code == 200
    assert server.get("/static/site.css").status_code == 404, "this path is the app's"


def test_default_listen_address(serve: Servers) -> None:
    help_text = serve.new().command("python-server", "--help").stdout
    assert re.search(r'--listen address .*\(default ":9080"\)', help_text), help_text


def test_help_names_every_flag(serve: Servers) -> None:
    result = serve.new().command("python-server", "--help")
    assert result.returncode == 0
    flags = re.findall(r"^ +(?:-\w, )?--([\w-]+)", result.stdout, re.MULTILINE)
    wanted = (
        "server-type app domain listen workers workers-runtime threads python-path working-dir venv static-path "
        "static-route debug access-logs lifespan runtime start-timeout admin"
    )
    assert set(wanted.split()) <= set(flags)


def test_workers(serve: Servers) -> None:
    server = run(serve, *FLASK, "--workers", "3")
    server.get("/")
    assert len(server.workers()) == 3


def test_threads(serve: Servers) -> None:
    one = run(serve, *WORKER_APP, "--threads", "1")
    five = run(serve, *WORKER_APP, "--threads", "5")
    assert process(one)["pid"] != process(five)["pid"]  # now it is the workers that are Caddy's only children
    [few], [many] = one.workers(), five.workers()
    # A worker is ready before the last of its threads has started.
    wait_until(lambda: many.num_threads() - few.num_threads() == 4, "worker with four threads more")


def test_python_path_and_working_dir(serve: Servers, worker: Worker) -> None:
    seen = process(run(serve, *WORKER_APP))
    assert seen["executable"] == str(worker.python)
    assert seen["cwd"] == str(APPS)


def test_venv(serve: Servers, worker: Worker, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([worker.python, "-m", "venv", "--without-pip", venv], check=True)
    server = serve.new()
    listen = f"127.0.0.1:{server.port.number}"
    server.launch("python-server", *WORKER_APP, "--listen", listen, "--working-dir", str(APPS), "--venv", str(venv))
    server.wait_accepting(server.port)
    assert process(server)["prefix"] == str(venv)


def test_lifespan(serve: Servers) -> None:
    app = ("--server-type", "asgi", "--app", "lifespan_app:app", "--workers", "1")
    server = run(serve, *app, "--lifespan", "on")
    assert server.get("/").text == "open"
    assert server.stop() == 0
    assert "connection closed" in server.log.output("stdout")


@pytest.mark.expect_errors("AttributeError")
def test_lifespan_is_off_by_default(serve: Servers) -> None:
    server = run(serve, "--server-type", "asgi", "--app", "lifespan_app:app", STARTUP_FAILS="if it ran")
    assert server.get("/").status_code == 500, "the app needs what its lifespan opens"


@pytest.mark.parametrize(("runtime", "loop"), [("native", "asyncio"), ("uvloop", "uvloop")])
def test_runtime(serve: Servers, runtime: str, loop: str) -> None:
    server = run(serve, "--server-type", "asgi", "--app", "lifespan_app:app", "--runtime", runtime, "--workers", "1")
    assert server.get("/loop").text.startswith(loop)


@pytest.mark.expect_errors("did not start within")
def test_start_timeout(serve: Servers) -> None:
    server = launch(serve, "--server-type", "wsgi", "--app", "slow_start:app", "--start-timeout", "300ms")
    assert server.wait_exit() == 1
    assert "did not start within 300ms" in server.log.tail()


@pytest.mark.parametrize("wanted", ["by default", "off", "on"])
def test_admin(serve: Servers, wanted: str) -> None:
    server = serve.new()
    address = f"127.0.0.1:{server.admin.number}" if wanted == "on" else "off"
    flags = ["--admin", address] if wanted != "by default" else []
    common = ("--listen", f"127.0.0.1:{server.port.number}", "--python-path", str(server.worker.python))
    server.launch("python-server", *common, "--working-dir", str(APPS), *WORKER_APP, *flags)
    server.wait_accepting(server.port)
    process(server)
    connections = server.caddy.net_connections()
    listening = {connection.laddr.port for connection in connections if connection.status == "LISTEN"}
    if wanted == "on":
        assert listening == {server.port.number, server.admin.number}
        assert "http" in server.admin_request("GET", "/config/").json()["apps"]
    else:
        assert listening == {server.port.number}, "nothing else listens"


def test_access_logs(serve: Servers) -> None:
    server = run(serve, *FLASK, "--access-logs")
    server.get("/items/7")
    entry = server.log.wait_for(lambda entry: entry.get("logger", "").startswith("http.log.access"))
    assert (entry["request"]["uri"], entry["status"]) == ("/items/7", 200)


def test_debug(serve: Servers) -> None:
    server = run(serve, *FLASK, "--debug")
    server.log.wait_for(lambda entry: entry["level"] == "debug")


def test_quiet_by_default(serve: Servers) -> None:
    server = run(serve, *FLASK)
    server.get("/items/7")
    assert server.stop() == 0
    entries = server.log.entries()
    assert not [entry for entry in entries if entry["level"] == "debug" or "access" in entry.get("logger", "")]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "--server-type and --app are required"),
        (("--server-type", "cgi", "--app", "flask_app:app"), '--server-type: "cgi" is unknown; use wsgi, asgi or esgi'),
        (("--server-type", "wsgi", "--app", "flask_app"), '--app: "flask_app" is not module:variable'),
        ((*FLASK, "--workers", "many"), '--workers: "many" is not possible'),
        ((*FLASK, "--threads", "-1"), "--threads: -1 is not possible"),
        ((*FLASK, "--domain", "https://example.com"), '--domain: "https://example.com" is not a host name'),
        ((*FLASK, "--autoreload", "browser"), 'unexpected argument "browser"; write --autoreload=browser'),
        ((*FASTAPI, "--runtime", "gevent"), '--runtime: "gevent" does not run ASGI apps'),
        ((*FASTAPI, "--lifespan", "maybe"), '--lifespan: "maybe" is unknown; use on, off or auto'),
        ((*FLASK, "--start-timeout", "soon"), '--start-timeout: "soon" is not possible'),
        ((*FLASK, "--static-path", "/no/such/folder"), '--static-path: "/no/such/folder"'),
        ((*FLASK, "--venv", "/no/such/venv"), '--venv: "/no/such/venv"'),
        ((*FLASK, "--working-dir", "/no/such/folder"), '--working-dir: "/no/such/folder"'),
        (("--server-type", "wsgi", "--app", "flask_app:nothing"), "Error: --app 'flask_app:nothing': "),
        (("--server-type", "asgi", "--app", "flask_app:app"), " is a WSGI app: use --server-type wsgi"),
        (("--server-type", "wsgi", "--app", "flask_ap:app"), "(change --app or --working-dir)"),
    ],
)
@pytest.mark.expect_errors("")
def test_failed_start_is_one_readable_reason(serve: Servers, arguments: tuple[str, ...], reason: str) -> None:
    server = serve.new()
    common = ("--listen", f"127.0.0.1:{server.port.number}", "--python-path", str(server.worker.python))
    working_dir = () if "--working-dir" in arguments else ("--working-dir", str(APPS))
    server.launch("python-server", *common, *working_dir, *arguments)
    assert server.wait_exit() == 1
    assert [entry for entry in server.log.errors() if reason in entry["msg"]], server.log.tail()


def test_ctrl_c_ends_gracefully(serve: Servers) -> None:
    server = run(serve, *FLASK)
    server.get("/")
    server.caddy.send_signal(signal.SIGINT)
    assert server.wait_exit() == 0
    wait_until(lambda: not server.processes(), "end of the workers")


@pytest.mark.expect_errors("root certificate")
def test_domain_is_served_over_https(serve: Servers, worker: Worker, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind(("", 80))
        except OSError as error:
            pytest.skip(f"Caddy redirects from port 80, which this user cannot bind: {error}")
    # For localhost Caddy issues the certificate itself. With no commands on PATH, it cannot make the system trust it.
    empty = tmp_path / "no-commands"
    empty.mkdir()
    server = run(serve, *FLASK, "--domain", "localhost", PATH=str(empty))
    root = server.folder / "home/data/caddy/pki/authorities/local/root.crt"
    wait_until(root.exists, "root certificate")
    context = ssl.create_default_context(cafile=str(root))
    url = f"https://localhost:{server.port.number}"
    with httpx.Client(base_url=url, verify=context, trust_env=False) as client:

        def answered() -> bool:
            try:
                return client.get("/").status_code == 200
            except httpx.ConnectError:
                return False  # the certificate is not there yet

        wait_until(answered, "answer over HTTPS")
        assert client.get("/links").json()["item"] == f"{url}/items/7", "the app knows that it is HTTPS"
        redirect = httpx.get("http://localhost/items/7", trust_env=False)
        assert redirect.status_code == 308
        assert redirect.headers["location"].startswith("https://localhost")
