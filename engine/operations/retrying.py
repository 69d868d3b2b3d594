"""A finished job in, what of it can be submitted again out: its rejects as a source, or its uncertain batches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio.to_thread
import orjson

from engine.model.batches import batch_name
from engine.model.errors import JobError
from engine.model.jobs import Job, JobState
from engine.model.outcomes import Fate
from engine.model.records import Format, Source
from engine.model.settings import SourceSettings
from engine.model.submissions import State
from engine.operations.values import UncertainRecords
from engine.ports import Ledger
from engine.reading.scanning import members
from engine.reading.sources import describe
from engine.reporting import REJECTS, REPLAYABLE

SOURCE = "records.ndjson"
MOST_EXAMPLES = 3
"""Batches that a question spells out; `report` tells of each record."""


async def uncertain_in(job: Job, ledger: Ledger) -> UncertainRecords:
    """Return which records of a job may be at the service without anybody knowing.

    Raises:
        JobError: the job is not finished, or there are none.
    """
    if job.state is JobState.OPEN:
        raise JobError(f"job {job.name!r} is not finished; `bulksubmit resume {job.name}` first")
    if job.state is JobState.CANCELED:
        raise JobError(f"job {job.name!r} was canceled: nothing more of it is sent. Submit its records as a new job")
    tally = await ledger.tally(job.name)
    if not tally.uncertain:
        raise JobError(f"no record of job {job.name!r} is uncertain; there is nothing to send again")
    batches = [pair async for pair in ledger.batches(job.name, frozenset({State.UNCERTAIN}))]
    examples = [
        f"records {batch.start.index} to {batch.end.index - 1} (batch {batch_name(batch.sequence)}: {submission.note})"
        for batch, submission in batches[:MOST_EXAMPLES]
    ]
    return UncertainRecords(tally.uncertain, len(batches), examples)


async def retry_source(parent: Job, folder: Path) -> Source:
    """Write the records that can be tried again into `folder`, as they stand in the parent's `rejects.ndjson`.

    A person may have mended them there. Uncertain ones are left out: sending them again could make second tasks.

    Raises:
        JobError: the file is missing or damaged, or nothing in it can be tried again.
    """
    return await anyio.to_thread.run_sync(partial(_write, parent, folder / SOURCE))


def _write(parent: Job, target: Path) -> Source:
    rejects = Path(parent.output) / REJECTS
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise JobError(f"{target} cannot be written ({error.strerror}); move it out of the way") from error
    written = 0
    with os.fdopen(descriptor, "wb") as file:
        for record in _records(parent.name, rejects):
            file.write(record + b"\n")
            written += 1
        file.flush()
        os.fsync(file.fileno())
    if not written:
        raise JobError(f"{rejects} holds no record that failed or was rejected; there is nothing to try again")
    return describe(target, SourceSettings(format=Format.NDJSON))


def _records(job: str, rejects: Path) -> Iterator[bytes]:
    """Yield the text of each record, untouched: big integers survive."""
    try:
        with rejects.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield from _record(job, line.strip(), f"{rejects}, line {number}")
    except OSError as error:
        raise JobError(f"{rejects} cannot be read ({error.strerror}); `bulksubmit report` writes it again") from error


def _record(job: str, line: bytes, where: str) -> Iterator[bytes]:
    try:
        values = orjson.loads(line)
        state = Fate(values["state"])
        texts = members(line)
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{where}: not a line of a rejects file: it needs state and record") from error
    if values.get("job", job) != job:
        raise JobError(f"{where}: a record of job {values['job']!r}, not of {job!r}; retry that one")
    if "record" not in texts:
        raise JobError(f"{where}: the record is missing")
    if state in REPLAYABLE:
        # A record that was no JSON stands there as a string: its text is tried as it is, or as a person mended it.
        text = texts["record"]
        yield orjson.loads(text).encode().replace(b"\n", b" ") if text.startswith(b'"') else text.replace(b"\n", b" ")
