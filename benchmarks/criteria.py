"""What Caddy Snake promises about its speed, as ratios within one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cases import GEVENT_RIVALS
from contenders import CONTENDERS
from results import Outcome, Results, counted, ratio

US, IN_THREAD = "caddy-snake", "caddy-snake-thread"
METRICS = {"requests_per_second": "requests/s", "cpu_us": "CPU per request", "p50_us": "p50", "p99_us": "p99"}


@dataclass(frozen=True)
class Verdict:
    """One promise, and what a run says about it."""

    promise: str
    figure: str
    kept: bool


@dataclass(frozen=True)
class RatioCriterion:
    """Caddy Snake's figure as a multiple of a rival's has a bound.

    With several rivals the best of them counts. `requests_per_second` has to be at least `bound` times the rival's, any
    other metric at most.
    """

    case: str
    workers: int
    metric: str
    rivals: tuple[str, ...]
    bound: float
    who: str = US

    def verdict(self, results: Results) -> Verdict:
        """Judge a run."""
        more_is_better = self.metric == "requests_per_second"
        sign = ">=" if more_is_better else "<="
        workers = counted(self.workers, "worker")
        promise = f"{self.case}, {workers}: {METRICS[self.metric]} {sign} {self.bound:g} x {_labels(self.rivals)}"
        if self.who != US:
            promise += f" ({CONTENDERS[self.who].label})"
        ours = results.find(self.case, self.workers, self.who)
        theirs = [results.find(self.case, self.workers, rival) for rival in self.rivals]
        if missing := _missing(ours, theirs):
            return Verdict(promise, missing, False)
        assert ours is not None
        ratios = [ratio(ours, series, self.metric) for series in theirs if series is not None]
        worst = min(ratios) if more_is_better else max(ratios)
        return Verdict(promise, f"{worst:.2f}", worst >= self.bound if more_is_better else worst <= self.bound)


@dataclass(frozen=True)
class StartupCriterion:
    """Caddy Snake answers at most `bound` seconds later than the fastest of the rivals."""

    case: str
    rivals: tuple[str, ...]
    bound: float

    def verdict(self, results: Results) -> Verdict:
        """Judge a run."""
        promise = f"{self.case}, start-up: no later than {_labels(self.rivals)} + {self.bound * 1000:.0f} ms"
        ours = results.find_startup(self.case, US)
        theirs = [results.find_startup(self.case, rival) for rival in self.rivals]
        if missing := _missing(ours, theirs):
            return Verdict(promise, missing, False)
        assert ours is not None
        fastest = min(startup.median() for startup in theirs if startup is not None)
        later = ours.median() - fastest
        figure = f"{ours.median() * 1000:.0f} ms against {fastest * 1000:.0f} ms ({later * 1000:+.0f} ms)"
        return Verdict(promise, figure, later <= self.bound)


def _labels(rivals: tuple[str, ...]) -> str:
    return " or ".join(CONTENDERS[rival].label for rival in rivals)


def _missing(ours: Outcome | None, theirs: Sequence[Outcome | None]) -> str | None:
    """Why there is no figure, or None."""
    for who, found in [("Caddy Snake", ours), *(("the rival", rival) for rival in theirs)]:
        if found is None:
            return f"{who} was not measured"
        if found.failure:
            return f"{who} failed"
    return None


GUNICORN = ("gunicorn-sync", "gunicorn-gthread")

CRITERIA: tuple[RatioCriterion | StartupCriterion, ...] = (
    RatioCriterion("hello-asgi", 1, "requests_per_second", ("respond",), 0.75),
    RatioCriterion("hello-asgi", 1, "cpu_us", ("respond",), 1.8),
    RatioCriterion("hello-wsgi", 1, "requests_per_second", ("respond",), 0.70),
    RatioCriterion("hello-wsgi", 1, "cpu_us", ("respond",), 2.0),
    RatioCriterion("hello-asgi", 1, "requests_per_second", ("granian-asgi",), 3),
    RatioCriterion("hello-wsgi", 1, "requests_per_second", ("granian-wsgi",), 3),
    RatioCriterion("fastapi", 1, "cpu_us", ("uvicorn",), 0.5),
    RatioCriterion("flask", 1, "cpu_us", ("granian-wsgi",), 0.45),
    RatioCriterion("fastapi", 2, "requests_per_second", ("uvicorn",), 2.5),
    RatioCriterion("flask", 2, "requests_per_second", GUNICORN, 4),
    RatioCriterion("json-esgi", 2, "requests_per_second", GEVENT_RIVALS, 2),
    StartupCriterion("fastapi", ("uvicorn",), 0.1),
    StartupCriterion("flask", GUNICORN, 0.1),
    RatioCriterion("alone-asgi", 1, "p50_us", ("respond",), 2.5),
    RatioCriterion("alone-wsgi", 1, "p50_us", ("respond",), 3.5),
    RatioCriterion("thread-wsgi", 1, "cpu_us", (US,), 1.1, IN_THREAD),
    RatioCriterion("thread-asgi", 1, "cpu_us", (US,), 1.1, IN_THREAD),
    RatioCriterion("broadcast", 1, "cpu_us", ("uvicorn",), 0.6),
    RatioCriterion("broadcast", 1, "p99_us", ("uvicorn",), 1),
    RatioCriterion("websocket-echo", 1, "requests_per_second", ("uvicorn",), 1.4),
    RatioCriterion("websocket-echo", 1, "cpu_us", ("uvicorn",), 0.65),
)
"""All promises. One worker: 64 connections; two workers: 100; `alone`: one; `broadcast`: 500; `websocket-echo`: 100."""
