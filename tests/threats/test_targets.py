"""Threat 11: two parsers disagree about a path.

There is one parse, Go's, and request.go and both interfaces take what it says. request_test.go tries a million targets.
Some thousands go all the way to the app here, and Caddy says beside each answer by which path it has routed.
"""

import ast
import random
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import pytest

from support.check import Servers
from support.raw import Connection

SITE = """
    @asgi header Interface asgi
    handle_path /api/* {{
        header X-Path {{http.request.uri.path_escaped}}
        python @asgi {{
            {asgi}
        }}
        python {{
            {wsgi}
        }}
    }}
    handle {{
        header X-Path {{http.request.uri.path_escaped}}
        python @asgi {{
            {asgi}
        }}
        python {{
            {wsgi}
        }}
    }}
""".format(
    asgi="module_asgi threat_app:asgi\nworkers 1\nimport worker",
    wsgi="module_wsgi threat_app:wsgi\nworkers 1\nimport worker",
)

PIECES = [
    *("/", "/", "/", "//", "a", "b", "x", "api", "API", "%61pi", ".", "..", "%2e", "%2E%2e"),
    *("%2f", "%2F", "%5c", "\\", "%25", "%252f", "%00", "%0a", "%0d%0a", "%20", "%ff", "%C3%AB", "ë", ";", ";a=b"),
    *("&", "=", ":", "@", "*", "+", ",", "!", "'", "(", ")", "~", "?", "?", "#"),
    # Letters whose other case has another length.
    *("\N{KELVIN SIGN}", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "\N{LATIN SMALL LETTER DOTLESS I}"),
    *("\N{LATIN SMALL LETTER LONG S}", "\N{LATIN CAPITAL LETTER SHARP S}"),
]


def targets(count: int) -> list[bytes]:
    """Legal request targets, below /api and not, without the paths to which the app gives special answers."""
    rng = random.Random(11)
    return [
        (rng.choice(["/", "/-", "/api/", "/API/"]) + "".join(rng.choices(PIECES, k=rng.randint(0, 7)))).encode()
        for _ in range(count)
    ]


@dataclass
class Told:
    """What the app was told of a request, and by which path Caddy has routed it."""

    mount: bytes
    path: bytes  # without the mount point
    target: bytes
    query: bytes
    routed: bytes


def ask(connection: Connection, target: bytes, interface: str) -> Told:
    """Request a target."""
    response = connection.get(target, b"Interface: " + interface.encode())
    assert response.status == 200, target
    told: dict[str, str] = response.json()
    [routed] = response.values(b"x-path")
    routed = unquote_to_bytes(routed.replace(b"+", b" "))
    if interface == "wsgi":
        text = {name: value.encode("latin-1") for name, value in told.items()}
        return Told(text["SCRIPT_NAME"], text["PATH_INFO"], text["REQUEST_URI"], text["QUERY_STRING"], routed)
    scope = {key: ast.literal_eval(value) for key, value in told.items()}
    path, mount = scope["path"], scope["root_path"]
    assert path.startswith(mount)
    whole = scope["raw_path"] + target[len(target.partition(b"?")[0]) :]
    routed = routed.decode("utf-8", "replace").encode()
    return Told(mount.encode(), path[len(mount) :].encode(), whole, scope["query_string"], routed)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_threat_11_apps_are_told_the_path_that_caddy_routes_by(serve: Servers, interface: str) -> None:
    server = serve(SITE)
    mounted = 0
    with Connection(server) as connection:
        for target in targets(3000):
            told = ask(connection, target, interface)
            assert told.path == told.routed, target
            assert told.target == target
            assert told.query == target.partition(b"?")[2]
            assert told.mount.lower() in (b"", b"/api"), target
            mounted += bool(told.mount)
    assert mounted > 500
