"""The chat in Starlette; see test_websocket_apps.py."""

from collections import defaultdict
from typing import Any

from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)


async def say(room: str, message: dict[str, Any]) -> None:
    for websocket in tuple(rooms[room]):
        await websocket.send_json(message)


class Room(WebSocketEndpoint):
    """Everyone in a room gets what one says."""

    encoding = "json"

    async def on_connect(self, websocket: WebSocket) -> None:
        """Let those in who have logged in."""
        if "name" not in websocket.session:
            await websocket.send_denial_response(JSONResponse({"detail": "log in first"}, 401))
            return
        await websocket.accept()
        rooms[websocket.path_params["room"]].add(websocket)
        await websocket.send_json({"url": str(websocket.url_for("room", room=websocket.path_params["room"]))})

    async def on_receive(self, websocket: WebSocket, data: dict[str, Any]) -> None:
        """Tell the others, or send away who asks for it."""
        if data["text"] == "/quit":
            await websocket.close(4000, "good bye")
        else:
            name = websocket.session["name"]
            await say(websocket.path_params["room"], {"name": name, "text": data["text"]})

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        """Tell those who stay."""
        members = rooms[websocket.path_params["room"]]
        if websocket in members:
            members.remove(websocket)
            await say(websocket.path_params["room"], {"left": websocket.session["name"], "code": close_code})


async def echo(websocket: WebSocket) -> None:
    await websocket.accept(subprotocol="echo.v2" if "echo.v2" in websocket.scope["subprotocols"] else None)
    async for data in websocket.iter_bytes():
        await websocket.send_bytes(data)


async def error(websocket: WebSocket) -> None:
    await websocket.accept()
    raise RuntimeError("a bug in the app")


async def login(request: Request) -> PlainTextResponse:
    request.session["name"] = request.path_params["name"]
    return PlainTextResponse("logged in")


app = Starlette(
    routes=[
        Route("/login/{name}", login),
        WebSocketRoute("/rooms/{room}", Room, name="room"),
        WebSocketRoute("/echo", echo),
        WebSocketRoute("/error", error),
    ],
    middleware=[Middleware(SessionMiddleware, secret_key="only for tests")],
)
