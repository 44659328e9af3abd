"""Bare WSGI apps: what the server costs when the app costs next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CHUNK = 64 * 1024  # bytes
CHUNKS = 160  # 10 MiB in all


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer with one short line."""
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "13")])
    return [b"Hello, world!"]


def upload(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Read the body in pieces and answer with the number of bytes in it."""
    body = environ["wsgi.input"]
    remaining = int(environ["CONTENT_LENGTH"])
    size = 0
    while remaining and (piece := body.read(min(CHUNK, remaining))):
        size += len(piece)
        remaining -= len(piece)
    answer = str(size).encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(answer)))])
    return [answer]


def download(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Stream 10 MiB, one piece at a time."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    piece = b"x" * CHUNK
    return (piece for _ in range(CHUNKS))
