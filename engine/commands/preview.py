"""Shows what a submit would send: row → task → request, offline. This is the dry run.

Records are read, mapped, cut and rendered as for a submit, and the service makes its own calls through the real caller.
Only the client below it is another one: it notes each request, and answers as the service says that it would
(`answer_preview` of its module). What only the service can answer ends the preview of a batch, and it says so.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import anyio.to_thread
from msgspec import Struct
from msgspec.structs import replace

from engine.batch.chunker import render_payload
from engine.batch.planning import reference_of, without_secrets
from engine.commands import wiring
from engine.commands.columns import check_columns
from engine.commands.configuration import Config, hide_secret
from engine.commands.intake import STANDARD_INPUT
from engine.commands.query import opened_sources
from engine.http.certificates import load_aiohttp
from engine.model.batch import Batch, good_indexes
from engine.model.errors import CallFailed, ConfigError, SourceError
from engine.model.job import Job
from engine.model.payload import Payload
from engine.model.record import Reject, source_at
from engine.progress.text import count
from engine.services.base import Answer, AnswerPreview, Call, Caller, LaterCalls
from engine.source.given import NAME, Sources, names_of

FIRST_RECORDS = 5
"""Records that are shown where nobody says how many."""
BODY_BYTES = 64 * 1024
"""A longer body is shown by its beginning."""

COUNTED_BYTES = 16 << 20
"""Sources up to this size are read to their end, so that their batches are counted: it takes a moment."""


class PreviewedRequest(Struct, frozen=True):
    """A request that would go out."""

    kind: str
    """As of the `Call`."""
    method: str
    url: str
    """With its query; stars stand for credentials."""
    headers: Mapping[str, str]
    body: str
    """Its beginning, if it is longer than BODY_BYTES."""
    size_bytes: int
    """Of the whole body."""
    sha256: str
    """Of the whole body; "" without one."""


class PreviewedBatch(Struct, frozen=True):
    """A batch of which a record is shown, with the requests that would carry it."""

    number: int
    first: int
    """Index of its first record."""
    last: int
    tasks: int
    size_bytes: int
    requests: Sequence[PreviewedRequest]
    unanswered: str = ""
    """Kind of the call whose answer nobody can know here, and on which further ones would depend."""


class PreviewedRecord(Struct, frozen=True):
    """A record, and what becomes of it."""

    index: int
    source: str
    place: str
    """Where it begins there, for people."""
    line: int
    row: str
    """As JSON."""
    task: str | None
    """The exact bytes that would go up; None if it is not fit to go up."""
    reason: str = ""
    """Why it is not."""


class Preview(Struct, frozen=True):
    """What would be sent."""

    kind: str
    url: str
    """Of the service."""
    place: str
    """Where tasks go there; "" if there is one place only, or each task names it."""
    records: Sequence[PreviewedRecord]
    batches: Sequence[PreviewedBatch]
    all_batches: int
    """Of all sources."""
    exact: bool
    """All was read; else that number is an estimate by the bytes that were."""
    size_bytes: int
    """Of all sources."""
    warnings: Sequence[str]


async def preview(
    sources: Sources,
    config: Config,
    *,
    records: int = FIRST_RECORDS,
    record: int | None = None,
    format: str | None = None,  # noqa: A002 - as the option is called
) -> Preview:
    """Show the first records, or one, as a submit would send them; nobody is called, and no secret is needed.

    Args:
        sources: files to read, as for `submit`.
        config: TOML file, or its tables.
        records: how many of the first ones.
        record: index of one record instead, from 0 over all sources.
        format: how the sources are written; told by their names where left out.

    Raises:
        ConfigError, SourceError: the configuration or a source cannot be used, or there is no such record.
    """
    text = wiring.read_config(config)
    setup = _load(text)
    settings = wiring.source_settings(setup, format)
    wanted = range(records) if record is None else range(record, record + 1)
    async with opened_sources(sources, settings) as found:
        warning = await check_columns(found, setup.settings, settings, thorough=False)
        name = f"{wiring.config_name(config, text)}-{time.strftime('%Y%m%d-%H%M%S')}"
        job = Job(name, setup.service.kind, "", found, "", created_at=wiring.CLOCK.now())
        named = names_of(sources)
        copied = NAME if named is None else "standard input" if named == [STANDARD_INPUT] else ""
        parts = _Parts(setup, job, copied)
        unknown = await parts.learn()
        seen = await anyio.to_thread.run_sync(parts.read, wanted)
        batches = [await parts.carried(batch, indexes) for batch, indexes in seen.batches]
        return Preview(
            setup.service.title,
            setup.service.base_url,
            setup.service.place,
            seen.records,
            batches,
            seen.all_batches,
            seen.exact,
            job.size_bytes,
            [said for said in (warning, unknown) if said],
        )


async def later_requests(config: Config) -> Sequence[PreviewedRequest]:
    """Return the requests that would follow when a batch is up, with names in place of what only answers tell.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    setup = _load(wiring.read_config(config))
    calls: LaterCalls | None = getattr(setup.module, "later_calls", None)
    if calls is None:
        return ()
    client = _NotingClient(getattr(setup.module, "answer_preview", None), setup.service)
    caller = _caller(client, setup)
    found = []
    for call in calls(setup.service):
        client.noted.clear()
        with suppress(_NotKnownHereError, CallFailed):
            await caller.call(call)
        found += client.noted[-1:]
    return found


