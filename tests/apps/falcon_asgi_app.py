"""The common site in Falcon, under ASGI; see test_frameworks.py and falcon_app.py."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import falcon
import falcon.asgi
from falcon.asgi import Request, Response

import gates


class Index:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_HTML
        resp.text = "<h1>Hello from Falcon</h1>"


class Item:
    async def on_get(self, req: Request, resp: Response, id: int) -> None:
        resp.media = {"id": id, "color": req.get_param("color")}


class Name:
    async def on_get(self, req: Request, resp: Response, name: str) -> None:
        resp.media = {"name": name}


class Links:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"item": f"{req.prefix}/items/7"}


class Form:
    async def on_post(self, req: Request, resp: Response) -> None:
        form = await req.get_media()
        resp.media = {"name": form["name"], "fruit": form["fruit"]}


class Login:
    async def on_post(self, req: Request, resp: Response) -> None:
        form = await req.get_media()
        resp.set_cookie("name", form["name"], secure=False)
        raise falcon.HTTPSeeOther(f"{req.prefix}/me")


class Me:
    async def on_get(self, req: Request, resp: Response) -> None:
        resp.text = f"Hello, {req.cookies['name']}"


class Upload:
    async def on_post(self, req: Request, resp: Response) -> None:
        async for part in await req.get_media():
            digest, size = hashlib.sha256(), 0
            while chunk := await part.stream.read(64 << 10):
                digest.update(chunk)
                size += len(chunk)
            resp.media = {"filename": part.filename, "size": size, "sha256": digest.hexdigest()}


class Json:
    async def on_post(self, req: Request, resp: Response) -> None:
        resp.media = {"got": await req.get_media()}


class Stream:
    async def on_get(self, req: Request, resp: Response, key: str) -> None:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first\n"
            await gates.wait_async(key)
            yield b"second\n"

        resp.content_type = falcon.MEDIA_TEXT
        resp.stream = parts()


class Release:
    async def on_post(self, req: Request, resp: Response, key: str) -> None:
        gates.open(key)
        resp.text = "released"


class Error:
    async def on_get(self, req: Request, resp: Response) -> None:
        raise RuntimeError("a bug in the app")


app = falcon.asgi.App()
app.add_route("/", Index())
app.add_route("/items/{id:int}", Item())
app.add_route("/names/{name}", Name())
app.add_route("/links", Links())
app.add_route("/form", Form())
app.add_route("/login", Login())
app.add_route("/me", Me())
app.add_route("/upload", Upload())
app.add_route("/json", Json())
app.add_route("/stream/{key}", Stream())
app.add_route("/release/{key}", Release())
app.add_route("/error", Error())


async def mounted(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """`app` for places other than the root: Falcon routes by the whole of scope["path"], which includes root_path."""
    await app(scope | {"path": scope["path"].removeprefix(scope["root_path"])}, receive, send)
