"""An ASGI app that runs a process of its own with the event loop, and looks at who is told of its end."""

import asyncio
import ctypes
import json
import signal
from collections.abc import Awaitable, Callable
from typing import Any

SA_ONSTACK, SA_RESTART = 0x08000000, 0x10000000  # asm-generic/signal-defs.h


class SigAction(ctypes.Structure):
    """What sigaction(2) tells, as glibc and musl have it."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def missing_flags() -> list[str]:
    """Which flags the handler of SIGCHLD lacks that Go wants of each; none if there is no handler."""
    action = SigAction()
    if ctypes.CDLL(None).sigaction(int(signal.SIGCHLD), None, ctypes.byref(action)) != 0:
        raise OSError("sigaction failed")
    if not action.handler:
        return []
    wanted = {"SA_ONSTACK": SA_ONSTACK, "SA_RESTART": SA_RESTART}
    return [name for name, flag in wanted.items() if not action.flags & flag]


async def app(
    scope: dict[str, Any], receive: Callable[..., Awaitable[Any]], send: Callable[..., Awaitable[None]]
) -> None:
    """Answers with what `cat` has sent back, and with its exit status; at /cancelled with whether a start was."""
    if scope["path"] == "/cancelled":
        start = asyncio.ensure_future(asyncio.create_subprocess_exec("sleep", "1000"))
        await asyncio.sleep(0)
        start.cancel()
        await asyncio.wait([start])
        await _answer(send, {"cancelled": start.cancelled()})
        return
    if scope["path"] == "/shell":
        child = await asyncio.create_subprocess_shell("cat", stdin=-1, stdout=-1)
    else:
        child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    missing = missing_flags()
    output, _ = await child.communicate(b"through a process")
    await _answer(send, {"output": output.decode(), "status": child.returncode, "missing_flags": missing})


async def _answer(send: Callable[..., Awaitable[None]], answer: dict[str, Any]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
