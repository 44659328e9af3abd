"""A response that comes before its request's body has been sent reaches a client that goes on sending."""

import select
import time

import pytest

from support.check import Servers
from support.polling import wait_until
from support.raw import Connection

PARTS, PART = 30, 65_536
INTERVAL = 0.05  # seconds between two parts; all of them take longer than a client's round trip by far


def send_slowly(client: Connection, parts: int) -> None:
    """Send parts of a body."""
    due = time.monotonic()
    for _ in range(parts):
        client.socket.sendall(b"." * PART)  # an error if the server has hung up
        due += INTERVAL
        wait_until(lambda due=due: time.monotonic() >= due, "time for the next part")  # type: ignore[misc]


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_client_that_goes_on_sending_gets_its_response(serve: Servers, interface: str) -> None:
    server = serve(f"python {{\nmodule_{interface} threat_app:{interface}\nworkers 1\nimport worker\n}}")
    with Connection(server) as client:
        client.send(f"PUT /unread HTTP/1.1\r\nHost: test\r\nContent-Length: {PARTS * PART}\r\n\r\n".encode())
        send_slowly(client, PARTS)
        response = client.response()
        assert (response.status, response.complete) == (200, True)
        client.end()
        assert list(client.responses()) == [], "what is left of a body is no request"


def test_a_client_that_goes_on_sending_to_an_app_that_has_waited_for_more_gets_its_response(serve: Servers) -> None:
    server = serve("python {\nmodule_asgi threat_app:asgi\nworkers 1\nimport worker\n}")
    with Connection(server) as client:
        client.send(f"PUT /bored HTTP/1.1\r\nHost: test\r\nContent-Length: {PARTS * PART}\r\n\r\n".encode())
        client.send(b"." * PART)
        wait_until(lambda: select.select([client.socket], [], [], 0)[0], "the response")
        send_slowly(client, PARTS - 1)
        response = client.response()
        assert (response.status, response.complete) == (200, True)
        client.end()
        assert list(client.responses()) == [], "what is left of a body is no request"
