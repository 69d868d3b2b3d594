"""Plots as SVG elements: lines with axes, units and a legend. The report page and the page of `bench` are made of them.

Nothing needs a pointer: axes and legend are printed, and whoever makes a plot prints its numbers beside it. Where a
pointer rests, a title says more. Colours and fonts are classes; STYLE says what they look like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from engine.progress.html import Content, Markup, element

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 46
LETTER = 6.6
"""How wide a letter of the legend is, at most of them."""
COLOURS = 5
"""Classes c0, c1, …"""
_TICKS = 6
_ROW = 30
"""Height of a row of `ranges`."""

FILLS = ("good", "warn", "bad", "soft", "rule", *(f"c{number}" for number in range(COLOURS)))
"""Colours of areas: class `f-` and the name."""

STYLE = "".join(
    [f".c{number}{{--line:var(--c{number});}}" for number in range(COLOURS)]
    + [f".f-{name}{{fill:var(--{name});}}" for name in FILLS]
) + (
    """
.plot { width: 100%; min-width: 540px; max-width: 960px; height: auto; display: block; }
.plot text { font: 12px system-ui, "Segoe UI", "Noto Sans", sans-serif; fill: var(--soft); }
.plot text.heading { font-weight: 600; font-size: 14px; fill: var(--ink); }
.plot text.name { fill: var(--ink); }
.plot polyline { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round; }
.plot polyline.dashed { stroke-dasharray: 6 4; }
.plot polygon { fill: var(--line); opacity: .14; stroke: none; }
.plot circle, .plot rect.key { fill: var(--line); }
.plot .hit { fill: transparent; stroke: none; } .plot .hit:hover { fill: var(--soft); opacity: .12; }
.plot .grid { stroke: var(--rule); } .plot .axis { stroke: var(--soft); }
.plot line.mark { stroke: var(--soft); stroke-dasharray: 3 3; }
.plot .range { stroke: var(--line); stroke-width: 3; stroke-linecap: round; }
.bar { width: 100%; height: 14px; display: block; border-radius: 3px; }
"""
)


class Line(Struct, frozen=True):
    """Points that belong together, from left to right."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    filled: bool = False
    """The area below it is tinted."""


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
    stretches: Sequence[tuple[float, float, str]] = ()
    """(from, to, what a pointer is told there); without any, each point is a dot that tells of itself."""
    headed: bool = True
    """The title is drawn; if not, it is for those who do not see the plot."""


class Range(Struct, frozen=True):
    """A row of `ranges`: named values on one line, from the smallest to the largest."""

    name: str
    values: Sequence[tuple[str, float]]


class _Frame(Struct, frozen=True):
    least: float
    most: float
    high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.least) / (self.most - self.least) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.high * (HEIGHT - TOP - BOTTOM)


def svg(plot: Plot) -> Markup:
    """Return the plot as an `<svg>` element."""
    points = [point for line in plot.lines for point in line.points]
    across = [x for x, _ in points]
    least = -0.25 if plot.names else 0.0
    most = len(plot.names) - 0.75 if plot.names else max(across, default=1.0) or 1.0
    high = (max((y for _, y in points), default=0.0) or 1.0) * 1.05
    frame = _Frame(least, max(most, least + 1e-3), high)
    parts = [*_axes(plot, frame), *_marks(plot, frame), *_legend(plot)]
    for number, line in enumerate(plot.lines):
        parts += _line(line, number, frame, dots=not plot.stretches)
    parts += _stretches(plot, frame)
    return _svg(HEIGHT, plot.title, parts)


def _svg(height: float, title: str, parts: Sequence[Content]) -> Markup:
    box = f"0 0 {WIDTH} {height:g}"
    return element("svg", *parts, viewBox=box, role="img", aria_label=title, class_="plot")


def _axes(plot: Plot, frame: _Frame) -> Iterator[Markup]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    if plot.headed:
        yield _text(LEFT, 16, plot.title, "start", "heading")
    yield _text((LEFT + right) / 2, HEIGHT - 8, plot.across, "middle")
    middle = (TOP + bottom) / 2
    yield _text(14, middle, plot.up, "middle", turned=True)
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


def _marks(plot: Plot, frame: _Frame) -> Iterator[Markup]:
    for at, name in plot.marks:
        x = frame.x(at)
        yield _rule(x, TOP, x, HEIGHT - BOTTOM, "mark")
        yield _text(x + 3, TOP + 10, name, "start")


def _legend(plot: Plot) -> Iterator[Markup]:
    """Yield the names of the lines, from the right end of the line above the plot."""
    x = WIDTH - RIGHT - sum(28 + LETTER * len(line.name) for line in plot.lines)
    for place, line in enumerate(plot.lines):
        yield element("rect", x=f"{x:.1f}", y=8, width=10, height=10, class_=f"key {_colour(place)}")
        yield _text(x + 15, 17, line.name, "start", "name")
        x += 28 + LETTER * len(line.name)


