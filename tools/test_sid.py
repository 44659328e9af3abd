"""Run a part of the end-to-end tests on Pythons that this machine does not have, in the Debian sid of sid.py.

Arguments go to pytest and take the place of the part that is run by default; `--make` alone makes that Debian, and runs
nothing.
"""

import os
import sys

import pythons
import sid
from test_e2e import PARALLEL
from workspace import BINARY, fail

# For some time after a Python is new there are packages that cannot be installed on it, and what needs them.
NOT_YET = {"3.15": ("orjson", "nicegui", "pyyaml")}

# WSGI, ASGI, ESGI, WebSockets, lifespan, reloads, packages in C, text encoding, and what is special to threads.
TESTS = (
    "conformance/test_asgi.py",
    "test_fastapi.py",
    "test_gevent.py",
    "test_interpreter.py",
    "test_lifecycle.py",
    "test_subprocess.py",
    "test_thread.py",
    "test_thread_reload.py",
    "test_websocket_apps.py",
)


def main() -> None:
    """pytest over these tests, with workers of both runtimes on each of the Pythons."""
    if why := sid.missing():
        print(f"left out, because {why}: Python {' and '.join(sid.PYTHONS)} in Debian sid")
        return
    root = sid.ensure_root()
    venvs = [
        sid.ensure_venv(root, "tests", version, pythons.REQUIREMENTS, NOT_YET.get(version, ()))
        for version in sid.PYTHONS
    ]
    if sys.argv[1:] == ["--make"]:
        return
    if not BINARY.exists():
        fail("there is no bin/caddy; run `make build` first")
    # CI: pytest cuts its messages short elsewhere.
    env = {name: os.environ.get(name, "") for name in ("CADDYSNAKE_SIEGE", "CI")}
    workers = [f"--worker-python={interpreter}" for interpreter in venvs]
    sid.run_inside(root, "tests", env, venvs[0], "-m", "pytest", *workers, *(sys.argv[1:] or (*PARALLEL, *TESTS)))


if __name__ == "__main__":
    main()
