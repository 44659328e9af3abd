"""A WSGI thread that is in close() for long begins no request: those go to other workers, or wait in Caddy."""

from pathlib import Path

from support.check import Servers
from support.polling import wait_until


def test_requests_go_to_a_worker_whose_thread_is_free(serve: Servers, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    try:
        server = serve("python {\nmodule_wsgi slow_app:wsgi\nworkers 2\nthreads 1\nimport worker\n}", warm_up="/pid")
        closing = server.get(f"/close?{gate}").text
        for _ in range(10):
            assert server.get("/pid").text != closing
        gate.touch()
        wait_until(lambda: server.get("/pid").text == closing, "it serves again")
    finally:
        gate.touch()
