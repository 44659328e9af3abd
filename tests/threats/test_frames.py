"""Threat 4: a frame whose length overflows, or that breaks off.

The two decoders are tested and fuzzed beside their code: internal/wire/python_test.go (both decode alike),
internal/wire/wire_test.go, internal/marshal/marshal_test.go, python/tests/test_wire.py and test_worker.py.
"""

import struct
from urllib.parse import quote

import pytest

from support.check import Servers
from support.polling import wait_until

MALFORMED = {
    "length over the cap": struct.pack("<III", 2**32 - 1, 1, 2),
    "head longer than the frame": struct.pack("<III", 4, 1, 5 << 8 | 2) + b"data",
    "unknown type": struct.pack("<III", 0, 1, 99),
    "stream never used": struct.pack("<III", 4, 2**31, 2) + b"data",
    "no frame at all": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.expect_errors("malformed frame", "worker ended before it answered")
@pytest.mark.parametrize("interface", ["wsgi", "asgi", "esgi"])
def test_threat_4_a_malformed_frame_ends_the_worker_that_sent_it_and_nothing_else(
    serve: Servers, interface: str
) -> None:
    app = f"module_{interface} threat_app:{interface}\nimport worker\n"
    server = serve(f"python /neighbour/* {{\n{app}\nworkers 1\n}}\npython {{\n{app}\nworkers 1\nenv_var VICTIM 1\n}}")
    pids, caddy = server.worker_pids(), server.caddy.pid
    for frame in MALFORMED.values():
        since = server.log.position()
        assert server.post(f"/frame?{quote(frame)}").status_code == 502
        entry = server.log.wait_for(lambda entry: entry["msg"] == "worker exited", since)
        assert "malformed frame" in entry["error"]
        assert server.get("/neighbour/").status_code == 200
        wait_until(lambda: server.get("/").status_code == 200, "answer from a new worker")
    assert len(server.worker_pids() & pids) == 1, "the neighbour's worker"
    assert server.caddy.pid == caddy
