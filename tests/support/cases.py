"""The conformance apps (apps/conformance_*.py), as a test talks to them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import httpx

from support.polling import wait_until
from support.server import Server


class Cases:
    """A client that names the case which is to answer.

    Args:
        server: serves a conformance app.
        http2: speak HTTP/2, which needs a site over TLS.
        headers: for every request.
    """

    def __init__(self, server: Server, *, http2: bool = False, headers: Mapping[str, str] | None = None) -> None:
        self.server = server
        self.http2 = http2
        self.client = server.new_client(http1=not http2, http2=http2, headers=dict(headers or {}))

    def __enter__(self) -> Cases:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    @staticmethod
    def key() -> str:
        """A key for gates and notes that no other test has."""
        return uuid.uuid4().hex

    def request(self, method: str, case: str, argument: str = "", **options: Any) -> httpx.Response:
        """Request a case with an argument."""
        with self.stream(method, case, argument, **options) as response:
            response.read()
        return response

    def get(self, case: str, argument: str = "", **options: Any) -> httpx.Response:
        """Get a case with an argument."""
        return self.request("GET", case, argument, **options)

    def post(self, case: str, argument: str = "", **options: Any) -> httpx.Response:
        """Post to a case with an argument."""
        return self.request("POST", case, argument, **options)

    def stream(
        self, method: str, case: str, argument: str = "", **options: Any
    ) -> AbstractContextManager[httpx.Response]:
        """A response whose body the test reads as it comes."""
        headers = {"Case": case} | options.pop("headers", {})
        return self.client.stream(method, f"/?{argument}", headers=headers, **options)

    def notes(self, key: str) -> list[str]:
        """What the app has noted under a key so far."""
        notes: list[str] = self.get("notes", key).json()
        return notes

    def wait_noted(self, key: str, note: str) -> None:
        """Wait until the app has noted this."""
        wait_until(lambda: note in self.notes(key), f"note {note!r}")

    def wait_still(self, key: str) -> list[str]:
        """Wait until the app notes nothing new, 20 looks in a row, and return the notes."""
        last: list[list[str]] = []

        def still() -> bool:
            notes = self.notes(key)
            if last and notes != last[-1]:
                last.clear()
            last.append(notes)
            return len(last) > 20

        wait_until(still, f"end to what is noted under {key}", 30)
        return last[-1]

    def open(self, key: str) -> None:
        """Let the request that waits at this gate go on."""
        assert self.get("open_gate", key).status_code == 200
