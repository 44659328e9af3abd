"""Apps that hang in code whose source file is the one that the query names: /hang?FILE. Anything else says hello."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import caddysnake.errors

caddysnake.errors._LOOKING_UP = 60.0  # nothing that comes before the file on a slow machine takes its time


def _define(file: str, source: str) -> Any:
    names: dict[str, Any] = {"asyncio": asyncio, "time": time}
    exec(compile(source, file, "exec"), names)
    return names["hang"]


def _hang(file: str) -> None:
    _define(file, "def hang():\n while True:\n  time.sleep(0.01)\n")()


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    if environ["PATH_INFO"] == "/hang":
        _hang(environ["QUERY_STRING"])
    start_response("200 OK", [])
    return [b"hello"]


def esgi(scope: dict[str, Any], protocol: Any) -> None:
    if scope["path"] == "/hang":
        _hang(scope["query_string"])
    protocol.response_str(200, [], "hello")


async def asgi(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    if scope["path"] == "/hang":
        file = scope["query_string"].decode()
        await _define(file, "async def hang():\n while True:\n  await asyncio.sleep(0.01)\n")()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})
