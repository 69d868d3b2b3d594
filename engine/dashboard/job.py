"""The page of one job: its pipeline by state, its pace and what holds it up, failures, runs, what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

from aiohttp import web
from msgspec.structs import replace

from engine.commands.result import JobStatus
from engine.dashboard import depth
from engine.dashboard.actions import Actions
from engine.dashboard.html import Fragment, facts, foreign, join, link, moment, table, tag
from engine.dashboard.layout import HtmlPage, trail
from engine.dashboard.parts import FATES, badge, command_line, number_of, part_of, progress, sentence, state_of
from engine.dashboard.reading import Reader
from engine.dashboard.words import Words
from engine.model.job import JobState
from engine.model.outcome import Fate
from engine.model.runs import PastRun, Sample
from engine.model.submission import State
from engine.progress.html import Markup
from engine.progress.text import count, duration, rate, size
from engine.reports.overview import Overview

PIPELINE = {
    State.FROZEN: "cut from the sources, not sent yet",
    State.STAGING: "on their way to the service",
    State.STAGED: "at the service, not begun",
    State.RELEASING: "being begun",
    State.RELEASED: "the service works on them",
    State.SETTLED: "the end of each record is known",
    State.UNCERTAIN: "nobody knows what became of them",
}
"""State of a batch → what it means, in the order that batches take."""
RUNS_SHOWN = 10
SOURCES_SHOWN = 10


async def job_page(request: web.Request, reader: Reader, words: Words, actions: Actions | None = None) -> HtmlPage:
    """Return the page of one job. Raises: JobError: there is none."""
    status = await reader.status(request.match_info["job"])
    job, pace, deep = status.job, reader.pace(status.job.name), await reader.depth(status)
    overview = deep.overview if deep else None
    if deep is not None:
        status = replace(status, later=deep.overview.later, retried=deep.retried, service_can=deep.service_can)
    parts = [
        trail(here=job.name),
        tag("h1", "Job ", job.name, " ", badge(state_of(status))),
        tag("p", sentence(status, pace), class_="lead"),
        _next(status, reader, words),
        actions.buttons(status) if actions is not None else None,
        tag("div", _records(status), _pipeline(status), class_="pair"),
        depth.failures(overview) if overview else _being_read(),
        _now(status, pace),
        [make(overview) for make in (depth.plots, depth.holds, depth.calls, depth.slowest)] if overview else None,
        _runs(status),
        depth.relatives(overview) if overview else None,
        _about(status, overview),
    ]
    return HtmlPage(f"Job {job.name}", join(parts), sentence(status, pace), job=job.name)


def _being_read() -> Markup:
    return tag("p", "Failures, plots and calls are being read from the ledger; they are shown here in some seconds.")


def _next(status: JobStatus, reader: Reader, words: Words) -> Markup:
    steps = [tag("li", f"{what}: ", command_line(line)) for what, line in words.next_steps(status, reader.ledger)]
    return tag("section", tag("h2", "Next"), tag("ul", steps, class_="steps"), class_="next")


def _records(status: JobStatus) -> Markup:
    tally, name = status.tally, status.job.name
    shown = [fate for fate in Fate if number_of(tally, fate) or fate in {Fate.CREATED, Fate.FAILED}]
    numbers = {fate: number_of(tally, fate) for fate in shown}
    rows: list[list[Fragment]] = [
        [fate.value, count(number), part_of(number, tally.records), FATES[fate]] for fate, number in numbers.items()
    ]
    note = "" if status.job.read_complete else " The sources are not read to the end, so there will be more."
    header, figures = ["Fate", "Records", "Share", "Meaning"], frozenset({1, 2})
    return tag(
        "section",
        tag("h2", "Records"),
        tag("p", f"{count(tally.records, 'record')} read; the end is known of ", progress(status), f".{note}"),
        table("Records by what became of them", header, rows, figures=figures, hidden_caption=True),
        tag("p", link(f"/jobs/{name}/search", "Find a record, a task or an error")),
    )


def _pipeline(status: JobStatus) -> Markup:
    batches = f"/jobs/{status.job.name}/batches"
    most = max(status.tally.batches, 1)
    rows: list[list[Fragment]] = []
    for state, meaning in PIPELINE.items():
        number = status.tally.states.get(state, 0)
        bar = tag("meter", part_of(number, most), value=number, max=most, aria_label=f"Share of batches {state}")
        rows.append([link(f"{batches}?{urlencode({'state': state})}", state.value), count(number), bar, meaning])
    header, figures, spare = ["State", "Batches", "Of all", "Meaning"], frozenset({1}), frozenset({3})
    return tag(
        "section",
        tag("h2", "Pipeline"),
        table("Batches by state", header, rows, figures=figures, spare=spare, hidden_caption=True),
        tag("p", link(batches, f"All {count(status.tally.batches, 'batch')}")),
    )


def _now(status: JobStatus, pace: float | None) -> Markup | None:
    if not status.samples and pace is None:
        return None
    sample = status.samples[-1] if status.samples else None
    title = "Now" if status.running else "In the last seconds of its last run"
    pairs: list[tuple[str, Fragment]] = [("pace", f"{rate(pace)} records/s" if pace is not None else None)]
    return tag("section", tag("h2", title), facts([*pairs, *(_of_sample(sample) if sample else ())]))


def _of_sample(sample: Sample) -> Iterator[tuple[str, Fragment]]:
    yield "tasks", f"{rate(sample.tasks_per_second)}/s"
    yield "data", f"{size(sample.bytes_per_second)}/s"
    yield "requests", f"{rate(sample.requests_per_second)}/s, {count(sample.requests_open)} without an answer yet"
    yield "batches in flight", f"{count(sample.in_flight)}, at most {count(sample.limit)}"
    yield "why so many", foreign(sample.limit_reason)
    yield "waits", _list(f"{duration(seconds)}: {foreign(why)}" for why, seconds in sample.waits.items())
    yield "retries", _list(f"{count(number)}: {foreign(why)}" for why, number in sample.retries.items())
    yield "measured", moment(sample.at)


def _list(items: Iterator[str]) -> Markup | None:
    shown = [tag("li", item) for item in items]
    return tag("ul", shown) if shown else None


def _runs(status: JobStatus) -> Markup | None:
    if not status.runs:
        return None
    shown = status.runs[-RUNS_SHOWN:]
    rows = [_run(status, run) for run in reversed(shown)]
    title = "Runs" if len(shown) == len(status.runs) else f"Runs, the last {len(shown)} of {count(len(status.runs))}"
    header = ["Run", "Begun", "For", "End", "Created", "Failed", "Requests", "Warnings", "Why it ended", "Machine"]
    figures = frozenset({0, 4, 5, 6, 7})
    return tag("section", tag("h2", title), table(title, header, rows, figures=figures, hidden_caption=True))


def _run(status: JobStatus, run: PastRun) -> Sequence[Fragment]:
    is_last = run is status.runs[-1]
    end = (
        f"exit {run.exit_code}" if run.exit_code is not None else "running" if status.running and is_last else "killed"
    )
    until = run.ended_at or (status.last_sign_at if is_last else None)
    counts = run.counts
    return [
        str(run.number),
        moment(run.begun_at),
        duration(max(until - run.begun_at, 0.0)) if until else "",
        end,
        count(counts.created),
        count(counts.failed + counts.rejected),
        count(counts.requests),
        count(counts.warnings),
        foreign(run.reason),
        run.host,
    ]


def _about(status: JobStatus, overview: Overview | None) -> Markup:
    job = status.job
    sources = [f"{source.path} ({size(source.size)})" for source in job.sources[:SOURCES_SHOWN]]
    more = len(job.sources) - len(sources)
    pairs: list[tuple[str, Fragment]] = [
        ("service", job.service),
        ("begun", moment(job.created_at)),
        ("last sign", moment(status.last_sign_at)),
        ("sources", tag("ul", [tag("li", one) for one in sources], tag("li", f"{more} more") if more else None)),
        ("family", link(f"/?{urlencode({'name': job.family})}", job.family) if job.family else None),
        ("sends", "only what no earlier job of the family has created" if job.delta else None),
        ("retries", link(f"/jobs/{job.parent}", job.parent) if job.parent else None),
        ("attempt", count(job.attempt) if job.attempt > 1 else None),
        ("retried", str(status.retried) if status.retried else None),
        ("tasks since", ", ".join(f"{count(number)} {fate}" for fate, number in status.later.items())),
        ("last audit", depth.audit(overview) if overview else None),
        ("reports", tag("code", job.output)),
        ("state in the ledger", "open: it can go on" if job.state is JobState.OPEN else str(job.state)),
    ]
    return tag("section", tag("h2", "About it"), facts(pairs))
