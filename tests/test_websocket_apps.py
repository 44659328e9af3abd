"""Apps that live on WebSockets, from PyPI and unmodified, with real clients.

Starlette, FastAPI and Django Channels each serve the same chat in its own manner (apps/*_chat_app.py). What no proper
client would send is in conformance/test_websocket.py.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import socketio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websocket
from websockets.typing import Subprotocol

from support.browser import Browser
from support.check import Servers
from support.server import Server


def site(app: str) -> str:
    """The app at /, and mounted."""
    python = f"python {{\nmodule_asgi {app}\nworkers 1\nimport worker\n}}\n"
    return f"handle_path /mounted/* {{\n{python}}}\n{python}"


@dataclass
class Chat:
    """The chat, where one framework serves it."""

    server: Server
    framework: str
    mount: str
    connections: ExitStack = field(default_factory=ExitStack)

    def connect(
        self, path: str, name: str | None = None, *, origin: str | None = None, **options: Any
    ) -> ClientConnection:
        """A WebSocket; its handshake has the cookie of who has logged in as `name`."""
        headers = {"Origin": origin or self.server.url}
        if name is not None:
            with self.server.new_client() as client:
                assert client.get(f"{self.mount}/login/{name}").status_code == 200
                headers["Cookie"] = "; ".join(f"{key}={value}" for key, value in client.cookies.items())
        connection: ClientConnection = websocket(self.url + path, additional_headers=headers, proxy=None, **options)
        return self.connections.enter_context(connection)

    def enter(self, room: str, name: str) -> ClientConnection:
        """A WebSocket of somebody in a room."""
        connection = self.connect(f"/rooms/{room}", name)
        assert received(connection) == {"url": f"{self.url}/rooms/{room}"}
        return connection

    @property
    def url(self) -> str:
        """The WebSocket URL where the app is."""
        return self.server.url.replace("http", "ws") + self.mount


def received(connection: ClientConnection) -> Any:
    return json.loads(connection.recv(15))


def end(connection: ClientConnection) -> tuple[int, str]:
    """The code and reason with which the server closes."""
    with pytest.raises(ConnectionClosed) as ended:
        connection.recv(15)
    assert ended.value.rcvd is not None, ended.value
    return ended.value.rcvd.code, ended.value.rcvd.reason


@pytest.fixture(scope="module", params=["channels", "fastapi", "starlette"])
def server(serve_shared: Servers, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = serve_shared(site(f"{request.param}_chat_app:app"))
    # An app's first WebSocket opens what stays open, such as a thread's event loop.
    for mount in ("", "/mounted"):
        with Chat(server, request.param, mount).connect("/echo") as connection:
            connection.send(b"first")
            assert connection.recv(15) == b"first"
    serve_shared.warm_up(server, "/login/ada", "/mounted/login/ada")
    yield server
    serve_shared.close()


@pytest.fixture(params=["", "/mounted"], ids=["root", "mounted"])
def chat(server: Server, request: pytest.FixtureRequest) -> Iterator[Chat]:
    chat = Chat(server, request.node.callspec.params["server"], request.param)
    with chat.connections:
        yield chat


def test_what_one_says_reaches_the_room_and_no_other(chat: Chat) -> None:
    ada, zoe, eve = chat.enter("tea", "ada"), chat.enter("tea", "zoe"), chat.enter("coffee", "eve")
    ada.send(json.dumps({"text": "Grüße, 世界"}))
    for connection in (ada, zoe):
        assert received(connection) == {"name": "ada", "text": "Grüße, 世界"}
    eve.send(json.dumps({"text": "alone"}))
    assert received(eve) == {"name": "eve", "text": "alone"}


def test_the_others_learn_with_which_code_one_left(chat: Chat) -> None:
    ada, zoe = chat.enter("tea", "ada"), chat.enter("tea", "zoe")
    zoe.close(4001, "enough")
    assert received(ada) == {"left": "zoe", "code": 4001}


def test_the_app_closes_with_a_code_and_a_reason(chat: Chat) -> None:
    ada, zoe = chat.enter("tea", "ada"), chat.enter("tea", "zoe")
    ada.send(json.dumps({"text": "/quit"}))
    assert end(ada) == (4000, "good bye")
    assert received(zoe) == {"left": "ada", "code": 4000}


def test_who_has_not_logged_in_is_rejected(chat: Chat) -> None:
    with pytest.raises(InvalidStatus) as rejected:
        chat.connect("/rooms/tea")
    response = rejected.value.response
    if chat.framework == "channels":
        assert response.status_code == 403
    else:  # these use the denial response of ASGI
        assert (response.status_code, response.headers["content-type"]) == (401, "application/json")
        assert json.loads(response.body) == {"detail": "log in first"}


@pytest.mark.parametrize("server", ["channels"], indirect=True)
def test_channels_rejects_another_origin(chat: Chat) -> None:
    with pytest.raises(InvalidStatus) as rejected:
        chat.connect("/echo", origin="http://elsewhere.test")
    assert rejected.value.response.status_code == 403


def test_subprotocol(chat: Chat) -> None:
    offered = [Subprotocol("echo.v1"), Subprotocol("echo.v2")]
    assert chat.connect("/echo", subprotocols=offered).subprotocol == "echo.v2"
    assert chat.connect("/echo", subprotocols=offered[:1]).subprotocol is None


@pytest.mark.parametrize("size", [0, 1, 100_000, 900_000])
def test_binary_echo(chat: Chat, size: int) -> None:
    connection = chat.connect("/echo")
    data = os.urandom(size)
    for _ in range(3):
        connection.send(data)
        assert connection.recv(15) == data


def test_many_messages_keep_their_order(chat: Chat) -> None:
    connection = chat.connect("/echo")
    sent = [b"%d" % number for number in range(1000)]
    for message in sent:
        connection.send(message)
    assert [connection.recv(15) for _ in sent] == sent


@pytest.mark.expect_errors("a bug in the app")
def test_error(chat: Chat) -> None:
    since = chat.server.log.position()
    assert end(chat.connect("/error")) == (1011, "")
    chat.server.log.wait_for(lambda entry: entry.get("error") == "RuntimeError: a bug in the app", since)


@pytest.mark.parametrize("server", ["fastapi"], indirect=True)
def test_fastapi_checks_parameters_and_turns_its_exception_into_a_close(chat: Chat) -> None:
    connection = chat.connect("/half/42")
    assert received(connection) == 21
    assert end(connection) == (1000, "")
    assert end(chat.connect("/half/7")) == (1008, "odd")
    with pytest.raises(InvalidStatus) as rejected:
        chat.connect("/half/seven")
    assert rejected.value.response.status_code == 403


# python-socketio; its client is one of requests and websocket-client.

client_leaks = pytest.mark.filterwarnings("default::ResourceWarning")  # of its client's connections


class Talk:
    """python-socketio's server, and the clients that one test has."""

    def __init__(self, server: Server, connections: ExitStack) -> None:
        self.server = server
        self._connections = connections

    def connect(self, **options: Any) -> socketio.SimpleClient:
        """A client that has been welcomed."""
        client = self._connections.enter_context(socketio.SimpleClient())
        client.connect(self.server.url, **options)
        assert client.receive(15) == ["welcome", {"path": "/socket.io/"}]
        return client


