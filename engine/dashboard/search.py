"""The search for a record: by its index, its key, its task, the batch it is in, or the words of an error.

The ledger is asked, here, and never longer than a second: what is in no index is looked through piece by piece, and the
page says how far it came and where it goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import urlencode

import anyio.to_thread
import orjson
from aiohttp import web

from engine.batch.known import marker_for
from engine.commands import wiring
from engine.commands.lineage import indexes_sent
from engine.commands.query import tell_story
from engine.dashboard.html import Fragment, foreign, join, link, table, tag
from engine.dashboard.layout import HtmlPage, trail
from engine.dashboard.parts import badge, command_line, whole
from engine.dashboard.reading import Reader
from engine.dashboard.words import Words
from engine.ledger.base import Ledger
from engine.ledger.known import KnownRecords
from engine.ledger.search import BatchRow, Hit, LedgerSearch, SearchHits
from engine.model.batch import batch_name
from engine.model.errors import BulkSubmitError
from engine.model.job import Job
from engine.model.record import SHARED
from engine.progress.html import Markup
from engine.progress.text import count, share, size

WAYS = {
    "": "anything",
    "index": "index of a record",
    "key": "key of a record",
    "task": "task or batch id",
    "error": "words of an error",
}
HITS_SHOWN = 50
SEARCH_SECONDS = 0.5
MOST_READ_BYTES = 32_000_000
"""Of sources that are read for a key which is in no index: some tenths of a second."""
JOBS_FOUND = 20


async def search_page(request: web.Request, reader: Reader, words: Words) -> HtmlPage:
    """Return what a search in a job has found. Raises: JobError: there is none."""
    async with reader.opened() as ledger:
        job = await ledger.job(request.match_info["job"])
    text, way = request.query.get("q", "").strip(), request.query.get("by", "")
    way = way if way in WAYS else ""
    title = f"Search in job {job.name}"
    parts: list[Fragment] = [
        trail((f"/jobs/{job.name}", job.name), here="Search"),
        tag("h1", title),
        _form(job, text, way),
        await _results(job, reader, words, text, way, request.query.get("place", "")) if text else None,
    ]
    return HtmlPage(title, join(parts), job=job.name, query=text)


def _form(job: Job, text: str, way: str) -> Markup:
    options = [tag("option", name, value=one, selected=one == way) for one, name in WAYS.items()]
    return tag(
        "form",
        tag("label", "Look for ", tag("input", type="search", name="q", value=text, maxlength=200, required=True)),
        tag("label", "as ", tag("select", options, name="by")),
        tag("button", "Search"),
        action=f"/jobs/{job.name}/search",
        method="get",
        class_="row filters",
    )


async def _results(job: Job, reader: Reader, words: Words, text: str, way: str, place: str) -> Sequence[Fragment]:
    """Return a section for each way to look that fits; later pages are of one way only."""
    found: list[Fragment] = []
    if way in {"", "index"} and not place:
        found.append(await _by_index(job, reader, text, said=way == "index"))
    if way == "key" or (not way and not place and "=" in text):
        found.append(await _by_key(job, reader, words, text))
    if way in {"", "task"} and " " not in text:
        found.append(await _by_name(job, reader, text, place))
    if way in {"", "error"}:
        found.append(await _by_error(job, reader, text, place))
    return found


async def _by_index(job: Job, reader: Reader, text: str, *, said: bool) -> Markup | None:
    plain = text.replace(",", "").removeprefix("#")
    if not plain.isdigit():
        return tag("p", "An index is a number, counted from 0 over all sources.") if said else None
    index = whole(plain)
    async with reader.opened() as ledger:
        found = await ledger.batch_at(job.name, index)
    if found is None:
        return tag("p", f"No record {index:,} was read.") if said else None
    where = link(f"/jobs/{job.name}/records/{index}", f"Record {index:,}")
    batch = link(f"/jobs/{job.name}/batches/{found[0].sequence}", f"batch {batch_name(found[0].sequence)}")
    return tag("section", tag("h2", "By index"), tag("p", where, ", in ", batch))


async def _by_key(job: Job, reader: Reader, words: Words, text: str) -> Markup:
    try:
        said = await _key_found(job, reader, words, text)
    except BulkSubmitError as error:
        said = tag("p", foreign(str(error)))
    return tag("section", tag("h2", "By key"), said)


async def _key_found(job: Job, reader: Reader, words: Words, text: str) -> Markup:
    delta = wiring.load_offline(job).setup.settings.delta
    column, given, value = text.partition("=")
    if job.family and delta.key and (not given or column == delta.key):
        wanted = value if given else text
        places = await anyio.to_thread.run_sync(_family_places, job, reader, wanted)
        ways = [
            tag("li", link(f"/jobs/{name}/records/{index}", f"job {name}, record {index:,}")) for name, index in places
        ]
        which = f"No record of family {job.family} has the key {wanted!r}."
        return tag("ul", ways) if ways else tag("p", which)
    if job.size_bytes > MOST_READ_BYTES:
        asked = words.command(f"report {job.name} --key {text!r}", reader.ledger)
        why = (
            "Keys of this job are in no index: its sources have to be read from the beginning, "
            f"{size(job.size_bytes)}. This command does it: "
        )
        return tag("p", why, command_line(asked))
    story = await tell_story(job.name, reader.ledger, key=text)
    index = story.asked.outcome.index
    return tag("p", link(f"/jobs/{story.asked.job}/records/{index}", f"Job {story.asked.job}, record {index:,}"))


def _family_places(job: Job, reader: Reader, value: str) -> list[tuple[str, int]]:
    """Return job and index of the records that the family of a job has taken last under a key, as text or number."""
    marker = marker_for(job, wiring.load_offline(job).setup.settings.delta)
    if marker is None:
        return []
    places: list[tuple[str, int]] = []
    with KnownRecords(reader.ledger) as known:
        for key in dict.fromkeys([orjson.dumps(value), value.encode()]):
            hash_, shared = marker.mark_of_key(key)
            rows = [*known.find([hash_]).values(), *known.copies(hash_)]
            places += [(known.job_name(number), index) for rest, number, index in rows if rest[:SHARED] == shared]
    return list(dict.fromkeys(places))


async def _by_name(job: Job, reader: Reader, text: str, place: str) -> Markup:
    named = SearchHits([]) if place else await reader.search(lambda search: search.named(job.name, text, HITS_SHOWN))
    found = await reader.search(lambda search: search.task(job.name, text, place, HITS_SHOWN), SEARCH_SECONDS)
    hits = [*named.hits, *found.hits]
    return await _section("By task or batch id", job, reader, hits, found, {"q": text, "by": "task"})


async def _by_error(job: Job, reader: Reader, text: str, place: str) -> Markup:
    found = await reader.search(lambda search: search.reason(job.name, text, place, HITS_SHOWN), SEARCH_SECONDS)
    return await _section("By error", job, reader, found.hits, found, {"q": text, "by": "error"})


async def _section(
    title: str, job: Job, reader: Reader, hits: Sequence[Hit], found: SearchHits, query: dict[str, str]
) -> Markup:
    rows = await _rows(job, reader, hits)
    header = ["First record", "Batch", "Records", "Fate", "Why"]
    further = link("?" + urlencode({**query, "place": found.goes_on}), "Go on", rel="next") if found.goes_on else None
    share_ = share(int(found.looked_through * 1000), 1000)
    how_far = f"{share_} of the job looked through so far; this is in no index. " if further else ""
    return tag(
        "section",
        tag("h2", title),
        table(title, header, rows, figures=frozenset({2}), hidden_caption=True) if rows else None,
        tag("p", "" if rows else "Nothing found. ", how_far, further) if further or not rows else None,
    )


async def _rows(job: Job, reader: Reader, hits: Sequence[Hit]) -> list[Sequence[Fragment]]:
    sequences = [hit.sequence for hit in hits if hit.sequence is not None]
    batches = await reader.search(lambda search: search.rows(job.name, sequences)) if sequences else {}
    async with reader.opened() as ledger:
        return [await _row(job, ledger, hit, batches.get(hit.sequence or 0)) for hit in hits]


async def _row(job: Job, ledger: Ledger, hit: Hit, batch: BatchRow | None) -> Sequence[Fragment]:
    state, why = badge(hit.state) if hit.state else "", foreign(hit.reason)
    if hit.sequence is None or batch is None:
        index = hit.index or 0
        return [link(f"/jobs/{job.name}/records/{index}", f"{index:,}"), "", "1", state, why]
    first, number = batch.start_index, batch.count
    if hit.positions:
        first, number = first + hit.positions[0], len(hit.positions)
        if batch.count < batch.end_index - batch.start_index:  # some of its records did not go up
            found = await ledger.batch(job.name, hit.sequence)
            first = (await indexes_sent(job, ledger, found[0]))[hit.positions[0]] if found else first
    batch_link = link(f"/jobs/{job.name}/batches/{hit.sequence}", batch_name(hit.sequence))
    return [link(f"/jobs/{job.name}/records/{first}", f"{first:,}"), batch_link, count(number), state, why]


async def search_all_page(request: web.Request, reader: Reader) -> HtmlPage:
    """Return what a search over all jobs has found: jobs by their name, and who has a task or a batch of that id."""
    text, place = request.query.get("q", "").strip(), request.query.get("place", "")
    parts: list[Fragment] = [trail(here="Search"), tag("h1", "Search all jobs")]
    if not text:
        parts.append(tag("p", "Look for the name of a job, or for the id of a task or a batch at the service."))
        return HtmlPage("Search", join(parts))
    jobs = await reader.jobs()
    named = [job for job in jobs if text.casefold() in f"{job.name} {job.family}".casefold()][:JOBS_FOUND]
    if named and not place:
        items = [tag("li", link(f"/jobs/{job.name}", job.name)) for job in named]
        parts.append(tag("section", tag("h2", "Jobs"), tag("ul", items)))
    begun, _, inner = place.partition(":")
    rows, goes_on, seen = await _in_all(jobs[whole(begun) :], reader, text, inner)
    further = f"{whole(begun) + seen}:{goes_on or ''}" if goes_on is not None else ""
    to_go = count(len(jobs) - whole(begun) - seen, "job")
    parts.append(
        tag(
            "section",
            tag("h2", "Tasks and batches"),
            table("Tasks and batches with this id", ["Job", "First record", "Batch"], rows) if rows else None,
            tag("p", "Nothing found" if not rows else "SearchHits so far", f"; {to_go} to be looked through. ")
            if further
            else tag("p", "Nothing found.")
            if not rows
            else None,
            link("?" + urlencode({"q": text, "place": further}), "Go on", rel="next") if further else None,
        )
    )
    return HtmlPage("Search", join(parts), query=text)


async def _in_all(
    jobs: Sequence[Job], reader: Reader, text: str, place: str
) -> tuple[list[Sequence[Fragment]], str | None, int]:
    """Return a row for each hit, the place within the job where it goes on (None: at the end), and jobs done with."""
    end = time.monotonic() + SEARCH_SECONDS
    rows: list[Sequence[Fragment]] = []
    for seen, job in enumerate(jobs):
        if time.monotonic() >= end or len(rows) >= HITS_SHOWN:
            return rows, place, seen

        def ask(search: LedgerSearch, name: str = job.name, begun: str = place) -> tuple[SearchHits, SearchHits]:
            return search.named(name, text, HITS_SHOWN), search.task(name, text, begun, HITS_SHOWN)

        named, found = await reader.search(ask, max(end - time.monotonic(), 0.01))
        hits = [*([] if place else named.hits), *found.hits]
        found_rows = await _rows(job, reader, hits) if hits else []
        rows += [[link(f"/jobs/{job.name}", job.name), *row[:2]] for row in found_rows]
        place = found.goes_on
        if place:
            return rows, place, seen
    return rows, None, len(jobs)
