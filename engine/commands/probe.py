"""Create two tasks of a load, follow them, and say which guesses about the service hold.

They are a job of their own, of no family: killed at any moment, `resume` goes on with it, and `undo` takes its tasks
back. A later load does not know of them: it sends these records again, for as a rule the two are deleted. All calls of
the job are heard; a few reads after it show more. docs/guesses.md has what is believed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.configuration import Config
from engine.commands.first_records import FirstRecords, read_first
from engine.commands.paths import claim_output, folder_beside, ledger_path, open_ledger, path_names
from engine.commands.result import Result
from engine.commands.submit import take_name, work_on
from engine.commands.trace import Trace
from engine.files import DEFAULT_LEDGER, private
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.model.errors import CallFailed, ConfigError
from engine.model.job import Job, JobState, check_job_name
from engine.model.record import Format
from engine.model.settings import LimitSettings, MetricsSettings, WindowSettings
from engine.progress.events import Listener, unheard
from engine.run.context import Stop
from engine.services.base import Answer, Call, Caller
from engine.services.checks import Exchange, ProbeEvidence
from engine.source.sources import describe, find_sources

SOURCE = "probe.ndjson"
"""The records of a probe, in its output folder."""
_MOST_EXCHANGES = 1000
_LOOK_SECONDS = 30.0
"""Longest time for the reads after the job."""


class Seen(Struct, frozen=True):
    """What a probe has seen of one guess."""

    name: str
    believed: str
    holds: bool | None
    """None: nothing of it was seen."""
    seen: str


class Probed(Struct, frozen=True):
    """What came of a probe."""

    result: Result
    guesses: Sequence[Seen]
    ledger: LedgerAddress
    """That remembers it as a job."""


async def probe(  # noqa: PLR0913 - what a person can say of it
    config: Config,
    sources: Path | str | Sequence[Path | str],
    ledger: LedgerAddress | str = DEFAULT_LEDGER,
    emit: Listener = unheard,
    stop: Stop | None = None,
    *,
    records: Sequence[int],
    format: str | None = None,  # noqa: A002 - as the option is called
    trace: Trace | None = None,
) -> Probed:
    """Create a task of each of some records among the first ones, and judge what is believed of the service.

    Args:
        config: TOML file.
        sources: what the load would read.
        ledger: file or URL of a database that remembers the probe as a job; made where there is none.
        emit: is told what happens.
        stop: ends the run early.
        records: their indexes, from 0; `check` names those that are good.
        format: how the sources are written; told by their names where left out.
        trace: is filled with what the service is asked and answers, also where this raises.

    Raises:
        ConfigError, SourceError, JobError: nothing was sent.
    """
    stop = stop or Stop()
    text = wiring.read_config(config)
    ledger = ledger_path(ledger, wiring.configured_ledger(config, text))
    heard: list[Exchange] = []
    setup = _quiet(wiring.load(text), heard)
    setup = setup if trace is None else trace.hears(setup)
    new = Job(
        check_job_name(f"{wiring.config_name(config, text)}-probe"),
        setup.service.kind,
        text,
        (),
        "",
        created_at=wiring.CLOCK.now(),
    )
    wiring.check_parts(setup, new)
    chosen = await anyio.to_thread.run_sync(_chosen, setup, new, path_names(sources), format, records)
    async with open_ledger(ledger, create=True) as opened:
        with ExitStack() as held:
            name = await take_name(new.name, opened, held, given=False)
            folder = folder_beside(ledger, name).absolute()
            await claim_output(folder, opened, held)
            await anyio.to_thread.run_sync(_write, folder / SOURCE, chosen.raws)
            written = replace(setup.settings.source, format=str(Format.NDJSON))
            source = describe(folder / SOURCE, written, ours=True)
            new = replace(new, name=name, output=str(folder), sources=(source,))
            await opened.create_job(new)
            began = wiring.CLOCK.monotonic()
            result = await work_on(new, opened, setup, emit, stop, command="check")
            seconds = wiring.CLOCK.monotonic() - began
            job = await opened.job(name)
            guesses = await _judged(job, opened, setup, result, ProbeEvidence(heard, chosen.tasks, seconds=seconds))
    return Probed(result, guesses, ledger)


def _quiet(setup: wiring.Setup, heard: list[Exchange]) -> wiring.Setup:
    """Return a setup whose calls are heard; nobody is told of a probe, and no limit of loads ends it."""
    settings = replace(
        setup.settings, hooks=(), window=WindowSettings(), limits=LimitSettings(), metrics=MetricsSettings()
    )
    return replace(setup, settings=settings, deadline_at=None, overhear=partial(_Hearing, heard))


def _chosen(
    setup: wiring.Setup, job: Job, paths: Sequence[str], format_: str | None, records: Sequence[int]
) -> FirstRecords:
    """Read the records that were chosen. Raises: ConfigError."""
    settings = wiring.source_settings(setup, format_)
    read = replace(setup, settings=replace(setup.settings, source=settings))
    job = replace(job, sources=find_sources(paths, settings))
    first = read_first(wiring.offline(read, job), job)
    places = [place for place, index in enumerate(first.indexes) if index in records]
    if len(places) < len(records):
        raise ConfigError("the records of the probe are not in the source any more: check again")
    return replace(
        first,
        indexes=[first.indexes[place] for place in places],
        raws=[first.raws[place] for place in places],
        tasks=[first.tasks[place] for place in places],
    )


def _write(path: Path, raws: Sequence[bytes]) -> None:
    with open(path, "xb", opener=private) as file:
        file.write(b"".join(_on_a_line(raw) + b"\n" for raw in raws))
        file.flush()
        os.fsync(file.fileno())


def _on_a_line(raw: bytes) -> bytes:
    """Return a record on one line: in a JSON array it may stand on several, between whose tokens a blank will do."""
    return raw.replace(b"\r", b" ").replace(b"\n", b" ")


class _Hearing:
    """Makes calls by another caller, and notes each with what came back."""

    def __init__(self, heard: list[Exchange], caller: Caller) -> None:
        self._heard, self._caller = heard, caller

    async def call(self, call: Call) -> Answer:
        try:
            answer = await self._caller.call(call)
        except CallFailed as error:
            self._note(Exchange(call, None, error.status))
            raise
        self._note(Exchange(call, answer, answer.status))
        return answer

    def _note(self, exchange: Exchange) -> None:
        if len(self._heard) < _MOST_EXCHANGES:
            self._heard.append(exchange)


async def _judged(
    job: Job, ledger: Ledger, setup: wiring.Setup, result: Result, evidence: ProbeEvidence
) -> Sequence[Seen]:
    """Look closer at what was created, and say of each guess whether it was seen."""
    checking = wiring.offline(setup, job).service.checking
    if checking is None:
        return ()
    outcomes = _outcomes(result) if result.state == JobState.FINISHED else []
    ids = [str(one["task_id"]) for one in outcomes if one.get("task_id")]
    batches = list(dict.fromkeys(str(one["batch_id"]) for one in outcomes if one.get("batch_id")))
    settle_seconds = 0.0
    if ids:
        with anyio.move_on_after(_LOOK_SECONDS), suppress(CallFailed):
            async with wiring.online(setup, job, unheard, ledger) as service:
                settle_seconds = service.settle_seconds
                checking = service.checking or checking  # it knows what it has seen by looking
                await checking.look_closer(batches, ids)
    evidence = replace(evidence, task_ids=ids, settle_seconds=settle_seconds)
    sights = [(one, one.sight(evidence)) for one in checking.guesses]
    return [Seen(one.name, one.believed, sight.holds, sight.seen) for one, sight in sights]


def _outcomes(result: Result) -> Sequence[dict[str, object]]:
    if result.outcomes is None:
        return []
    return [orjson.loads(line) for line in result.outcomes.read_bytes().splitlines()]
