"""A WSGI app that waits, as it can under any server; and what is left of that under gevent."""

import threading
import time
from collections.abc import Callable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(1)
        body = "slept"
    else:
        body = threading.current_thread().name
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
