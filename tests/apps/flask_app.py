"""The common site in Flask; see test_frameworks.py."""

import hashlib
from collections.abc import Iterator
from wsgiref.validate import validator

from flask import Flask, Response, jsonify, redirect, request, url_for

import gates

app = Flask(__name__)
app.json.ensure_ascii = False
# Makes werkzeug read in sizes, which wsgiref.validate insists on.
app.config["MAX_CONTENT_LENGTH"] = 64 << 20


@app.get("/")
def index() -> str:
    return "<h1>Hello from Flask</h1>"


@app.get("/items/<int:id>")
def item(id: int) -> Response:
    return jsonify(id=id, color=request.args.get("color"))


@app.get("/names/<name>")
def name(name: str) -> Response:
    return jsonify(name=name)


@app.get("/links")
def links() -> Response:
    return jsonify(item=url_for("item", id=7, _external=True))


@app.post("/form")
def form() -> Response:
    return jsonify(name=request.form["name"], fruit=request.form.getlist("fruit"))


@app.post("/login")
def login() -> Response:
    response = redirect(url_for("me"), 303)
    response.set_cookie("name", request.form["name"])
    return response


@app.get("/me")
def me() -> str:
    return f"Hello, {request.cookies['name']}"


@app.post("/upload")
def upload() -> Response:
    file = request.files["file"]
    content = file.read()
    return jsonify(filename=file.filename, size=len(content), sha256=hashlib.sha256(content).hexdigest())


@app.post("/json")
def json() -> Response:
    return jsonify(got=request.get_json())


@app.get("/stream/<key>")
def stream(key: str) -> Response:
    def parts() -> Iterator[str]:
        yield "first\n"
        gates.wait(key)
        yield "second\n"

    return Response(parts(), mimetype="text/plain")


@app.post("/release/<key>")
def release(key: str) -> str:
    gates.open(key)
    return "released"


@app.get("/error")
def error() -> str:
    raise RuntimeError("a bug in the app")


validated = validator(app)
