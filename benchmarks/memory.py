"""The memory of four apps, each in a process of its own or all as threads of Caddy."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from cases import APPS, CASES
from contenders import CONTENDERS, caddyfile
from stack import POLL_SECONDS, Stack, environment, free_port

SERVED = ("hello-wsgi", "hello-asgi", "flask", "fastapi")
"""The cases whose apps are served, one worker each."""

REQUESTS = 200
"""To each app before the measurement."""


def measure_memory(caddy: Path, runtime: str) -> float:
    """Start Caddy with the apps; return the MiB that it and its workers hold when each has answered some requests."""
    cases = [case for case in CASES if case.name in SERVED]
    handlers = "".join(
        f"handle_path /{case.name}/* {{\npython {{\nmodule_{case.interface} {case.app}\nworkers 1\n"
        f"workers_runtime {runtime}\nworking_dir {APPS}\nvenv {sys.prefix}\n}}\n}}\n"
        for case in cases
    )
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        config = folder / "Caddyfile"
        config.write_text(caddyfile(handlers, port, folder))
        with (folder / "log").open("wb") as log:
            command = [str(caddy), "run", "--config", str(config)]
            process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=log, stderr=log)
        stack = Stack(cases[0], CONTENDERS["caddy-snake"], port, folder, [process], time.perf_counter())
        try:
            for case in cases:
                _use(stack, f"http://127.0.0.1:{port}/{case.name}/", case.body)
            return stack.memory_mib()
        finally:
            stack.stop()


def _use(stack: Stack, url: str, body: bytes) -> None:
    answered = 0
    while answered < REQUESTS:
        try:
            with urllib.request.urlopen(url) as response:
                assert response.read() == body
        except urllib.error.URLError:  # Caddy does not listen yet
            stack.check_alive()
            time.sleep(POLL_SECONDS)
        else:
            answered += 1


def compare_memory(caddy: Path, rounds: int) -> str:
    """Both ways of running them, by turns; a line with the medians."""
    runtimes = ("process", "thread")
    found: dict[str, list[float]] = {runtime: [] for runtime in runtimes}
    for _ in range(rounds):
        for runtime in runtimes:
            found[runtime].append(measure_memory(caddy, runtime))
    process, thread = (statistics.median(found[runtime]) for runtime in runtimes)
    return (
        f"Caddy with {len(SERVED)} apps ({', '.join(SERVED)}): {process:.0f} MiB in processes, "
        f"{thread:.0f} MiB in threads ({thread / process:.2f})"
    )
