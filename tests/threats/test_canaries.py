"""Threat 27: what one request knows reaches another.

Each request has a context of its own, a copy of what there was at import (python/caddysnake: threads.py, greenlets.py,
asgi.py), an environ or scope of its own, and a shallow copy of the lifespan's state.
"""

import asyncio
import json
import random
from contextlib import ExitStack

import pytest

from support.check import Servers
from support.siege import share
from support.websocket import BINARY, FIN, RSV1, WebSocket, deflated

CANARIES = share(1_000_000)
EACH = 4  # canaries in one request
CLIENTS = 32
APPS = {
    "wsgi": "module_wsgi canary_app:wsgi",
    "gevent": "module_wsgi canary_app:wsgi\nruntime gevent",
    "asgi": "module_asgi canary_app:asgi\nlifespan on",
    "esgi": "module_esgi canary_app:esgi",
}


async def client(port: int, seed: int, requests: int) -> list[str]:
    """Send so many requests, one after another; the answers that were not as they should be."""
    canary, wrong = random.Random(seed), []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(requests):
        own = [canary.randbytes(8).hex() for _ in range(EACH)]
        query, header, cookie, body = own
        writer.write(
            f"POST /?{query} HTTP/1.1\r\nHost: test\r\nX-Canary: {header}\r\nCookie: {cookie}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.partition("Content-Length: ")[2].partition("\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        if answer != {"own": own, "found": []}:
            wrong.append(f"{own}: {answer}")
    writer.close()
    await writer.wait_closed()
    return wrong


async def run(port: int) -> list[str]:
    """Run all clients at once."""
    requests = CANARIES // EACH // CLIENTS
    results = await asyncio.gather(*(client(port, seed, requests) for seed in range(CLIENTS)))
    return [wrong for result in results for wrong in result]


@pytest.mark.parametrize("app", APPS)
def test_threat_27_no_canary_reaches_another_request(serve: Servers, app: str) -> None:
    server = serve(f"python {{\n{APPS[app]}\nworkers 2\nimport worker\n}}")
    pids = server.worker_pids()
    assert asyncio.run(run(server.port.number)) == []
    assert server.worker_pids() == pids


def test_threat_27_no_compressed_message_reaches_another_socket(serve: Servers) -> None:
    """The end of each message waits in Caddy for an app that does not receive, while others' are decompressed."""
    app = "module_asgi conformance_websocket:app"
    server = serve(f"python {{\n{app}\nworkers 1\nimport worker\nwebsocket {{\ncompression on\n}}\n}}")
    offer = "Sec-WebSocket-Extensions: permessage-deflate"
    size = (256 << 10) - 100  # with what its frames cost, a little more than there is credit for
    with ExitStack() as stack, WebSocket(server, "/echo", offer) as other:
        waiting = [stack.enter_context(WebSocket(server, f"/late?{number}", offer)) for number in range(20)]
        for number, socket in enumerate(waiting):
            socket.send(FIN | RSV1 | BINARY, deflated(bytes([number]) * size))
            other.send(FIN | RSV1 | BINARY, deflated(b"other" * 4000))
            assert other.receive().opcode == BINARY
        for number, socket in enumerate(waiting):
            assert server.get(f"/?{number}").status_code == 200
            assert socket.message() == bytes([number])
