"""Threat 12: request smuggling.

There is no HTTP/1 between Caddy and a worker, so a request body is never read as a request there. And whatever a client
sends, and whatever of a body an app leaves unread, the next request on its connection is where Go says that it begins.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product

import pytest

from support import http2
from support.check import Servers
from support.polling import wait_until
from support.raw import Connection
from support.server import Server

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
LENGTH = b"Content-Length: %d" % len(SMUGGLED)
CHUNKED = b"Transfer-Encoding: chunked"
INNER = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)  # a chunked body that holds the request

# Ways to spell a coding that is chunked to some readers and not to others.
CODINGS = [
    *(b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"\tchunked", b"chunked ", b"chunked\t"),
    *(b"xchunked", b"chunked, identity", b"identity, chunked", b"chunked, chunked", b"gzip, chunked", b"identity"),
    *(
        b"chunked;q=1",
        b'"chunked"',
        b"chunked\x0b",
        b"\x0bchunked",
        b"chunked\x00",
        b"\xa0chunked",
        b"chunke",
        b"chunkedd",
    ),
    *(b",chunked", b"chunked,", b", ,chunked", b"", b"\x00", b"[chunked]", b"chun\tked", b"ch\xc3\xbcnked"),
]
# Ways to write the header around it; %s is the coding.
LINES = [
    b"Transfer-Encoding: %s",
    b"transfer-encoding:%s",
    b"Transfer-Encoding : %s",
    b"Transfer-Encoding\t: %s",
    b" Transfer-Encoding: %s",
    b"X: y\r\n Transfer-Encoding: %s",
    b"X: y\nTransfer-Encoding: %s",
    b"X: y\rTransfer-Encoding: %s",
    b"Transfer-Encoding:\r\n %s",
    b"Transfer_Encoding: %s",
    b"Transfer-Encoding: %s\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: %s",
    b"Transfer-Encoding: %s\r\nTransfer-Encoding: %s",
    b"Transfer-Encoding\x00: %s",
    b"\x00Transfer-Encoding: %s",
    b"Content-Encoding: %s",
]
LENGTHS = [
    *(
        b"+%d",
        b"-%d",
        b"0%d",
        b"00000000000000000000%d",
        b"%d ",
        b" %d",
        b"\t%d",
        b"%d\x0b",
        b"%d\x00",
        b"0x%d",
        b"%d,%d",
    ),
    *(b"%d, %d", b"%d;", b"%d.0", b"%de0", b'"%d"', b"1%d%d%d%d%d%d%d%d%d%d", b"\xd9\xa5", b"", b"%d\r\n Folded: 1"),
]
# Beginnings of a first chunk that is as long as the request, or means something else to a careless reader.
CHUNK_SIZES = [
    *(b"%x\r\n", b"%X\r\n", b"00%x\r\n", b"0000000000000000%x\r\n", b"%x \r\n", b"%x\t\r\n", b" %x\r\n", b"+%x\r\n"),
    *(
        b"-%x\r\n",
        b"0x%x\r\n",
        b"%x;\r\n",
        b"%x;a=b\r\n",
        b'%x;a="\r\n"\r\n',
        b"%x;a\n",
        b"%x;a\nb\r\n",
        b"%x;a\rb\r\n",
    ),
    *(
        b"%x\n",
        b"%x\r",
        b"%x\r\r\n",
        b"%x\n\r\n",
        b"%x\x00\r\n",
        b"1%x\r\n",
        b"ffffffffffffff%x\r\n",
        b"%xg\r\n",
        b"\r\n%x\r\n",
    ),
    *(
        b"1\r\nx\n%x\r\n",
        b"1\r\nx%x\r\n",
        b"1\r\nxy\r\n%x\r\n",
        b"1\r\nx\r%x\r\n",
        b"2;\nxx\r\n%x\r\n",
        b"%x;" + b"e" * 5000 + b"\r\n",
    ),
]


def post(lines: list[bytes], body: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """A POST with these header lines and body."""
    return b"\r\n".join([b"POST /first " + version, b"Host: test", *lines, b"", body])


def two_lengths() -> Iterator[bytes]:
    """A length and the chunked coding: the body ends where the chunks do, or the request is refused."""
    for coding, length in product(CODINGS, [b"3", LENGTH[16:]]):
        yield post(
            [b"Transfer-Encoding: " + coding, b"Content-Length: %d" % (len(INNER) if length == b"3" else 3)], INNER
        )
        yield post(
            [b"Content-Length: " + length, b"Transfer-Encoding: " + coding], INNER if length == b"3" else SMUGGLED
        )
    for line, coding in product(LINES, [b"chunked", b"identity"]):
        yield post([line.replace(b"%s", coding), b"Content-Length: %d" % len(INNER)], INNER)


def odd_lengths() -> Iterator[bytes]:
    """Lengths that not every reader reads alike."""
    for text in LENGTHS:
        value = text.replace(b"%d", b"%d" % len(SMUGGLED))
        yield post([b"Content-Length: " + value], SMUGGLED)
        yield post([b"Content-Length: " + value, LENGTH], SMUGGLED)
        yield post([LENGTH, b"content-length: " + value], SMUGGLED)
    for first, second in ((0, 1), (1, 0), (0, 0)):
        values = [len(SMUGGLED) * first, len(SMUGGLED) * second]
        if values != [0, 0]:
            yield post([b"Content-Length: %d" % value for value in values], SMUGGLED)
            yield post([b"Content-Length: %d, %d" % tuple(values)], SMUGGLED)


def odd_chunks() -> Iterator[bytes]:
    """Chunks that not every reader reads alike."""
    for size in CHUNK_SIZES:
        for end in (b"\r\n0\r\n\r\n", b"\n0\n\n", b"0\r\n\r\n", b"\r\n0\r\nTrailer: 1\r\n\r\n", b""):
            body = size.replace(b"%x", b"%x" % len(SMUGGLED), 1) + SMUGGLED + end
            yield post([CHUNKED], body)
            yield post([CHUNKED, b"Expect: 100-continue"], body)  # so that Caddy does not read ahead


def other_requests() -> Iterator[bytes]:
    """Bodies where few expect one, upgrades, expectations and old versions."""
    for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE", b"PURGE", b"get"):
        yield post([LENGTH], SMUGGLED).replace(b"POST", method, 1)
        yield post([CHUNKED], INNER).replace(b"POST", method, 1)
    upgrades = [
        [
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ],
        [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"],
        [b"Connection: Content-Length"],
        [b"Connection: Transfer-Encoding, close"],
        [b"Expect: 100-continue"],
        [b"Expect: y 100-continue"],
        [b"Expect:\r\n 100-continue"],
    ]
    for lines in upgrades:
        yield post([*lines, LENGTH], SMUGGLED)
        yield post([*lines, CHUNKED], INNER)
    for version in (
        b"HTTP/1.0",
        b"HTTP/0.9",
        b"HTTP/1.2",
        b"HTTP/01.1",
        b"http/1.1",
        b"HTTP/2.0",
        b"HTTP/1.1 HTTP/1.1",
    ):
        yield post([LENGTH], SMUGGLED, version)
        yield post([b"Connection: keep-alive", CHUNKED, LENGTH], INNER, version)


FAMILIES = {family.__name__: list(family()) for family in (two_lengths, odd_lengths, odd_chunks, other_requests)}


def test_threat_12_there_are_enough_different_cases() -> None:
    cases = [case for family in FAMILIES.values() for case in family]
    assert len(set(cases)) >= 300


@pytest.fixture(scope="module", params=["wsgi", "asgi", "esgi"])
def server(serve_shared: Servers, request: pytest.FixtureRequest) -> Iterator[Server]:
    app = f"module_{request.param} threat_app:{request.param}"
    yield serve_shared(f"log\npython {{\n{app}\nworkers 1\nimport worker\n}}", warm_up="/seen")
    serve_shared.close()


class Watch:
    """What the app and Caddy say of the requests from when it is made."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._since = server.log.position()
        self._seen: list[str] = server.get("/seen").json()[:0]

    def seen(self) -> list[str]:
        """The method and target of each request that has come to the app."""
        self._seen += self.server.get("/seen").json()
        return self._seen

    def wait_still(self) -> None:
        """Wait until nothing new has come to the app, 20 looks in a row."""
        counts: list[int] = []

        def still() -> bool:
            counts.append(len(self.seen()))
            return counts[-20:] == counts[-1:] * 20

        wait_until(still, "end of requests")

    def check(self, at_least: int) -> None:
        """The app saw the requests that Caddy has handled and no other; none was in the body of another."""
        seen = self.seen()
        assert "GET /smuggled" not in seen
        assert len(seen) >= at_least
        wait_until(lambda: not Counter(seen) - Counter(self._handled()), "entry in Caddy's log for each request")

    def _handled(self) -> list[str]:
        requests = [
            entry["request"] for entry in self.server.log.entries(self._since) if entry["msg"] == "handled request"
        ]
        return [f"{request['method']} {request['uri']}" for request in requests]


