"""Lists what a family has created and tonight's source no longer has, beside the reports of tonight's job.

`commands.query` calls it. What the source has was taken by the job or skipped by it, so the ledger alone tells: both
what is known and what was skipped come from it in the order of job and record, and are merged; nothing of it is kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import orjson
from msgspec import Struct

from engine.files import make_private_folder, private
from engine.ledger.known import Holder, KnownRecords
from engine.model.job import Job
from engine.model.outcome import Fate
from engine.model.record import SHARED, Mark, is_long_key, shown_key
from engine.reports.outcomes import TaskUrl

MISSING = "missing.ndjson"
MISSING_SHOWN = 10


class Missing(Struct, frozen=True):
    """What a family has created and the source of a job no longer has."""

    job: str
    family: str
    records: int
    file: Path
    """A line for each: its key where it is known (`long_key` says what is of one that is too long to be kept), and the
    job, record and task that has it."""
    examples: Sequence[Mapping[str, object]]
    """The first lines."""


def write_missing(
    job: Job, records: KnownRecords, task_url: TaskUrl, key_in_source: Callable[[str, int, int], bytes | None]
) -> Missing:
    """Write the file.

    `key_in_source` returns a key that the ledger has not kept, since an older version froze the record, in the form of
    `kept_key`; it is asked by job, joined offset and length.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(job.output) / MISSING
    partial = path.with_name(f".{MISSING}.partial")
    make_private_folder(path.parent)
    partial.unlink(missing_ok=True)
    number, examples = 0, list[Mapping[str, object]]()
    with open(partial, "xb", opener=private) as file:
        for holder in _missing(records, records.job_id(job.name), job.family):
            name, index = records.job_name(holder[0]), holder[1]
            key = records.key(holder) or key_in_source(name, *records.place(holder))
            task_id, _ = records.task(holder)
            line = {"job": name, "record": index, "task_id": task_id, "url": task_url(task_id) if task_id else None}
            long = key is not None and is_long_key(key)
            told: dict[str, object] = {"key": orjson.Fragment(key) if key and not long else None}
            told |= {"long_key": shown_key(key)} if key and long else {}
            file.write(orjson.dumps(told | line) + b"\n")
            if number < MISSING_SHOWN:
                examples.append({"key": shown_key(key) if key else None, **line})
            number += 1
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return Missing(job.name, job.family, number, path, examples)


def _missing(records: KnownRecords, own: int, family: str) -> Iterator[Holder]:
    """Yield who has what the source of the job `own` lacks."""
    for (holder, mark), present in _merged(records.family_records(family, own), records.skipped_by(own)):
        if records.fate(holder) is Fate.CREATED:
            if not present:
                yield holder
        elif (other := _created_before(records, mark)) and not records.skipped_for(own, other, 1):
            yield other


def _created_before(records: KnownRecords, mark: Mark) -> Holder | None:
    """Return who has created a record that was sent once more, in vain."""
    same = [(job, index) for rest, job, index in records.copies(mark[0]) if rest[:SHARED] == mark[1][:SHARED]]
    return max((holder for holder in same if records.fate(holder) is Fate.CREATED), default=None)


def _merged(
    known: Iterable[tuple[Holder, Mark]], skipped: Iterable[tuple[Holder, int]]
) -> Iterator[tuple[tuple[Holder, Mark], bool]]:
    """Yield each known record with whether a run of skipped ones covers it; both come in order."""
    runs = iter(skipped)
    run = next(runs, None)
    covered = (-1, 0)
    """Job, and the index up to which runs of it reach."""
    for one in known:
        (job, index), _ = one
        while run is not None and run[0] <= (job, index):
            (other, first), count = run
            covered = (other, max(first + count, covered[1] if covered[0] == other else 0))
            run = next(runs, None)
        yield one, covered[0] == job and index < covered[1]
