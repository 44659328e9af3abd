"""Threats 6, 7 and 8: headers of a request that kill a worker, pass for another header, or become HTTP_PROXY.

Header values travel as the bytes they are (internal/marshal). Which names an app gets is decided in request.go and
wsgi.go.
"""

import ast
import random
from collections.abc import Iterator
from itertools import product

import pytest

from support import http2
from support.check import Servers
from support.interfaces import PATHS, SITE
from support.raw import Closed, Connection, Response
from support.server import Server

HEADERS = [
    *("Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control"),
    *("Connection", "Content-Encoding", "Content-Language", "Content-Length", "Content-Type", "Cookie", "Date"),
    *("Expect", "Forwarded", "From", "Host", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range"),
    *("If-Unmodified-Since", "Keep-Alive", "Max-Forwards", "Origin", "Pragma", "Priority", "Proxy-Authorization"),
    *("Range", "Referer", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "User-Agent", "Via"),
    *("X-Forwarded-For", "X-Forwarded-Host", "X-Name", "X-Real-IP"),
]
assert len(HEADERS) == 40

# Those that say how to read the request, or that only a trusted proxy may send: an app may see them otherwise or not.
SPECIAL = {
    *("Connection", "Content-Length", "Expect", "Forwarded", "Host", "TE", "Trailer", "Transfer-Encoding", "Upgrade"),
    *("X-Forwarded-For", "X-Forwarded-Host"),
}


@pytest.fixture(scope="module")
def server(serve_shared: Servers) -> Iterator[Server]:
    yield serve_shared(SITE, warm_up="/")
    serve_shared.close()


def headers(response: Response) -> dict[str, bytes]:
    """The headers that the app was told of, by names such as HTTP_X_NAME whatever the interface."""
    told = response.json()
    if "headers" in told:
        pairs = ast.literal_eval(told["headers"])
        return {"HTTP_" + name.decode("latin-1").upper().replace("-", "_"): value for name, value in pairs}
    return {name: value.encode("latin-1") for name, value in told.items()}


class Client:
    """Sends one header at a time, on one connection until the server closes it.

    Args:
        server: where to.
        interface: which app to ask.
    """

    def __init__(self, server: Server, interface: str) -> None:
        self.server = server
        self.path = PATHS[interface]
        self.connection: Connection | None = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def get(self, *lines: bytes) -> Response:
        """Get the app's view of a request with these header lines; Host among them replaces the usual one."""
        host = [] if any(line.startswith(b"Host:") for line in lines) else [b"Host: test"]
        for _ in range(2):
            if self.connection is None:
                self.connection = Connection(self.server)
            self.connection.send(b"\r\n".join([b"GET " + self.path + b" HTTP/1.1", *host, *lines, b"", b""]))
            try:
                response = self.connection.response()
            except Closed:  # after the response before
                self.close()
                continue
            if response.values(b"connection") == [b"close"]:
                self.close()
            return response
        raise AssertionError(f"no response to {lines}")


@pytest.mark.parametrize("interface", PATHS)
def test_threat_6_every_byte_in_every_header_leaves_the_worker_alive(server: Server, interface: str) -> None:
    pids = server.worker_pids()
    passed = 0
    with Client(server, interface) as client:
        for byte, name in product(range(256), HEADERS):
            value = b"a" + bytes([byte]) + b"b"
            response = client.get(name.encode() + b": " + value)
            if response.status == 200 and name not in SPECIAL:
                shown = headers(response)
                key = "HTTP_" + name.upper().replace("-", "_")
                assert shown.get(key, shown.get(key[5:])) == value, (name, value)
                passed += 1
            elif name not in SPECIAL:
                assert response.status == 400, (name, value, response)
                assert byte < 32 or byte == 127, "what RFC 9110 allows is let through"
    assert passed > 6_000
    assert server.worker_pids() == pids


def aliases(count: int) -> list[str]:
    """Different spellings, with underscores, of headers that a proxy or an app may rely on."""
    bases = [
        *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "X-Remote-User", "Remote-User"),
        *("X-Auth-Request-Email", "X-Authenticated-User-Id", "Content-Type", "Content-Length", "X-CSRF-Token"),
        *("X-Api-Key", "Http-Host", "X-Amzn-Oidc-Identity", "X-Client-Cert-Verified", "User-Agent", "If-None-Match"),
    ]
    rng = random.Random(7)
    found: dict[str, None] = {}
    while len(found) < count:
        letters = list(rng.choice(bases))
        hyphens = [at for at, letter in enumerate(letters) if letter == "-"]
        for at in rng.sample(hyphens, rng.randint(1, len(hyphens))):
            letters[at] = "_"
        found["".join(rng.choice([letter.lower(), letter.upper()]) for letter in letters)] = None
    return list(found)


def test_threat_7_no_header_with_an_underscore_reaches_the_environ(server: Server) -> None:
    with Client(server, "wsgi") as client:
        for alias in aliases(1000):
            name = alias.replace("_", "-").encode()
            shown = headers(client.get(name + b": 0", alias.encode() + b": spoofed"))
            assert b"spoofed" not in b"".join(shown.values()), alias


def test_threat_7_no_header_with_an_underscore_reaches_the_environ_where_caddy_lets_it_through(serve: Servers) -> None:
    """Caddy itself drops such headers unless it is told to expect them. ASGI gets them: it folds no names."""
    names = aliases(1000)
    expected = " ".join(dict.fromkeys(name.lower() for name in names))
    server = serve(SITE, f"servers {{\nexpected_underscore_headers {expected}\n}}")
    with Client(server, "wsgi") as wsgi, Client(server, "asgi") as asgi:
        for name in names:
            line = name.encode() + b": spoofed"
            assert b"spoofed" not in b"".join(headers(wsgi.get(line)).values()), name
            assert (name.lower().encode(), b"spoofed") in ast.literal_eval(asgi.get(line).json()["headers"]), name


def test_threat_7_nothing_but_the_hyphen_is_folded(serve: Servers) -> None:
    server = serve(SITE, "servers {\nexpected_dot_headers x.real.ip\n}")
    with Client(server, "wsgi") as client:
        for char in "!#$%&'*+.^`|~":
            name = f"X{char}Real{char}Ip"
            shown = headers(client.get(name.encode() + b": spoofed"))
            assert "HTTP_X_REAL_IP" not in shown, name
            assert shown[f"HTTP_{name.upper()}"] == b"spoofed"


CASINGS = ["".join(letters) for letters in product(*zip("proxy", "PROXY", strict=True))]


@pytest.mark.parametrize("interface", PATHS)
def test_threat_8_no_casing_of_proxy_becomes_http_proxy(server: Server, interface: str) -> None:
    with Client(server, interface) as client:
        for casing in CASINGS:
            shown = headers(client.get(casing.encode() + b": http://evil.example", b"X-Name: v"))
            assert "HTTP_PROXY" not in shown, casing
            assert shown["HTTP_X_NAME"] == b"v"


@pytest.mark.parametrize("interface", PATHS)
def test_threat_8_no_casing_of_proxy_becomes_http_proxy_over_http2(serve: Servers, interface: str) -> None:
    server = serve(SITE, tls=True)
    for casing in CASINGS:
        with http2.Connection(server) as client:
            number = client.request(PATHS[interface].decode(), [(casing.encode(), b"http://evil.example")])
            stream = client.response(number)
        if casing == "proxy":
            assert stream.status == 200
            assert b"evil.example" not in stream.body
        else:
            assert stream.reset is not None, "RFC 9113, section 8.2: names are lower-case"
