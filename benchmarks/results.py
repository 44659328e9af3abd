"""The figures of one run, as they are kept in benchmarks/results/*.json."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Sample:
    """One contender under load once."""

    requests_per_second: float
    p50_us: float
    p99_us: float
    cpu_us: float
    """CPU of the whole server side for each request, in microseconds."""
    memory_mib: float
    """Proportional set size of the whole server side, in MiB."""


@dataclass
class Outcome:
    """What became of one contender in one case."""

    case: str
    workers: int
    contender: str
    failure: str | None = None
    """Why the figures do not count, or None."""


@dataclass
class Series(Outcome):
    """A contender under load: a sample for each round."""

    samples: list[Sample] = field(default_factory=list)

    def values(self, metric: str) -> list[float]:
        """One figure of every round."""
        return [getattr(sample, metric) for sample in self.samples]

    def median(self, metric: str) -> float:
        """The median of one figure over the rounds."""
        return statistics.median(self.values(metric))


@dataclass
class Startup(Outcome):
    """A contender from exec to its first right answer: the seconds of each round."""

    seconds: list[float] = field(default_factory=list)

    def median(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.seconds)


@dataclass
class Results:
    """Everything that one run has found."""

    started: str
    """Local time, ISO 8601."""
    seconds: int
    """How long each sample took."""
    rounds: int
    upstream: str
    """How Caddy reaches the app servers: `unix` or `tcp`, and what is not Caddy's default about it."""
    machine: dict[str, str]
    versions: dict[str, str]
    series: list[Series] = field(default_factory=list)
    startups: list[Startup] = field(default_factory=list)

    def find(self, case: str, workers: int, contender: str) -> Series | None:
        """The series of one contender in one case, if it was measured."""
        key = (case, workers, contender)
        return next((s for s in self.series if (s.case, s.workers, s.contender) == key), None)

    def find_startup(self, case: str, contender: str) -> Startup | None:
        """The start-up times of one contender, if they were measured."""
        return next((s for s in self.startups if (s.case, s.contender) == (case, contender)), None)

    def failures(self) -> list[str]:
        """One line for everything that failed."""
        outcomes: list[Outcome] = [*self.series, *self.startups]
        return [
            f"{outcome.case}, {counted(outcome.workers, 'worker')}, {outcome.contender}: {outcome.failure}"
            for outcome in outcomes
            if outcome.failure
        ]

    def save(self, path: Path) -> None:
        """Write the results as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @staticmethod
    def load(path: Path) -> Results:
        """Read what `save` wrote."""
        raw: dict[str, Any] = json.loads(path.read_text())
        series = [Series(**s | {"samples": [Sample(**sample) for sample in s["samples"]]}) for s in raw.pop("series")]
        startups = [Startup(**startup) for startup in raw.pop("startups")]
        return Results(series=series, startups=startups, **raw)


def ratio(series: Series, rival: Series, metric: str) -> float:
    """How many times the rival's figure: the median over the rounds of the ratio within each round.

    The two ran one after the other in each round, so a machine that grows slower or faster moves both.
    """
    pairs = zip(series.values(metric), rival.values(metric), strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def counted(number: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
