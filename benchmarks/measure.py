"""The rounds: every contender of a case runs at once, and each gets its turn under load."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cases import STARTUP_WORKERS, Case
from contenders import CONTENDERS
from load import measure
from request import Failure
from results import Outcome, Series, Startup
from stack import Setup, Stack, running

WARM_UP_SECONDS = 1
SENT_FILE = "download.bin"  # what `limit` of the download case sends


@dataclass(frozen=True)
class Plan:
    """How to measure."""

    setup: Setup
    wrk: str
    seconds: int
    rounds: int


def measure_case(plan: Plan, case: Case, workers: int) -> list[Series]:
    """Put every contender of a case under load, round after round: A B C, A B C, and so on.

    All run from the first round to the last; those whose turn it is not are idle. A failure ends the part of that
    contender alone.
    """
    connections = case.connections[workers]
    found = [Series(case.name, workers, name) for name in case.contenders]
    stacks: dict[str, Stack] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as root, ExitStack() as started:
        (Path(root) / SENT_FILE).write_bytes(case.body)
        for series in found:
            with _failing(series):
                start = running(plan.setup, CONTENDERS[series.contender], case, workers, Path(root))
                stack = started.enter_context(start)
                stack.wait_ready()
                stack.wait_quiet()
                measure(stack, plan.wrk, connections, WARM_UP_SECONDS)
                stacks[series.contender] = stack
        for _ in range(plan.rounds):
            for series in found:
                with _failing(series):
                    if series.failure is None:
                        stack = stacks[series.contender]
                        series.samples.append(measure(stack, plan.wrk, connections, plan.seconds))
    return found


def measure_startup(plan: Plan, case: Case) -> list[Startup]:
    """Time every contender of a case from exec to the first right answer, round after round.

    Caddy and the app server are started at once. A first round that does not count fills the disk cache and writes
    Python's bytecode.
    """
    found = [Startup(case.name, STARTUP_WORKERS, name) for name in case.contenders if name != "respond"]
    for round_ in range(plan.rounds + 1):
        for startup in found:
            with _failing(startup):
                if startup.failure is None:
                    seconds = _start_once(plan, case, startup.contender)
                    if round_ > 0:
                        startup.seconds.append(seconds)
    return found


@contextmanager
def _failing(outcome: Outcome) -> Iterator[None]:
    """Note a Failure in `outcome`, and go on."""
    try:
        yield
    except Failure as failure:
        outcome.failure = str(failure)


def _start_once(plan: Plan, case: Case, contender: str) -> float:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as root,
        running(plan.setup, CONTENDERS[contender], case, STARTUP_WORKERS, Path(root)) as stack,
    ):
        seconds = stack.wait_ready()
        stack.wait_quiet()  # some servers lose their workers when they are stopped in the middle of their start
        return seconds
