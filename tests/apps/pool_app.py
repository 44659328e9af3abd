"""A WSGI app that gives work to processes: a pool of its own, which is there until the end, or one that it forks."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """At /pool a process of the pool, at /fork one that goes on for so many seconds as the query says."""
    if environ["PATH_INFO"] == "/pool":
        answer = pool.submit(os.getpid).result()
    elif environ["PATH_INFO"] == "/fork":
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(float(environ["QUERY_STRING"]),))
        child.start()
        assert child.pid is not None
        answer = child.pid
    else:
        answer = os.getpid()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(answer).encode()]
