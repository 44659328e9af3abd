"""What people read of a run: docs/benchmarks.md, its chart, and the verdicts."""

from __future__ import annotations

from pathlib import Path

from chart import chart
from criteria import CRITERIA
from request import LOG
from results import Results, counted
from table import tables

PAGE = """\
# Benchmarks

Caddy Snake beside Caddy alone (`respond`, the most that Caddy itself can do) and beside Caddy in front of other Python
servers, all measured in one run by `make bench`. Read the figures as ratios: the load generator shares the cores.
[How it is measured](../benchmarks/README.md) says what was done to be fair.

![Requests per second and CPU per request](benchmarks.svg)

## Figures

Medians of {rounds} of {seconds} s. CPU per request is that of all server processes together; memory is their
proportional set size.

{tables}
## This run

{origin}
"""


def publish(results: Results, docs: Path) -> None:
    """Write the page and the chart into the documentation."""
    (docs / "benchmarks.md").write_text(page(results))
    (docs / "benchmarks.svg").write_text(chart(results))


def page(results: Results) -> str:
    """The page as Markdown."""
    facts = {"Date": results.started[:10], **results.machine, "Caddy to app servers": results.upstream}
    origin = [f"- {name}: {value}" for name, value in {**facts, **results.versions}.items()]
    origin += [f"- failed: {line.partition(LOG)[0]}" for line in results.failures()]
    return PAGE.format(
        rounds=counted(results.rounds, "round"),
        seconds=results.seconds,
        tables=tables(results),
        origin="\n".join(origin),
    )


def print_verdicts(results: Results) -> bool:
    """Print each promise with its figure; return whether all are kept."""
    verdicts = [criterion.verdict(results) for criterion in CRITERIA]
    for verdict in verdicts:
        print(f"{'pass' if verdict.kept else 'FAIL'}  {verdict.promise}: {verdict.figure}")
    return all(verdict.kept for verdict in verdicts)
