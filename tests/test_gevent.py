"""`runtime gevent`: real gevent for WSGI apps.

What a request may do is in conformance/test_wsgi.py, how many may wait in test_waiting.py.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import socketio

from support.check import Servers
from support.server import Server
from support.worker import APPS, Worker


def site(app: str) -> str:
    return f"python {{\nmodule_wsgi {app}\nruntime gevent\nworkers 1\nimport worker\n}}"


@pytest.mark.expect_errors("")
def test_missing_gevent_names_the_venv_and_how_to_install_it(serve: Servers, worker: Worker, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([worker.python, "-m", "venv", "--without-pip", venv], check=True)
    server = serve.new()
    server.write_caddyfile(
        f"python {{\nmodule_wsgi waiting_app:wsgi\nruntime gevent\nvenv {venv}\nworking_dir {APPS}\nworkers 1\n}}"
    )
    server.launch("run", "--config", str(server.caddyfile))
    assert server.wait_exit() == 1
    said = server.log.path.read_text()
    assert f"runtime gevent: gevent is not installed in {venv} (No module named 'gevent')" in said
    assert f"install it with `{venv}/bin/python -m pip install gevent`" in said


# python-socketio, unmodified. PEP 3333 has no WebSockets: its clients try one, and stay with long polling.

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")  # of its client's connections


@pytest.fixture
def chat(serve: Servers) -> Server:
    return serve(site("socketio_gevent_app:app"))


@pytest.fixture
def connected() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(stack: ExitStack, server: Server, **options: Any) -> socketio.SimpleClient:
    client = stack.enter_context(socketio.SimpleClient())
    client.connect(server.url, **options)
    assert client.receive(10) == ["welcome", {"path": "/socket.io/"}]
    return client


@pytest.mark.expect_errors("Cannot obtain socket from WSGI environment")
def test_socketio_events_acknowledgements_and_background_tasks(chat: Server, connected: ExitStack) -> None:
    client = connect(connected, chat)
    assert client.call("double", 21, 10) == 42
    assert client.call("binary", bytes(range(256)) * 100, 10) == bytes(range(256))[::-1] * 100
    client.emit("count", 10)  # a client that polls takes 16 packets at once, and fails on more
    # In any order: this client handles each message in a thread of its own.
    assert sorted(client.receive(10) for _ in range(10)) == [["counted", value] for value in range(10)]
    assert client.transport == "polling"


def test_socketio_clients_that_poll_wait_beside_one_another(chat: Server, connected: ExitStack) -> None:
    """More of them than a WSGI worker has threads: each holds a request open all the time."""
    clients = [connect(connected, chat, transports=["polling"]) for _ in range(30)]
    for number, client in enumerate(clients):
        client.call("join", f"room {number % 2}", 10)
    clients[0].emit("say", ("room 1", "hello"))
    assert [client.receive(10) for client in clients[1::2]] == [["said", "hello"]] * 15
    # A client's own disconnect() drops what it has not sent while its last POST is under way, and nobody hears of it.
    clients.pop().emit("leave")
    assert [client.receive(10) for client in clients] == [["left", "server disconnect"]] * 29
