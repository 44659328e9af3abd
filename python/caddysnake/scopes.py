"""The ASGI scope of a request or WebSocket (spec 3.0, "HTTP Connection Scope", "WebSocket Connection Scope").

Caddy sends values without their names: what is the same each time would cost more than what differs. docs/internals.md
has their order.
"""

from __future__ import annotations

from typing import Any

VERSION = "3.0"  # of ASGI
SPEC_VERSION = "2.5"  # of its HTTP and WebSocket message format

# The extensions that depend on the client, as bits.
EARLY_HINT = 1
TRAILERS = 2

Head = tuple[Any, ...]  # its last value: the subprotocols of a WebSocket, if only an empty list; None for a request


def of_request(head: Head, files: bool) -> dict[str, Any]:
    """Returns the scope of an HTTP request, all but `state`. `files`: descriptors can be sent."""
    (method, scheme, http_version, root_path, path, raw_path, query_string, headers, client, server, bits, tls, _) = (
        head
    )
    extensions: dict[str, Any] = {}
    if bits & EARLY_HINT:
        extensions["http.response.early_hint"] = {}
    if bits & TRAILERS:
        extensions["http.response.trailers"] = {}
    if files:
        extensions["http.response.pathsend"] = {}
        extensions["http.response.zerocopysend"] = {}
    if tls is not None:
        extensions["tls"] = tls
    return {
        "type": "http",
        "asgi": {"version": VERSION, "spec_version": SPEC_VERSION},
        "http_version": http_version,
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": raw_path,
        "query_string": query_string,
        "root_path": root_path,
        "headers": headers,
        "client": client,
        "server": server,
        "extensions": extensions,
    }


def of_websocket(head: Head) -> dict[str, Any]:
    """Returns the scope of a WebSocket, all but `state`."""
    scope = of_request(head, False)
    del scope["method"]
    scope["type"] = "websocket"
    scope["extensions"]["websocket.http.response"] = {}
    scope["subprotocols"] = head[-1]
    return scope
