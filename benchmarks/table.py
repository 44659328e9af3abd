"""The figures of a run as Markdown."""

from __future__ import annotations

from cases import CASES, STARTUP_CASES, STARTUP_WORKERS, Case
from contenders import CONTENDERS
from results import Results, Series, counted, ratio

HEAD = "| | requests/s | of Caddy alone | p50 | p99 | CPU per request | memory |\n|---|--:|--:|--:|--:|--:|--:|"
STARTUP_HEAD = "| | first answer after |\n|---|--:|"


def tables(results: Results) -> str:
    """One table for each case and number of workers, then the start-up times."""
    parts = [
        _load_table(results, case, workers, connections)
        for case in CASES
        for workers, connections in case.connections.items()
    ]
    parts += [_startup_table(results, case) for case in CASES if case.name in STARTUP_CASES]
    return "\n".join(part for part in parts if part)


def _load_table(results: Results, case: Case, workers: int, connections: int) -> str:
    found = [results.find(case.name, workers, contender) for contender in case.contenders]
    measured = [series for series in found if series is not None]
    if not measured:
        return ""
    limit = results.find(case.name, workers, "respond")
    title = f"**{case.title}**, {counted(workers, 'worker')}, {counted(connections, 'connection')}"
    return "\n".join([title, "", HEAD, *(_load_row(series, limit) for series in measured), ""])


def _load_row(series: Series, limit: Series | None) -> str:
    label = CONTENDERS[series.contender].label
    if series.failure:
        return f"| {label} | failed | | | | | |"
    share = "" if limit is None or limit.failure else f"{ratio(series, limit, 'requests_per_second'):.2f}"
    cells = [
        label,
        f"{series.median('requests_per_second'):,.0f}",
        share,
        duration(series.median("p50_us")),
        duration(series.median("p99_us")),
        duration(series.median("cpu_us")),
        f"{series.median('memory_mib'):,.0f} MiB",
    ]
    return f"| {' | '.join(cells)} |"


def _startup_table(results: Results, case: Case) -> str:
    found = [results.find_startup(case.name, contender) for contender in case.contenders]
    measured = [startup for startup in found if startup is not None]
    if not measured:
        return ""
    rows = [
        f"| {CONTENDERS[startup.contender].label} | "
        f"{'failed' if startup.failure else f'{startup.median() * 1000:,.0f} ms'} |"
        for startup in measured
    ]
    return "\n".join([f"**{case.title}, start-up**, {counted(STARTUP_WORKERS, 'worker')}", "", STARTUP_HEAD, *rows, ""])


def duration(microseconds: float) -> str:
    """Microseconds for people: `85 µs`, `12.3 ms`, `1.20 s`."""
    if microseconds < 1_000:
        return f"{microseconds:.0f} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1_000:.1f} ms"
    return f"{microseconds / 1_000_000:.2f} s"
