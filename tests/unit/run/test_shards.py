import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from fakes.bench import a_bench, another_worker
from fakes.clock import under_way, until
from msgspec.structs import replace

from engine.model.batch import Limits
from engine.model.errors import Interrupted, JobCanceled, LeaseLost, LedgerError
from engine.model.job import Job, JobState
from engine.model.outcome import Settlement, Tally
from engine.model.settings import SendSettings
from engine.model.shard import MOST_LOST_WORKERS, SHARD_BATCHES, LeaseTerms, ShardState
from engine.model.submission import State, Submission
from engine.progress.events import Noticed
from engine.run.reading import joined
from engine.run.shards import Shards, lease_terms, tell_tally, worker_name

SHARDS = 3
ONE_RECORD = Limits(1, 1 << 20)
TERMS = LeaseTerms("", 30.0, 20.0)


@asynccontextmanager
async def a_shared_job(folder, *, frozen=True, **job):
    """Open a job of three shards, each with as many batches as a shard has."""
    records = SHARDS * SHARD_BATCHES
    async with a_bench(folder, records, shares_jobs=True, limits=ONE_RECORD) as bench:
        bench.job = replace(bench.job, **job)
        if frozen:
            await freeze(bench)
        yield bench


async def freeze(bench):
    """Freeze all in one step, so that shards are as large as they may be."""
    plan = joined(list(bench.plans()))
    await bench.ledger.freeze("j", plan.batches, plan.rejects, last=True)


def shards_of(bench, worker="first", *, plans=False, ledger=None):
    terms = replace(TERMS, worker=worker)
    return Shards(
        bench.job, ledger or bench.ledger, bench.clock, bench.stop, terms, plans=plans, emit=bench.events.append
    )


async def states(bench):
    return [shard.state for shard in await bench.ledger.shards("j")]


async def settle(bench, shard, state=State.SETTLED):
    """Bring each batch of a shard to its end, or to be uncertain."""
    for sequence in range(shard.first, shard.last + 1):
        await bench.ledger.move("j", Submission(sequence, State.RELEASING), expected=State.FROZEN)
        at = Submission(sequence, state, f"r{sequence}")
        if state is State.SETTLED:
            await bench.ledger.settle("j", at, Settlement([f"t{sequence}"]), expected=State.RELEASING)
        else:
            await bench.ledger.move("j", at, expected=State.RELEASING)


async def take_all(bench, shards):
    while len(shards.taken) < SHARDS:
        await shards.next()


# Taking


async def test_shards_are_taken_one_after_the_other_in_the_order_of_their_batches(tmp_path):
    async with a_shared_job(tmp_path) as bench:
        shards = shards_of(bench)
        firsts = [(await shards.next()).first for _ in range(SHARDS)]
        assert firsts == [0, SHARD_BATCHES, 2 * SHARD_BATCHES]
        assert [shard.first for shard in shards.taken] == firsts


async def test_no_more_are_waited_for_once_all_is_read_and_done(tmp_path):
    async with a_shared_job(tmp_path) as bench:
        shards = shards_of(bench, plans=True)
        for _ in range(SHARDS):
            await settle(bench, await shards.next())
        assert await shards.next() is None
        assert await states(bench) == [ShardState.DONE] * SHARDS


async def test_what_is_frozen_is_taken_at_once_by_the_one_who_froze_it(tmp_path):
    async with a_shared_job(tmp_path, frozen=False) as bench:
        shards = shards_of(bench, plans=True)
        async with under_way(shards.next()) as taking:
            await until(lambda: bench.clock.elapsed > 5)
            with bench.clock.stopped():  # it would never look by itself
                await freeze(bench)
                async with under_way(shards.frozen()):
                    assert (await taking).first == 0


