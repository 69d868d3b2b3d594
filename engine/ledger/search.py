"""Searches a job for records: by the id of a task, by the name of a batch, by a reason; and lists its batches.

The dashboard asks it, on a connection of its own that only reads. Neither task ids nor reasons are in an index: they
are looked through slice by slice, each slice a read of its own, so that no long read keeps the ledger's log from being
folded in. What is not looked through when the time is up is for the next call: a `SearchHits` says where that goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import orjson
from msgspec import Struct

from engine.ledger.address import LedgerAddress, open_reader
from engine.ledger.connection import job_id
from engine.model.submission import State

_SLICE_BATCHES = 250
"""Of 1,000 records each, 6 MB of task ids: some 15 ms."""
_SLICE_RECORDS = 100_000
_REASONS_SHOWN = 20
"""Of one batch; its own page has them all."""
_REJECTS = "rejects"
"""How a place begins that lies behind the batches, among the reasons of single records."""


class Hit(Struct, frozen=True):
    """What a search has found: records of a batch, by their positions, or one record by its index."""

    sequence: int | None = None
    """Of the batch; None where the record is known by its index."""
    positions: Sequence[int] = ()
    """Among the records of the batch that went up; empty: the whole batch."""
    index: int | None = None
    """Of the record; None where its position is known."""
    state: str = ""
    """What became of them: failed, uncertain, rejected, or what became of the task later."""
    reason: str = ""


class SearchHits(Struct, frozen=True):
    """What a search has found so far."""

    hits: Sequence[Hit]
    goes_on: str = ""
    """The place where the next call begins; empty: all was looked through."""
    looked_through: float = 1.0
    """The share of the job, from 0 to 1, that lies before that place."""


class BatchRow(Struct, frozen=True):
    """A batch as its row tells of it."""

    sequence: int
    start_index: int
    end_index: int
    count: int
    """Records that went up, or will."""
    size_bytes: int
    state: str
    remote_id: str | None
    changed_at: float
    """Unix seconds of its last step."""
    note: str
    created: int
    failed: int
    uncertain: int


class LedgerSearch(AbstractContextManager["LedgerSearch"]):
    """Searches jobs of a ledger. One thread at a time uses it.

    Raises:
        LedgerError: the ledger cannot be read.
        JobError: there is no such job.
    """

    def __init__(
        self, address: LedgerAddress, seconds: float = 0.5, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._connection = open_reader(address)

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def batches(
        self, job: str, states: Sequence[str] = tuple(State), after: int = -1, most: int = 50
    ) -> list[BatchRow]:
        """Return the batches, and parts, after one of them that are in one of some states."""
        wanted = orjson.dumps(list(states)).decode()
        return [BatchRow(*row) for row in self._ask("batch_list", job, states=wanted, after=after, limit=most)]

    def rows(self, job: str, sequences: Sequence[int]) -> dict[int, BatchRow]:
        """Return some batches by their sequences."""
        found = self._ask("batch_rows", job, sequences=orjson.dumps(list(sequences)).decode())
        return {row[0]: BatchRow(*row) for row in found}

    def named(self, job: str, remote_id: str, most: int) -> SearchHits:
        """Find the batches that have a name at the service; names are in an index."""
        rows = self._ask("find_named", job, remote_id=remote_id, limit=most)
        return SearchHits([Hit(sequence) for (sequence,) in rows])

    def task(self, job: str, task_id: str, place: str, most: int) -> SearchHits:
        """Find the records that became a task, from a place on; a task is mostly that of one record."""
        pattern = f"%{_like(_json(task_id))}%"

        def look(after: int, last: int) -> Iterator[Hit]:
            for sequence, ids in self._ask("find_task", job, after=after, last=last, pattern=pattern, limit=most):
                positions = [at for at, one in enumerate(orjson.loads(ids)) if one == task_id]
                if positions:
                    yield Hit(sequence, positions, state="created")

        return self._by_slices(job, place, most, look)

    def reason(self, job: str, text: str, place: str, most: int) -> SearchHits:
        """Find the records that were not created, or whose tasks failed later, for a reason that holds a text.

        Letters of ASCII are found in capitals and small alike. Place by place: batches in doubt, settled batches, then
        records that never went up and tasks that failed later.
        """
        wanted = text.casefold()
        pattern = f"%{_like(_json(text)[1:-1])}%"

        def look(after: int, last: int) -> Iterator[Hit]:
            for sequence, *kept in self._ask("find_reason", job, after=after, last=last, pattern=pattern):
                hits = [
                    Hit(sequence, positions, state=state, reason=reason)
                    for state, reasons in zip(("failed", "uncertain"), kept, strict=True)
                    for reason, positions in orjson.loads(reasons or "{}").items()
                    if wanted in reason.casefold()
                ]
                yield from hits[:_REASONS_SHOWN]

        if place.startswith(_REJECTS):
            return self._reasons_of_records(job, text, int(place.removeprefix(_REJECTS) or 0), most)
        noted = self._noted(job, text, most) if not place else []
        found = self._by_slices(job, place, most, look)
        hits = [*noted, *found.hits]
        if found.goes_on:
            return SearchHits(hits, found.goes_on, found.looked_through / 2)
        if len(hits) >= most:
            return SearchHits(hits, f"{_REJECTS}0", 0.5)
        rest = self._reasons_of_records(job, text, 0, most - len(hits))
        return SearchHits([*hits, *rest.hits], rest.goes_on, rest.looked_through)

    def _noted(self, job: str, text: str, most: int) -> list[Hit]:
        rows = self._ask("find_noted", job, pattern=f"%{_like(text)}%", limit=most)
        return [Hit(sequence, state=state, reason=note) for sequence, state, note in rows]

    def _by_slices(self, job: str, place: str, most: int, look: Callable[[int, int], Iterator[Hit]]) -> SearchHits:
        """Look through the settled batches after a place until there are enough hits, the time is up, or it is all."""
        end = self._clock() + self._seconds
        after, hits = int(place or -1), list[Hit]()
        while True:
            after_slice = after
            slice_ = self._ask("settled_after", job, after=after, limit=_SLICE_BATCHES)
            if not slice_:
                return SearchHits(hits)
            ((last,),) = slice_[-1:]
            after = last
            for hit in look(after_slice, last):
                if len(hits) >= most and hit.sequence != hits[-1].sequence:  # a batch is told of whole
                    after = hits[-1].sequence or 0
                    break
                hits.append(hit)
            if len(hits) >= most or self._clock() >= end:
                break
        if not self._ask("settled_after", job, after=after, limit=1):
            return SearchHits(hits)
        return SearchHits(hits, str(after), self._share(job, after))

    def _share(self, job: str, sequence: int) -> float:
        """Return how much of a job lies up to a batch; parts come after all batches, and count as the end."""
        (batch,) = self.batches(job, after=sequence - 1, most=1)
        return batch.end_index / max(self._records(job), 1)

    def _reasons_of_records(self, job: str, text: str, start: int, most: int) -> SearchHits:
        end, records = self._clock() + self._seconds, self._records(job)
        hits: list[Hit] = []
        while start < records:
            stop = start + _SLICE_RECORDS
            bounds = {"start": start, "stop": stop, "limit": most - len(hits)}
            rows = self._ask("find_reason_of_record", job, pattern=f"%{_like(text)}%", **bounds)
            hits += [Hit(index=index, state=state, reason=reason) for index, state, reason in rows]
            start = hits[-1].index + 1 if len(hits) >= most and hits[-1].index is not None else stop
            if start < records and (len(hits) >= most or self._clock() >= end):
                return SearchHits(hits, f"{_REJECTS}{start}", 0.5 + start / records / 2)
        return SearchHits(hits)

    def _records(self, job: str) -> int:
        ((records,),) = self._ask("last_index", job)
        return int(records)

    def _ask(self, query: str, job: str, **bindings: Any) -> list[tuple[Any, ...]]:
        return self._connection.fetch(query, {"job": job_id(self._connection, job), **bindings})


def _json(text: str) -> str:
    return orjson.dumps(text).decode()


def _like(text: str) -> str:
    """Return a text as a pattern of LIKE that fits only itself."""
    return text.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