def _colour(place: int) -> str:
    return f"c{place % COLOURS}"


def _line(line: Line, place: int, frame: _Frame, *, dots: bool) -> Iterator[Markup]:
    places = [(frame.x(x), frame.y(y)) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    if line.filled and places:
        floor = HEIGHT - BOTTOM
        ends = f"{places[0][0]:.1f},{floor} {path} {places[-1][0]:.1f},{floor}"
        yield element("polygon", points=ends, class_=_colour(place))
    yield element("polyline", points=path, class_=_colour(place) + (" dashed" if line.dashed else ""))
    for (x, y), (_, value) in zip(places, line.points, strict=True) if dots else ():
        told = element("title", f"{line.name}: {number(value)}")
        yield element("circle", told, cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.5, class_=_colour(place))


def _stretches(plot: Plot, frame: _Frame) -> Iterator[Markup]:
    height = HEIGHT - TOP - BOTTOM
    for since, until, told in plot.stretches:
        x, width = frame.x(since), max(frame.x(until) - frame.x(since), 0.5)
        title = element("title", told)
        yield element("rect", title, x=f"{x:.1f}", y=TOP, width=f"{width:.1f}", height=height, class_="hit")


def ranges(title: str, across: str, rows: Sequence[Range]) -> Markup:
    """Return rows of values on one logarithmic axis as an `<svg>` element.

    Args:
        title: for those who do not see it.
        across: what stands on the axis, with its unit.
        rows: from top to bottom; the names of their values are those of the first row's.
    """
    values = [value for row in rows for _, value in row.values if value > 0] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    high = max(high, low + 1)
    left, bottom = 150, TOP + _ROW * len(rows)

    def at(value: float) -> float:
        place = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return left + place * (WIDTH - left - RIGHT - 14)

    parts: list[Content] = []
    for power in range(low, high + 1):
        x = at(10.0**power)
        parts += [_rule(x, TOP, x, bottom, "grid"), _text(x, bottom + 16, number(10.0**power), "middle")]
    parts.append(_text((left + WIDTH - RIGHT) / 2, bottom + 36, across, "middle"))
    named = [name for name, _ in rows[0].values] if rows else []
    parts += _legend(Plot(title, across, "", [Line(name, ()) for name in named]))
    for place, row in enumerate(rows):
        y = TOP + _ROW * (place + 0.5)
        parts.append(_text(left - 10, y + 4, _cut(row.name), "end", "name"))
        spread = [at(value) for _, value in row.values]
        if spread:
            parts.append(_rule(min(spread), y, max(spread), y, "range c4"))
        for colour, (name, value) in enumerate(row.values):
            told = element("title", f"{row.name}, {name}: {number(value)}")
            parts.append(element("circle", told, cx=f"{at(value):.1f}", cy=f"{y:.1f}", r=5, class_=_colour(colour)))
    return _svg(bottom + 44, title, parts)


_NAME_LETTERS = 20


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 1] + "…"


def bar(title: str, parts: Sequence[tuple[str, float, str]]) -> Markup:
    """Return shares of a whole side by side as an `<svg>` element.

    Args:
        title: says what it shows, with its numbers.
        parts: (what a pointer is told, how much, one of FILLS).
    """
    whole = sum(share for _, share, _ in parts) or 1.0
    x, drawn = 0.0, list[Content]()
    for told, share, colour in parts:
        width = 1000 * share / whole
        if share > 0:
            place = {"x": f"{x:.2f}", "y": "0", "width": f"{width:.2f}", "height": "14"}
            drawn.append(element("rect", element("title", told), **place, class_=f"f-{colour}"))
        x += width
    return element(
        "svg", *drawn, viewBox="0 0 1000 14", preserveAspectRatio="none", role="img", aria_label=title, class_="bar"
    )


def _rule(left: float, top: float, right: float, bottom: float, kind: str) -> Markup:
    return element("line", x1=f"{left:.1f}", y1=f"{top:.1f}", x2=f"{right:.1f}", y2=f"{bottom:.1f}", class_=kind)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "", *, turned: bool = False) -> Markup:
    turn = f"rotate(-90 {x:.1f} {y:.1f})" if turned else None
    return element("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind or None, transform=turn)


def ticks(most: float) -> Sequence[float]:
    """Return round numbers from 0 up to `most`, about half a dozen."""
    raw = most / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    return [step * place for place in range(int(most / step + 1e-9) + 1)]


number: Callable[[float], str] = "{:,.4g}".format
"""Four digits are more than a plot shows."""
