"""`make bench`: measure Caddy Snake and its alternatives side by side. README.md describes the method."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

from cases import CASES, STARTUP_CASES
from chart import chart
from load import find_wrk
from machine import describe_machine, describe_versions
from measure import Plan, measure_case, measure_startup
from memory import compare_memory
from report import page, print_verdicts, publish
from results import Results, counted
from stack import Setup
from table import tables

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
STARTUP = "startup"
QUICK_CASES = ("hello-wsgi", "hello-asgi", "flask", "fastapi")


def main() -> int:
    """Run the command line; return the exit status."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through `finally`, so that no server stays behind
    if options.memory:
        print(compare_memory(options.caddy.resolve(), options.rounds))
        return 0
    results = Results.load(options.from_file) if options.from_file else _measure(options)
    print(tables(results))
    failures = results.failures()
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    if options.publish:
        publish(results, ROOT / "docs")
    kept = print_verdicts(results) if options.check else True
    return 1 if failures or not kept else 0


def _measure(options: argparse.Namespace) -> Results:
    """Do all the measuring and save the results."""
    if not options.caddy.is_file():
        raise SystemExit(f"{options.caddy} does not exist: build it with `make build` or name another with --caddy")
    setup = Setup(options.caddy.resolve(), options.upstream == "tcp", options.idle)
    plan = Plan(setup, find_wrk(), options.seconds, options.rounds)
    now = datetime.now().astimezone()
    results = Results(
        started=now.isoformat(timespec="seconds"),
        seconds=plan.seconds,
        rounds=plan.rounds,
        upstream=options.upstream + (f", {options.idle} idle connections" if options.idle else ""),
        machine=describe_machine(),
        versions=describe_versions(setup.caddy, plan.wrk),
    )
    began = time.monotonic()
    for case in CASES:
        if case.name not in options.cases:
            continue
        for workers in sorted(set(case.connections) & set(options.workers)):
            _tell(began, f"{case.title}, {counted(workers, 'worker')}")
            results.series += measure_case(plan, case, workers)
    for case in CASES:
        if STARTUP in options.cases and case.name in STARTUP_CASES:
            _tell(began, f"{case.title}, start-up")
            results.startups += measure_startup(plan, case)
    stem = RESULTS / f"{now:%Y%m%d-%H%M%S}"
    results.save(stem.with_suffix(".json"))
    stem.with_suffix(".md").write_text(page(results))
    stem.with_suffix(".svg").write_text(chart(results))
    _tell(began, f"results in {stem.relative_to(ROOT)}.json, .md and .svg")
    return results


def _tell(began: float, message: str) -> None:
    print(f"{time.monotonic() - began:5.0f} s  {message}", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    names = [*(case.name for case in CASES), STARTUP]
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--caddy", type=Path, default=ROOT / "bin" / "caddy", help="the binary to measure (default: bin/caddy)")
    add("--seconds", type=_positive, default=2, help="length of one measurement (default: 2)")
    add("--rounds", type=_positive, default=5, help="measurements of each contender (default: 5)")
    add("--cases", nargs="+", choices=names, default=names, metavar="CASE", help=f"some of: {', '.join(names)}")
    add("--workers", nargs="+", type=int, choices=(1, 2), default=[1, 2], help="default: 1 2")
    add("--upstream", choices=("tcp", "unix"), default="tcp", help="between Caddy and app servers (default: tcp)")
    add("--idle", type=_positive, metavar="N", help="idle connections Caddy keeps to a server (default: 32, Caddy's)")
    add("--quick", action="store_true", help="about a minute: four cases, one worker, one round of one second")
    add("--memory", action="store_true", help="measure the memory of four apps in processes and in threads, only that")
    add("--from", dest="from_file", type=Path, metavar="FILE", help="measure nothing, use these results")
    add("--check", action="store_true", help="judge the promised ratios; exit status 1 if one is missed")
    add("--publish", action="store_true", help="write docs/benchmarks.md and docs/benchmarks.svg")
    options = parser.parse_args()
    if options.quick and (options.check or options.publish):
        parser.error("--quick is too short for --check and --publish")
    if options.publish and options.cases != names:
        parser.error("--publish takes a whole run, without --cases")
    if options.quick:
        options.seconds, options.rounds, options.workers, options.cases = 1, 1, [1], [*QUICK_CASES, STARTUP]
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
