"""What a family knows of records, by hash: looked up while another job of it is planned."""

from contextlib import asynccontextmanager

import pytest

from engine.batch.known import FamilyMemory, Marker
from engine.batch.mapping import Mapper
from engine.batch.payload import PayloadReader
from engine.batch.planning import plan_batches
from engine.clock import SystemClock
from engine.ledger.known import KnownRecords
from engine.ledger.sqlite import SqliteLedger
from engine.model.batch import Limits
from engine.model.errors import DamagedRow
from engine.model.job import Job, JobState
from engine.model.outcome import Settlement
from engine.model.record import Block, KeptAs, Position, Why
from engine.model.settings import DeltaSettings, MappingSettings, SourceSettings
from engine.model.submission import State, Submission
from engine.source.sources import find_sources

FITS = Limits(4, 1 << 20)


class Nights:
    """Jobs of a family, planned and frozen without being sent; what became of their batches is made up."""

    def __init__(self, ledger, folder, settings):
        self.ledger = ledger
        self.folder = folder
        self.settings = settings

    async def plan(self, name, numbers, *, delta=True, **fields):
        """Begin a job; return its plans, which look up what is known as each is asked for."""
        path = self.folder / f"{name}.ndjson"
        path.write_bytes(
            b"".join(b'{"data":{"id":"%d"}%s}\n' % (number, fields.get("more", b"")) for number in numbers)
        )
        sources = find_sources([str(path)], SourceSettings())
        job = Job(name, "fake", "", sources, str(self.folder / name), family="f", delta=delta)
        await self.ledger.create_job(job)
        mapper = Mapper(MappingSettings(), lambda _: None)

        def planned(start=None, sequence=0):
            with KnownRecords(self.ledger.address) as records:
                known = FamilyMemory(records, job, self.settings)
                yield from plan_batches(
                    sources,
                    SourceSettings(),
                    mapper,
                    FITS,
                    start=start,
                    sequence=sequence,
                    window_bytes=128,
                    known=known,
                )

        return planned

    async def night(self, name, numbers, **options):
        """Freeze all of a job; return what was skipped and taken."""
        skips, taken = [], []
        for plan in (await self.plan(name, numbers, **options))():
            await self.freeze(name, plan)
            skips, taken = skips + list(plan.skips), taken + list(plan.taken)
        return skips, taken

    async def freeze(self, name, plan):
        await self.ledger.freeze(name, plan.batches, plan.rejects, last=plan.last, skips=plan.skips, taken=plan.taken)

    async def settle(self, name, sequence, settlement):
        for before, after in ((State.FROZEN, State.RELEASING), (State.RELEASING, State.RELEASED)):
            await self.ledger.move(name, Submission(sequence, after, "r"), expected=before)
        settled = Submission(sequence, State.SETTLED, "r")
        await self.ledger.settle(name, settled, settlement, expected=State.RELEASED)


@pytest.fixture
def nights(tmp_path):
    @asynccontextmanager
    async def opened(**settings):
        async with SqliteLedger.open(tmp_path / "ledger.db", SystemClock()) as ledger:
            yield Nights(ledger, tmp_path, DeltaSettings(**settings))

    return opened


def runs(skips):
    return [(skip.index, skip.count, skip.other, skip.other_index, skip.why) for skip in skips]


async def test_records_side_by_side_here_and_there_are_one_skip(nights):
    async with nights() as family:
        await family.night("n1", range(4))
        await family.settle("n1", 0, Settlement(["a", "b", "c", "d"]))
        skips, taken = await family.night("n2", [9, 1, 2, 3, 0])
        assert runs(skips) == [(1, 3, "n1", 1, Why.CREATED), (4, 1, "n1", 0, Why.CREATED)]
        assert [one.index for one in taken] == [0]
        tally = await family.ledger.tally("n2")
        assert (tally.skipped, tally.rejected, tally.records) == (4, 0, 5)