async def test_nothing_of_a_strict_job_is_taken_before_all_of_it_is_read(tmp_path):
    async with a_shared_job(tmp_path, frozen=False, strict=True) as bench:
        shards = shards_of(bench, plans=True)
        plans = list(bench.plans())
        for plan in plans[:-1]:
            await bench.ledger.freeze("j", plan.batches, plan.rejects, last=plan.last)
        async with under_way(shards.next()) as taking:
            await until(lambda: bench.clock.elapsed > 5)
            assert not taking.done()
            await bench.ledger.freeze("j", plans[-1].batches, [], last=True)
            assert (await taking).first == 0


@pytest.mark.parametrize("strict", [False, True])
async def test_who_does_not_plan_waits_for_more_only_while_somebody_plans(tmp_path, strict):
    async with a_shared_job(tmp_path, frozen=False, strict=strict) as bench:
        if strict:
            plan, *_ = bench.plans()
            await bench.ledger.freeze("j", plan.batches, [], last=False)
        shards = shards_of(bench)
        with bench.ledger.lock("j"):
            async with under_way(shards.next()) as taking:
                await until(lambda: bench.clock.elapsed > 5)
                assert not taking.done()
        assert await shards.next() is None


async def test_more_is_frozen_once_what_is_free_was_taken(tmp_path):
    async with a_shared_job(tmp_path) as bench:
        planner, other = shards_of(bench, plans=True), shards_of(bench, "second")
        async with under_way(planner.frozen()) as waiting:
            await until(lambda: bench.clock.elapsed > 5)
            assert not waiting.done(), "three are free, and there is one worker"
            await other.next()
            await other.next()
            await waiting


async def test_a_run_that_ends_freezes_no_more(tmp_path):
    async with a_shared_job(tmp_path) as bench, under_way(shards_of(bench, plans=True).frozen()) as waiting:
        await until(lambda: bench.clock.elapsed > 5)
        bench.end()
        await waiting


# The end


async def test_who_plans_goes_last_and_takes_over_what_others_lose(tmp_path):
    async with a_shared_job(tmp_path) as bench, another_worker(bench) as other:
        lost = shards_of(other, "second")
        await lost.next()  # it is killed then: nobody renews what it has
        planner = shards_of(bench, plans=True)
        async with planner.kept():
            for _ in range(SHARDS):
                await settle(bench, await planner.next())
            assert bench.clock.elapsed >= TERMS.seconds
            assert await planner.next() is None
        assert await states(bench) == [ShardState.DONE] * SHARDS


async def test_nobody_but_the_one_who_plans_waits_for_what_is_searched_for(tmp_path):
    async with a_shared_job(tmp_path) as bench, another_worker(bench) as other:
        planner, second = shards_of(bench, plans=True), shards_of(other, "second")
        await take_all(other, second)
        for shard in second.taken:
            await settle(other, shard, State.UNCERTAIN)
        async with second.kept(), under_way(planner.next()) as waiting:
            assert await second.next() is None
            assert await shards_of(bench, "third").next() is None
            await until(lambda: bench.clock.elapsed > 2 * TERMS.seconds)
            assert not waiting.done()
            await other.ledger.give_back_shards("j", replace(TERMS, worker="second"), left=True)
            assert await waiting is None


# Leases


async def test_leases_last_as_long_as_the_worker_lives(tmp_path):
    async with a_shared_job(tmp_path) as bench, another_worker(bench) as other:
        shards = shards_of(bench)
        async with shards.kept():
            await take_all(bench, shards)
            await bench.clock.sleep(5 * TERMS.seconds)
            assert await other.ledger.take_shards("j", replace(TERMS, worker="second"), SHARDS) == []
            bench.ledger.check_lease("j", 0)
        assert bench.stop.error is None


