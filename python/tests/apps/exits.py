"""Apps that have something to do, or something left, when their worker exits."""

import atexit
import threading
from typing import Any

atexit.register(print, "atexit")


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    return []


def esgi(scope: Any, protocol: Any) -> None: ...


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def __getattr__(name: str) -> Any:
    if name == "with_thread":
        threading.Thread(target=threading.Event().wait).start()
        return wsgi
    raise AttributeError(name)
