"""Files whose descriptors a worker sends."""

from __future__ import annotations

import pytest
from conftest import Launch
from driver import APPS, FILE, RESPONSE


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


@pytest.mark.parametrize(("app", "interface"), [("esgi_apps:app", "esgi"), ("wsgi_apps:app", "wsgi")])
def test_greenlets_read_the_files_themselves_that_there_is_no_room_for(
    launch: Launch, app: str, interface: str
) -> None:
    worker = launch(app, interface, runtime="gevent", files=True).start()
    sent = [worker.response(stream) for stream in worker.burst(["/source"] * 100)]
    assert {got.closed for got in sent} == {FILE, RESPONSE}
    source = (APPS / "children.py").read_bytes()
    assert {got.body for got in sent if got.closed == RESPONSE} == {source}
