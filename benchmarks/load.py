"""Load on one contender for some seconds, and what it took: by wrk, or as events.py and messages.py say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import events
import messages
from request import LOG, Failure, wrong_answer
from results import Sample
from stack import Stack

SCRIPT = Path(__file__).parent / "wrk.lua"
THREADS = max(1, (os.cpu_count() or 1) // 2)  # of the load generator
ERRORS = ("connect", "read", "write", "timeout", "status")


def find_wrk() -> str:
    """The load generator's path."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk, the load generator, is not installed: `apt-get install wrk` or `brew install wrk`")
    return wrk


def measure(stack: Stack, wrk: str, connections: int, seconds: int) -> Sample:
    """Put a contender under its case's load. Raise Failure if a single answer was wrong."""
    if stack.case.load == "events":
        return events.measure(stack, connections, seconds)
    if stack.case.load == "messages":
        return messages.measure(stack, connections, seconds)
    return _measure_requests(stack, wrk, connections, seconds)


def _measure_requests(stack: Stack, wrk: str, connections: int, seconds: int) -> Sample:
    """Keep `connections` keep-alive connections busy for `seconds`."""
    threads = min(THREADS, connections)
    command = [wrk, "--threads", str(threads), "--connections", str(connections), "--duration", f"{seconds}s"]
    command += ["--timeout", "30s", "--script", str(SCRIPT), f"http://127.0.0.1:{stack.port}/"]
    if stack.case.upload:
        command += ["--", str(stack.case.upload)]

    cpu_before = stack.cpu_seconds()
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    cpu_seconds = stack.cpu_seconds() - cpu_before

    if run.returncode != 0:
        raise Failure(f"wrk ended with status {run.returncode}: {run.stderr.strip() or run.stdout.strip()}")
    report: dict[str, int] = json.loads(run.stdout.splitlines()[-1])
    _check(stack, report)
    requests = report["requests"]
    return Sample(
        requests_per_second=requests / (report["microseconds"] / 1e6),
        p50_us=float(report["p50"]),
        p99_us=float(report["p99"]),
        cpu_us=cpu_seconds / requests * 1e6,
        memory_mib=stack.memory_mib(),
    )


def _check(stack: Stack, report: dict[str, int]) -> None:
    """Raise Failure unless every request of a run was answered rightly, as far as wrk and one more request can tell."""
    stack.check_alive()
    if bad := [f"{report[kind]} {kind}" for kind in ERRORS if report[kind]]:
        raise Failure(f"errors: {', '.join(bad)}{LOG}{stack.last_words()}")
    if report["requests"] == 0:
        raise Failure("not one request was answered")
    if report["bytes"] < report["requests"] * len(stack.case.body):
        raise Failure(f"{report['bytes']} bytes for {report['requests']} answers: some were cut short")
    if wrong := wrong_answer(stack.case, stack.port):
        raise Failure(f"wrong answer after the load: {wrong}")
