"""Points in, one SVG out that stands in an HTML page: lines with axes, units and a legend. No script, no other file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TypeAlias

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 34, 50
COLOURS = 5
"""Classes c0, c1, …: the page says what they look like, in daylight and in the dark."""
_TICKS = 6


@dataclass(frozen=True, slots=True)
class Line:
    """Points that belong together, from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines in one pair of axes."""

    title: str
    across: str
    """What stands on the horizontal axis, with its unit."""
    up: str
    lines: Sequence[Line]
    names: Sequence[str] = ()
    """Of the places 0, 1, 2 … where the horizontal axis holds steps instead of numbers."""
    marks: Sequence[tuple[float, str]] = field(default_factory=list)
    """Upright lines and what they mean."""


@dataclass(frozen=True, slots=True)
class _Frame:
    least: float
    most: float
    high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.least) / (self.most - self.least) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.high * (HEIGHT - TOP - BOTTOM)


Texts: TypeAlias = Iterator[str]


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


def _axes(plot: Plot, frame: _Frame) -> Texts:
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


def _marks(plot: Plot, frame: _Frame) -> Texts:
    for at, name in plot.marks:
        x = frame.x(at)
        yield _rule(x, TOP, x, HEIGHT - BOTTOM, "mark")
        yield _text(x + 3, TOP + 10, name, "start", "mark")


def _line(line: Line, place: int, frame: _Frame) -> Texts:
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
