"""A WSGI app that answers with the exit status of a process that it forks."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The status is the query."""
    child = os.fork()
    if not child:
        print("the child ends")
        sys.exit(int(environ["QUERY_STRING"]))
    _, status = os.waitpid(child, 0)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.waitstatus_to_exitcode(status)).encode()]
