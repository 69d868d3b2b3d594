"""`bench.html`: plots and a table on one page that needs no script, no network and no other file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from msgspec import Struct

from engine.bench.results import Bench, BenchStep, rows

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 34, 50
COLOURS = 5
"""Classes c0, c1, …: the page says what they look like, in daylight and in the dark."""
_TICKS = 6

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --pale: #ddd; --mark: #888; }
.c0 { --line: #1f77b4; } .c1 { --line: #d95f02; }
.c2 { --line: #1b9e77; } .c3 { --line: #7570b3; } .c4 { --line: #666; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --paper: #181818; --pale: #3a3a3a; --mark: #999; }
  .c0 { --line: #6ab0e6; } .c1 { --line: #f59a4c; }
  .c2 { --line: #4fc9a4; } .c3 { --line: #aaa6e0; } .c4 { --line: #aaa; }
}
body { font: 15px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
body { color: var(--ink); background: var(--paper); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .2em .6em; border-bottom: 1px solid var(--pale); text-align: right; }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; min-width: 600px; max-width: 720px; height: auto; display: block; margin: 1.5em 0; }
svg text { font: 12px sans-serif; fill: var(--ink); }
svg text.heading { font: bold 14px sans-serif; }
svg text.mark { fill: var(--mark); }
svg polyline { fill: none; stroke: var(--line); stroke-width: 2; }
svg circle, svg rect { fill: var(--line); }
.grid { stroke: var(--pale); } .axis { stroke: var(--ink); } line.mark { stroke: var(--mark); stroke-dasharray: 4 3; }
"""

_HOW_TO_READ = """
Time to created runs from the moment at which a record's batch was due to be sent until the poll that showed its task
created: upload, the service's own work, and up to one pause between two polls.

In an open loop batches are due on a schedule, whether or not the service keeps up; in a closed one, when one of those
before it is done. Times are corrected for coordinated omission: what a stalled service kept from being sent counts.

Throughput is what was created, by the time in which the first 95 of 100 were: stragglers show in the percentiles.
An offered rate that is kept up with looks a little lower for the time that its last batch took.

The knee is the last step that paid: in the next one throughput gained less than 5 %, or the median doubled.

Percentiles are at most 1 % too long. Where few records were measured, p99.9 is the maximum.
"""


def page(bench: Bench) -> str:
    """Return the page."""
    title = f"Time to created: {bench.plan.kind} at {bench.plan.host}"
    facts = [headline(bench), *_facts(bench), *bench.hints]
    plots = [*_by_step(bench), _over_time(bench.steps)] if bench.steps else []
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        + "\n".join(f"<p>{escape(fact)}</p>" for fact in facts)
        + "\n"
        + _table(rows(bench))
        + "\n".join(f'<div class="wide">{svg(plot)}</div>' for plot in plots)
        + "\n<h2>How to read it</h2><ul>"
        + "".join(f"<li>{escape(hint)}</li>" for hint in _HOW_TO_READ.strip().split("\n\n"))
        + "</ul>\n</body></html>\n"
    )


def headline(bench: Bench) -> str:
    """Return the result in a sentence."""
    best = bench.best
    if best is None:
        return "Nothing was measured."
    lasting = ", in bursts" if best.is_bursty else ""
    said = f"Best: {best.measure.throughput:,.1f} records a second {loaded(best)}{lasting}."
    if bench.knee is None:
        return f"{said} No knee was found."
    return f"{said} The knee is {loaded(bench.steps[bench.knee.place])}: {bench.knee.reason}."


def loaded(step: BenchStep) -> str:
    """Return under which load a step was."""
    if step.load.rate is not None:
        return f"at {step.load.label} records a second offered"
    if step.load.in_flight is None:
        return "with as many batches at once as the engine found best"
    return f"with {'one batch' if step.load.in_flight == 1 else f'{step.load.label} batches'} at once"


def _facts(bench: Bench) -> list[str]:
    tasks = "Tasks came from files." if bench.seed is None else f"Tasks were generated from seed {bench.seed}."
    project = f", project {bench.plan.project}" if bench.plan.project else ""
    settings = ", ".join(f"{name} = {value}" for name, value in bench.settings.items())
    return [f"{bench.plan.kind} at {bench.plan.host}{project}. {tasks} {bench.ended}", f"Settings: {settings}."]


def _table(table: Sequence[Sequence[str]]) -> str:
    head, *body = table
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>\n'


def _by_step(bench: Bench) -> list[Plot]:
    steps = bench.steps
    names = [step.load.label for step in steps]
    across = "records per second offered" if steps[0].load.rate is not None else "batches at once"
    marks = [(float(bench.knee.place), "knee")] if bench.knee else []

    def line(name: str, value: Callable[[BenchStep], float]) -> Line:
        return Line(name, [(float(place), value(step)) for place, step in enumerate(steps)])

    reached = [line("created", lambda step: step.measure.throughput)]
    if steps[0].load.rate is not None:
        reached.append(line("offered", lambda step: step.load.rate or 0.0))
    times = [
        line("p50", lambda step: step.measure.time_to_created.p50),
        line("p90", lambda step: step.measure.time_to_created.p90),
        line("p99", lambda step: step.measure.time_to_created.p99),
        line("p99.9", lambda step: step.measure.time_to_created.p999),
        line("p99 uncorrected", lambda step: step.measure.time_to_created_uncorrected.p99),
    ]
    return [
        Plot("Throughput by step", across, "records per second", reached, names, marks),
        Plot("Time to created by step", across, "seconds", times, names, marks),
    ]


