"""The common site in Falcon, under WSGI; see test_frameworks.py and falcon_asgi_app.py."""

import hashlib
from collections.abc import Iterator
from wsgiref.validate import validator

import falcon
from falcon import Request, Response

import gates


class Index:
    def on_get(self, req: Request, resp: Response) -> None:
        resp.content_type = falcon.MEDIA_HTML
        resp.text = "<h1>Hello from Falcon</h1>"


class Item:
    def on_get(self, req: Request, resp: Response, id: int) -> None:
        resp.media = {"id": id, "color": req.get_param("color")}


class Name:
    def on_get(self, req: Request, resp: Response, name: str) -> None:
        resp.media = {"name": name}


class Links:
    def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"item": f"{req.prefix}/items/7"}


class Form:
    def on_post(self, req: Request, resp: Response) -> None:
        form = req.get_media()
        resp.media = {"name": form["name"], "fruit": form["fruit"]}


class Login:
    def on_post(self, req: Request, resp: Response) -> None:
        resp.set_cookie("name", req.get_media()["name"], secure=False)
        raise falcon.HTTPSeeOther(f"{req.prefix}/me")


class Me:
    def on_get(self, req: Request, resp: Response) -> None:
        resp.text = f"Hello, {req.cookies['name']}"


class Upload:
    def on_post(self, req: Request, resp: Response) -> None:
        for part in req.get_media():
            digest, size = hashlib.sha256(), 0
            while chunk := part.stream.read(64 << 10):
                digest.update(chunk)
                size += len(chunk)
            resp.media = {"filename": part.filename, "size": size, "sha256": digest.hexdigest()}


class Json:
    def on_post(self, req: Request, resp: Response) -> None:
        resp.media = {"got": req.get_media()}


class Stream:
    def on_get(self, req: Request, resp: Response, key: str) -> None:
        def parts() -> Iterator[bytes]:
            yield b"first\n"
            gates.wait(key)
            yield b"second\n"

        resp.content_type = falcon.MEDIA_TEXT
        resp.stream = parts()


class Release:
    def on_post(self, req: Request, resp: Response, key: str) -> None:
        gates.open(key)
        resp.text = "released"


class Error:
    def on_get(self, req: Request, resp: Response) -> None:
        raise RuntimeError("a bug in the app")


app = falcon.App()
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
validated = validator(app)
