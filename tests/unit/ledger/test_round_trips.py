"""Whatever text, number or mixture goes in comes back; and it takes few bytes."""

import asyncio
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.ledger.rows import to_submitted
from engine.ledger.sql import _page
from engine.ledger.sqlite import SqliteLedger
from engine.model.batch import Batch
from engine.model.outcome import Settlement
from engine.model.record import Format, Position, Reject, Source
from engine.model.submission import State, Submission

from .values import ManualClock, a_batch, a_job, all_batches, bring, frozen, ids, settle

few = settings(max_examples=40, deadline=None)
texts = st.text(max_size=40)
paths = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
sizes = st.integers(0, 2**62)
fates = st.lists(st.tuples(st.sampled_from(["id", "error", "uncertain"]), texts), min_size=1, max_size=30)


@asynccontextmanager
async def new_ledger():
    with tempfile.TemporaryDirectory() as folder:
        async with SqliteLedger.open(Path(folder) / "ledger.db", ManualClock()) as ledger:
            yield ledger


@few
@given(fates)
def test_settlements(fates):
    task_ids = [text if kind == "id" else None for kind, text in fates]
    errors, uncertain = (
        {position: text for position, (kind, text) in enumerate(fates) if kind == wanted}
        for wanted in ("error", "uncertain")
    )
    settlement = Settlement(task_ids, errors, uncertain=uncertain)

    async def scenario():
        async with new_ledger() as ledger:
            job = await frozen(ledger, records=len(fates))
            await settle(ledger, job, 0, settlement, State.FROZEN)
            assert await ledger.settlement(job, 0) == settlement
            tally = await ledger.tally(job)
            counted = len(fates) - len(errors) - len(uncertain), len(errors), len(uncertain)
            assert (tally.created, tally.failed, tally.uncertain) == counted

    asyncio.run(scenario())


@few
@given(st.data())
def test_batches_and_rejects(data):
    offset = data.draw(st.integers(1, 2**62))
    index = data.draw(st.integers(1, offset))  # a record has a byte at least
    batch = Batch(
        sequence=0,
        start=Position(0, 0, data.draw(sizes)),
        end=Position(offset, index, data.draw(sizes)),
        count=data.draw(st.integers(1, min(index, 2**40))),
        size_bytes=data.draw(sizes),
        sha256=data.draw(st.binary(min_size=32, max_size=32)),
        spans=data.draw(st.binary(max_size=100)),
    )
    drawn = st.builds(Reject, index=sizes, offset=sizes, length=sizes, line=sizes, reason=texts)
    rejects = data.draw(st.lists(drawn, unique_by=lambda reject: reject.index, max_size=5))
    step = Submission(0, State.STAGING, data.draw(st.none() | texts), 1_000.0, data.draw(texts))

    async def scenario():
        async with new_ledger() as ledger:
            await ledger.create_job(a_job())
            await ledger.freeze("j", [batch], rejects, last=True)
            await ledger.move("j", step, expected=State.FROZEN)
            assert await all_batches(ledger, "j") == [(batch, step)]
            assert await ledger.last_batch("j") == batch
            assert await ledger.rejects("j", 0, 2**63 - 1) == sorted(rejects, key=lambda reject: reject.index)

    asyncio.run(scenario())


@few
@given(st.data())
def test_jobs(data):
    numbers = st.builds(Source, sizes, paths, st.sampled_from(Format), sizes, sizes, sizes)
    sources = data.draw(st.lists(numbers, unique_by=lambda source: source.number, max_size=3))
    job = a_job(
        config=data.draw(texts),
        output=data.draw(texts),
        sources=sorted(sources, key=lambda source: source.number),
        parent=data.draw(st.none() | texts),
        slowest_start=data.draw(st.floats(0, 1e9)),
        lost_stages=data.draw(sizes),
        created_at=data.draw(st.floats(1, 1e12)),
    )

    async def scenario():
        async with new_ledger() as ledger:
            await ledger.create_job(job)
            assert await ledger.jobs() == [job]

    asyncio.run(scenario())


async def test_a_page_of_large_batches_is_short(path, clock):
    """Memory holds a few MiB of spans at a time, however many records a batch has."""
    large = [replace(a_batch(sequence), spans=bytes(3 * 1024 * 1024)) for sequence in range(5)]
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
        await ledger.freeze("j", large, [], last=True)
        bindings = {"after": -1, "last": 4, "states": '["frozen"]'}
        held = await ledger._ask(_page, "batches", to_submitted, "j", bindings)
        assert [batch.sequence for batch, _ in held] == [0, 1]
        assert [batch.sequence for batch, _ in await all_batches(ledger, "j")] == list(range(5))


@pytest.mark.parametrize(
    ("batches", "records", "most_bytes"),
    [pytest.param(50, 1_000, 41, id="in bulk"), pytest.param(2_000, 1, 265, id="one by one")],
)
async def test_a_record_takes_few_bytes(path, clock, batches, records, most_bytes):
    async with SqliteLedger.open(path, clock) as ledger:
        job = await frozen(ledger, batches, records)

        async def submit(sequence):
            await bring(ledger, job, sequence, State.RELEASED, remote_id="5f1d7a" * 4)
            await settle(ledger, job, sequence, Settlement(ids(records, sequence)))

        await asyncio.gather(*map(submit, range(batches)))
    assert path.stat().st_size / (batches * records) < most_bytes


async def test_a_shared_reason_is_kept_once(path, clock):
    reason = "a long complaint " * 100
    async with SqliteLedger.open(path, clock) as ledger:
        job = await frozen(ledger, records=1_000)
        await settle(ledger, job, 0, Settlement.refused(1_000, reason), State.FROZEN)
        assert await ledger.settlement(job, 0) == Settlement.refused(1_000, reason)
    assert path.stat().st_size < 150_000
