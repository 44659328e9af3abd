"""The examples, from their own Caddyfiles."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from run_examples import EXAMPLES, prepare_django
from support.check import Servers
from support.server import Server, isolated_environment
from support.websocket import WebSocket
from support.worker import Worker


def run(server: Server, example: str) -> None:
    """Run `caddy run` in a copy of an example's folder, on the server's port instead of 9080."""
    caddyfile = server.folder / "Caddyfile"
    made_by_hand = shutil.ignore_patterns(".venv", "data")
    shutil.copytree(EXAMPLES / example, server.folder, ignore=made_by_hand, dirs_exist_ok=True)
    caddyfile.write_text(caddyfile.read_text().replace("http://localhost:9080", f"http://:{server.port.number}"))
    server.launch("run")
    server.wait_accepting(server.port)


def prepare(worker: Worker, folder: Path, data: Path) -> None:
    """What the comment in Django's Caddyfile says."""
    env = isolated_environment(folder) | {"DATA": str(data), "DJANGO_SUPERUSER_PASSWORD": "demo"}
    prepare_django(worker.python, env)


@pytest.fixture(scope="module")
def all_three(serve_shared: Servers, worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What `make run` serves."""
    data = tmp_path_factory.mktemp("data")
    prepare(worker, data, data)
    server = serve_shared.new(VENV=str(worker.venv), DATA=str(data))
    run(server, ".")
    serve_shared.warm_up(server, "/", "/api/products", "/django/")
    yield server
    serve_shared.close()


def test_guest_book(all_three: Server) -> None:
    assert "Nobody has signed yet" in all_three.get("/").text
    response = all_three.post("/sign", data={"name": "<Zoë>"}, follow_redirects=True)
    assert "&lt;Zoë&gt;" in response.text


def test_price_list(all_three: Server) -> None:
    assert all_three.get("/api").headers["location"] == "/api/docs"
    assert "'/api/openapi.json'" in all_three.get("/api/docs").text
    assert all_three.get("/api/total", params={"number": 1, "count": 3}).json() == {"cents": 1050}
    assert all_three.get("/api/products/9").status_code == 404


def test_library(all_three: Server) -> None:
    assert "Middlemarch" in all_three.get("/django", follow_redirects=True).text
    assert all_three.get("/django/static/admin/css/base.css").status_code == 200
    login = all_three.get("/django/admin/login/")
    fields = {
        "username": "demo",
        "password": "demo",
        "next": "/django/admin/",
        "csrfmiddlewaretoken": login.text.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0],
    }
    page = all_three.post("/django/admin/login/", data=fields, follow_redirects=True)
    assert "Books" in page.text


@pytest.mark.parametrize(
    ("example", "text"), [("flask", "Guest book"), ("fastapi", "Tea"), ("django", "Walden"), ("esgi", "Chat room")]
)
def test_each_by_itself(serve: Servers, worker: Worker, example: str, text: str) -> None:
    server = serve.new()
    (server.folder / ".venv").symlink_to(worker.venv)
    if example == "django":
        prepare(worker, server.folder, server.folder / "data")
    run(server, example)
    assert text in server.get("/products" if example == "fastapi" else "/").text


def test_chat_room(serve: Servers, worker: Worker) -> None:
    server = serve.new()
    (server.folder / ".venv").symlink_to(worker.venv)
    run(server, "esgi")
    with WebSocket(server, "/room") as ada, WebSocket(server, "/room") as zoe:
        for line in ("Is anybody here?", "Zoë <3"):
            zoe.text(line)
            assert [ada.message(), zoe.message()] == [line.replace("<", "&lt;")] * 2
        zoe.close()
        ada.text("Goodbye")
        assert ada.message() == "Goodbye"
    assert server.get("/elsewhere").status_code == 404
