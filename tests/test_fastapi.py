"""What FastAPI users expect beyond the common site, on both event loops."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from support import raw
from support.check import Servers
from support.polling import wait_until
from support.server import Server


@pytest.fixture(scope="module", params=["native", "uvloop"])
def server(serve_shared: Servers, request: pytest.FixtureRequest) -> Iterator[Server]:
    site = f"""
        log
        handle_path /api/* {{
            python {{
                module_asgi fastapi_app:app
                runtime {request.param}
                workers 1
                import worker
            }}
        }}
    """
    yield serve_shared(site, warm_up="/api/items/1")
    serve_shared.close()


def test_docs_page_finds_its_schema(server: Server) -> None:
    page = server.get("/api/docs")
    assert page.status_code == 200
    assert "swagger-ui" in page.text
    assert "'/api/openapi.json'" in page.text
    schema = server.get("/api/openapi.json").json()
    assert schema["info"]["title"] == "Common site"
    assert schema["servers"] == [{"url": "/api"}]


def test_validation_error_is_explained(server: Server) -> None:
    response = server.post("/api/orders", json={"item": "tea", "count": "many"})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "count"]
    assert server.post("/api/orders", json={"item": "tea", "count": 2}).json() == {"item": "tea", "count": 2}


def test_background_task_runs_after_the_response(server: Server) -> None:
    name = uuid.uuid4().hex
    assert server.post(f"/api/tasks/{name}").json() == {"started": name}
    assert name not in server.get("/api/tasks").json(), "the task waits at its gate"
    server.post(f"/api/release/{name}")
    wait_until(lambda: name in server.get("/api/tasks").json(), "finished background task")


@pytest.mark.parametrize("where", ["", "/behind_middleware"])
def test_background_task_runs_although_the_client_went_before_the_response(server: Server, where: str) -> None:
    name = uuid.uuid4().hex
    path, since = f"/api{where}/slow_tasks/{name}", server.log.position()
    with raw.Connection(server) as client:
        client.send(f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".encode())
        wait_until(lambda: name in server.get("/api/waiting").json(), "the request in the app")
    server.log.wait_for(lambda entry: entry.get("request", {}).get("uri") == path, since)
    server.post(f"/api/release/{name}")
    wait_until(lambda: name in server.get("/api/tasks").json(), "finished background task")


def test_a_quiet_stream_ends_when_its_client_has_gone(server: Server) -> None:
    with ExitStack() as clients:
        for _ in range(3):
            client = clients.enter_context(raw.Connection(server))
            client.send(b"GET /api/quiet HTTP/1.1\r\nHost: test\r\n\r\n")
            assert client.head()[0] == 200
            assert next(client.chunks()) == b"first\n"
        assert server.get("/api/listeners").json() == 3
    wait_until(lambda: server.get("/api/listeners").json() == 0, "the end of the streams")


@pytest.mark.expect_errors("a bug in the app", "handled request")
def test_an_exception_is_logged_with_its_request(server: Server) -> None:
    """Starlette has answered with a 500 when it raises."""
    since = server.log.position()
    assert server.get("/api/error").status_code == 500
    entry = server.log.wait_for(lambda entry: entry["msg"] == "app raised after its response", since)
    assert (entry["method"], entry["path"]) == ("GET", "/api/error")
    assert entry["error"] == "RuntimeError: a bug in the app"


def test_many_requests_at_once_on_one_worker(server: Server) -> None:
    keys = [uuid.uuid4().hex for _ in range(50)]
    responses = []
    with server.new_client() as client:
        streams = [client.stream("GET", f"/api/stream/{key}") for key in keys]
        for stream in streams:
            responses.append(stream.__enter__())
        for key in keys:
            client.post(f"/api/release/{key}")
        for response, stream in zip(responses, streams, strict=True):
            assert response.read() == b"first\nsecond\n"
            stream.__exit__(None, None, None)