def _over_time(steps: Sequence[BenchStep]) -> Plot:
    seen = [
        (step.started + second.second + 0.5, second)
        for step in steps
        for second in step.measure.timeline
        if second.created
    ]
    return Plot(
        "Time to created over time",
        "seconds since the first step began",
        "seconds",
        [
            Line("median", [(at, second.median) for at, second in seen]),
            Line("longest", [(at, second.longest) for at, second in seen]),
        ],
        marks=[(step.started, step.load.label) for step in steps],
    )


# A plot is one SVG element: lines with axes, units and a legend


class Line(Struct, frozen=True):
    """Points that belong together, from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


class Plot(Struct, frozen=True):
    """Lines in one pair of axes."""

    title: str
    across: str
    """What stands on the horizontal axis, with its unit."""
    up: str
    lines: Sequence[Line]
    names: Sequence[str] = ()
    """Of the places 0, 1, 2 … where the horizontal axis holds steps instead of numbers."""
    marks: Sequence[tuple[float, str]] = []
    """Upright lines and what they mean."""


class _Frame(Struct, frozen=True):
    least: float
    most: float
    high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.least) / (self.most - self.least) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.high * (HEIGHT - TOP - BOTTOM)


def svg(plot: Plot) -> str:
    """Return the plot as an `<svg>` element."""
    points = [point for line in plot.lines for point in line.points]
    across = [x for x, _ in points]
    least = -0.25 if plot.names else 0.0
    most = len(plot.names) - 0.75 if plot.names else max(across, default=1.0) or 1.0
    high = (max((y for _, y in points), default=0.0) or 1.0) * 1.05
    frame = _Frame(least, max(most, least + 0.5), high)
    parts = [*_axes(plot, frame), *_marks(plot, frame)]
    for number, line in enumerate(plot.lines):
        parts += _line(line, number, frame)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(plot.title)}</title>{"".join(parts)}</svg>'


def _axes(plot: Plot, frame: _Frame) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    yield _text(LEFT, 18, plot.title, "start", "heading")
    yield _text((LEFT + right) / 2, HEIGHT - 10, plot.across, "middle")
    middle = (TOP + bottom) / 2
    yield _text(16, middle, plot.up, "middle", turn=f' transform="rotate(-90 16 {middle:.1f})"')
    for value in ticks(frame.high):
        y = frame.y(value)
        yield _rule(LEFT, y, right, y, "grid")
        yield _text(LEFT - 6, y + 4, number(value), "end")
    named = enumerate(plot.names) if plot.names else ((value, number(value)) for value in ticks(frame.most))
    for place, name in named:
        x = frame.x(place)
        yield _rule(x, bottom, x, bottom + 5, "axis")
        yield _text(x, bottom + 18, name, "middle")
    yield _rule(LEFT, bottom, right, bottom, "axis")
    yield _rule(LEFT, TOP, LEFT, bottom, "axis")


def _marks(plot: Plot, frame: _Frame) -> Iterator[str]:
    for at, name in plot.marks:
        x = frame.x(at)
        yield _rule(x, TOP, x, HEIGHT - BOTTOM, "mark")
        yield _text(x + 3, TOP + 10, name, "start", "mark")


def _line(line: Line, place: int, frame: _Frame) -> Iterator[str]:
    colour = f'class="c{place % COLOURS}"'
    places = [(frame.x(x), frame.y(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{path}" {colour}/>'
    for (x, y), (_, value) in zip(places, line.points, strict=True):
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" {colour}>'
            f"<title>{escape(line.name)}: {number(value)}</title></circle>"
        )
    y = TOP + 8 + 18 * place
    yield f'<rect x="{WIDTH - RIGHT + 14}" y="{y - 8}" width="12" height="12" {colour}/>'
    yield _text(WIDTH - RIGHT + 32, y + 2, line.name, "start")


def _rule(left: float, top: float, right: float, bottom: float, kind: str) -> str:
    return f'<line x1="{left:.1f}" y1="{top:.1f}" x2="{right:.1f}" y2="{bottom:.1f}" class="{kind}"/>'


def _text(x: float, y: float, words: str, anchor: str, kind: str = "", *, turn: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}"{turn}>{escape(words)}</text>'


def ticks(most: float) -> Sequence[float]:
    """Return round numbers from 0 up to `most`, about half a dozen."""
    raw = most / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    return [step * place for place in range(int(most / step + 1e-9) + 1)]


number: Callable[[float], str] = "{:,.4g}".format
"""Four digits are more than a plot shows."""
