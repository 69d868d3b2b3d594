"""The pages of a job's batches, of one batch with its records, and of one record with all attempts at it."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

import anyio.to_thread
from aiohttp import web

from engine.commands import wiring
from engine.commands.lineage import Attempt
from engine.commands.query import tell_story
from engine.dashboard.html import Fragment, facts, foreign, join, link, moment, table, tag
from engine.dashboard.job import PIPELINE
from engine.dashboard.layout import HtmlPage, trail
from engine.dashboard.parts import badge, whole
from engine.dashboard.reading import Reader
from engine.ledger.search import BatchRow
from engine.model.batch import batch_name
from engine.model.errors import BulkSubmitError, JobError
from engine.model.job import Job
from engine.model.outcome import Fate
from engine.model.submission import State
from engine.progress.html import Markup
from engine.progress.text import count, size
from engine.reports.outcomes import Fated, KnownBatch, TaskUrl, batch_fates, known_batch

BATCHES_SHOWN = 50
RECORDS_SHOWN = 100


async def batches_page(request: web.Request, reader: Reader) -> HtmlPage:
    """Return a page of the batches of a job, those in one state if the query names it. Raises: JobError."""
    name, state = request.match_info["job"], request.query.get("state", "")
    states = [state] if state in PIPELINE else [str(one) for one in PIPELINE]
    after = whole(request.query.get("after"), least=-1)
    rows = await reader.search(lambda search: search.batches(name, states, after, BATCHES_SHOWN + 1))
    shown = rows[:BATCHES_SHOWN]
    heading = f"Batches of job {name}" + (f" that are {state}" if len(states) == 1 else "")
    query = {"state": state} if len(states) == 1 else {}
    further = [
        link("?" + urlencode(query), "First page") if after >= 0 else None,
        link("?" + urlencode({**query, "after": shown[-1].sequence}), "Next page", rel="next")
        if len(rows) > len(shown)
        else None,
    ]
    parts = [
        trail((f"/jobs/{name}", name), here="Batches"),
        tag("h1", heading),
        _states(name, state),
        _table(name, shown) if shown else tag("p", "There are none just now."),
        tag("nav", tag("ul", [tag("li", one) for one in further if one]), aria_label="Pages", class_="pages")
        if any(further)
        else None,
    ]
    return HtmlPage(heading, join(parts), f"{count(len(shown), 'batch')} shown.", job=name)


def _states(job: str, chosen: str) -> Markup:
    ways = [("", "all"), *((str(state), str(state)) for state in PIPELINE)]
    items = [
        tag(
            "li",
            link(
                f"/jobs/{job}/batches" + (f"?{urlencode({'state': state})}" if state else ""),
                name,
                aria_current="true" if state == chosen else None,
            ),
        )
        for state, name in ways
    ]
    return tag("nav", tag("ul", items), aria_label="State", class_="pages")


def _table(job: str, rows: Sequence[BatchRow]) -> Markup:
    header = [
        "Batch",
        "State",
        "Records",
        "Created",
        "Failed",
        "Uncertain",
        "Size",
        "Name at the service",
        "Last step",
        "Note",
    ]
    lines: list[list[Fragment]] = [
        [
            link(f"/jobs/{job}/batches/{row.sequence}", batch_name(row.sequence)),
            badge(row.state),
            f"{row.start_index:,} to {row.end_index - 1:,}",
            count(row.created),
            count(row.failed),
            count(row.uncertain if row.state == State.SETTLED else row.count if row.state == State.UNCERTAIN else 0),
            size(row.size_bytes),
            row.remote_id or "",
            moment(row.changed_at),
            foreign(row.note),
        ]
        for row in rows
    ]
    return table(
        "Batches in the order of their records", header, lines, figures=frozenset({3, 4, 5, 6}), hidden_caption=True
    )


async def batch_page(request: web.Request, reader: Reader) -> HtmlPage:
    """Return the page of a batch: its submission and a page of its records. Raises: JobError."""
    name, sequence = request.match_info["job"], whole(request.match_info["sequence"])
    async with reader.opened() as ledger:
        job = await ledger.job(name)
        found = await ledger.batch(name, sequence)
        if found is None:
            raise JobError(f"job {name!r} has no batch {batch_name(sequence)}")
        settlement = await ledger.settlement(name, sequence) if found[1].state is State.SETTLED else None
        known = await known_batch(job, ledger, *found, settlement)
    task_url = await anyio.to_thread.run_sync(task_url_of, job)
    fates = await anyio.to_thread.run_sync(batch_fates, job, known, task_url)
    title = f"Batch {batch_name(sequence)} of job {name}"
    wanted = request.query.get("fate", "")
    chosen = [fated for fated in fates if not wanted or fated.outcome.state == wanted]
    start = whole(request.query.get("from"))
    parts = [
        trail((f"/jobs/{name}", name), (f"/jobs/{name}/batches", "Batches"), here=f"Batch {batch_name(sequence)}"),
        tag("h1", title, " ", badge(known.submission.state)),
        tag("section", tag("h2", "Submission"), _submission(known)),
        tag("section", tag("h2", "Records"), _fates(fates, wanted), *_fated(name, chosen, start, wanted)),
    ]
    return HtmlPage(title, join(parts), job=name)


def task_url_of(job: Job) -> TaskUrl:
    """Return what gives the page of a task; of none, where the package of the service is gone."""
    try:
        return wiring.load_offline(job).service.task_url
    except (OSError, BulkSubmitError):
        return lambda _: ""


def _submission(known: KnownBatch) -> Markup:
    batch, submission = known.batch, known.submission
    return facts(
        [
            ("state", f"{submission.state}: {PIPELINE.get(submission.state, 'its halves stand for it')}"),
            ("since", moment(submission.changed_at)),
            ("name at the service", submission.remote_id),
            ("records", f"{batch.start.index:,} to {batch.end.index - 1:,}"),
            ("go up", count(batch.count)),
            ("rejected", count(batch.rejected) if batch.rejected else None),
            ("skipped", count(batch.skipped) if batch.skipped else None),
            ("size", size(batch.size_bytes)),
            ("sha256", tag("code", batch.sha256.hex())),
            ("note", foreign(submission.note)),
        ]
    )


def _fates(fates: Sequence[Fated], wanted: str) -> Markup | None:
    numbers = {fate: sum(fated.outcome.state is fate for fated in fates) for fate in Fate}
    ways = [("", f"all {count(len(fates))}"), *((str(fate), f"{count(n)} {fate}") for fate, n in numbers.items() if n)]
    items = [
        tag("li", link(f"?{urlencode({'fate': fate})}", name, aria_current="true" if fate == wanted else None))
        for fate, name in ways
    ]
    return tag("nav", tag("ul", items), aria_label="Fate", class_="pages")


def _fated(job: str, fates: Sequence[Fated], start: int, wanted: str) -> Sequence[Fragment]:
    shown = fates[start : start + RECORDS_SHOWN]
    if not shown:
        return [tag("p", "There are none.")]
    rows: list[list[Fragment]] = [
        [
            link(f"/jobs/{job}/records/{fated.outcome.index}", f"{fated.outcome.index:,}"),
            badge(fated.outcome.state),
            _task(fated.outcome.task_id, fated.outcome.url),
            foreign(fated.outcome.error),
            f"{fated.outcome.source}, " + (f"line {fated.line:,}" if fated.line else f"byte {fated.outcome.offset:,}"),
        ]
        for fated in shown
    ]
    base = {"fate": wanted} if wanted else {}
    before, after = max(start - RECORDS_SHOWN, 0), start + RECORDS_SHOWN
    ways = [
        link("?" + urlencode({**base, "from": before}), "Previous page", rel="prev") if start else None,
        link("?" + urlencode({**base, "from": after}), "Next page", rel="next") if after < len(fates) else None,
    ]
    return [
        table("Records of the batch", ["Record", "Fate", "Task", "Why", "Place"], rows, hidden_caption=True),
        tag("nav", tag("ul", [tag("li", way) for way in ways if way]), aria_label="Pages of records", class_="pages")
        if any(ways)
        else None,
    ]


def _task(task_id: str | None, url: str | None) -> Fragment:
    return (link(url, task_id) if url else task_id) if task_id else ""


async def record_page(request: web.Request, reader: Reader) -> HtmlPage:
    """Return the story of a record over all attempts at it. Raises: JobError: there is no such job, or record."""
    name, index = request.match_info["job"], whole(request.match_info["index"])
    story = await tell_story(name, reader.ledger, record=index)
    asked, outcome = story.asked, story.asked.outcome
    async with reader.opened() as ledger:
        found = await ledger.batch_at(name, index)
    batch = found[0].sequence if found else None
    title = f"Record {index:,} of job {name}"
    pairs: list[tuple[str, Fragment]] = [
        ("source", f"{outcome.source}, {f'line {asked.line:,}, ' if asked.line else ''}byte {outcome.offset:,}"),
        ("key", f"{story.column} = {foreign(story.key)}" if story.key is not None else None),
        ("known from", _known_from(outcome.details) if outcome.state is Fate.SKIPPED else None),
        ("batch", link(f"/jobs/{name}/batches/{batch}", batch_name(batch)) if batch is not None else None),
        ("name of the batch at the service", outcome.batch_id),
        ("task", _task(outcome.task_id, outcome.url)),
        ("reason", foreign(outcome.error)),
        ("later", _later(asked)),
    ]
    attempts = [_attempt(one, is_asked=one.job == name) for one in story.attempts]
    header = ["Attempt", "Job", "Record", "When", "What became of it", "Task", "Why", "Later"]
    parts = [
        trail((f"/jobs/{name}", name), here=f"Record {index:,}"),
        tag("h1", title, " ", badge(outcome.state)),
        facts(pairs),
        tag("section", tag("h2", "All attempts"), table("Attempts at this record", header, attempts)),
    ]
    return HtmlPage(title, join(parts), job=name)


def _known_from(details: object) -> Fragment:
    if not isinstance(details, dict) or "job" not in details:
        return None
    return link(
        f"/jobs/{details['job']}/records/{details['record']}", f"job {details['job']}, record {details['record']:,}"
    )


def _attempt(one: Attempt, *, is_asked: bool) -> Sequence[Fragment]:
    outcome = one.outcome
    here = f"/jobs/{one.job}/records/{outcome.index}"
    return [
        str(one.number),
        link(f"/jobs/{one.job}", one.job),
        link(here, f"{outcome.index:,}", aria_current="true" if is_asked else None),
        moment(one.at),
        badge(outcome.state),
        _task(outcome.task_id, outcome.url),
        foreign(outcome.error),
        _later(one),
    ]


def _later(one: Attempt) -> Fragment:
    if one.later is None:
        return None
    return [
        one.later.fate,
        " (",
        moment(one.later.seen_at),
        ")",
        f": {foreign(one.later.reason)}" if one.later.reason else "",
    ]
