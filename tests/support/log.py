"""Caddy's log, read back."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.polling import wait_until

Entry = dict[str, Any]


class Log:
    """What Caddy wrote to standard error: JSON entries, one to a line.

    A line that is not JSON (Go's own panic trace, say), or has a field twice, becomes an entry of level "raw" with the
    line as its "msg".
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def position(self) -> int:
        """Where the log ends now, for `entries` and `wait_for`."""
        return self.path.stat().st_size

    def entries(self, since: int = 0) -> list[Entry]:
        """The complete entries after position `since`."""
        return [entry for entry, _ in self.read(since)]

    def read(self, since: int = 0) -> Iterator[tuple[Entry, int]]:
        """The complete entries after position `since`, each with the position where it ends."""
        position = since
        with open(self.path, "rb") as file:
            file.seek(since)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                position += len(line)
                yield _parse(line), position

    def wait_for(self, wanted: Callable[[Entry], object], since: int = 0, seconds: float = 15) -> Entry:
        """The first entry after `since` for which `wanted` is true; AssertionError if it does not come in time."""

        def find() -> Entry | None:
            return next((entry for entry in self.entries(since) if wanted(entry)), None)

        entry = wait_until(find, f"such entry in the log {self.path}", seconds)
        assert entry is not None
        return entry

    def errors(self, since: int = 0) -> list[Entry]:
        """The entries after `since` that say that something went wrong: above warn, and raw lines."""
        return [entry for entry in self.entries(since) if entry["level"] not in ("debug", "info", "warn")]

    def output(self, stream: str | None = None, since: int = 0) -> list[str]:
        """The lines that workers wrote to `stream` ("stdout" or "stderr"), or to both."""
        return [
            entry["line"]
            for entry in self.entries(since)
            if entry["msg"] == "worker output" and stream in (None, entry["stream"])
        ]

    def tail(self, lines: int = 40) -> str:
        """The last lines as they are, for a person to read."""
        return "\n".join(self.path.read_text(errors="replace").splitlines()[-lines:])


def _parse(line: bytes) -> Entry:
    try:
        entry: Entry = json.loads(line, object_pairs_hook=_unique)
        return entry
    except ValueError:
        return {"level": "raw", "msg": line.decode(errors="replace").rstrip("\n")}


def _unique(pairs: list[tuple[str, Any]]) -> Entry:
    entry = dict(pairs)
    if len(entry) != len(pairs):
        raise ValueError("a field is given twice")
    return entry
