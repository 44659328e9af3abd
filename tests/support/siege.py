"""How much of the suite to run: a tenth of a long test, or all with CADDYSNAKE_SIEGE=1, as `make siege` sets it."""

import os

SIEGE = os.environ.get("CADDYSNAKE_SIEGE") == "1"

# Files and tests that are about Caddy's part, which no Python changes, or that take very long: without SIEGE they run
# on the newest Python alone.
CADDYS_PART = (
    "conformance/test_files.py",
    "test_autoreload",  # and test_autoreload_browser.py
    "test_drain.py",
    "test_dynamic.py",
    "test_early.py",
    "test_examples.py",
    "test_memory.py",
    "test_python_reload.py",
    "test_python_server.py",
    "test_recycling.py",
    "test_scaling.py",
    "test_sse.py",
    "test_sysmon.py",
    "test_thread_reload.py::test_reloads_leave_nothing",
    "test_unread_bodies.py",
    "test_waiting.py",
    "test_websocket_http2.py",
    "test_websocket_idle.py",
    "test_websocket_tls.py",
    "threats/",
)


def share(whole: int) -> int:
    """How many of `whole` tries to make."""
    return whole if SIEGE else whole // 10


def pythons(test: str, found: list[str]) -> list[str]:
    """The interpreters, of those `found` from old to new, that a test (by its id) runs on."""
    return found[-1:] if not SIEGE and test.startswith(CADDYS_PART) else found