@pytest.mark.parametrize(("ended", "state"), [(False, ShardState.LEFT), (True, ShardState.OPEN)])
async def test_what_is_not_done_at_the_end_is_left_or_open_for_others_at_once(tmp_path, ended, state):
    async with a_shared_job(tmp_path) as bench:
        shards = shards_of(bench)
        async with shards.kept():
            await settle(bench, await shards.next())
            await shards.next()
            if ended:
                bench.end(Interrupted(15))
        assert await states(bench) == [ShardState.DONE, state, ShardState.OPEN]
        assert all(shard.holder == "" for shard in await bench.ledger.shards("j"))
        assert await bench.ledger.workers("j") == []


async def test_a_worker_that_goes_is_known_no_more_whatever_it_renews_just_then(tmp_path):
    async with a_shared_job(tmp_path) as bench:
        slow = Slow(bench.ledger)
        shards = shards_of(bench, ledger=slow)
        async with shards.kept():
            await shards.next()
            await until(lambda: slow.renewals > 2)
        await bench.clock.sleep(10)
        assert await bench.ledger.workers("j") == []
        assert bench.stop.error is None


class Slow:
    """A ledger of which a renewal is always under way."""

    def __init__(self, ledger):
        self._ledger, self.renewals = ledger, 0

    def __getattr__(self, name):
        return getattr(self._ledger, name)

    async def renew_shards(self, job, terms):
        for _ in range(5):
            self.renewals += 1
            await self._ledger.renew_shards(job, terms)


async def test_a_worker_whose_lease_was_taken_over_ends_its_run(tmp_path):
    async with a_shared_job(tmp_path) as bench, another_worker(bench) as other:
        shards = shards_of(bench)
        await shards.next()
        await bench.clock.sleep(TERMS.seconds)  # it stands still
        (taken,) = await other.ledger.take_shards("j", replace(TERMS, worker="second"), 1)
        async with shards.kept():
            await bench.stop.wait()
        assert isinstance(bench.stop.error, LeaseLost)
        assert (await bench.ledger.shards("j"))[0].holder == taken.holder == "second"


async def test_a_shard_is_parked_that_three_workers_were_lost_with(tmp_path):
    async with a_shared_job(tmp_path) as bench:
        for number in range(MOST_LOST_WORKERS):
            async with another_worker(bench) as dying:
                assert (await shards_of(dying, f"dying-{number}").next()).first == 0
            await bench.clock.sleep(TERMS.seconds)
        shards = shards_of(bench, plans=True)
        async with shards.kept():
            for _ in range(SHARDS - 1):
                await settle(bench, await shards.next())
            assert await shards.next() is None
        assert await states(bench) == [ShardState.PARKED, ShardState.DONE, ShardState.DONE]


async def test_a_ledger_that_is_away_ends_no_run_but_calls_once_the_lease_may_be_over(tmp_path):
    async with a_shared_job(tmp_path) as bench:
        away = Away(bench.ledger)
        shards = shards_of(bench, ledger=away)
        async with shards.kept():
            await shards.next()
            bench.ledger.check_lease("j", 0)
            away.is_away = True
            await bench.clock.sleep(TERMS.seconds)
            assert bench.stop.error is None
            with pytest.raises(LeaseLost):
                bench.ledger.check_lease("j", 0)
            away.is_away = False
            await bench.clock.sleep(5)
            bench.ledger.check_lease("j", 0)
            away.is_away = True
        assert bench.stop.error is None


class Away:
    """A ledger that cannot be reached at times."""

    def __init__(self, ledger):
        self._ledger, self.is_away = ledger, False

    def __getattr__(self, name):
        if self.is_away:
            raise LedgerError("the database cannot be reached")
        return getattr(self._ledger, name)


async def test_people_are_told_once_of_a_worker_that_is_missed_and_when_its_shards_are_free(tmp_path):
    async with a_shared_job(tmp_path) as bench, another_worker(bench) as lost:
        terms = replace(TERMS, worker="lost")
        await lost.ledger.take_shards("j", terms, 1)
        await lost.ledger.renew_shards("j", terms)
        planner = shards_of(bench, plans=True)
        async with planner.kept():
            for _ in range(SHARDS):
                await settle(bench, await planner.next())
        told = [event.text for event in bench.events if isinstance(event, Noticed)]
        assert told == ["worker lost was last heard of 10 s ago; its shards are free in 20 s"]


