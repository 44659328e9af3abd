"""What an app's error means for the client, and for the log. On both interfaces, over HTTP/1.1 and HTTP/2."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.cases import Cases
from support.check import Servers
from support.raw import Connection
from support.server import Server

APPS = {"wsgi": "module_wsgi conformance_wsgi:app", "asgi": "module_asgi conformance_asgi:app"}


@pytest.fixture(scope="module", params=APPS)
def interface(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def servers(serve_shared: Servers, interface: str) -> Iterator[dict[str, Server]]:
    site = f"python {{\n{APPS[interface]}\nworkers 1\nimport worker\n}}"
    yield {"http1": serve_shared(site, warm_up="/"), "http2": serve_shared(site, tls=True, warm_up="/")}
    serve_shared.close()


@pytest.fixture(params=["http1", "http2"])
def cases(servers: dict[str, Server], request: pytest.FixtureRequest) -> Iterator[Cases]:
    with Cases(servers[request.param], http2=request.param == "http2") as cases:
        yield cases


def error_entry(server: Server, since: int) -> dict[str, Any]:
    """The one error entry after this position that tells of an app."""
    server.log.wait_for(lambda entry: entry["msg"] == "python app raised an error", since)
    entries = [entry for entry in server.log.errors(since) if entry["logger"] != "http.log.error"]
    assert len(entries) == 1, entries
    return entries[0]


@pytest.mark.expect_errors("a bug in the app")
def test_an_exception_before_the_response_is_a_500(cases: Cases, interface: str) -> None:
    since = cases.server.log.position()
    response = cases.request("POST", "raises", content=b"a body")
    assert response.status_code == 500
    assert "bug" not in response.text, "the client is told nothing of the app's inside"
    entry = error_entry(cases.server, since)
    assert entry["level"] == "error"
    assert entry["error"] == "RuntimeError: a bug in the app"
    assert entry["traceback"].startswith("Traceback (most recent call last):\n")
    assert f"conformance_{interface}.py" in entry["traceback"].splitlines()[1], "it begins in the app's code"
    assert entry["traceback"].endswith("RuntimeError: a bug in the app\n")
    assert (entry["method"], entry["path"], entry["worker"]) == ("POST", "/", 1)
    assert entry["app"] == f"conformance_{interface}:app"
    assert len(entry["request_id"]) == 36


@pytest.mark.expect_errors("SyntaxError", "Unspeakable")
@pytest.mark.parametrize("which", ["traceback", "message"])
def test_an_exception_that_cannot_be_shown_is_a_500_too(cases: Cases, which: str) -> None:
    since = cases.server.log.position()
    assert cases.request("POST", "raises_oddly", which, content=b"a body").status_code == 500
    entry = error_entry(cases.server, since)
    assert entry["traceback"].startswith("Traceback (most recent call last):\n")
    assert cases.get("notes", Cases.key()).status_code == 200, "the worker goes on"


@pytest.mark.expect_errors("a bug in the app")
def test_the_request_id_is_caddys(serve: Servers, interface: str) -> None:
    """So that the entry can be found by what the client was told."""
    server = serve(
        f"header X-Request-Id {{http.request.uuid}}\npython {{\n{APPS[interface]}\nworkers 1\nimport worker\n}}"
    )
    since = server.log.position()
    response = server.get("/a/path?query", headers={"Case": "raises"})
    entry = error_entry(server, since)
    assert entry["request_id"] == response.headers["x-request-id"]
    assert entry["path"] == "/a/path"


@pytest.mark.expect_errors("a bug in the app")
@pytest.mark.parametrize("length", ["", "length"])
def test_an_exception_within_the_response_cuts_it(cases: Cases, length: str) -> None:
    since = cases.server.log.position()
    with pytest.raises(httpx.RemoteProtocolError), cases.stream("GET", "raises_late", length) as response:
        assert response.status_code == 200
        parts = response.iter_raw()
        assert next(parts) == b"begun", "what the app sent arrives"
        list(parts)
    assert "a bug in the app" in error_entry(cases.server, since)["traceback"]


@pytest.mark.expect_errors("a bug in the app")
def test_a_truncated_response_has_no_end_on_the_wire(servers: dict[str, Server]) -> None:
    with Connection(servers["http1"]) as client:
        response = client.get(b"/", b"Case: raises_late")
    assert (response.status, response.body, response.complete) == (200, b"begun", False)


@pytest.mark.expect_errors("illegal value of the response header")
def test_an_illegal_header_is_a_500(cases: Cases) -> None:
    since = cases.server.log.position()
    response = cases.get("illegal")
    assert response.status_code == 500
    assert "x-injected" not in response.headers
    entry = error_entry(cases.server, since)
    assert "x-name" in entry["error"].lower(), "the entry names the header"
    assert entry["traceback"].count("Traceback") == 1, "and shows the way to it, nothing else"


@pytest.mark.expect_errors("a bug in the app", "illegal value of the response header")
def test_an_error_concerns_no_other_request(cases: Cases) -> None:
    pids = cases.server.worker_pids()
    for case in ("raises", "illegal", "raises"):
        assert cases.get(case).status_code == 500
        assert cases.get("notes", cases.key()).json() == []
    assert cases.server.worker_pids() == pids


@pytest.mark.parametrize("interface", ["asgi"], indirect=True)
@pytest.mark.expect_errors("without a complete response")
def test_an_asgi_app_that_returns_without_a_whole_response_is_an_error(cases: Cases) -> None:
    since = cases.server.log.position()
    assert cases.get("silent").status_code == 500
    cases.server.log.wait_for(lambda entry: "may have dropped http.response.pathsend" in str(entry.get("error")), since)
    with pytest.raises(httpx.RemoteProtocolError):
        cases.get("incomplete")
