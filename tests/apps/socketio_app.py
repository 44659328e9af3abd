"""python-socketio under ASGI, as its documentation has it; see test_websocket_apps.py."""

from typing import Any

import socketio

sio = socketio.AsyncServer(async_mode="asgi")
app = socketio.ASGIApp(sio)


@sio.event
async def connect(sid: str, environ: dict[str, Any], auth: dict[str, str] | None) -> None:
    if auth and auth.get("password") != "secret":
        raise socketio.exceptions.ConnectionRefusedError("wrong password")
    await sio.emit("welcome", {"path": environ["PATH_INFO"]}, to=sid)


@sio.event
async def disconnect(sid: str, reason: str) -> None:
    await sio.emit("left", reason)


@sio.event
async def double(sid: str, number: int) -> int:
    return 2 * number


@sio.event
async def join(sid: str, room: str) -> None:
    await sio.enter_room(sid, room)


@sio.event
async def say(sid: str, room: str, text: str) -> None:
    await sio.emit("said", text, room=room)


@sio.event
async def count(sid: str, number: int) -> None:
    sio.start_background_task(_count, sid, number)


async def _count(sid: str, number: int) -> None:
    for value in range(number):
        await sio.sleep(0.01)
        await sio.emit("counted", value, to=sid)


@sio.event
async def binary(sid: str, data: bytes) -> bytes:
    return data[::-1]


@sio.event
async def call_me(sid: str) -> None:
    sio.start_background_task(_call, sid)


async def _call(sid: str) -> None:
    await sio.emit("called", await sio.call("question", to=sid), to=sid)
