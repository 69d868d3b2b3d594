"""What a family has and tonight's source no longer has is told by its key, from the ledger alone."""

from hashlib import sha256
from itertools import pairwise

import apsw
import orjson
import pytest

from engine.batch.known import Marker
from engine.ledger.known import KnownRecords
from engine.ledger.sqlite import SqliteLedger
from engine.model.batch import Batch, encode_spans
from engine.model.job import Job
from engine.model.outcome import Settlement
from engine.model.record import Keyed, Position, Skipped, Source, Taken, Why, kept_key
from engine.model.submission import State, Submission
from engine.reports.missing import write_missing

KEYS = [b'"a"', b"7", b'"' + b"x" * 300 + b'"', b'"d"']
WIDTH = 10
"""Bytes of a record."""


@pytest.fixture
async def family(tmp_path, clock):
    """A family whose first night has created four records; the second one has skipped the first of them."""
    async with SqliteLedger.open(tmp_path / "ledger.db", clock) as ledger:
        for name in ("n1", "n2"):
            sources = [Source(0, str(tmp_path / "gone.ndjson"), "ndjson", len(KEYS) * WIDTH, 0, 0)]
            await ledger.create_job(Job(name, "sama", "", sources, str(tmp_path / name), family="f", delta=True))
        marks = [Marker("f", "id").mark_of_key(key) for key in KEYS]
        taken = [Taken(*mark, index) for index, mark in enumerate(marks)]
        keys = [Keyed(index, kept_key(key)) for index, key in enumerate(KEYS)]
        await ledger.freeze("n1", [batch(len(KEYS))], [], last=True, taken=taken, keys=keys)
        for before, after in pairwise([State.FROZEN, State.STAGING, State.STAGED, State.RELEASING, State.RELEASED]):
            await ledger.move("n1", Submission(0, after, "r" if after is not State.STAGING else None), expected=before)
        ids = [f"t{index}" for index in range(len(KEYS))]
        await ledger.settle("n1", Submission(0, State.SETTLED, "r"), Settlement(ids), expected=State.RELEASED)
        skip = Skipped(0, 1, 0, encode_spans(0, [0], [WIDTH - 1]), "n1", 0, Why.CREATED)
        await ledger.freeze("n2", [batch(0, skipped=1)], [], last=True, skips=[skip])
        with KnownRecords(ledger.address) as records:
            yield await ledger.job("n2"), records


def batch(count, skipped=0):
    end = (count + skipped) * WIDTH
    offsets = range(0, count * WIDTH, WIDTH)
    spans = encode_spans(0, offsets, [WIDTH - 1] * count)
    places = Position(), Position(end, count + skipped, count + skipped + 1)
    return Batch(0, *places, count, end, sha256(b"").digest(), spans, skipped)


def written(family, asked):
    job, records = family

    def key_in_source(name, offset, length):
        asked.append((name, offset, length))

    missing = write_missing(job, records, "https://x/{}".format, key_in_source)
    return missing, [orjson.loads(line) for line in missing.file.read_bytes().splitlines()]


async def test_each_is_named_by_key_job_record_and_task_and_no_source_is_asked(family):
    asked = []
    missing, found = written(family, asked)
    assert asked == []
    assert (missing.job, missing.family, missing.records) == ("n2", "f", 3)
    assert [(line["key"], line["job"], line["record"], line["task_id"], line["url"]) for line in found] == [
        (7, "n1", 1, "t1", "https://x/t1"),
        (None, "n1", 2, "t2", "https://x/t2"),
        ("d", "n1", 3, "t3", "https://x/t3"),
    ]
    assert found[1]["long_key"].startswith("a key of 302 bytes, sha256 ")
    assert [one["key"] for one in missing.examples] == ["7", found[1]["long_key"], "d"]


async def test_of_a_skipped_record_the_key_is_that_of_the_one_it_was_skipped_for(family):
    _, records = family
    assert records.key((records.job_id("n2"), 0)) == KEYS[0]
    assert records.key((records.job_id("n2"), 1)) is None


async def test_a_key_that_was_not_kept_is_asked_of_the_source(family, tmp_path):

    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute("DELETE FROM keys")
    connection.close()
    asked = []
    _, found = written(family, asked)
    assert asked == [("n1", at * WIDTH, WIDTH - 1) for at in (1, 2, 3)]
    assert [line["key"] for line in found] == [None] * 3