@pytest.mark.parametrize(
    ("settlement", "canceled", "skipped"),
    [
        (Settlement(["a", None, "c", None], {1: "no"}, uncertain={3: "lost"}), False, "0c 2c 3u"),
        (None, False, "0u 1u 2u 3u"),
        (None, True, ""),
    ],
    ids=["settled", "on its way", "never sent"],
)
async def test_what_became_of_a_record_is_read_from_the_job_that_has_it(nights, settlement, canceled, skipped):
    async with nights() as family:
        await family.night("n1", range(4))
        if settlement is not None:
            await family.settle("n1", 0, settlement)
        if canceled:
            await family.ledger.set_job_state("n1", JobState.CANCELED)
        skips, taken = await family.night("n2", range(4))
        words = [f"{skip.index + at}{skip.why[0]}" for skip in skips for at in range(skip.count)]
        assert " ".join(words) == skipped
        assert await family.ledger.taken_over_by("n1") == ("n2" if canceled else None)
        assert len(taken) == 4 - len(words)


async def test_a_released_batch_of_a_canceled_job_is_doubtful(nights):
    async with nights() as family:
        await family.night("n1", range(4))
        await family.ledger.move("n1", Submission(0, State.RELEASING, "r"), expected=State.FROZEN)
        await family.ledger.set_job_state("n1", JobState.CANCELED)
        skips, taken = await family.night("n2", range(4))
        assert ([skip.why for skip in skips], taken) == ([Why.UNCERTAIN], [])


async def test_of_the_same_record_twice_the_one_that_was_created_counts(nights):
    async with nights() as family:
        _, taken = await family.night("n1", [5, 5, 5])
        assert [one.kept_as for one in taken] == [KeptAs.ROW, KeptAs.COPY, KeptAs.COPY]
        await family.settle("n1", 0, Settlement([None, None, "c"], {0: "no", 1: "no"}))
        skips, _ = await family.night("n2", [5])
        assert runs(skips) == [(0, 1, "n1", 2, Why.CREATED)]


async def test_what_is_planned_and_not_frozen_is_not_forgotten(nights):
    async with nights() as family:
        plans = [*(await family.plan("n1", [1, 2, 3, 1, 2, 3, 1]))()]
        assert [one.kept_as for plan in plans for one in plan.taken] == [KeptAs.ROW] * 3 + [KeptAs.COPY] * 4
        for plan in plans:
            await family.freeze("n1", plan)


async def test_planning_that_begins_anew_behind_a_frozen_batch_knows_it(nights):
    async with nights(key="data") as family:
        planned = await family.plan("n1", [1, 2, 3, 4, 5, 1, 6])
        first = next(plan for plan in planned() if plan.batches)
        await family.freeze("n1", first)
        end = first.batches[-1].end
        rejects = [reject for plan in planned(end, 1) for reject in plan.rejects]
        assert [(reject.index, reject.reason.partition("(")[0]) for reject in rejects] == [
            (5, "its key is that of record 0 ")
        ]


async def test_a_record_whose_hash_happens_to_be_that_of_another_is_known_beside_it(nights, monkeypatch):
    mark = Marker._mark
    monkeypatch.setattr(Marker, "_mark", lambda self, *text: (7, mark(self, *text)[1]))
    async with nights() as family:
        _, taken = await family.night("n1", range(3))
        assert [one.kept_as for one in taken] == [KeptAs.ROW, KeptAs.COPY, KeptAs.COPY]
        await family.settle("n1", 0, Settlement(["a", None, "c"], {1: "no"}))
        skips, taken = await family.night("n2", range(4))
        assert runs(skips) == [(0, 1, "n1", 0, Why.CREATED), (2, 1, "n1", 2, Why.CREATED)]
        assert [(one.index, one.kept_as) for one in taken] == [(1, KeptAs.COPY), (3, KeptAs.COPY)]


async def test_a_key_that_changed_back_after_its_change_failed_is_not_sent_again(nights):
    async with nights(key="data") as family:
        await family.night("n1", [1], more=b',"v":1')
        await family.settle("n1", 0, Settlement(["a"]))
        _, taken = await family.night("n2", [1], more=b',"v":2')
        assert [one.kept_as for one in taken] == [KeptAs.OVER]
        await family.settle("n2", 0, Settlement([None], {0: "no"}))
        skips, taken = await family.night("n3", [1], more=b',"v":1')
        assert (runs(skips), taken) == ([(0, 1, "n1", 0, Why.CREATED)], [])
        _, taken = await family.night("n4", [1], more=b',"v":2')
        assert len(taken) == 1


