"""python-socketio under WSGI, as its documentation has it for gevent."""

from typing import Any

import socketio

sio = socketio.Server(async_mode="gevent")
app = socketio.WSGIApp(sio)


@sio.event
def connect(sid: str, environ: dict[str, Any]) -> None:
    sio.emit("welcome", {"path": environ["PATH_INFO"]}, to=sid)


@sio.event
def disconnect(sid: str, reason: str) -> None:
    sio.emit("left", reason)


@sio.event
def double(sid: str, number: int) -> int:
    return 2 * number


@sio.event
def join(sid: str, room: str) -> None:
    sio.enter_room(sid, room)


@sio.event
def leave(sid: str) -> None:
    sio.disconnect(sid)


@sio.event
def say(sid: str, room: str, text: str) -> None:
    sio.emit("said", text, room=room)


@sio.event
def count(sid: str, number: int) -> None:
    sio.start_background_task(_count, sid, number)


def _count(sid: str, number: int) -> None:
    for value in range(number):
        sio.sleep(0.01)
        sio.emit("counted", value, to=sid)


@sio.event
def binary(sid: str, data: bytes) -> bytes:
    return data[::-1]
