"""Processes that an app starts: with its event loop, by os.fork(), and by multiprocessing."""

import sys

import psutil
import pytest

from support import raw
from support.check import Servers
from support.polling import wait_until


@pytest.mark.parametrize("runtime", ["uvloop", "native"])
def test_a_process_of_an_event_loop(serve: Servers, runtime: str) -> None:
    """In a thread of Caddy it leaves no handler of a signal that would run on a stack of Go's."""
    server = serve(f"python {{\nmodule_asgi subprocess_app:app\nruntime {runtime}\nimport worker\n}}")
    for path in ("/exec", "/shell"):
        for _ in range(3):
            answer = server.get(path).json()
            assert (answer["output"], answer["status"]) == ("through a process", 0)
            if sys.platform == "linux" and server.worker.runtime == "thread":
                assert answer["missing_flags"] == []


@pytest.mark.parametrize("runtime", ["uvloop", "native"])
def test_a_process_whose_start_is_cancelled_is_not_left_behind(serve: Servers, runtime: str) -> None:
    """The check after each test finds what is."""
    server = serve(f"python {{\nmodule_asgi subprocess_app:app\nruntime {runtime}\nimport worker\n}}")
    assert server.get("/cancelled").json() == {"cancelled": True}


@pytest.mark.parametrize("threads", [1, 4])
def test_a_process_that_a_wsgi_app_forks_ends_with_its_own_status(serve: Servers, threads: int) -> None:
    server = serve(f"python {{\nmodule_wsgi fork_app:app\nworkers 1\nthreads {threads}\nimport worker\n}}")
    for status in ("3", "0", "3"):
        assert server.get(f"/?{status}").text == status
    wait_until(lambda: server.log.output("stdout").count("the child ends") == 3, "what the children have written")


POOLS = "python {\nmodule_wsgi pool_app:app\nworkers 1\nimport worker\n}"


def test_an_exit_ends_a_pool_of_processes_and_does_not_wait_for_its_helpers(serve: Servers) -> None:
    """The check after each test finds what is left. multiprocessing's resource tracker has its starter's output."""
    server = serve(POOLS)
    assert server.get("/pool").text.isdigit()
    assert server.stop() == 0
    assert not any(entry["msg"] == "exit functions did not end in time" for entry in server.log.entries())


def test_a_process_that_an_app_forks_keeps_no_connection_and_no_port(serve: Servers) -> None:
    server = serve(POOLS)
    with raw.Connection(server) as client:
        child = psutil.Process(int(client.get(b"/fork?1000", b"Connection: close").body))
        assert client.read(1) == b""
    port = (server.port.number,)
    wait_until(lambda: not any(one.laddr[-1:] == port for one in child.net_connections("inet")), "no listener in it")
    child.kill()
    server.stop()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child's end")