@pytest.fixture
def talk(serve: Servers) -> Iterator[Talk]:
    server = serve("python {\nmodule_asgi socketio_app:app\nworkers 1\nimport worker\n}")
    with ExitStack() as connections:
        yield Talk(server, connections)


@client_leaks
@pytest.mark.parametrize("transports", [["websocket"], ["polling"], None], ids=["websocket", "polling", "upgrade"])
def test_socketio_events_acknowledgements_and_background_tasks(talk: Talk, transports: list[str] | None) -> None:
    client = talk.connect(transports=transports)
    assert client.transport == (transports or ["websocket"])[0]
    assert client.call("double", 21, 15) == 42
    assert client.call("binary", bytes(range(256)) * 100, 15) == bytes(range(256))[::-1] * 100
    client.emit("count", 10)  # a client that polls takes 16 packets at once, and fails on more
    # In any order: this client handles each message in a thread of its own.
    assert sorted(client.receive(15) for _ in range(10)) == [["counted", value] for value in range(10)]


@client_leaks
def test_socketio_rooms_and_disconnects(talk: Talk) -> None:
    clients = [talk.connect(transports=["websocket"]) for _ in range(10)]
    for number, client in enumerate(clients):
        client.call("join", f"room {number % 2}", 15)
    clients[0].emit("say", ("room 1", "hello"))
    assert [client.receive(15) for client in clients[1::2]] == [["said", "hello"]] * 5
    clients.pop().disconnect()
    for client in clients:
        # The client's last packets race with its own close.
        assert client.receive(15) in (["left", "client disconnect"], ["left", "transport close"])


@client_leaks
def test_socketio_server_asks_its_client(talk: Talk) -> None:
    client = talk.connect(transports=["websocket"])
    client.client.on("question", lambda: "an answer")
    client.emit("call_me")
    assert client.receive(15) == ["called", "an answer"]


@client_leaks
def test_socketio_refuses_a_client(talk: Talk) -> None:
    client, reasons = socketio.Client(), list[Any]()
    client.on("connect_error", reasons.append)
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(talk.server.url, auth={"password": "guess"}, transports=["websocket"])
    assert reasons == [{"message": "wrong password"}]
    assert talk.connect(auth={"password": "secret"}, transports=["websocket"]).call("double", 4, 15) == 8


# NiceGUI in a real browser.


def test_nicegui_in_chromium(browser: Browser, serve: Servers, tmp_path: Path) -> None:
    server = serve(
        "python {\nmodule_asgi nicegui_app:app\nlifespan on\nworkers 1\nimport worker\n"
        f"env_var NICEGUI_STORAGE_PATH {tmp_path / 'storage'}\n}}"
    )
    pages = [browser.open(server.url) for _ in range(2)]
    for page in pages:
        page.wait_for("window.did_handshake")
    for writer, text in zip(pages, ("Grüße, 世界", "and back"), strict=True):
        writer.type(".say input", text)
        writer.click(".send")
        for page in pages:
            page.wait_for(f"[...document.querySelectorAll('.said')].at(-1)?.innerText == {json.dumps(text)}")
    for page in pages:
        [socket] = page.seen("Network.webSocketCreated")
        assert socket["url"].startswith(server.url.replace("http", "ws") + "/_nicegui_ws/")
        [handshake] = page.seen("Network.webSocketHandshakeResponseReceived")
        assert handshake["response"]["status"] == 101
        frames = [event["response"]["payloadData"] for event in page.seen("Network.webSocketFrameReceived")]
        assert any("and back" in frame for frame in frames)
        assert not page.seen("Network.webSocketFrameError")
        assert not page.seen("Runtime.exceptionThrown")
