"""The common site in Pyramid; see test_frameworks.py."""

import hashlib
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPSeeOther
from pyramid.request import Request
from pyramid.response import Response
from pyramid.view import view_config

import gates


@view_config(route_name="index")
def index(request: Request) -> Response:
    return Response("<h1>Hello from Pyramid</h1>")


@view_config(route_name="item", renderer="json")
def item(request: Request) -> dict[str, Any]:
    return {"id": int(request.matchdict["id"]), "color": request.GET.get("color")}


@view_config(route_name="name", renderer="json")
def name(request: Request) -> dict[str, Any]:
    return {"name": request.matchdict["name"]}


@view_config(route_name="links", renderer="json")
def links(request: Request) -> dict[str, Any]:
    return {"item": request.route_url("item", id=7)}


@view_config(route_name="form", request_method="POST", renderer="json")
def form(request: Request) -> dict[str, Any]:
    return {"name": request.POST["name"], "fruit": request.POST.getall("fruit")}


@view_config(route_name="login", request_method="POST")
def login(request: Request) -> Response:
    response = HTTPSeeOther(request.route_url("me"))
    response.set_cookie("name", request.POST["name"])
    return response


@view_config(route_name="me", renderer="string")
def me(request: Request) -> str:
    return f"Hello, {request.cookies['name']}"


@view_config(route_name="upload", request_method="POST", renderer="json")
def upload(request: Request) -> dict[str, Any]:
    file = request.POST["file"]
    with request.body_file_raw, file.file:  # WebOb keeps both open until the garbage is collected
        content = file.file.read()
    return {"filename": file.filename, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@view_config(route_name="json", request_method="POST", renderer="json")
def json(request: Request) -> dict[str, Any]:
    return {"got": request.json_body}


@view_config(route_name="stream")
def stream(request: Request) -> Response:
    def parts() -> Iterator[bytes]:
        yield b"first\n"
        gates.wait(request.matchdict["key"])
        yield b"second\n"

    return Response(app_iter=parts(), content_type="text/plain")


@view_config(route_name="release", request_method="POST", renderer="string")
def release(request: Request) -> str:
    gates.open(request.matchdict["key"])
    return "released"


@view_config(route_name="error")
def error(request: Request) -> Response:
    raise RuntimeError("a bug in the app")


def make_app() -> Any:
    """The WSGI app, made as Pyramid's scaffolds make it."""
    with Configurator() as config:
        config.add_route("index", "/")
        config.add_route("item", r"/items/{id:\d+}")
        config.add_route("name", "/names/{name}")
        config.add_route("stream", "/stream/{key}")
        config.add_route("release", "/release/{key}")
        for route in ("links", "form", "login", "me", "upload", "json", "error"):
            config.add_route(route, f"/{route}")
        config.scan(__name__)
        return config.make_wsgi_app()


app = make_app()
validated = validator(app)
