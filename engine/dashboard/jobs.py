"""The page of all jobs: a line each, the newest first, those of a name or a state where that is asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from aiohttp import web

from engine.commands.result import JobStatus
from engine.dashboard.html import Fragment, join, link, moment, table, tag
from engine.dashboard.layout import HtmlPage
from engine.dashboard.parts import badge, pages, progress, sentence, state_of, whole
from engine.dashboard.reading import Reader
from engine.model.job import Job
from engine.progress.html import Markup
from engine.progress.text import count, rate

JOBS_SHOWN = 50
"""On one page."""
STATES = ("running", "stopped", "finished", "canceled")


async def jobs_page(request: web.Request, reader: Reader) -> HtmlPage:
    """Return the page of all jobs."""
    name, state = request.query.get("name", "").strip(), request.query.get("state", "")
    jobs, running = await reader.jobs(), await reader.running()
    chosen = [job for job in jobs if _fits(job, name, state, running)]
    last = max(-(-len(chosen) // JOBS_SHOWN), 1)
    number = min(whole(request.query.get("page"), least=1), last)
    statuses = await reader.statuses(chosen[(number - 1) * JOBS_SHOWN : number * JOBS_SHOWN])
    said = f"{count(len(jobs), 'job')}, {count(len(running))} running."
    working = [status for status in statuses if status.running]
    parts = [
        tag("h1", "Jobs"),
        tag("p", said, class_="lead"),
        _filters(name, state),
        _table(statuses, reader) if statuses else _nothing(some=bool(jobs)),
        pages("jobs", number, last, {"name": name, "state": state}),
    ]
    told = [sentence(status, reader.pace(status.job.name)) for status in working[:3]]
    return HtmlPage("Jobs", join(parts), said=" ".join([said, *told]))


def _fits(job: Job, name: str, state: str, running: Collection[str]) -> bool:
    if name and name.casefold() not in f"{job.name} {job.family} {job.service}".casefold():
        return False
    is_running = job.name in running
    if state == "running":
        return is_running
    wanted = {"stopped": "open"}.get(state, state)
    return not state or (job.state == wanted and not is_running)


def _filters(name: str, state: str) -> Markup:
    options = [tag("option", "any state", value="")]
    options += [tag("option", one, value=one, selected=one == state) for one in STATES]
    return tag(
        "form",
        tag("label", "Name or family ", tag("input", type="search", name="name", value=name, maxlength=100)),
        tag("label", "State ", tag("select", options, name="state")),
        tag("button", "Show"),
        action="/",
        method="get",
        class_="row filters",
    )


def _table(statuses: Sequence[JobStatus], reader: Reader) -> Markup:
    header = ["Job", "State", "Done", "Failed", "Uncertain", "Created", "Records", "A second", "Family", "Last sign"]
    rows = [_row(status, reader.pace(status.job.name)) for status in statuses]
    return table("Jobs, the newest first", header, rows, figures=frozenset({3, 4, 5, 6, 7}), hidden_caption=True)


def _row(status: JobStatus, pace: float | None) -> Sequence[Fragment]:
    job, tally = status.job, status.tally
    return [
        link(f"/jobs/{job.name}", job.name),
        badge(state_of(status)),
        progress(status),
        _loud(tally.failed + tally.rejected),
        _loud(tally.uncertain),
        count(tally.created),
        count(tally.records),
        "" if pace is None else rate(pace),
        job.family,
        moment(status.last_sign_at),
    ]


def _loud(number: int) -> Fragment:
    return tag("strong", count(number), class_="bad") if number else "0"


def _nothing(*, some: bool) -> Markup:
    if some:
        return tag("p", "No job is like that. ", link("/", "Show all jobs"))
    return tag("p", "There are no jobs in this ledger yet. ", tag("code", "bulksubmit submit"), " makes one.")
