"""Where an app is mounted: SCRIPT_NAME and PATH_INFO, root_path, path and raw_path; the setting root_path."""

import ast
from dataclasses import dataclass

import pytest

from support.check import Servers
from support.raw import Connection
from support.server import Server

# Each handler serves both interfaces, told apart by a header.
HANDLERS = """
    @wsgi header Interface wsgi
    python @wsgi {{
        module_wsgi conformance_wsgi:validated
        {setting}
        workers 1
        import worker
    }}
    python {{
        module_asgi conformance_asgi:app
        {setting}
        workers 1
        import worker
    }}
"""
AUTO = HANDLERS.format(setting="")
SITE = f"""
    uri /top/* strip_prefix /top
    handle_path /api/* {{
        {AUTO}
    }}
    handle_path /start* {{
        {AUTO}
    }}
    @fixed path_regexp /fixed$
    handle @fixed {{
        rewrite * /fixed
        {AUTO}
    }}
    handle /front/* {{
        rewrite * /
        {AUTO}
    }}
    handle_path /two/levels/* {{
        {AUTO}
    }}
    handle /strip/* {{
        uri strip_prefix /strip
        {AUTO}
    }}
    handle /nested/* {{
        uri strip_prefix /nested
        handle_path /inner/* {{
            {AUTO}
        }}
    }}
    handle /rewritten/* {{
        rewrite * /elsewhere{{uri}}
        {AUTO}
    }}
    handle /query/* {{
        rewrite * {{path}}?added=1
        {AUTO}
    }}
    handle /kept/* {{
        {HANDLERS.format(setting="root_path /kept")}
    }}
    handle_path /outer/* {{
        {HANDLERS.format(setting="root_path /site/outer/")}
    }}
    handle_path /hidden/* {{
        {HANDLERS.format(setting="root_path /")}
    }}
    handle_path /said/* {{
        {HANDLERS.format(setting="root_path auto")}
    }}
    handle {{
        {AUTO}
    }}
"""


@pytest.fixture(scope="module")
def server(serve_shared: Servers) -> Server:
    return serve_shared(SITE, warm_up="/")


@dataclass
class Seen:
    """What both interfaces say of one request. Text is decoded as the interface wants it, WSGI's being UTF-8 again."""

    mount: str
    rest: str
    query: str


def see(server: Server, target: str) -> Seen:
    """Request a target on both interfaces; what they say must agree, and tell what was sent."""
    with Connection(server) as client:
        environ = client.get(target.encode(), b"Interface: wsgi").json()
    text = {key: value.encode("latin-1").decode() for key, (kind, value) in environ.items() if kind == "str"}
    with Connection(server) as client:
        scope = ast.literal_eval(client.get(target.encode()).body.decode())
    seen = Seen(text["SCRIPT_NAME"], text["PATH_INFO"], text["QUERY_STRING"])
    assert text["REQUEST_URI"] == target
    assert (scope["root_path"], scope["path"]) == (seen.mount, seen.mount + seen.rest)
    assert scope["raw_path"] == target.partition("?")[0].encode()
    assert scope["query_string"].decode() == seen.query
    return seen


@pytest.mark.parametrize(
    ("target", "mount", "rest"),
    [
        ("/", "", "/"),
        ("/plain/path", "", "/plain/path"),
        ("/apix/y", "", "/apix/y"),
        ("//double//slash", "", "//double//slash"),
        ("/a/../b/./c", "", "/a/../b/./c"),
        ("/Zo%C3%AB/%2F", "", "/Zoë//"),
        ("/api/items/7", "/api", "/items/7"),
        ("/api/", "/api", "/"),
        ("/api/items/", "/api", "/items/"),
        ("/api/Zo%C3%AB", "/api", "/Zoë"),
        ("/API/items", "/API", "/items"),
        ("/%61pi/items", "/api", "/items"),
        ("/api/api/x", "/api", "/api/x"),
        ("/api//a//b", "/api", "/a/b"),  # Caddy cleans a path when it strips a prefix
        ("/api/a/../b", "/api", "/b"),
        ("/api/a%2F%2Fb", "/api", "/a//b"),
        ("/start", "/start", "/"),
        ("/start/x", "/start", "/x"),
        ("//host.example/fixed", "", "/fixed"),
        ("/x/fixed", "", "/fixed"),  # it looks like a prefix that was stripped, but nobody strips it
        ("/front/any/thing", "", "/"),
        ("/front/", "", "/"),
        ("/%2Fhost.example/fixed", "", "/fixed"),
        ("/x/%2e%2e/fixed", "", "/fixed"),
        ("/two/levels/down", "/two/levels", "/down"),
        ("/strip/x/y", "/strip", "/x/y"),
        ("/top/x/y", "/top", "/x/y"),
        ("/nested/inner/x", "/nested/inner", "/x"),
        ("/rewritten/x", "", "/elsewhere/rewritten/x"),
        ("/front/any/api", "", "/"),  # nor this, whoever strips /api elsewhere
        ("/kept/x", "/kept", "/x"),
        ("/KEPT/x", "/kept", "/x"),  # Caddy's matchers compare without case
        ("/outer/x", "/site/outer", "/x"),
        ("/hidden/x", "", "/x"),
        ("/said/x", "/said", "/x"),
    ],
)
def test_the_mount_point_is_what_was_removed_from_the_path(server: Server, target: str, mount: str, rest: str) -> None:
    assert see(server, target) == Seen(mount, rest, "")
    assert see(server, target + "?q=%20&/x?y") == Seen(mount, rest, "q=%20&/x?y")


def test_the_query_may_be_rewritten(server: Server) -> None:
    with Connection(server) as client:
        environ = client.get(b"/query/x?given=1", b"Interface: wsgi").json()
    assert environ["QUERY_STRING"][1] == "added=1"
    assert environ["REQUEST_URI"][1] == "/query/x?given=1"


def test_an_absolute_target_is_its_path(server: Server) -> None:
    """RFC 9112, section 3.2.2: a server accepts the absolute form."""
    target = b"http://other.example/api/items?q=1"
    with Connection(server) as client:
        environ = client.get(target, b"Interface: wsgi").json()
    assert (environ["SCRIPT_NAME"][1], environ["PATH_INFO"][1]) == ("/api", "/items")
    assert environ["HTTP_HOST"][1] == "other.example"
    assert environ["REQUEST_URI"][1] == target.decode()
    with Connection(server) as client:
        scope = ast.literal_eval(client.get(target).body.decode())
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/api", "/api/items", b"/api/items")


def test_an_absolute_target_without_a_path_is_the_root(server: Server) -> None:
    """RFC 9110, section 4.2.3."""
    with Connection(server) as client:
        environ = client.get(b"http://other.example", b"Interface: wsgi").json()
    assert (environ["SCRIPT_NAME"][1], environ["PATH_INFO"][1]) == ("", "/")
    with Connection(server) as client:
        scope = ast.literal_eval(client.get(b"http://other.example").body.decode())
    assert (scope["root_path"], scope["path"]) == ("", "/")
