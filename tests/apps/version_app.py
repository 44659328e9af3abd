"""An ASGI app and a Flask app that say which version of them runs; support/project.py writes the module version."""

import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import version
from flask import Flask, Response, request

Message = MutableMapping[str, Any]

INSTANCE = secrets.token_hex(8)
_ballast = []


def answer() -> str:
    """What runs here, as JSON."""
    return json.dumps({"version": version.VERSION, "instance": INSTANCE, "pid": os.getpid(), "cwd": os.getcwd()})


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer a request, or echo what a WebSocket brings. `/grow` takes 100 MiB of memory for good."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"{version.VERSION} {message['text']}"})
        return
    if scope["path"] == "/grow":
        _ballast.append(bytearray(os.urandom(1 << 20)) * 100)
    body = answer().encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


flask = Flask(__name__)


@flask.get("/")
def index() -> str:
    """What runs here."""
    return answer()


@flask.get("/hold")
def hold() -> str:
    """Say that the request is here, and answer when the file exists."""
    print("holding", flush=True)
    while not os.path.exists(request.args["file"]):
        time.sleep(0.005)
    return answer()


@flask.get("/page")
def page() -> Response:
    """A page with the version as its text, and with the headers that the query names."""
    text = f"<!doctype html><title>page</title><body><p id='version'>{version.VERSION}</p></body>\n"
    response = Response(text, mimetype="text/html")
    response.headers.update(request.args.to_dict())
    return response
