"""Thousands of requests that wait at once in one worker."""

import asyncio
import time

import pytest

from support.check import Servers

pytestmark = pytest.mark.alone

REQUESTS = 5000
IN = 10.0  # seconds for all of them; one after another they would take as many seconds as they are

# What a site says for an app whose every request waits for a second.
WAITING = {
    "native": "module_asgi waiting_app:asgi\nruntime native",
    "uvloop": "module_asgi waiting_app:asgi\nruntime uvloop",
    "gevent": "module_wsgi waiting_app:wsgi\nruntime gevent",
    "esgi": "module_esgi waiting_app:esgi",
}


async def get(port: int) -> bytes:
    """The answer to one request, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


async def get_all(port: int) -> list[bytes]:
    """The answers to all requests, sent at once."""
    return await asyncio.gather(*(get(port) for _ in range(REQUESTS)))


@pytest.mark.parametrize("app", WAITING)
def test_5000_requests_wait_for_a_second_in_one_worker(serve: Servers, app: str) -> None:
    server = serve(f"python {{\n{WAITING[app]}\nworkers 1\nimport worker\n}}")
    began = time.monotonic()
    answers = asyncio.run(get_all(server.port.number))
    took = time.monotonic() - began
    assert sum(answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"waited") for answer in answers) == REQUESTS
    assert 1.0 <= took < IN
