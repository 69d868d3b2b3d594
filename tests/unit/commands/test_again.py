"""Tasks that have failed for good are submitted again, as jobs of their own: at Seven Bridges, where there are such."""

import pytest

import engine
from engine.clock import SystemClock
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import Exit, JobError
from engine.sandbox.behaviour import FailureRule
from engine.sandbox.settings import Life
from unit.services.sevenbridges import conftest
from unit.services.sevenbridges.bench import specs

OUT_OF_MEMORY = FailureRule(path="inputs.n", equals=1, message="out of memory")
bench = conftest.bench


async def ended(bench, **options):
    return await engine.resume("j", bench.ledger, *bench.watching(), **options)


async def again(bench, job="j"):
    return await engine.retry_tasks(job, bench.ledger, *bench.watching())


async def test_failed_tasks_are_submitted_again_as_a_job_of_their_own_and_each_only_once(bench):
    bench = await bench(failures=(OUT_OF_MEMORY,), life=Life(running_seconds=0.2))
    await bench.submit(specs(3))
    await ended(bench, until="finished")
    found = await engine.find_failed_tasks("j", bench.ledger)
    assert (found.tasks, found.job, found.priced, found.price.keys()) == (1, "j.again", 1, {"USD"})
    result = await again(bench)
    assert (result.job, result.tally.created) == ("j.again", 1)
    assert bench.times() == {"t0": 1, "t1": 2, "t2": 1}
    async with SqliteLedger.open(bench.ledger, SystemClock()) as ledger:
        assert (await ledger.job("j.again")).parent == "j"
        assert await ledger.origins("j.again", 0, 10) == {0: 1}
    with pytest.raises(JobError, match="has failed for good that was not submitted again"):
        await again(bench)
    with pytest.raises(JobError, match="has failed for good that was not submitted again"):
        await engine.find_failed_tasks("j", bench.ledger)
    assert bench.times() == {"t0": 1, "t1": 2, "t2": 1}


async def test_what_was_submitted_again_and_is_not_finished_goes_on_first(bench):
    bench = await bench(failures=(FailureRule(share=1.0),))
    await bench.submit(specs(4))
    bench.crash_after = ("staged", 1)
    with pytest.raises(ExceptionGroup):
        await again(bench)
    result = await again(bench)
    assert (result.job, result.state, result.tally.created) == ("j.again", "finished", 4)
    assert bench.times("run") == {f"t{number}": 2 for number in range(4)}


async def test_tasks_that_failed_again_are_those_of_the_new_job(bench):
    bench = await bench(failures=(OUT_OF_MEMORY,))
    await bench.submit(specs(2))
    await again(bench)
    assert (await engine.refresh("j.again", bench.ledger, *bench.watching())).exit_code == Exit.TASKS_FAILED
    assert (await again(bench, "j.again")).job == "j.again.again"
    assert bench.times("run") == {"t0": 1, "t1": 3}


async def test_a_job_that_is_not_finished_is_ended_first(bench):
    bench = await bench()
    bench.stop_after = ("staged", 1)
    await bench.submit(specs(2))
    with pytest.raises(JobError, match=f"is not finished; `bulksubmit resume j --ledger {bench.ledger}` first"):
        await again(bench)


async def test_a_run_that_submits_tasks_again_is_remembered_by_its_command(bench):
    bench = await bench(failures=(OUT_OF_MEMORY,))
    await bench.submit(specs(2))
    await again(bench)
    async with SqliteLedger.open(bench.ledger, SystemClock()) as ledger:
        assert [run.command for run in await ledger.runs("j.again")] == ["retry"]
