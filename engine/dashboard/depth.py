"""The sections of a job's page that tell of its whole life: failures by cause, plots, calls, limits, slow batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.dashboard.html import Fragment, foreign, join, link, moment, table, tag
from engine.dashboard.parts import badge, fates, part_of
from engine.model.runs import Sample
from engine.progress.charts import Line, Plot, svg
from engine.progress.html import Markup
from engine.progress.text import count, duration, rate, size
from engine.reports.causes import Cause, FailureExample
from engine.reports.overview import JobFacts, Overview

CAUSES_SHOWN = 20
EXAMPLES_SHOWN = 5
LIMIT_STEPS_SHOWN = 10
SLOWEST_SHOWN = 10


def failures(overview: Overview) -> Markup | None:
    """Return why records were not created, or their tasks failed later, the most frequent causes first."""
    causes = overview.causes
    if not causes.records:
        return None
    shown = causes.top[:CAUSES_SHOWN]
    rows = [
        [
            tag("span", foreign(cause.words)),
            badge(cause.fate),
            count(cause.records),
            part_of(cause.records, causes.records),
            _examples(overview.job, cause),
        ]
        for cause in shown
    ]
    left = causes.records - sum(cause.records for cause in shown)
    return tag(
        "section",
        tag("h2", "Failures"),
        tag("p", f"{count(causes.records, 'record')}, by cause. What differs between two messages is left out."),
        table(
            "Failures by cause",
            ["Cause", "Fate", "Records", "Share", "Examples"],
            rows,
            figures=frozenset({2, 3}),
            hidden_caption=True,
        ),
        tag("p", f"{count(left, 'record')} for other causes.") if left else None,
    )


def _examples(job: str, cause: Cause) -> Markup:
    items = [tag("li", _example(job, example)) for example in cause.examples[:EXAMPLES_SHOWN]]
    return tag(
        "details", tag("summary", f"The first {len(items)}" if cause.records > len(items) else "Show"), tag("ul", items)
    )


def _example(job: str, example: FailureExample) -> Markup:
    where = f", line {example.line:,}" if example.line else ""
    return join([link(f"/jobs/{job}/records/{example.index}", f"record {example.index:,}"), where])


def plots(overview: Overview) -> Markup | None:
    """Return how fast tasks were created, and how many batches were on their way, over the time worked."""
    points = [(point.worked_seconds, point.sample) for point in overview.series]
    if len(points) < 2:  # noqa: PLR2004 - a line needs two points
        return None
    across = "seconds worked, all runs"
    tasks = Line("tasks", [(at, sample.tasks_per_second) for at, sample in points], filled=True)
    flight = Line("in flight", [(at, float(sample.in_flight)) for at, sample in points])
    limit = Line("limit", [(at, float(sample.limit)) for at, sample in points], dashed=True)
    samples = [sample for _, sample in points]
    return tag(
        "section",
        tag("h2", "Over time"),
        _plot(Plot("Tasks a second", across, "tasks/s", [tasks], headed=False), _speeds(samples)),
        _plot(Plot("Batches on their way", across, "batches", [flight, limit], headed=False), _flights(samples)),
    )


def _plot(plot: Plot, told: str) -> Markup:
    drawn = tag("div", svg(plot), class_="scrolls", tabindex=0, role="region", aria_label=plot.title)
    return tag("figure", tag("figcaption", tag("b", plot.title), ": ", told), drawn)


def _speeds(samples: Sequence[Sample]) -> str:
    speeds = [sample.tasks_per_second for sample in samples]
    return f"{rate(speeds[-1])} at the end, {rate(max(speeds))} at most."


def _flights(samples: Sequence[Sample]) -> str:
    last, most = samples[-1], max(sample.in_flight for sample in samples)
    return f"{count(last.in_flight)} at the end, {count(most)} at most; the limit is {count(last.limit)}."


def calls(overview: Overview) -> Markup | None:
    """Return how long the calls of each kind took, and how they were answered."""
    if not overview.calls:
        return None
    rows: list[list[Fragment]] = []
    for one in overview.calls:
        times = (one.seconds.p50, one.seconds.p90, one.seconds.p99, one.seconds.longest)
        answers = ", ".join(f"{foreign(answer)}: {count(number)}" for answer, number in one.answers.items())
        rows.append([one.kind, count(one.calls), *map(_short, times), answers])
    header = ["Call", "Calls", "Half within", "90 % within", "99 % within", "Longest", "Answers"]
    return tag(
        "section",
        tag("h2", "Calls"),
        table("Calls by kind", header, rows, figures=frozenset({1, 2, 3, 4, 5}), hidden_caption=True),
    )


def _short(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else duration(seconds)


def holds(overview: Overview) -> Markup | None:
    """Return what held the job up over its whole life: waits, retries, and each change of a limit with its reason."""
    counts = overview.counts
    steps = [
        [moment(one.at), foreign(one.step.name), f"{one.step.before} → {one.step.after}", foreign(one.step.reason)]
        for one in reversed(overview.limit_changes[-LIMIT_STEPS_SHOWN:])
    ]
    waits = [[foreign(why), duration(seconds)] for why, seconds in counts.waits.items()]
    again = [[foreign(why), count(number)] for why, number in counts.retry_reasons.items()]
    if not (steps or waits or again):
        return None
    return tag(
        "section",
        tag("h2", "What held it up"),
        table("Waits, all calls together", ["Reason", "Time"], waits, figures=frozenset({1})) if waits else None,
        table("Calls made again", ["Reason", "Calls"], again, figures=frozenset({1})) if again else None,
        table(_limits_caption(len(steps), counts.limits_changed), ["When", "Limit", "Change", "Why"], steps)
        if steps
        else None,
    )


def _limits_caption(shown: int, changes: int) -> str:
    if shown >= changes:
        return "Limits, each change"
    return f"Limits, the last {count(shown)} of {count(changes, 'change')}"


def slowest(overview: Overview) -> Markup | None:
    """Return the batches that took longest."""
    rows = [
        [
            link(f"/jobs/{overview.job}/batches/{one.took.sequence}", one.name),
            duration(one.took.seconds),
            duration(one.took.settle_seconds),
            count(one.took.records),
            size(one.took.size_bytes),
            one.remote_id or "",
        ]
        for one in overview.slowest[:SLOWEST_SHOWN]
    ]
    if not rows:
        return None
    title, header = "Slowest batches", ["Batch", "In all", "At the service", "Records", "Size", "Name at the service"]
    figures = frozenset({1, 2, 3, 4})
    return tag("section", tag("h2", title), table(title, header, rows, figures=figures, hidden_caption=True))


def relatives(overview: Overview) -> Markup | None:
    """Return the jobs that a job comes from, those that come from it, and the nights of its family."""
    rows = [*_lines("retried by it", overview.lineage.parents), *_lines("retries it", overview.lineage.retries)]
    rows += _lines("of its family", [one for one in overview.nights if one.name != overview.job])
    if not rows:
        return None
    header = ["Job", "How it is related", "State", "Begun", "Records", "Exit code"]
    return tag("section", tag("h2", "Related jobs"), table("Related jobs", header, rows, hidden_caption=True))


def _lines(how: str, jobs: Sequence[JobFacts]) -> Iterator[Sequence[Fragment]]:
    for one in jobs:
        code = "" if one.exit_code is None else str(one.exit_code)
        yield [
            link(f"/jobs/{one.name}", one.name),
            how,
            badge(one.state),
            moment(one.created_at),
            fates(one.tally),
            code,
        ]


def audit(overview: Overview) -> str | None:
    """Return what the last audit has found, in a sentence."""
    if overview.audit is None:
        return None
    found = overview.audit.found
    said = "it holds" if found.holds else f"it does not hold, {count(found.found, 'finding')}"
    return f"{said}{'; something has changed since' if overview.audit.outdated else ''}"