async def test_a_plain_job_sends_everything_and_forgets_nothing(nights):
    async with nights() as family:
        await family.night("n1", range(3))
        await family.settle("n1", 0, Settlement(["a", None, None], {1: "no"}, uncertain={2: "lost"}))
        skips, taken = await family.night("n2", range(3), delta=False)
        assert (skips, [(one.index, one.kept_as) for one in taken]) == ([], [(1, KeptAs.ROW), (2, KeptAs.COPY)])
        await family.settle("n2", 0, Settlement([None, "x", "y"], {0: "no"}))
        skips, _ = await family.night("n3", range(3))
        assert runs(skips) == [(0, 1, "n1", 0, Why.CREATED), (1, 2, "n2", 1, Why.CREATED)]


async def test_many_known_records_end_a_batch_before_they_fill_the_memory(nights):
    async with nights() as family:
        await family.night("n1", range(2500))
        for sequence in range(625):
            await family.settle("n1", sequence, Settlement(["a", "b", "c", "d"]))
        await family.night("n2", range(2500))
        sizes = [batch.skipped async for batch, _ in family.ledger.batches("n2")]
        assert sum(sizes) == 2500
        assert all(1000 <= size < 1100 for size in sizes[:-1])


def test_the_key_of_a_family_is_a_value_with_its_type():
    marker = Marker("f", "id")
    raws = [
        b'{"id":7}',
        b'{"id":"7"}',
        b'{"id": 7}',
        b'{"id":12345678901234567890123}',
        b'{"id":12345678901234567890124}',
    ]
    rows = [{"id": 7}, {"id": "7"}, {"id": 7}, {"id": 1.2e22}, {"id": 1.2e22}]
    block = Block(Position(), range(5), range(5), [1] * 5, [1] * 5, raws, rows)
    first, text, again, long, longer = marker.mark(block, block).marks
    assert first[0] == again[0]
    assert len({first[0], text[0], long[0], longer[0]}) == 4
    assert Marker("g", "id").mark(block, block).marks[0][0] != first[0]
    assert Marker("f", None).mark(block, block).marks[0][0] != first[0]


async def test_a_family_that_knows_a_job_which_is_gone_says_so(nights):
    async with nights() as family:
        await family.night("n1", [1])
        with KnownRecords(family.ledger.address) as records, pytest.raises(DamagedRow, match="a job that is missing"):
            records.fate((99, 0))


async def test_the_halves_of_a_batch_share_what_it_skips(nights):
    async with nights() as family:
        await family.night("n1", range(4))
        await family.settle("n1", 0, Settlement(["a", "b", "c", "d"]))
        await family.night("n2", [0, 10, 1, 2, 11, 12, 3, 13])
        ((batch, _),) = [pair async for pair in family.ledger.batches("n2")]
        job = await family.ledger.job("n2")
        reader = PayloadReader(job.sources, SourceSettings(), Mapper(MappingSettings(), lambda _: None))
        halves = reader.halves(batch, (), await family.ledger.skips("n2", 0, 8))
        assert [(half.start.index, half.end.index, half.count, half.skipped) for half in halves] == [
            (0, 5, 2, 3),
            (5, 8, 2, 1),
        ]
        await family.ledger.split("n2", Submission(0, State.SPLIT), halves, expected=State.FROZEN)
        await family.settle("n2", halves[0].sequence, Settlement(["x", None], {1: "no"}))
        await family.settle("n2", halves[1].sequence, Settlement(["y", "z"]))
        tally = await family.ledger.tally("n2")
        assert (tally.created, tally.failed, tally.skipped, tally.unresolved) == (3, 1, 4, 0)
        skips, taken = await family.night("n3", [13, 11, 10, 12, 2])
        assert [run[:4] for run in runs(skips)] == [(0, 1, "n2", 7), (2, 1, "n2", 1), (3, 1, "n2", 5), (4, 1, "n1", 2)]
        assert [one.index for one in taken] == [1]


@pytest.mark.parametrize(("state", "is_doubtful"), [(State.STAGING, True), (State.STAGED, False)])
async def test_what_a_canceled_job_was_about_to_stage_may_be_there(nights, state, is_doubtful):
    async with nights() as family:
        await family.night("n1", range(4))
        await family.ledger.move("n1", Submission(0, State.STAGING), expected=State.FROZEN)
        if state is State.STAGED:
            await family.ledger.move("n1", Submission(0, State.STAGED, "r"), expected=State.STAGING)
        await family.ledger.set_job_state("n1", JobState.CANCELED)
        skips, _ = await family.night("n2", range(4))
        assert [skip.why for skip in skips] == [Why.UNCERTAIN] * is_doubtful
