"""The common site in Quart; see test_frameworks.py."""

import hashlib
from collections.abc import AsyncIterator

from quart import Quart, Response, jsonify, redirect, request, url_for

import gates

app = Quart(__name__)


@app.get("/")
async def index() -> str:
    return "<h1>Hello from Quart</h1>"


@app.get("/items/<int:id>")
async def item(id: int) -> Response:
    return jsonify(id=id, color=request.args.get("color"))


@app.get("/names/<name>")
async def name(name: str) -> Response:
    return jsonify(name=name)


@app.get("/links")
async def links() -> Response:
    return jsonify(item=url_for("item", id=7, _external=True))


@app.post("/form")
async def form() -> Response:
    fields = await request.form
    return jsonify(name=fields["name"], fruit=fields.getlist("fruit"))


@app.post("/login")
async def login() -> Response:
    response = redirect(url_for("me"), 303)
    response.set_cookie("name", (await request.form)["name"])
    return response


@app.get("/me")
async def me() -> str:
    return f"Hello, {request.cookies['name']}"


@app.post("/upload")
async def upload() -> Response:
    file = (await request.files)["file"]
    content = file.read()
    return jsonify(filename=file.filename, size=len(content), sha256=hashlib.sha256(content).hexdigest())


@app.post("/json")
async def json() -> Response:
    return jsonify(got=await request.get_json())


@app.get("/stream/<key>")
async def stream(key: str) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first\n"
        await gates.wait_async(key)
        yield b"second\n"

    return Response(parts(), mimetype="text/plain")


@app.post("/release/<key>")
async def release(key: str) -> str:
    gates.open(key)
    return "released"


@app.get("/error")
async def error() -> str:
    raise RuntimeError("a bug in the app")
