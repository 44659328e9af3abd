"""ASGI apps with a lifespan."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from asgi_apps import Receive, Scope, Send
from asgi_apps import app as http_app


def lifespan(**how: Any) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await http_app(scope, receive, send)
            return
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
        assert await receive() == {"type": "lifespan.startup"}
        print("startup")
        await asyncio.sleep(0)
        if "raises" in how:
            raise how["raises"]
        if "fails" in how:
            await send({"type": "lifespan.startup.failed", **how["fails"]})
            if "then_raises" in how:
                raise how["then_raises"]
            return
        scope["state"].update(count=0, shared=[])
        await send({"type": "lifespan.startup.complete"})
        if "ends" in how:
            return
        if "crashes" in how:  # as Starlette does
            await send({"type": "lifespan.shutdown.failed", "message": how["crashes"]})
            raise RuntimeError("crashed")
        assert await receive() == {"type": "lifespan.shutdown"}
        await asyncio.sleep(0)
        print("shutdown")
        if "shutdown_raises" in how:
            raise how["shutdown_raises"]
        if "shutdown_fails" in how:
            await send({"type": "lifespan.shutdown.failed", "message": how["shutdown_fails"]})
            if "then_raises" in how:
                raise how["then_raises"]
            return
        await send({"type": "lifespan.shutdown.complete"})

    return app


good = lifespan()
fails = lifespan(fails={"message": "no database"})
fails_as_told = lifespan(fails={"message": os.environ.get("FAILURE")})
fails_and_raises = lifespan(fails={"message": "no database"}, then_raises=ValueError("no database"))
fails_silently = lifespan(fails={})
raises = lifespan(raises=ValueError("no cache"))
exits = lifespan(raises=SystemExit("no disk"))
ends = lifespan(ends=True)
crashes = lifespan(crashes="the background task is lost")
shutdown_fails = lifespan(shutdown_fails="could not save")
shutdown_fails_and_raises = lifespan(shutdown_fails="could not save", then_raises=ValueError("could not save"))
shutdown_raises = lifespan(shutdown_raises=ValueError("could not close"))


async def ignores(scope: Scope, receive: Receive, send: Send) -> None:
    """Returns from a lifespan scope at once."""
    if scope["type"] == "http":
        await http_app(scope, receive, send)


async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
    """Knows only HTTP, as the specification's own example."""
    assert scope["type"] == "http"
    await http_app(scope, receive, send)
