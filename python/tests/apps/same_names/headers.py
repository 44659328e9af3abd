"""An app in a module that is called like one of the worker's own."""

from typing import Any


def app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [__name__.rpartition(".")[2].encode()]