@pytest.mark.parametrize("path", [b"/first", b"/unread", b"/part", b"/begin"])
@pytest.mark.parametrize("family", FAMILIES)
def test_threat_12_no_request_is_smuggled_in_another(server: Server, family: str, path: bytes) -> None:
    watch = Watch(server)
    with ExitStack() as stack:
        clients = [stack.enter_context(Connection(server)) for _ in FAMILIES[family]]
        for client, case in zip(clients, FAMILIES[family], strict=True):
            client.send(case.replace(b"/first", path, 1))
        watch.wait_still()
        for client in clients:
            client.end()
            assert all(response.status < 500 or response.status in (501, 505) for response in client.responses())
    watch.check(at_least=5)


@pytest.mark.expect_errors("/respond")
@pytest.mark.parametrize("path", [b"/unread", b"/part", b"/begin", b"/respond?name=%0a"])
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_threat_12_what_an_app_leaves_of_a_body_is_no_request(server: Server, coding: str, path: bytes) -> None:
    watch = Watch(server)
    counts = [
        1,
        30,
        1_700,
        1_800,
        7_000,
        50_000,
    ]  # up to 2 MB, and about the sizes at which something is sent or given up
    for count in counts:
        if coding == "length":
            request = post([b"Content-Length: %d" % (len(SMUGGLED) * count)], SMUGGLED * count)
        else:
            request = post([CHUNKED], INNER[:-5] * count + INNER[-5:])
        with Connection(server) as client:
            client.send(request.replace(b"/first", path, 1), b"GET /next HTTP/1.1\r\nHost: test\r\n\r\n")
            client.end()
            assert len(list(client.responses())) <= 2
    watch.check(at_least=len(counts))
    assert sum(request.startswith("POST") for request in watch.seen()) == len(counts)


