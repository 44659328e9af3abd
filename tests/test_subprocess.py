"""Processes that an app starts with its event loop."""

import sys

import pytest

from support.check import Servers


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
