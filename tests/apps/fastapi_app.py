"""The common site in FastAPI, and what FastAPI adds; see test_frameworks.py and test_fastapi.py."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import BackgroundTasks, Cookie, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel

import gates

app = FastAPI(title="Common site")
finished_tasks: list[str] = []
waiting: list[str] = []
listeners = 0


class Order(BaseModel):
    """What /orders takes."""

    item: str
    count: int


@app.get("/", response_class=HTMLResponse)
async def index() -> str:
    return "<h1>Hello from FastAPI</h1>"


@app.get("/items/{id:int}")
def item(id: int, color: str | None = None) -> dict[str, Any]:
    return {"id": id, "color": color}  # a plain function: runs on a thread of the worker


@app.get("/names/{name}")
async def name(name: str) -> dict[str, str]:
    return {"name": name}


@app.get("/links")
async def links(request: Request) -> dict[str, str]:
    return {"item": str(request.url_for("item", id=7))}


@app.post("/form")
async def form(name: Annotated[str, Form()], fruit: Annotated[list[str], Form()]) -> dict[str, Any]:
    return {"name": name, "fruit": fruit}


@app.post("/login")
async def login(request: Request, name: Annotated[str, Form()]) -> RedirectResponse:
    response = RedirectResponse(request.url_for("me"), 303)
    response.set_cookie("name", name)
    return response


@app.get("/me", response_class=PlainTextResponse)
async def me(name: Annotated[str, Cookie()]) -> str:
    return f"Hello, {name}"


@app.post("/upload")
async def upload(file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    content = await file.read()
    return {"filename": file.filename, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@app.post("/json")
async def json(request: Request) -> dict[str, Any]:
    return {"got": await request.json()}


@app.get("/stream/{key}")
async def stream(key: str) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        yield "first\n"
        await gates.wait_async(key)
        yield "second\n"

    return StreamingResponse(parts(), media_type="text/plain")


@app.post("/release/{key}")
async def release(key: str) -> str:
    gates.open(key)
    return "released"


@app.get("/error")
async def error() -> None:
    raise RuntimeError("a bug in the app")


@app.post("/orders", status_code=201)
async def order(order: Order) -> Order:
    return order


@app.post("/tasks/{name}", status_code=202)
async def start_task(name: str, tasks: BackgroundTasks) -> dict[str, str]:
    async def finish() -> None:
        await gates.wait_async(name)
        finished_tasks.append(name)

    tasks.add_task(finish)
    return {"started": name}


@app.post("/slow_tasks/{name}", status_code=202)
async def start_slowly(name: str, tasks: BackgroundTasks) -> dict[str, str]:
    waiting.append(name)
    await gates.wait_async(name)
    tasks.add_task(finished_tasks.append, name)
    return {"started": name}


@app.get("/quiet")
async def quiet() -> StreamingResponse:
    """A stream with nothing more to say; /listeners counts those that wait for it to say something."""

    async def parts() -> AsyncIterator[str]:
        global listeners
        listeners += 1
        try:
            yield "first\n"
            await asyncio.Event().wait()
        finally:
            listeners -= 1

    return StreamingResponse(parts(), media_type="text/plain")


@app.get("/waiting")
async def list_waiting() -> list[str]:
    return waiting


@app.get("/listeners")
async def count_listeners() -> int:
    return listeners


@app.get("/tasks")
async def list_tasks() -> list[str]:
    return finished_tasks


behind_middleware = FastAPI()
behind_middleware.post("/slow_tasks/{name}", status_code=202)(start_slowly)
app.mount("/behind_middleware", behind_middleware)


@behind_middleware.middleware("http")
async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)