# Headers of HTTP/2 that would be something else if they were written out as HTTP/1.
HTTP2 = [
    {b":method": b"POST"},  # and one that is in order
    {b":method": b"POST", b"content-length": b"0"},
    {b":method": b"POST", b"content-length": b"1"},
    {b":method": b"POST", b"transfer-encoding": b"chunked"},
    {b":method": b"POST", b"transfer-encoding": b"chunked", b"content-length": b"0"},
    {b":method": b"POST", b"connection": b"close"},
    {b":method": b"POST", b"x": b"y\r\nTransfer-Encoding: chunked"},
    {b":method": b"POST", b"x": b"y\r\n\r\n" + SMUGGLED},
    {b":method": b"POST", b"x\r\ntransfer-encoding: chunked\r\ny": b"z"},
    {b":method": b"POST", b"transfer-encoding: chunked\r\nx": b"y"},
    {b":method": b"POST", b"x y": b"z"},
    {b":method": b"GET / HTTP/1.1\r\nHost: test\r\n\r\n" + SMUGGLED + b"POST"},
    {b":method": b"GET /smuggled HTTP/1.1\r\nX: y"},
    {b":path": b"/ HTTP/1.1\r\nHost: test\r\n\r\n" + SMUGGLED},
    {b":path": b"/ HTTP/1.1\nX: y"},
    {b":authority": b"test\r\n\r\n" + SMUGGLED},
    {b":scheme": b"http://test/ HTTP/1.1\r\n\r\n" + SMUGGLED},
]


@pytest.mark.parametrize("interface", ["wsgi", "asgi", "esgi"])
def test_threat_12_no_request_is_smuggled_in_one_of_http2(serve: Servers, interface: str) -> None:
    server = serve(f"log\npython {{\nmodule_{interface} threat_app:{interface}\nworkers 1\nimport worker\n}}", tls=True)
    watch = Watch(server)
    for headers in HTTP2:
        with http2.Connection(server) as client:
            number = client.request("/first", headers.items(), end=False)
            client.send(number, SMUGGLED, end=True)
            client.response(number)
    watch.check(at_least=1)
    assert len(watch.seen()) <= len(HTTP2)
