"""Two or three workers that send one job together, in one event loop and in made-up time."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from fakes.bench import Bench, a_bench, another_worker
from fakes.clock import under_way, until
from fakes.service import Killed, lost, unavailable
from fakes.stopping import Process
from msgspec.structs import replace

from engine.adaptive.settle_time import SETTLE_SECONDS
from engine.commands.cancel import cancel_batches
from engine.model.batch import Limits
from engine.model.errors import Interrupted, JobCanceled, LeaseLost, RecordsSent, SendingEnded, Unavailable
from engine.model.job import JobState
from engine.model.settings import SendSettings
from engine.model.shard import MOST_LOST_WORKERS, ShardState
from engine.model.submission import State
from engine.progress.events import BatchMoved, BatchSettled, Noticed
from engine.reports.audit import audit
from engine.run.shards import lease_terms

RECORDS = 120
"""Each is a batch of its own: some shards."""
BRIEF = {"call_seconds": 20.0}
"""The longest call, so that leases are brief."""
LEASE_SECONDS = lease_terms(SendSettings(**BRIEF), "w").seconds
SLOW = {"call_seconds": 0.25}


def once(records=RECORDS):
    return {str(number): 1 for number in range(records)}


@dataclass
class Worker:
    """A worker, with what may happen to its process."""

    bench: Bench
    process: Process

    async def work(self, **options):
        """Work as one process; return why it ended early, or that it was killed."""
        try:
            return await self.bench.work(**{"max_in_flight": 3, **BRIEF, **options})
        except Killed as killed:  # as it gave back what it had
            return killed

    @asynccontextmanager
    async def at_work(self, **options):
        """Let it work beside the block; it is killed at the end of it, if it still works."""
        async with under_way(self.work(**options)) as work:
            try:
                yield work
            finally:
                if not work.done():
                    self.process.kill()

    @property
    def settled(self):
        """How many batches it has settled."""
        return sum(isinstance(event, BatchSettled) for event in self.bench.events)

    @property
    def reached(self):
        """States that it has brought batches to."""
        return {event.after for event in self.bench.events if isinstance(event, BatchMoved)}


@asynccontextmanager
async def workers(folder, names=("first", "second"), *, records=RECORDS, planners=("first",), frozen=True, **service):
    """Open a job for some workers; the first of them is there, the others come as they are asked to work."""
    service = {"limits": Limits(1, 1 << 20), **service}
    async with a_bench(folder, records, shares_jobs=True, **service) as bench, AsyncExitStack() as stack:
        if frozen:
            await bench.freeze()
        benches = [
            await stack.enter_async_context(another_worker(bench, name, plans_job=name in planners)) for name in names
        ]
        processes = [Process() for _ in names]
        yield bench, [Worker(process.seizes(one), process) for one, process in zip(benches, processes, strict=True)]


async def judge(bench, records=RECORDS):
    """See that all is settled and created once, and that the ledger is whole."""
    assert bench.service.ids() == once(records)
    assert set(await bench.states()) == {State.SETTLED}
    assert {shard.state for shard in await bench.ledger.shards("j")} == {ShardState.DONE}
    held = await audit(bench.job, bench.ledger, bench.evidence)
    assert (held.findings, held.records) == ([], records)


# All goes well


@pytest.mark.parametrize("ways", [{}, {"stages": False}, {"done_by": "release"}, {"polls_together": 5}])
async def test_two_workers_send_a_job_together(tmp_path, ways):
    async with workers(tmp_path, **SLOW, **ways) as (bench, (first, second)):
        assert await asyncio.gather(first.work(), second.work()) == [None, None]
        await judge(bench)
        assert min(first.settled, second.settled) > 10


async def test_a_worker_sends_what_another_one_is_still_reading(tmp_path):
    async with workers(tmp_path, frozen=False, **SLOW) as (bench, (first, second)):
        async with first.at_work() as planning:
            await until(lambda: first.reached)
            assert await second.work() is None
            assert await planning is None
        await judge(bench)
        assert second.settled > 0


async def test_a_third_worker_may_come_later(tmp_path):
    async with workers(tmp_path, ["first", "second", "third"], **SLOW) as (bench, (first, second, third)):
        async with first.at_work() as one, second.at_work() as two:
            await until(lambda: len(bench.service.journal) > 5)
            assert await third.work() is None
            assert [await one, await two] == [None, None]
        await judge(bench)
        assert min(first.settled, second.settled, third.settled) > 0


async def test_refused_batches_are_halved_by_whoever_has_them(tmp_path):
    poison = frozenset({"7", "99"})
    many = {"limits": Limits(10, 1 << 20), "poison": poison}
    async with workers(tmp_path, records=600, **many, **SLOW) as (bench, (first, second)):
        assert await asyncio.gather(first.work(), second.work()) == [None, None]
        assert bench.service.ids() == {name: 1 for name in once(600) if name not in poison}
        tally = await bench.ledger.tally("j")
        assert (tally.created, tally.failed, tally.unresolved) == (598, 2, 0)
        assert min(first.settled, second.settled) > 0


# A worker is lost


@pytest.mark.parametrize("after", [3, 17, 40])
@pytest.mark.parametrize("who", [0, 1], ids=["the one that plans", "the other"])
async def test_what_a_killed_worker_had_another_one_takes_over_once_its_lease_has_ended(tmp_path, after, who):
    async with workers(tmp_path, planners=("first", "second"), release_again="duplicate", **SLOW) as (bench, both):
        killed, other = both[who], both[1 - who]
        killed.bench.plans_job, other.bench.plans_job = who == 0, who == 1
        async with killed.at_work() as dying, other.at_work() as working:
            await until(lambda: len(bench.service.journal) > after)
            killed.process.kill()
            assert isinstance(await dying, Killed)
            killed_at = bench.clock.elapsed
            assert await working is None
        assert bench.clock.elapsed - killed_at >= LEASE_SECONDS - 5
        await judge(bench)


async def test_when_the_one_that_plans_dies_another_one_plans_and_the_rest_goes_on(tmp_path):
    names = ["first", "second", "third"]
    settings = {"frozen": False, "planners": ("first", "third"), "records": 600, **SLOW}
    async with workers(tmp_path, names, **settings) as (bench, (first, second, third)):
        async with first.at_work() as dying:
            await until(lambda: first.reached)
            async with second.at_work() as helping:
                await until(lambda: second.settled > 5)
                first.process.kill()
                assert isinstance(await dying, Killed)
                assert not (await bench.ledger.job("j")).read_complete
                assert await third.work() is None
                assert await helping is None
        await judge(bench, 600)
        assert third.settled > 0


async def test_who_only_helps_ends_where_the_one_that_plans_is_gone(tmp_path):
    settings = {"frozen": False, "records": 600, **SLOW}
    async with workers(tmp_path, **settings) as (bench, (first, second)):
        async with first.at_work() as dying:
            await until(lambda: first.reached)
            async with second.at_work() as helping:
                await until(lambda: second.settled > 5)
                first.process.kill()
                await dying
                assert await helping is None
        assert not (await bench.ledger.job("j")).read_complete
        assert {shard.state for shard in await bench.ledger.shards("j")} == {ShardState.DONE}
        assert await bench.work() is None
        await judge(bench, 600)


async def test_a_shard_that_ends_every_worker_is_parked_and_the_rest_is_sent(tmp_path):
    names = [f"dying-{number}" for number in range(MOST_LOST_WORKERS)]
    async with workers(tmp_path, [*names, "last"], planners=("last",), **SLOW) as (bench, (*dying, last)):
        for worker in dying:
            async with worker.at_work() as work:
                await until(lambda: bench.service.log)
                worker.process.kill()
                await work
            bench.service.log.clear()
            await bench.clock.sleep(LEASE_SECONDS)
        assert await last.work() is None
        parked, *others = await bench.ledger.shards("j")
        assert parked.state is ShardState.PARKED
        assert [name.rpartition("-")[0] for name in parked.lost.split()] == names
        assert {shard.state for shard in others} == {ShardState.DONE}
        assert max(bench.service.ids().values()) == 1
        await bench.ledger.open_shards("j", parked=True)
        assert await last.work() is None
        await judge(bench)


# A worker stands still


@pytest.mark.parametrize("after", [3, 17, 40])
async def test_a_worker_that_stood_still_beyond_its_lease_is_refused_and_sends_nothing_more(tmp_path, after):
    async with workers(tmp_path, planners=("second",), release_again="duplicate", **SLOW) as (bench, (first, second)):
        async with first.at_work() as standing, second.at_work() as working:
            await until(lambda: len(bench.service.journal) > after)
            first.process.stop()
            assert await working is None
            await judge(bench)
            sent = len(bench.service.calls("stage", "upload", "release"))
            first.process.go_on()
            assert isinstance(await standing, LeaseLost)
        assert len(bench.service.calls("stage", "upload", "release")) == sent
        await judge(bench)


async def test_a_worker_that_woke_in_time_goes_on(tmp_path):
    async with workers(tmp_path, **SLOW) as (bench, (first, second)):
        async with first.at_work() as working, second.at_work() as standing:
            await until(lambda: second.settled > 3)
            second.process.stop()
            await bench.clock.sleep(3)
            second.process.go_on()
            assert [await working, await standing] == [None, None]
        await judge(bench)


@pytest.mark.parametrize("after", [0, 3, 17, 40])
@pytest.mark.parametrize("ways", [{}, {"stages": False}, {"done_by": "release"}])
async def test_a_worker_that_was_cut_off_beyond_its_lease_goes_on_if_nobody_took_its_shards(tmp_path, after, ways):
    async with workers(tmp_path, ["lone"], planners=["lone"], release_again="duplicate", **SLOW, **ways) as (
        bench,
        (lone,),
    ):
        async with lone.at_work() as working:
            await until(lambda: len(bench.service.journal) > after)
            lone.process.stop()
            await bench.clock.sleep(3 * LEASE_SECONDS)
            lone.process.go_on()
            assert await working is None
        await judge(bench)


@pytest.mark.parametrize("after", [3, 17])
async def test_workers_that_were_all_cut_off_beyond_their_leases_take_nothing_from_each_other(tmp_path, after):
    names = ["first", "second", "third"]
    async with workers(tmp_path, names, release_again="duplicate", **SLOW) as (bench, all_of_them):
        first, second, third = all_of_them
        async with first.at_work() as one, second.at_work() as two, third.at_work() as three:
            await until(lambda: len(bench.service.journal) > after)
            for worker in all_of_them:
                worker.process.stop()
            await bench.clock.sleep(3 * LEASE_SECONDS)
            for worker in all_of_them:
                worker.process.go_on()
                await bench.clock.sleep(1)
            assert [await one, await two, await three] == [None] * 3
        await judge(bench)
        assert not any(shard.losses for shard in await bench.ledger.shards("j"))
        said = [event for worker in all_of_them for event in worker.bench.events if isinstance(event, Noticed)]
        assert said == [], "nobody is missed: the ledger was away"


async def test_who_cancels_beside_a_worker_that_stands_still_ends_its_leases_and_it_sends_nothing_more(tmp_path):
    names = ["standing", "canceling"]
    async with workers(tmp_path, names, planners=["canceling"], **SLOW) as (bench, (standing, canceling)):
        async with standing.at_work() as work:
            await until(lambda: len(bench.service.journal) > 10)
            standing.process.stop()
            await bench.ledger.set_job_state("j", JobState.CANCELED)
            canceling.bench.job = await bench.ledger.job("j")
            run = canceling.bench.run()
            await canceling.bench.shards(run, SendSettings()).alone()
            assert bench.clock.elapsed > LEASE_SECONDS
            sent = len(bench.service.calls("release"))
            standing.process.go_on()
            await cancel_batches(run)
            assert isinstance(await work, JobCanceled | LeaseLost)
            assert await canceling.work() is None
        assert len(bench.service.calls("release")) == sent
        tally = await bench.ledger.tally("j")
        assert (tally.created, tally.uncertain) == (len(bench.service.journal), 0)


async def test_a_worker_that_was_refused_goes_on_with_other_shards_in_its_next_run(tmp_path):
    slow = {"records": 1000, "call_seconds": 1.0}
    async with workers(tmp_path, planners=("second",), **slow) as (bench, (first, second)):
        async with first.at_work() as standing, second.at_work() as working:
            await until(lambda: first.settled > 3)
            first.process.stop()
            while any(shard.holder.startswith("first") for shard in await bench.ledger.shards("j")):
                await bench.clock.sleep(0.5)
            first.process.go_on()
            assert isinstance(await standing, LeaseLost)
            before = first.settled
            assert await first.work() is None
            assert await working is None
        assert first.settled > before
        await judge(bench, 1000)


# The window that the fence cannot guard: a worker stops after its lease was checked, and its call goes out later


@asynccontextmanager
async def stopped_before_its_call(folder, call=1, **service):
    """Have a worker stop between the check of its lease and its n-th release, until all is sent by the other one."""
    settings = {"planners": ("second",), "records": 20, **service}
    async with workers(folder, **settings) as (bench, (first, second)):
        checks, check = [], first.bench.ledger.check_lease

        def checked(job, sequence):
            check(job, sequence)
            checks.append(sequence)
            if len(checks) == call and not first.process.killed:
                first.process.stop()

        first.bench.ledger.check_lease = checked
        async with first.at_work(max_in_flight=1) as standing:
            await until(lambda: len(checks) >= call)
            assert await second.work() is None
            yield bench, checks[call - 1]
            first.process.go_on()
            assert isinstance(await standing, LeaseLost)


async def test_what_is_sent_late_creates_nothing_where_a_repeat_is_harmless(tmp_path):
    async with stopped_before_its_call(tmp_path, call=2, release_again="refuse") as (bench, _):
        await judge(bench, 20)
    assert len(bench.service.calls("release")) > 20
    assert bench.service.ids() == once(20)


async def test_what_is_sent_late_is_created_twice_where_a_repeat_is_not_harmless(tmp_path):
    """docs/guarantees.md names it: the settle time passes, nothing shows, and it is released again."""
    async with stopped_before_its_call(tmp_path, call=2, release_again="duplicate") as (bench, sequence):
        await judge(bench, 20)
    assert bench.service.ids() == once(20) | {str(sequence): 2}


async def test_what_is_sent_late_is_uncertain_where_nothing_can_be_asked_and_comes_once(tmp_path):
    async with stopped_before_its_call(tmp_path, stages=False) as (bench, sequence):
        assert [at.sequence for at in await bench.submissions() if at.state is State.UNCERTAIN] == [sequence]
    assert bench.service.ids() == once(20)


# The end of a worker


async def test_a_worker_that_is_stopped_in_order_gives_back_at_once_what_it_has(tmp_path):
    async with workers(tmp_path, **SLOW) as (bench, (first, second)):
        async with first.at_work() as working, second.at_work() as ending:
            await until(lambda: second.settled > 3)
            second.bench.end(Interrupted(15))
            assert isinstance(await ending, Interrupted)
            stopped_at = bench.clock.elapsed
            assert not any(shard.holder.startswith("second") for shard in await bench.ledger.shards("j"))
            assert await working is None
        assert bench.clock.elapsed - stopped_at < LEASE_SECONDS
        await judge(bench)


async def test_a_worker_whose_service_is_away_gives_back_what_it_has(tmp_path):
    async with workers(tmp_path, **SLOW) as (bench, (first, second)):
        bench.service.faults["upload"] = [unavailable()]
        results = await asyncio.gather(first.work(), second.work())
        assert [type(result) for result in results if result is not None] == [Unavailable]
        await judge(bench)


async def test_a_canceled_job_is_left_by_all_workers_and_what_they_had_released_is_followed(tmp_path):
    names = ["first", "second", "canceling"]
    async with workers(tmp_path, names, planners=("canceling",), **SLOW) as (bench, (first, second, canceling)):
        async with first.at_work() as one, second.at_work() as two:
            await until(lambda: len(bench.service.journal) > 10)
            await bench.ledger.set_job_state("j", JobState.CANCELED)
            canceling.bench.job = await bench.ledger.job("j")
            run = canceling.bench.run()
            await canceling.bench.shards(run, SendSettings()).alone()
            assert [type(await one), type(await two)] == [JobCanceled] * 2
            sent = len(bench.service.calls("release"))
            await cancel_batches(run)
            assert await canceling.work() is None
        assert len(bench.service.calls("release")) == sent
        tally = await bench.ledger.tally("j")
        assert (tally.created, tally.uncertain) == (len(bench.service.journal), 0)
        assert max(bench.service.ids().values()) == 1
        canceling.bench.job = await bench.ledger.job("j")
        await bench.ledger.set_job_state("j", JobState.OPEN)
        bench.job = await bench.ledger.job("j")
        assert await bench.work() is None
        await judge(bench)


# A limit of records


@pytest.mark.parametrize("most", [50, 1000], ids=["it is met", "it is not met"])
async def test_who_plans_knows_at_its_end_how_much_all_have_sent_for_a_limit_holds_for_its_next_job_too(tmp_path, most):
    async with workers(tmp_path, **SLOW) as (bench, (first, second)):
        async with first.at_work(most_records=most) as planning:
            await until(lambda: first.reached)
            helped = await second.work(max_in_flight=1)
            assert isinstance(helped, SendingEnded | RecordsSent) if most < RECORDS else helped is None
            assert isinstance(await planning, RecordsSent) if most < RECORDS else await planning is None
        assert second.settled > 0
        assert first.bench.stop.records_sent == len(bench.service.journal) == min(most, RECORDS)


# What a person has sent again


@asynccontextmanager
async def sent_again(folder, records=60):
    """Open a job of which each batch was lost, and none arrived; a person has all sent again, and a run has begun."""
    faults = {"release": [lost(applied=False)] * records}
    settings = {"stages": False, "faults": faults, **SLOW}
    async with workers(folder, records=records, planners=("first",), **settings) as (bench, (first, second)):
        assert await first.work() is None
        assert set(await bench.states()) == {State.UNCERTAIN}
        assert {shard.state for shard in await bench.ledger.shards("j")} == {ShardState.LEFT}
        run = replace(bench.run(), released_again_by_user=set(range(records)))
        await bench.shards(run, SendSettings()).begin(None, 0, keep=False)
        assert not run.released_again_by_user, "whoever takes a shard gets them with it"
        yield bench, first, second


async def test_what_a_person_has_sent_again_is_sent_by_whoever_takes_it(tmp_path):
    async with sent_again(tmp_path) as (bench, _, second):
        assert await second.work() is None
        await judge(bench, 60)


@pytest.mark.parametrize("after", [0, 5, 20])
async def test_the_word_of_a_person_counts_once_whatever_becomes_of_a_worker(tmp_path, after):
    async with sent_again(tmp_path) as (bench, first, second):
        async with second.at_work() as dying:
            await until(lambda: second.settled > after)
            second.process.kill()
            assert isinstance(await dying, Killed)
        assert await first.work() is None
        assert max(bench.service.ids().values()) == 1
        left = {at.sequence for at in await bench.submissions() if at.state is not State.SETTLED}
        assert left
        assert await first.work(released_again_by_user=left) is None
        created = bench.service.ids()
        assert set(created) == set(once(60))
        assert {int(name) for name, times in created.items() if times > 1} <= left, "it may have arrived before"


# Lost answers


@pytest.mark.parametrize("applied", [True, False])
async def test_each_worker_searches_at_its_end_for_what_it_lost(tmp_path, applied):
    faults = {"release": [None, lost(applied=applied), None, lost(applied=not applied)] * 8}
    settings = {"stages": False, "marks": True, "tasks_per_second": 0.5, "faults": faults}
    async with workers(tmp_path, records=60, **settings, **SLOW) as (bench, (first, second)):
        assert await asyncio.gather(first.work(), second.work()) == [None, None]
        await judge(bench, 60)
        assert min(first.settled, second.settled) > 0
        assert "locate" in bench.service.log


async def test_what_a_killed_worker_would_have_searched_for_another_one_does(tmp_path):
    faults = {"release": [lost(applied=True), lost(applied=False)] * 4}
    settings = {"stages": False, "marks": True, "faults": faults}
    async with workers(tmp_path, records=60, planners=("second",), **settings, **SLOW) as (bench, (first, second)):
        async with first.at_work() as dying:
            await until(lambda: State.UNCERTAIN in first.reached)
            first.process.kill()
            assert isinstance(await dying, Killed)
            assert await second.work() is None
        await judge(bench, 60)


async def test_lost_answers_of_two_workers_are_asked_about_and_created_once(tmp_path):
    faults = {"release": [lost(applied=True), None, lost(applied=False), None] * 10}
    async with workers(tmp_path, release_again="duplicate", faults=faults, **SLOW) as (bench, (first, second)):
        assert await asyncio.gather(first.work(), second.work()) == [None, None]
        assert bench.clock.elapsed >= SETTLE_SECONDS
        await judge(bench)
        assert len(bench.service.calls("release")) == RECORDS + 10  # those again of which nothing shows