def _load(text: str) -> wiring.Setup:
    try:
        setup = wiring.load(text, hide_secret, processes=0)
        setup = replace(setup, service=without_secrets(setup.service))
        wiring.check_parts(setup, Job("preview", setup.service.kind, "", (), ""))
    except ConfigError:
        wiring.load(text)  # a variable that is not set may be the cause, and this names it
        raise
    return setup


class _Seen(Struct, frozen=True):
    """What reading brought."""

    records: Sequence[PreviewedRecord]
    batches: Sequence[tuple[Batch, Sequence[int]]]
    """Those that carry one of the records, each with the indexes of all its records."""
    all_batches: int
    exact: bool


class _Parts:
    """The parts of a submit, with a client that sends nothing."""

    def __init__(self, setup: wiring.Setup, job: Job, name: str = "") -> None:
        """Join them; `name`: of the sources for people, where their path says nothing."""
        self._setup = setup
        self._name = name
        self._job = job
        self._client = _NotingClient(getattr(setup.module, "answer_preview", None), setup.service)
        self._caller = _caller(self._client, setup)
        self._join()

    def _join(self) -> None:
        setup, job = self._setup, self._job
        self._service = setup.module.build(setup.service, setup.settings.batch, job, self._caller, wiring.CLOCK)
        self._offline = wiring.offline(setup, job, self._service)
        self._payloads = self._offline.payloads(job)

    async def learn(self) -> str:
        """Learn what a submit would ask before it freezes anything; return what cannot be known here, in words."""
        referencing = self._service.referencing
        if referencing is None:
            return ""
        try:
            learnt = await referencing.learn()
        except _NotKnownHereError as error:
            return f"a submit first asks the service ({error}); by its answer each task may get a client reference, too"
        self._job = replace(self._job, learnt=learnt)
        self._join()
        return ""

    def read(self, wanted: range) -> _Seen:
        """Plan until the records that are wanted are cut into batches; return them. Blocks.

        Raises:
            SourceError: there is none of them.
        """
        batches: list[tuple[Batch, Sequence[int]]] = []
        rejects: list[Reject] = []
        number = read_bytes = read_records = 0
        exact = False
        for plan in self._offline.plans(self._job, None):
            number += sum(batch.count > 0 for batch in plan.batches)
            seen = [batch for batch in plan.batches if batch.count and _has(batch, wanted)]
            bad_ones = [bad.index for bad in plan.rejects] if seen else []
            batches += [(batch, good_indexes(batch, bad_ones if batch.rejected else ())) for batch in seen]
            rejects += [bad for bad in plan.rejects if bad.index in wanted]
            if plan.batches:
                read_bytes, read_records = plan.batches[-1].end.offset, plan.batches[-1].end.index
            exact = plan.last
            if read_records >= wanted.stop and self._job.size_bytes > COUNTED_BYTES:
                break
        if wanted.start >= read_records and (wanted.start or len(wanted) == 1):
            raise SourceError(f"there is no record {wanted.start:,}: the sources have {count(read_records, 'record')}")
        records = [*map(self._rejected, rejects), *chain.from_iterable(self._shown(one, wanted) for one, _ in batches)]
        all_batches = number if exact else -(-number * self._job.size_bytes // max(read_bytes, 1))
        return _Seen(sorted(records, key=lambda one: one.index), batches, all_batches, exact)

    def _shown(self, batch: Batch, wanted: range) -> Iterator[PreviewedRecord]:
        """Yield the wanted records of a batch, with their tasks as its payload has them."""
        stop = min(batch.end.index, wanted.stop)
        reference = reference_of(self._service)(batch.sequence)
        for block in self._offline.tasks(self._job, batch.start):
            for index, offset, length, line, task in zip(
                block.indexes, block.offsets, block.lengths, block.lines, block.raws, strict=True
            ):
                if index in wanted and index < stop:
                    text = render_payload([task], reference)[1:-1]
                    yield PreviewedRecord(index, *self._told(offset, length, line), task=_text(text))
            if block.end.index >= stop:
                return

    def _rejected(self, bad: Reject) -> PreviewedRecord:
        return PreviewedRecord(bad.index, *self._told(bad.offset, bad.length, bad.line), task=None, reason=bad.reason)

    def _told(self, offset: int, length: int, line: int) -> tuple[str, str, int, str]:
        source = source_at(self._job.sources, offset)
        if self._name:
            source = replace(source, name=self._name)
        return source.shown, source.place(line), line, _text(self._payloads.as_json(offset, length))

    async def carried(self, batch: Batch, indexes: Sequence[int]) -> PreviewedBatch:
        """Have the service send a batch, and return the requests that it makes for it."""
        payload = await anyio.to_thread.run_sync(self._payloads.read, batch, indexes)
        self._client.noted.clear()
        unanswered = ""
        try:
            await self._send(batch, payload)
        except _NotKnownHereError as error:
            unanswered = str(error)
        first, last = batch.start.index, batch.end.index - 1
        return PreviewedBatch(
            batch.sequence, first, last, batch.count, batch.size_bytes, list(self._client.noted), unanswered
        )

    async def _send(self, batch: Batch, payload: Payload) -> None:
        """Go the way of the uploader, where nothing goes wrong."""
        staging = self._service.staging
        if staging is None:
            await self._service.release(batch, None, payload)
            return
        staged = await staging.stage(batch, payload)
        if staged.settlement is None:
            await staging.upload(staged, payload)
            await self._service.release(batch, staged.remote_id, None)


class _NotKnownHereError(Exception):
    """Only the service can answer a call; the message is its kind."""


class _NotingClient:
    """Notes each request in place of sending it; implements `engine.http.client.Client`."""

    def __init__(self, answer: AnswerPreview | None, settings: Any) -> None:
        self._answer = answer
        self._settings = settings
        self.noted: list[PreviewedRequest] = []

    async def send(self, request: Any) -> Answer:
        """Return what the service would answer.

        Raises:
            _NotKnownHereError: nobody knows.
        """
        call: Call = request.call
        body = b"".join(call.pieces)
        digest = hashlib.sha256(body).hexdigest() if body else ""
        headers = dict(request.headers) | ({"Content-Length": str(len(body))} if call.body is not None else {})
        shown = _text(body[:BODY_BYTES])
        self.noted.append(PreviewedRequest(call.kind, call.method, str(request.url), headers, shown, len(body), digest))
        answer = self._answer(call, self._settings) if self._answer else None
        if answer is None:
            raise _NotKnownHereError(call.kind)
        return answer


def _caller(client: _NotingClient, setup: wiring.Setup) -> Caller:
    load_aiohttp()
    from engine.http.caller import HttpCaller  # noqa: PLC0415 - aiohttp: 0.05 s, only where requests are made

    return HttpCaller(client, setup.service, setup.settings.send, clock=wiring.CLOCK)


def _has(batch: Batch, wanted: range) -> bool:
    return batch.start.index < wanted.stop and batch.end.index > wanted.start


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
