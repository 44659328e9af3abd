"""What is between an app and its clients: other listeners, other handlers, and what net/http does by itself."""

import ast
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.check import Servers
from support.server import Server

INTERFACES = ["wsgi", "asgi", "esgi"]


def site(interface: str) -> str:
    """A site that serves apps/threat_app.py."""
    runs = "process" if interface == "esgi" else "worker"
    return f"python {{\nmodule_{interface} threat_app:{interface}\nworkers 1\nimport {runs}\n}}"


def told(response: httpx.Response, interface: str) -> dict[str, Any]:
    """The environ or scope of a request."""
    values: dict[str, Any] = response.json()
    return values if interface == "wsgi" else {key: ast.literal_eval(value) for key, value in values.items()}


def lengths(server: Server, interface: str, content: bytes | None) -> list[str]:
    """What a request's headers say of its length."""
    values = told(server.post("/", content=content), interface)
    if interface == "wsgi":
        return [values["CONTENT_LENGTH"]] if "CONTENT_LENGTH" in values else []
    return [value.decode() for name, value in values["headers"] if name == b"content-length"]


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("content", [None, b"what the client sends"])
def test_the_length_is_that_of_the_body_that_another_handler_has_put_in(
    serve: Servers, interface: str, content: bytes | None
) -> None:
    server = serve("request_body {\nset another\n}\n" + site(interface))
    assert lengths(server, interface, content) == ["7"]
    assert server.post("/echo", content=content).text == "another"


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_client_at_a_unix_socket_has_no_address(serve: Servers, interface: str, tmp_path: Path) -> None:
    path = tmp_path / "caddy.sock"
    serve(f"bind unix/{path}\n{site(interface)}")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        values = told(client.get("http://test/"), interface)
    if interface == "wsgi":
        assert values["REMOTE_ADDR"] == ""
        assert "REMOTE_PORT" not in values
    else:
        assert values["client"] == {"asgi": None, "esgi": ""}[interface]


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_response_without_a_content_type_gets_none(serve: Servers, interface: str) -> None:
    server = serve(site(interface))
    response = server.post("/echo", content=b"<script>alert(1)</script>")
    assert response.text == "<script>alert(1)</script>"
    assert "content-type" not in response.headers


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_response_in_place_of_another_ones_has_its_own_headers(serve: Servers, interface: str) -> None:
    server = serve(f"""
        intercept {{
            @missing status 404
            handle_response @missing {{
                rewrite * /echo?nonce
                {site(interface)}
            }}
        }}
        header Cache-Control no-store
        header Content-Type text/html
        header Content-Length 8
        respond "not here" 404
    """)
    response = server.post("/", content=b"an answer of another length")
    assert (response.status_code, response.text) == (200, "an answer of another length")
    assert response.headers.get_list("content-length") == [str(len(response.content))]
    assert (response.headers["cache-control"], response.headers["x-nonce"]) == ("no-store", "nonce")
