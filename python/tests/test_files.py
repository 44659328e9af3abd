"""Files whose descriptors a worker sends."""

from __future__ import annotations

from conftest import Launch
from driver import FILE, RESPONSE


def test_a_start_leaves_with_its_file_although_that_waits_for_room(launch: Launch) -> None:
    worker = launch("asgi_apps:app", "asgi", files=True).start()
    streams = worker.burst(["/file"] * 100)
    later = worker.request("/start/wait")
    assert worker.next(later).kind == RESPONSE  # so long a lone start is held
    assert sorted(worker.descriptor() for _ in streams) == streams
    for stream in streams:
        got = worker.next(stream)
        assert (got.kind, got.end, got.head) == (FILE, True, (200, [(b"content-type", b"text/plain")]))
    worker.get("/open")
    assert worker.response(later).body == b"late"
