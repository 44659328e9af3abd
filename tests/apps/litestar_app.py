"""The common site in Litestar; see test_frameworks.py."""

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Litestar, MediaType, Request, get, post
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.logging import LoggingConfig
from litestar.params import Body
from litestar.response import Redirect, Stream

import gates

FormData = Annotated[dict[str, Any], Body(media_type=RequestEncodingType.URL_ENCODED)]
Files = Annotated[dict[str, UploadFile], Body(media_type=RequestEncodingType.MULTI_PART)]


@get("/", media_type=MediaType.HTML)
async def index() -> str:
    return "<h1>Hello from Litestar</h1>"


@get("/items/{id:int}", name="item")
async def item(id: int, color: str | None = None) -> dict[str, Any]:
    return {"id": id, "color": color}


@get("/names/{name:str}")
async def name(name: str) -> dict[str, str]:
    return {"name": name}


@get("/links")
async def links(request: Request) -> dict[str, str]:
    return {"item": request.url_for("item", id=7)}


@post("/form", status_code=200)
async def form(data: FormData) -> dict[str, Any]:
    return {"name": data["name"], "fruit": data["fruit"]}


@post("/login", status_code=303)
async def login(request: Request, data: FormData) -> Redirect:
    response = Redirect(request.url_for("me"), status_code=303)
    response.set_cookie("name", data["name"])
    return response


@get("/me", name="me", media_type=MediaType.TEXT)
async def me(request: Request) -> str:
    return f"Hello, {request.cookies['name']}"


@post("/upload", status_code=200)
async def upload(data: Files) -> dict[str, Any]:
    file = data["file"]
    content = await file.read()
    return {"filename": file.filename, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@post("/json", status_code=200)
async def json(data: dict[str, Any]) -> dict[str, Any]:
    return {"got": data}


@get("/stream/{key:str}")
async def stream(key: str) -> Stream:
    async def parts() -> AsyncIterator[str]:
        yield "first\n"
        await gates.wait_async(key)
        yield "second\n"

    return Stream(parts(), media_type=MediaType.TEXT)


@post("/release/{key:str}")
async def release(key: str) -> str:
    gates.open(key)
    return "released"


@get("/error")
async def error() -> None:
    raise RuntimeError("a bug in the app")


app = Litestar(
    [index, item, name, links, form, login, me, upload, json, stream, release, error],
    logging_config=LoggingConfig(log_exceptions="always"),
)
