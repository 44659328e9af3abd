"""A small JSON object under gevent: as ESGI, and as WSGI for servers that do not speak it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def esgi(scope: dict[str, Any], protocol: Any) -> None:
    """The ESGI app."""
    protocol.response_bytes(200, [("Content-Type", "application/json")], _hello())


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """The WSGI app."""
    body = _hello()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _hello() -> bytes:
    return json.dumps({"message": "Hello, world!"}, separators=(",", ":")).encode()