async def test_a_worker_that_was_missed_and_came_back_is_told_of_again(tmp_path):
    async with a_shared_job(tmp_path) as bench, another_worker(bench) as silent:
        terms = replace(TERMS, worker="silent")
        await silent.ledger.take_shards("j", terms, SHARDS)
        async with under_way(shards_of(bench).next()):
            for number in range(1, 3):
                await silent.ledger.renew_shards("j", terms)
                await until(lambda number=number: len(bench.events) == number)
        assert all(event.text.startswith("worker silent was last heard of 10 s ago") for event in bench.events)


# A job that another process cancels


async def cancel(bench):
    await bench.ledger.set_job_state("j", JobState.CANCELED)


async def test_a_worker_stops_soon_after_its_job_was_canceled(tmp_path):
    async with a_shared_job(tmp_path) as bench:
        shards = shards_of(bench)
        async with shards.kept():
            await shards.next()
            await cancel(bench)
            canceled_at = bench.clock.elapsed
            await bench.stop.wait()
        assert isinstance(bench.stop.error, JobCanceled)
        assert bench.clock.elapsed - canceled_at <= 2
        assert await states(bench) == [ShardState.OPEN] * SHARDS


async def test_nothing_is_sent_of_a_shard_that_was_taken_as_the_job_was_canceled(tmp_path):
    async with a_shared_job(tmp_path) as bench:
        shards = shards_of(bench)
        await cancel(bench)
        with pytest.raises(JobCanceled):
            await shards.next()


async def test_who_cancels_waits_until_nobody_else_has_anything_of_the_job(tmp_path):
    async with a_shared_job(tmp_path) as bench, another_worker(bench) as other:
        second = shards_of(other, "second")
        async with second.kept():
            await second.next()
            async with under_way(shards_of(bench, plans=True).alone()) as waiting:
                await until(lambda: bench.clock.elapsed > 2 * TERMS.seconds)
                assert not waiting.done()
                await other.ledger.give_back_shards("j", replace(TERMS, worker="second"), left=False)
                await waiting


async def test_whoever_ends_a_canceled_job_takes_its_shards_and_waits_for_no_more(tmp_path):
    async with a_shared_job(tmp_path, frozen=False) as bench:
        plan, *_ = bench.plans()
        await bench.ledger.freeze("j", plan.batches, [], last=False)
        await cancel(bench)
        bench.job = await bench.ledger.job("j")
        shards = shards_of(bench, plans=True)
        assert (await shards.next()).first == 0
        async with asyncio.timeout(30):
            while await shards.next() is not None:
                pass


# How leases are had


@pytest.mark.parametrize(("call_seconds", "slack"), [(2.0, 5.0), (20.0, 20.0), (300.0, 60.0)])
def test_a_lease_is_longer_than_the_longest_call(call_seconds, slack):
    terms = lease_terms(SendSettings(call_seconds=call_seconds, answer_seconds=1.0), "w")
    assert (terms.worker, terms.call_seconds, terms.seconds) == ("w", call_seconds, call_seconds + slack)


def test_no_two_workers_have_one_name():
    assert len({worker_name() for _ in range(100)}) == 100


async def test_the_longer_a_tally_takes_the_more_seldom_it_is_made(clock):
    class Slow:
        async def tally(self, _):
            await clock.sleep(0.5)
            return Tally()

        async def last_batch(self, _):
            return None

    heard = []
    async with under_way(tell_tally(Job("j", "sama", "", (), ""), Slow(), clock, lambda _: heard.append(clock.now()))):
        await until(lambda: len(heard) == 3)
    assert [later - before for before, later in pairwise(heard)] == pytest.approx([25.5, 25.5])
