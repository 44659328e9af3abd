"""A real browser: headless Chromium, driven by its DevTools protocol."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import ClientConnection, connect

from support.polling import wait_until
from support.server import isolated_environment

_OPTIONS = (
    "--headless",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing but the pages under test
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--no-sandbox",  # which does not work for root, nor in most containers
)


def find() -> str | None:
    """A Chromium that runs, None if there is none. What some systems have in its place only says how to install it."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        program = shutil.which(name)
        if program and subprocess.run([program, "--version"], capture_output=True).returncode == 0:
            return program
    return None


class Browser:
    """A browser with a fresh profile.

    Args:
        program: what find() found.
    """

    def __init__(self, program: str) -> None:
        self._connections = ExitStack()
        # Chromium has a Unix socket under TMPDIR, whose path may not be as long as that of a test's folder.
        self._folder = tempfile.TemporaryDirectory(prefix="browser-")
        folder = Path(self._folder.name)
        (folder / "tmp").mkdir()
        log = folder / "log"
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                [program, *_OPTIONS, f"--user-data-dir={folder}/profile", "about:blank"],
                env=isolated_environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that it can be killed with its children
            )
        try:
            listens = folder / "profile/DevToolsActivePort"
            wait_until(lambda: _lines(listens) == 2 or self._process.poll() is not None, "DevTools of Chromium", 60)
            assert self._process.returncode is None, f"Chromium ended:\n{log.read_text()}"
            port, path = listens.read_text().splitlines()
            self._address = f"ws://127.0.0.1:{port}"
            self._devtools = DevTools(self._connect(path))
        except BaseException:
            self._kill()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            self._devtools.call("Browser.close")
            self._process.wait(15)
        finally:
            self._connections.close()
            self._kill()

    def open(self, url: str) -> Page:
        """A page of its own window, which begins to load `url`."""
        target = self._devtools.call("Target.createTarget", url="about:blank", newWindow=True)["targetId"]
        page = Page(self._connect(f"/devtools/page/{target}"))
        for domain in ("Network", "Page", "Runtime"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=url)
        return page

    def _connect(self, path: str) -> ClientConnection:
        return self._connections.enter_context(connect(self._address + path, proxy=None, max_size=None))

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._folder.cleanup()


class Navigated(Exception):
    """The page that was asked has made room for another one."""


class DevTools:
    """A part of the browser, behind its connection.

    Attributes:
        events: those that came so far: pairs of method and parameters.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers: Iterator[int] = count(1)
        self.events: list[tuple[str, Any]] = []

    def call(self, method: str, **parameters: Any) -> Any:
        """The result of a method; AssertionError if it fails, Navigated if the page has gone meanwhile."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self._connection.recv(30))).get("id") != number:
            self.events.append((message["method"], message["params"]))
        if message.get("error", {}).get("message") == "Inspected target navigated or closed":
            raise Navigated(method)
        assert "result" in message, f"{method}: {message}"
        return message["result"]

    def seen(self, method: str) -> list[Any]:
        """The parameters of each event of this kind so far."""
        return [parameters for name, parameters in self.events if name == method]


class Page(DevTools):
    """A page."""

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; AssertionError if it throws."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """Wait until a JavaScript expression is true, and return its value. The page may be another one meanwhile."""

        def value() -> Any:
            try:
                return self.evaluate(expression)
            except Navigated:
                return None

        return wait_until(value, f"true value of {expression}", 30)

    def type(self, selector: str, text: str) -> None:
        """Click on an element as a user does, and type into it."""
        self.click(selector)
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click on the middle of an element as a user does, once it is there."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(f"!!{element}")
        box = self.evaluate(f"{element}.getBoundingClientRect().toJSON()")
        point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for event in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=event, button="left", clickCount=1, **point)


def _lines(path: Path) -> int:
    """How many lines a file has; none as long as it is not there."""
    return len(path.read_text().splitlines()) if path.exists() else 0
