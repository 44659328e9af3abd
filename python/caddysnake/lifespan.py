"""The ASGI lifespan protocol (spec 2.0): startup before the worker is ready, shutdown before it exits.

The setting `lifespan` is "on", "off" or "auto". An app that raises at the lifespan scope does not speak the protocol
("Lifespan Protocol", "Scope"): under "auto" it is served without, under "on" it fails the start.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from .errors import StartError, describe

# What the traceback of an exception group has before its lines.
_IN_GROUP = re.compile(r"^ *[|+] ")


class Lifespan:
    """Runs the app's lifespan as one task, from `startup()` to `shutdown()`.

    `required`: an app that does not speak the protocol is an error.
    """

    def __init__(self, app: Callable[..., Any], log: Callable[..., None], required: bool = True) -> None:
        self.state: dict[str, Any] | None = None  # for the requests' scopes; None: the app does not support it
        self._app = app
        self._log = log
        self._required = required
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answer: asyncio.Future[dict[str, Any] | None] | None = None  # the answer to the last event
        self._failed = False  # the app has answered with a failure
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        """Returns when the app has started. Raises StartError with the app's own message when it fails."""
        state: dict[str, Any] = {}
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        self._task = asyncio.ensure_future(self._run(scope))
        try:
            answer = await self._ask("lifespan.startup")
        except BaseException as exc:  # SystemExit too
            message, trace = describe(exc)
            if isinstance(exc, Exception) and not self._required:
                self._log("info", "app does not speak the lifespan protocol; it runs without", error=message)
                return
            fix = "if the app does not speak the lifespan protocol, say `lifespan auto` or `off`"
            raise StartError(f"the app's lifespan startup failed: {message} ({fix})", trace) from exc
        if answer is None:
            level = "warn" if self._required else "info"
            self._log(level, "app ended its lifespan without an answer; it runs without one")
        elif answer["type"] == "lifespan.startup.failed":
            message, trace = _reason(answer)
            raise StartError(f"the app's lifespan startup failed: {message}", trace)
        else:
            self.state = state

    async def shutdown(self) -> None:
        """Returns when the app has shut down. A failure is logged."""
        if self._task is None or self._task.done():
            return
        try:
            answer = await self._ask("lifespan.shutdown")
        except BaseException as exc:
            message, trace = describe(exc)
            self._log("error", "app's lifespan shutdown failed", error=message, traceback=trace)
            return
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            message, trace = _reason(answer)
            self._log("error", "app's lifespan shutdown failed", error=message, traceback=trace)

    async def _ask(self, event: str) -> dict[str, Any] | None:
        """Returns the app's answer, None if it returned without one. Raises what it raised."""
        self._answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait({"type": event})
        return await self._answer

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._app(scope, self._events.get, self._send)
        except BaseException as exc:
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(exc)  # SystemExit too: it would stop the loop if it left this task
            elif isinstance(exc, Exception) and not self._failed:  # Starlette raises behind it what it has told
                message, trace = describe(exc)
                self._log("error", "app's lifespan ended with an exception", error=message, traceback=trace)
        else:
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(None)

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind not in (
            "lifespan.startup.complete",
            "lifespan.startup.failed",
            "lifespan.shutdown.complete",
            "lifespan.shutdown.failed",
        ):
            raise RuntimeError(f"unexpected lifespan message {kind!r}")
        if self._answer is None or self._answer.done():
            if kind == "lifespan.shutdown.failed" and not self._failed:
                # What Starlette says, unasked, of a lifespan that has crashed; then it raises.
                self._failed = True
                reason, trace = _reason(message)
                self._log("error", "app's lifespan ended with an exception", error=reason, traceback=trace)
                return
            raise RuntimeError(f"lifespan message {kind!r} answers nothing")
        self._failed = kind.endswith(".failed")
        self._answer.set_result(message)


def _reason(answer: dict[str, Any]) -> tuple[str, str]:
    """Returns the message of a `.failed` event as one line, and the traceback that frameworks put there, or ""."""
    text = str(answer.get("message") or "it gave no message").strip("\n")
    lines = [_IN_GROUP.sub("", line) for line in text.splitlines()]
    frames = [index for index, line in enumerate(lines) if line.startswith('  File "')]
    if not frames:
        return " ".join(lines).strip(), ""
    # What was raised is the first line that is not indented, behind the last frame.
    raised = next((line for line in lines[frames[-1] :] if not line.startswith(" ")), lines[-1].strip())
    return raised, text + "\n"
