"""What an app sees and does in an interpreter that it shares with Caddy and other apps; see test_thread.py."""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any


def interpreter() -> str:
    """Where this runs."""
    return json.dumps(
        {
            "pid": os.getpid(),
            "executable": sys.executable,
            "in_main_thread": threading.current_thread() is threading.main_thread(),
            "handlers": [signal.getsignal(number) is not None for number in (signal.SIGINT, signal.SIGTERM)],
            "threads": threading.active_count(),
            "fault_handlers": faulthandler.is_enabled(),
        }
    )


def terminate_child() -> str:
    """How a child process ends that is asked to."""
    child = subprocess.Popen(["sleep", "1000"])
    child.terminate()
    return str(child.wait(10))


def write_to_nobody() -> str:
    """What a write to a pipe gives that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        os.write(writer, b"x")
    except BrokenPipeError:
        return "BrokenPipeError"
    finally:
        os.close(writer)
    return "written"


def ask_caddy_to_end() -> str:
    """SIGTERM for the whole process, and for this thread of it."""
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    return "asked"


def never_end() -> str:
    """Hold this thread fast, whatever happens."""
    print("holding fast", flush=True)
    while True:
        time.sleep(1000)


def refuse_threads() -> str:
    """Have no further thread start: none can have such a stack."""
    threading.stack_size(1 << 46)
    return "refused"


def allow_threads() -> str:
    """Have threads start again."""
    threading.stack_size(0)
    return "allowed"


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI app: the path is one of the functions."""
    answers = {f"/{answer.__name__}": answer for answer in ANSWERS}
    body = answers[environ["PATH_INFO"]]().encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


ANSWERS = (interpreter, terminate_child, write_to_nobody, ask_caddy_to_end, never_end, refuse_threads, allow_threads)
