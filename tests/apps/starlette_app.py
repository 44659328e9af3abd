"""The common site in Starlette; see test_frameworks.py."""

import hashlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from starlette.routing import Route

import gates


async def index(request: Request) -> HTMLResponse:
    return HTMLResponse("<h1>Hello from Starlette</h1>")


async def item(request: Request) -> JSONResponse:
    return JSONResponse({"id": request.path_params["id"], "color": request.query_params.get("color")})


async def name(request: Request) -> JSONResponse:
    return JSONResponse({"name": request.path_params["name"]})


async def links(request: Request) -> JSONResponse:
    return JSONResponse({"item": str(request.url_for("item", id=7))})


async def form(request: Request) -> JSONResponse:
    async with request.form() as fields:
        return JSONResponse({"name": fields["name"], "fruit": fields.getlist("fruit")})


async def login(request: Request) -> RedirectResponse:
    async with request.form() as fields:
        response = RedirectResponse(request.url_for("me"), 303)
        response.set_cookie("name", str(fields["name"]))
        return response


async def me(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"Hello, {request.cookies['name']}")


async def upload(request: Request) -> JSONResponse:
    async with request.form() as fields:
        file = fields["file"]
        assert isinstance(file, UploadFile)
        content = await file.read()
    sha256 = hashlib.sha256(content).hexdigest()
    return JSONResponse({"filename": file.filename, "size": len(content), "sha256": sha256})


async def json(request: Request) -> JSONResponse:
    return JSONResponse({"got": await request.json()})


async def stream(request: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        yield "first\n"
        await gates.wait_async(request.path_params["key"])
        yield "second\n"

    return StreamingResponse(parts(), media_type="text/plain")


async def release(request: Request) -> PlainTextResponse:
    gates.open(request.path_params["key"])
    return PlainTextResponse("released")


async def error(request: Request) -> PlainTextResponse:
    raise RuntimeError("a bug in the app")


app = Starlette(
    routes=[
        Route("/", index),
        Route("/items/{id:int}", item, name="item"),
        Route("/names/{name}", name),
        Route("/links", links),
        Route("/form", form, methods=["POST"]),
        Route("/login", login, methods=["POST"]),
        Route("/me", me, name="me"),
        Route("/upload", upload, methods=["POST"]),
        Route("/json", json, methods=["POST"]),
        Route("/stream/{key}", stream),
        Route("/release/{key}", release, methods=["POST"]),
        Route("/error", error),
    ]
)
