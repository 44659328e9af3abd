"""What an app can see of its worker, and requests that take as long as a test wants; see test_lifecycle.py."""

import atexit
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs
from wsgiref.validate import validator

atexit.register(print, "goodbye from", os.getpid(), flush=True)


def process() -> str:
    """This process, as JSON."""
    return json.dumps(
        {
            "pid": os.getpid(),
            "cwd": os.getcwd(),
            "path": sys.path[0],
            "prefix": sys.prefix,
            "executable": sys.executable,
            "version": "{}.{}".format(*sys.version_info),
        }
    )


def hold(file: str) -> str:
    """Say that the request is here, and end it when `file` exists."""
    print("holding in", os.getpid(), flush=True)
    while not os.path.exists(file):
        time.sleep(0.005)
    return str(os.getpid())


def output() -> str:
    """Write to every place where programs write their messages."""
    print("to standard output", flush=True)
    print("to standard error", file=sys.stderr, flush=True)
    print("ünïcode and a tab\t", flush=True)
    logging.getLogger("shop").warning("from logging")
    return "written"


def daemon() -> str:
    """Leave a process behind, in a session of its own, which holds this one's output."""
    return str(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)


@validator
def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI app."""
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    answers = {
        "/process": process,
        "/hold": lambda: hold(query["file"]),
        "/output": output,
        "/daemon": daemon,
        "/env": lambda: os.environ.get(query["name"], "(not set)"),
    }
    body = answers[environ["PATH_INFO"]]().encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
