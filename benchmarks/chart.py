"""The figures of a run as an SVG: throughput on the left, CPU per request on the right, one row for each contender."""

from __future__ import annotations

from html import escape

from cases import CASES, Case
from contenders import CONTENDERS
from results import Results, Series, counted
from table import duration

CHARTED = ("hello-wsgi", "hello-asgi", "flask", "fastapi")

# Pixels.
WIDTH = 880
MARGIN = 28
LABELS = 196
GAP = 32
VALUE = 64  # room for the figure at the end of the longest bar
ROW = 22
BAR = 13
COLUMN = (WIDTH - 2 * MARGIN - LABELS - GAP) / 2
LEFT = MARGIN + LABELS
RIGHT = LEFT + COLUMN + GAP

STYLE = """
  .card { fill: #ffffff; stroke: #d8dee4; }
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #3d444d; }
  .title { font-size: 18px; font-weight: 600; fill: #1f2328; }
  .section { font-size: 15px; font-weight: 600; fill: #1f2328; }
  .group { font-weight: 600; fill: #1f2328; }
  .small { font-size: 12px; fill: #656d76; }
  .value { font-size: 12px; font-variant-numeric: tabular-nums; }
  .rule { stroke: #d8dee4; }
  .limit { fill: #afb8c1; }
  .rival { fill: #8fb4d9; }
  .us { fill: #2f855a; }
  text.us { fill: #1f7a4d; font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #30363d; }
    text { fill: #c9d1d9; }
    .title, .section, .group { fill: #f0f6fc; }
    .small { fill: #9198a1; }
    .rule { stroke: #30363d; }
    .limit { fill: #59636e; }
    .rival { fill: #3f6a96; }
    .us { fill: #3fb979; }
    text.us { fill: #56d394; }
  }
""".strip("\n")


class Drawing:
    """Collects the elements from top to bottom; `y` is where the next line of text stands."""

    def __init__(self) -> None:
        self.elements: list[str] = []
        self.y = 0.0

    def text(self, x: float, content: str, css: str = "") -> None:
        """Write one line at the present height."""
        self.elements.append(f'<text x="{x:g}" y="{self.y:g}" class="{css}">{escape(content)}</text>')

    def rule(self) -> None:
        """A thin line over the whole width."""
        self.elements.append(
            f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{self.y:g}" y2="{self.y:g}" class="rule"/>'
        )

    def bar(self, x: float, share: float, css: str, label: str) -> None:
        """A bar of `share` of the column's width with its figure behind it."""
        width = max(2.0, share * (COLUMN - VALUE))
        top = self.y - BAR + 2
        self.elements.append(
            f'<rect x="{x:g}" y="{top:g}" width="{width:.1f}" height="{BAR}" rx="2" class="{css}"/>'
            f'<text x="{x + width + 6:.1f}" y="{self.y:g}" class="value {"us" * (css == "us")}">{escape(label)}</text>'
        )


def chart(results: Results) -> str:
    """The whole SVG file."""
    drawing = Drawing()
    drawing.y = 42
    drawing.text(MARGIN, "Python apps behind Caddy", "title")
    drawing.y += 24
    drawing.text(LEFT, "requests per second, more is better", "small")
    drawing.text(RIGHT, "CPU per request, less is better", "small")
    for workers in (1, 2):
        _section(drawing, results, workers)
    drawing.y += 36
    drawing.text(MARGIN, _origin(results), "small")
    height = drawing.y + 22
    body = "\n".join(drawing.elements)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        'role="img" aria-label="Bar chart of the benchmark; docs/benchmarks.md has the same figures as tables">\n'
        f"<style>\n{STYLE}\n</style>\n"
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:g}" rx="10" class="card"/>\n'
        f"{body}\n</svg>\n"
    )


def _section(drawing: Drawing, results: Results, workers: int) -> None:
    groups = [(case, _measured(results, case, workers)) for case in CASES if case.name in CHARTED]
    groups = [(case, series) for case, series in groups if series]
    counting = [one for _, series in groups for one in series if one.failure is None]
    if not counting:
        return
    most_requests = max(one.median("requests_per_second") for one in counting)
    most_cpu = max(one.median("cpu_us") for one in counting)
    drawing.y += 20
    drawing.rule()
    drawing.y += 28
    connections = groups[0][0].connections[workers]
    drawing.text(MARGIN, f"{counted(workers, 'worker')}, {counted(connections, 'connection')}", "section")
    for case, series in groups:
        drawing.y += 30
        drawing.text(MARGIN, case.title, "group")
        for one in series:
            drawing.y += ROW
            _row(drawing, one, most_requests, most_cpu)


def _row(drawing: Drawing, series: Series, most_requests: float, most_cpu: float) -> None:
    css = {"respond": "limit", "caddy-snake": "us"}.get(series.contender, "rival")
    drawing.text(MARGIN + 10, CONTENDERS[series.contender].label, "us" * (css == "us"))
    if series.failure:
        drawing.text(LEFT, "failed", "small")
        return
    requests, cpu = series.median("requests_per_second"), series.median("cpu_us")
    drawing.bar(LEFT, requests / most_requests, css, f"{requests:,.0f}")
    drawing.bar(RIGHT, cpu / most_cpu, css, duration(cpu))


def _measured(results: Results, case: Case, workers: int) -> list[Series]:
    found = [results.find(case.name, workers, contender) for contender in case.contenders]
    return [series for series in found if series is not None]


def _origin(results: Results) -> str:
    versions = results.versions
    names = ("Caddy", "Python", "gunicorn", "uvicorn", "granian")
    parts = [f"{name} {versions[name].removeprefix('v')}" for name in names]
    return (
        f"{', '.join(parts)}. {results.machine['cores']} cores, shared with the load generator. {results.started[:10]}"
    )
