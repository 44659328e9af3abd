"""The chat in FastAPI, and how FastAPI declares what a handshake must have; see test_websocket_apps.py."""

from collections import defaultdict
from typing import Annotated, Any

from fastapi import Cookie, Depends, FastAPI, HTTPException, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import WebSocketException

app = FastAPI()
rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)


async def say(room: str, message: dict[str, Any]) -> None:
    for websocket in tuple(rooms[room]):
        await websocket.send_json(message)


def logged_in(name: Annotated[str | None, Cookie()] = None) -> str:
    if name is None:
        raise HTTPException(401, "log in first")
    return name


@app.get("/login/{name}")
async def login(name: str, response: Response) -> str:
    response.set_cookie("name", name)
    return "logged in"


@app.websocket("/rooms/{room}", name="room")
async def room(websocket: WebSocket, room: str, name: Annotated[str, Depends(logged_in)]) -> None:
    await websocket.accept()
    rooms[room].add(websocket)
    await websocket.send_json({"url": str(websocket.url_for("room", room=room))})
    try:
        while (text := (await websocket.receive_json())["text"]) != "/quit":
            await say(room, {"name": name, "text": text})
        rooms[room].remove(websocket)
        await websocket.close(4000, "good bye")
        await say(room, {"left": name, "code": 4000})
    except WebSocketDisconnect as gone:
        rooms[room].remove(websocket)
        await say(room, {"left": name, "code": gone.code})


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept(subprotocol="echo.v2" if "echo.v2" in websocket.scope["subprotocols"] else None)
    async for data in websocket.iter_bytes():
        await websocket.send_bytes(data)


@app.websocket("/error")
async def error(websocket: WebSocket) -> None:
    await websocket.accept()
    raise RuntimeError("a bug in the app")


@app.websocket("/half/{number}")
async def half(websocket: WebSocket, number: int) -> None:
    await websocket.accept()
    if number % 2:
        raise WebSocketException(1008, "odd")
    await websocket.send_json(number // 2)
    await websocket.close()
