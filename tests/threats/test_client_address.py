"""Threat 10: a client claims another address, scheme or host.

request.go believes nobody but Caddy, which has looked at its trusted_proxies.
"""

import ast
import random
from dataclasses import dataclass
from typing import Any

import pytest

from support.check import Servers
from support.interfaces import PATHS, SITE
from support.raw import Connection
from support.server import Server

PROXY, STRANGER = "127.0.0.1", "127.0.0.2"  # where connections come from
TRUSTED = f"trusted_proxies static {PROXY}/32 10.0.0.0/8"

# How one hop may be written, and the address that it says, if any.
HOPS = [
    ("203.0.113.7", "203.0.113.7"),
    ("198.51.100.23:4711", "198.51.100.23"),
    ("2001:db8::7", "2001:db8::7"),
    ("[2001:db8::8]:4711", "2001:db8::8"),
    ("fe80::1%eth0", "fe80::1"),
    ("10.1.2.3", "10.1.2.3"),
    ("10.255.0.1:80", "10.255.0.1"),
    ("127.0.0.1", "127.0.0.1"),
    ("unknown", None),
    ("_hidden", None),
    ("", None),
    ("203.0.113", None),
    ("203.0.113.7.9", None),
    ("<script>", None),
    ("%7f.0.0.1", None),
]


@dataclass
class Seen:
    """What an app is told: the client's address and port, scheme, host, server's name and port, headers by name."""

    client: str
    port: int
    scheme: str
    host: str
    server: tuple[str, int]
    headers: dict[str, str]


def see(server: Server, interface: str, source: str, lines: list[str]) -> tuple[Seen, int]:
    """What an app is told of a request with these header lines, and the port that it came from."""
    with Connection(server, source=source) as connection:
        port: int = connection.socket.getsockname()[1]
        told = connection.get(PATHS[interface], *(line.encode() for line in lines)).json()
    return _SEEN[interface](told), port


def _from_environ(told: dict[str, str]) -> Seen:
    headers = {name[5:].replace("_", "-").lower(): value for name, value in told.items() if name.startswith("HTTP_")}
    assert told.get("HTTPS") == ("on" if told["wsgi.url_scheme"] == "https" else None)
    return Seen(
        told["REMOTE_ADDR"],
        int(told.get("REMOTE_PORT", 0)),
        told["wsgi.url_scheme"],
        told["HTTP_HOST"],
        (told["SERVER_NAME"], int(told["SERVER_PORT"])),
        headers,
    )


def _from_scope(told: dict[str, str]) -> Seen:
    scope: dict[str, Any] = {key: ast.literal_eval(value) for key, value in told.items()}
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers[name.decode()] = ",".join(filter(None, [headers.get(name.decode()), value.decode()]))
    client, port = scope["client"]
    return Seen(client, port, scope["scheme"], headers["host"], scope["server"], headers)


def _from_esgi(told: dict[str, str]) -> Seen:
    scope: dict[str, Any] = {key: ast.literal_eval(value) for key, value in told.items()}
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    assert headers["host"] == scope["authority"]
    return Seen(
        *_host_and_port(scope["client"]), scope["scheme"], headers["host"], _host_and_port(scope["server"]), headers
    )


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


_SEEN = {"wsgi": _from_environ, "asgi": _from_scope, "esgi": _from_esgi}


def chains() -> list[list[tuple[str, str | None]]]:
    """200 lists of hops."""
    rng = random.Random(10)
    return [rng.choices(HOPS, k=rng.randint(1, 6)) for _ in range(200)]


def lines(chain: list[tuple[str, str | None]], rng: random.Random) -> list[str]:
    """The hops in one or more X-Forwarded-For headers."""
    headers = [chain[0][0]]
    for text, _ in chain[1:]:
        if rng.random() < 0.2:
            headers.append(text)
        else:
            # Caddy does not find the port behind a bracket behind a space.
            headers[-1] += ("," if text.startswith("[") else rng.choice([",", ", "])) + text
    return [f"X-Forwarded-For: {value}" for value in headers]


def items(header: str) -> list[str]:
    """The items of a comma-separated list that are not empty."""
    return [item.strip() for item in header.split(",") if item.strip()]


def leftmost(chain: list[tuple[str, str | None]]) -> str | None:
    """The first address of a chain."""
    return next((address for _, address in chain if address), None)


def rightmost_untrusted(chain: list[tuple[str, str | None]]) -> str | None:
    """The last address of a chain that is not a trusted proxy's."""
    trusted = (f"{PROXY}", "10.")
    return next((address for _, address in reversed(chain) if address and not address.startswith(trusted)), None)


@pytest.mark.parametrize("interface", _SEEN)
def test_threat_10_without_trusted_proxies_nobody_is_believed(serve: Servers, interface: str) -> None:
    server = serve(SITE)
    rng = random.Random(1)
    for chain in chains():
        seen, port = see(server, interface, PROXY, lines(chain, rng))
        assert (seen.client, seen.port) == (PROXY, port), chain
        assert "x-forwarded-for" not in seen.headers, chain


@pytest.mark.parametrize("interface", _SEEN)
@pytest.mark.parametrize(
    ("options", "verdict"),
    [(TRUSTED, leftmost), (f"{TRUSTED}\ntrusted_proxies_strict", rightmost_untrusted)],
    ids=["plain", "strict"],
)
def test_threat_10_the_address_is_caddys_verdict(serve: Servers, interface: str, options: str, verdict: Any) -> None:
    server = serve(SITE, f"servers {{\n{options}\n}}")
    rng = random.Random(1)
    for chain in chains():
        headers = lines(chain, rng)
        seen, port = see(server, interface, PROXY, headers)
        address = verdict(chain) or PROXY
        assert (seen.client, seen.port) == (address, port if address == PROXY else 0), chain
        assert items(seen.headers["x-forwarded-for"]) == [text for text, _ in chain if text], chain

        seen, port = see(server, interface, STRANGER, headers)
        assert (seen.client, seen.port) == (STRANGER, port), chain
        assert "x-forwarded-for" not in seen.headers, chain


CLAIMS = [
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: shop.example:8443, inner.example",
    "X-Forwarded-Port: 1",
    "Forwarded: for=203.0.113.7;proto=https",
]


@pytest.mark.parametrize("interface", _SEEN)
def test_threat_10_scheme_and_host_are_those_of_the_request_unless_a_trusted_proxy_says(
    serve: Servers, interface: str
) -> None:
    server = serve(SITE, f"servers {{\n{TRUSTED}\n}}")
    seen, _ = see(server, interface, PROXY, CLAIMS)
    assert (seen.scheme, seen.host, seen.server) == ("https", "shop.example:8443", ("shop.example", 8443))
    assert {"x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded"} <= seen.headers.keys()
    seen, _ = see(server, interface, PROXY, ["X-Forwarded-Proto: HTTP, https"])
    assert (seen.scheme, seen.host, seen.server) == ("http", "test", ("test", 80))
    for claimed, scheme in (("wss", "https"), ("WS", "http")):
        seen, _ = see(server, interface, PROXY, [f"X-Forwarded-Proto: {claimed}"])
        assert seen.scheme == scheme
    for scheme in ("javascript", "https:", "", "httpss", "ftp"):
        seen, _ = see(server, interface, PROXY, [f"X-Forwarded-Proto: {scheme}"])
        assert seen.scheme == "http"

    seen, _ = see(server, interface, STRANGER, CLAIMS)
    assert (seen.scheme, seen.host, seen.server) == ("http", "test", ("test", 80))
    assert not [name for name in seen.headers if "forwarded" in name]
