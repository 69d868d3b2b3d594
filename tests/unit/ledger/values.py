"""Figures enter; jobs, batches and their steps leave, as the tests of the ledger need them."""

import hashlib

from engine.model.batch import Batch, encode_spans
from engine.model.job import Job
from engine.model.outcome import Settlement
from engine.model.record import Format, Position, Reject, Source
from engine.model.submission import State, Submission

RECORD_BYTES = 100
SOURCES = [
    Source(0, "/data/a.ndjson", Format.NDJSON, 1_000_000, 1_700_000_000_000_000_001, 0),
    Source(1, "/data/b.csv", Format.CSV, 2_000_000, 1_700_000_000_000_000_002, 1_000_000),
]

ROADS = {
    State.FROZEN: [],
    State.STAGING: [State.STAGING],
    State.STAGED: [State.STAGING, State.STAGED],
    State.RELEASING: [State.RELEASING],
    State.RELEASED: [State.RELEASING, State.RELEASED],
    State.UNCERTAIN: [State.RELEASING, State.UNCERTAIN],
}
"""Steps that bring a frozen batch to each state but SETTLED."""


class ManualClock:
    """Time that passes when a test says so."""

    def __init__(self, now=1_000.0):
        self.time = now

    def now(self):
        return self.time

    def monotonic(self):
        return self.time

    async def sleep(self, seconds):
        self.time += seconds


def a_job(name="j", **changes):
    values = {"service": "sama", "config": "[service]\n", "sources": SOURCES, "output": "out", "created_at": 5.0}
    return Job(name=name, **(values | changes))


def a_batch(sequence, records=2, *, rejected=0, at=None):
    """A batch after those of the same size, or at index `at`."""
    start = sequence * (records + rejected) if at is None else at
    end = start + records + rejected
    offsets = [index * RECORD_BYTES for index in range(start + rejected, end)]
    return Batch(
        sequence=sequence,
        start=Position(start * RECORD_BYTES, start, start + 1),
        end=Position(end * RECORD_BYTES, end, end + 1),
        count=records,
        size_bytes=records * RECORD_BYTES + 1,
        sha256=hashlib.sha256(str(sequence).encode()).digest(),
        spans=encode_spans(start * RECORD_BYTES, offsets, [RECORD_BYTES - 1] * records),
    )


def a_reject(index, reason="not an object"):
    return Reject(index, index * RECORD_BYTES, RECORD_BYTES - 1, index + 1, reason)


def ids(count, sequence=0):
    """Task ids as Sama writes them: 24 hexadecimal digits."""
    return [hashlib.sha256(f"{sequence} {position}".encode()).hexdigest()[:24] for position in range(count)]


async def frozen(ledger, batches=1, records=2, name="j"):
    """Create a job of some batches; return its name."""
    await ledger.create_job(a_job(name))
    await ledger.freeze(name, [a_batch(sequence, records) for sequence in range(batches)], [], last=True)
    return name


async def bring(ledger, job, sequence, state, remote_id="r"):
    """Take a frozen batch to a state."""
    before = State.FROZEN
    for step in ROADS[state]:
        known = None if step in {State.STAGING, State.RELEASING} else remote_id
        await ledger.move(job, Submission(sequence, step, known), expected=before)
        before = step


async def settle(ledger, job, sequence, settlement, expected=State.RELEASED):
    await ledger.settle(job, Submission(sequence, State.SETTLED, "r"), settlement, expected=expected)


async def all_batches(ledger, job, states=None):
    return [pair async for pair in ledger.batches(job, states)]


async def submission(ledger, job, sequence):
    return (await all_batches(ledger, job))[sequence][1]


def one_of_each(sequence=0):
    """Of three records the first was created, the second failed, and of the third nobody knows."""
    return Settlement([*ids(1, sequence), None, None], {1: "no"}, uncertain={2: "its answer was lost"})


def one_failed(count, sequence=0, reason="no"):
    """The last of `count` records failed."""
    return Settlement([*ids(count - 1, sequence), None], {count - 1: reason})
