"""Apps that are written into folders and share one interpreter inside Caddy."""

from __future__ import annotations

from pathlib import Path

# An app that tells of itself, and imports a module of its own only when it is asked to.
SOURCE = """
import os

VERSION = {version!r}
print("this is", VERSION)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/lazy":
        import {helper} as helper
        body = helper.VERSION
    elif environ["PATH_INFO"] == "/file":
        with open("note.txt") as file:
            body = file.read()
    elif environ["PATH_INFO"] == "/release":
        body = os.environ["RELEASE"]
    elif environ["PATH_INFO"] == "/print":
        print("printed by", VERSION)
        body = VERSION
    else:
        body = VERSION
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
"""


# Makes it one for ASGI.
ASGI_SOURCE = """

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": VERSION.encode()})
"""


def write_app(folder: Path, module: str, version: str) -> None:
    """An app `module:app` in `folder`, with a module that it imports late, and a file that it reads."""
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(SOURCE.format(version=version, helper=f"{module}_helper"))
    (folder / f"{module}_helper.py").write_text(f"VERSION = {version!r}\n")
    (folder / "note.txt").write_text(version)


def handler(module: str, folder: Path, *settings: str) -> str:
    lines = "\n".join(settings)
    return f"python {{\nmodule_wsgi {module}:app\nimport interpreter\nworking_dir {folder}\n{lines}\n}}\n"


def two_apps(first: str, second: str) -> str:
    return f"handle_path /first/* {{\n{first}}}\nhandle_path /second/* {{\n{second}}}\n"
