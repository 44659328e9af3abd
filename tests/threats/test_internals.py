"""Threat 9: internals of the server are visible to the app.

What Caddy and a worker tell each other travels in frames alone, over a socket that no other process has.
"""

import os
import signal
from contextlib import suppress

import psutil
import pytest

from support.check import Servers
from support.polling import wait_until
from support.raw import Connection
from support.server import Server

# PEP 3333 and what the README says of the environ, beside HTTP_* of the request's own headers.
ENVIRON = {
    *("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "SERVER_NAME", "SERVER_PORT"),
    *("SERVER_PROTOCOL", "SERVER_SOFTWARE", "REMOTE_ADDR", "REMOTE_PORT", "CONTENT_TYPE", "CONTENT_LENGTH"),
    *("wsgi.url_scheme", "HTTP_HOST", "HTTP_X_NAME"),
}
# ASGI 3.0, HTTP 2.5.
SCOPE = {
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers"),
    *("client", "server", "extensions", "state"),
}
# docs/esgi.md.
ESGI_SCOPE = {
    *("proto", "esgi_version", "http_version", "server", "client", "scheme", "method", "path", "query_string"),
    *("headers", "authority"),
}
ALLOWED = {"wsgi": ENVIRON, "asgi": SCOPE, "esgi": ESGI_SCOPE}


@pytest.fixture(params=ALLOWED)
def interface(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def server(serve: Servers, interface: str) -> Server:
    """Two apps of two workers each, told apart by a variable; so only one can be in threads."""
    app = f"module_{interface} threat_app:{interface}\nworkers 2\n"
    other, secret = "import process\nenv_var OTHER other", "import worker\nenv_var SECRET secret"
    return serve(f"python /other/* {{\n{app}{other}\n}}\npython {{\n{app}{secret}\n}}")


def test_threat_9_an_app_is_told_nothing_but_what_its_interface_says(server: Server, interface: str) -> None:
    with Connection(server) as client:
        client.send(
            b"POST / HTTP/1.1\r\nHost: test\r\nX-Name: v\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\n."
        )
        told = client.response().json()
    assert told.keys() <= ALLOWED[interface]
    assert len(told) >= len(ALLOWED[interface]) - 1, "state is there with lifespan only"


def test_threat_9_an_apps_process_shows_nothing_of_the_server(server: Server) -> None:
    process = server.get("/process").json()
    assert process["argv"] == process["argv"][:1], "no arguments that are not the app's"
    inherited = server.caddy.environ()
    process["environ"].pop("LC_CTYPE", None)  # Python's own, where no locale is set (PEP 538)
    assert process["environ"] == inherited | {"SECRET": "secret", "PYTHONUNBUFFERED": "1"}


def pipes_and_sockets(process: psutil.Process) -> dict[int, str]:
    """The descriptors of a process that lead to another one: their numbers and what they are."""
    folder = f"/proc/{process.pid}/fd"
    links = {}
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):  # it has been closed since
            links[int(name)] = os.readlink(f"{folder}/{name}")
    return {number: link for number, link in links.items() if link.startswith(("socket:", "pipe:"))}


@pytest.mark.expect_errors("worker exited")
def test_threat_9_a_worker_has_no_descriptor_of_another_or_of_caddy(server: Server) -> None:
    with Connection(server) as client:
        assert client.get(b"/").status == 200
        # One that is started while everything else is open.
        victim = server.workers()[0]
        victim.send_signal(signal.SIGKILL)
        wait_until(lambda: victim.pid not in server.worker_pids() and len(server.workers()) == 4, "new worker")
        wait_until(lambda: server.get("/").status_code == server.get("/other/").status_code == 200, "answers of both")
        caddy = pipes_and_sockets(server.caddy)
        held = {process.pid: pipes_and_sockets(process) for process in server.workers()}
    assert len(held) == 4
    for pid, own in held.items():
        assert own[3].startswith("socket:"), "its connection to Caddy"
        assert {number for number, link in own.items() if link in caddy.values()} == {1, 2}, "the ends of its output"
        others = {link for other, links in held.items() if other != pid for link in links.values()}
        assert not others & set(own.values())
