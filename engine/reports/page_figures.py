"""Sections of `report.html`: what was done over time, how calls went, what they waited for, the slowest batches.

And how the page says shares, moments and foreign words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from engine.model.runs import NO_ANSWER
from engine.progress.charts import Line, Plot, Range, bar, ranges, svg
from engine.progress.histogram import Percentiles
from engine.progress.html import Content, Markup, element, joined, scrolled, table
from engine.progress.text import count, duration, printable, size
from engine.reports.overview import Overview, SeriesPoint

MOST_LABELLED_MARKS = 8
"""Beginnings of runs that a plot names; of more, their names would stand on each other."""
MOST_MARKS = 40
STEPS_SHOWN = 20
"""Changes of limits that are not folded away."""
WORD_LETTERS = 300
"""Of a name, a path or a reason that is shown: enough for people, and a bound for the page."""


def over_time(facts: Overview) -> Iterator[Markup]:
    """Yield the rates and what was in flight over time, and how limits changed."""
    points = facts.series
    if not points:
        return
    yield element("h2", "Over time")
    yield element("p", _about_time(facts), class_="soft")
    unit, unit_seconds = _unit(max(point.worked_seconds for point in points))
    across = f"{unit} of work"

    def plot(title: str, up: str, lines: Sequence[tuple[str, Callable[[SeriesPoint], float], bool]]) -> Markup:
        made = [
            Line(name, _steps(points, value, unit_seconds), dashed=dashed, filled=not at and len(lines) == 1)
            for at, (name, value, dashed) in enumerate(lines)
        ]
        told = [(since / unit_seconds, until / unit_seconds, said) for since, until, said in _stretches(points, lines)]
        marks = _marks(points, unit_seconds)
        drawn = svg(Plot(title, across, up, made, marks=marks, stretches=told, headed=False))
        tops = [f"{name}: highest {_short(max(map(value, points)))}" for name, value, _ in lines]
        if len(lines) == 1:
            tops = [f"Highest {_short(max(map(lines[0][1], points)))}, mean {_short(_mean(points, lines[0][1]))}"]
        caption = element("figcaption", element("b", title), f". {'; '.join(tops)}.")
        return element("figure", caption, scrolled(drawn, title))

    yield plot("Tasks per second", "tasks/s", [("tasks/s", lambda one: one.sample.tasks_per_second, False)])
    yield plot("Megabytes sent per second", "MB/s", [("MB/s", lambda one: one.sample.bytes_per_second / 1e6, False)])
    yield plot(
        "Requests and batches in flight, and the limit of batches",
        "in flight",
        [
            ("batches", lambda one: one.sample.in_flight, False),
            ("requests without an answer", lambda one: one.sample.requests_open, False),
            ("limit of batches", lambda one: one.sample.limit, True),
        ],
    )
    yield _numbers(points)
    yield from _limits(facts)


def _about_time(facts: Overview) -> str:
    runs = "" if facts.run_count == 1 else " Runs stand side by side, without the time between them."
    return f"{count(len(facts.series), 'sample')} of {duration(facts.worked_seconds)} of work.{runs}"


def _unit(seconds: float) -> tuple[str, float]:
    return next(
        ((name, one) for name, one in (("hours", 3600.0), ("minutes", 60.0)) if seconds > 2 * one), ("seconds", 1)
    )


def _steps(
    points: Sequence[SeriesPoint], value: Callable[[SeriesPoint], float], unit: float
) -> list[tuple[float, float]]:
    made: list[tuple[float, float]] = []
    for since, point in zip(_begins(points), points, strict=True):
        made += [(since / unit, value(point)), (point.worked_seconds / unit, value(point))]
    return made


def _begins(points: Sequence[SeriesPoint]) -> list[float]:
    """Return when the seconds of each point began; none before the ones before ended."""
    begins, ended = list[float](), 0.0
    for point in points:
        begins.append(max(point.worked_seconds - point.sample.seconds, ended))
        ended = point.worked_seconds
    return begins


def _stretches(
    points: Sequence[SeriesPoint], lines: Sequence[tuple[str, Callable[[SeriesPoint], float], bool]]
) -> Iterator[tuple[float, float, str]]:
    for since, point in zip(_begins(points), points, strict=True):
        said = ", ".join(f"{name} {_short(value(point))}" for name, value, _ in lines)
        yield since, point.worked_seconds, f"{moment(point.sample.at, seconds=True)}: {said}"


def _marks(points: Sequence[SeriesPoint], unit: float) -> list[tuple[float, str]]:
    begun = [
        (since / unit, f"run {point.run}")
        for since, before, point in zip(_begins(points), [None, *points], points, strict=False)
        if before is not None and before.run != point.run
    ]
    if len(begun) > MOST_MARKS:
        return []
    return begun if len(begun) <= MOST_LABELLED_MARKS else [(at, "") for at, _ in begun]


def _mean(points: Sequence[SeriesPoint], value: Callable[[SeriesPoint], float]) -> float:
    seconds = sum(point.sample.seconds for point in points)
    return sum(value(point) * point.sample.seconds for point in points) / max(seconds, 1e-3)


def _short(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004 - three digits


def _numbers(points: Sequence[SeriesPoint]) -> Markup:
    header = ["until", "run", "tasks/s", "MB/s", "requests/s", "requests open", "batches", "limit", "why"]
    rows = [
        (
            moment(point.sample.at, seconds=True),
            point.run,
            _short(point.sample.tasks_per_second),
            _short(point.sample.bytes_per_second / 1e6),
            _short(point.sample.requests_per_second),
            point.sample.requests_open,
            point.sample.in_flight,
            point.sample.limit,
            element("bdi", cut(point.sample.limit_reason, 80)),
        )
        for point in points
    ]
    made = table("The same in numbers", header, rows, figures=range(1, 8))
    return element("details", element("summary", "The same in numbers"), made)


def _limits(facts: Overview) -> Iterator[Markup]:
    if not facts.limit_changes:
        return
    yield element("h3", "Limits that were changed, and why")
    rows = [
        (
            moment(one.at, seconds=True),
            one.run,
            one.step.name,
            f"{one.step.before:,} → {one.step.after:,}",
            element("bdi", cut(one.step.reason)),
        )
        for one in facts.limit_changes
    ]
    header = ["when", "run", "limit", "change", "why"]
    newest = rows[-STEPS_SHOWN:]
    told = f"The last {len(newest)} of {count(facts.counts.limits_changed)}"
    yield table(told, header, newest, figures=(1, 3))
    if len(rows) > len(newest):
        earlier = rows[: -len(newest)]
        named = f"{len(earlier)} earlier ones, of which a long run keeps some"
        yield element("details", element("summary", named), table(named, header, earlier, figures=(1, 3)))


# Calls, waits, batches


def calls(facts: Overview) -> Iterator[Markup]:
    """Yield how long calls took, and how they were answered."""
    if not facts.calls:
        return
    yield element("h2", "Calls")
    rows = [
        Range(one.kind, [("p50", one.seconds.p50), ("p90", one.seconds.p90), ("p99", one.seconds.p99)])
        for one in facts.calls
    ]
    title = "How long calls took, by kind"
    told = " Half of them are done by p50, 90 of 100 by p90, 99 by p99."
    caption = element("figcaption", element("b", title), ". ", told)
    yield element("figure", caption, scrolled(ranges(title, "seconds, logarithmic", rows), title))
    header = ["call", "calls", "p50", "p90", "p99", "longest", "sent", "answers"]
    figures = range(1, 7)
    yield table(
        "From when a call went out until it was answered or given up",
        header,
        [
            (one.kind, count(one.calls), *_times(one.seconds), size(one.sent_bytes), _answers(one.answers))
            for one in facts.calls
        ],
        figures=figures,
    )


def _times(times: Percentiles) -> list[str]:
    return [_seconds(value) for value in (times.p50, times.p90, times.p99, times.longest)]


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:,.3g} ms" if seconds < 1 else duration(seconds)


def _answers(answers: Mapping[str, int]) -> Markup:
    parts: list[Content] = []
    for status, number in answers.items():
        faulty = status == NO_ANSWER or status.startswith(("4", "5"))
        parts += [", " if parts else None, element("span", f"{count(number)} with {status}", class_=faulty and "bad")]
    return joined(parts)


def reasons(facts: Overview) -> Iterator[Markup]:
    """Yield for what calls waited, and why they were made again."""
    counts = facts.counts
    if not counts.waits and not counts.retry_reasons:
        return
    yield element("h2", "Waits and repeated calls")
    for title, header, sums, said in (
        ("Calls waited", ["reason", "for", "share"], counts.waits, duration),
        ("Calls were made again", ["reason", "times", "share"], counts.retry_reasons, _times_made),
    ):
        whole = sum(sums.values())
        rows = [
            (element("bdi", cut(reason)), said(number), _share_bar(number, whole))
            for reason, number in sorted(sums.items(), key=lambda one: -one[1])
        ]
        if rows:
            yield table(f"{title}: {said(whole)} in all", header, rows, figures=(1,))


def _times_made(number: float) -> str:
    return count(round(number))


def _share_bar(part: float, whole: float) -> Markup:
    said = share(part, whole)
    return joined([element("div", bar(said, [(said, part, "c0"), ("", whole - part, "rule")]), class_="share"), said])


def slowest(facts: Overview) -> Iterator[Markup]:
    """Yield the batches that took longest."""
    if not facts.slowest:
        return
    yield element("h2", "Slowest batches")
    times = facts.batch_seconds
    halves = f"half were done within {_seconds(times.p50)}, 99 of 100 within {_seconds(times.p99)}"
    yield element("p", f"Of {count(times.count, 'batch')} that one run both sent and settled, {halves}.", class_="soft")
    header = ["batch", "took", "of it, after its release", "records", "size", "run", "name at the service"]
    rows = [
        (
            one.name,
            _seconds(one.took.seconds),
            _seconds(one.took.settle_seconds),
            count(one.took.records),
            size(one.took.size_bytes),
            one.run,
            element("code", cut(one.remote_id, 80)) if one.remote_id else "none",
        )
        for one in facts.slowest
    ]
    yield table("From their first step until they were settled", header, rows, figures=range(1, 6))


# Words


def share(part: float, whole: float) -> str:
    """Return a share in per cent; neither 0 % nor 100 % unless it is just that."""
    if not whole:
        return ""
    share = 100 * part / whole
    if 0 < share < 0.1:  # noqa: PLR2004 - the first that is shown as more than nothing
        return "< 0.1 %"
    return f"{share:.1f} %" if part >= whole or share < 99.95 else "> 99.9 %"  # noqa: PLR2004 - rounds up to 100


def moment(at: float, *, seconds: bool = False) -> str:
    """Return a time for people, in the zone of this machine."""
    local = datetime.fromtimestamp(at).astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S}" if seconds else f"{local:%Y-%m-%d %H:%M %Z}"


@lru_cache(maxsize=1024)  # sources and messages come again and again
def cut(words: str | None, most: int = WORD_LETTERS) -> str:
    """Return the beginning of foreign text, in which what could steer a display is spelled out."""
    words = printable((words or "")[: most + 1])
    return words if len(words) <= most else words[: most - 1] + "…"
