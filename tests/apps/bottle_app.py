"""The common site in Bottle; see test_frameworks.py."""

import hashlib
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

from bottle import Bottle, redirect, request, response

import gates

app = Bottle()


@app.get("/")
def index() -> str:
    return "<h1>Hello from Bottle</h1>"


@app.get("/items/<id:int>", name="item")
def item(id: int) -> dict[str, Any]:
    return {"id": id, "color": request.query.getunicode("color")}


@app.get("/names/<name>")
def name(name: str) -> dict[str, Any]:
    return {"name": name}


@app.get("/links")
def links() -> dict[str, Any]:
    return {"item": app.get_url("item", id=7)}


@app.post("/form")
def form() -> dict[str, Any]:
    return {"name": request.forms.getunicode("name"), "fruit": request.forms.decode().getall("fruit")}


@app.post("/login")
def login() -> None:
    response.set_cookie("name", request.forms.getunicode("name"))
    redirect(app.get_url("me"), 303)


@app.get("/me", name="me")
def me() -> str:
    return f"Hello, {request.get_cookie('name')}"


@app.post("/upload")
def upload() -> dict[str, Any]:
    file = request.files["file"]
    with request.body, file.file:  # Bottle keeps both open until the next request on this thread
        content = file.file.read()
    return {"filename": file.raw_filename, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@app.post("/json")
def json() -> dict[str, Any]:
    return {"got": request.json}


@app.get("/stream/<key>")
def stream(key: str) -> Iterator[str]:
    response.content_type = "text/plain"
    yield "first\n"
    gates.wait(key)
    yield "second\n"


@app.post("/release/<key>")
def release(key: str) -> str:
    gates.open(key)
    return "released"


@app.get("/error")
def error() -> str:
    raise RuntimeError("a bug in the app")


validated = validator(app)
