"""Tasks that end after their records were settled: refreshed, followed, named, taken back."""

import pytest

import engine
from engine.clock import SystemClock
from engine.commands.undo import undo
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import Exit, JobError
from engine.sandbox.behaviour import FailureRule
from engine.sandbox.settings import Life

from .bench import specs

OUT_OF_MEMORY = FailureRule(path="inputs.n", equals=1, message="out of memory")
SHORT = Life(running_seconds=0.3)


async def ended(bench, **options):
    return await engine.resume("j", bench.ledger, *bench.watching(), **options)


async def test_a_job_that_was_submitted_until_created_is_followed_to_the_end_of_its_tasks(bench):
    bench = await bench(failures=(OUT_OF_MEMORY,), life=SHORT)
    submitted = await bench.submit(specs(3))
    assert (submitted.exit_code, submitted.later) == (Exit.ALL_CREATED, {})
    result = await ended(bench, until="finished")
    assert (result.exit_code, result.later) == (Exit.TASKS_FAILED, {"completed": 2, "failed": 1})
    assert set(bench.times().values()) == {1}
    assert set(bench.times("run").values()) == {1}
    told = [(line["state"], line["later"], line.get("later_reason")) for line in bench.outcomes()]
    assert told == [
        ("created", "completed", None),
        ("created", "failed", "out of memory"),
        ("created", "completed", None),
    ]
    assert (await bench.audit()).holds


async def test_what_has_ended_is_not_asked_about_again(bench):
    bench = await bench(failures=(OUT_OF_MEMORY,))
    await bench.submit(specs(3))
    first = await engine.refresh("j", bench.ledger, *bench.watching())
    assert (first.exit_code, first.later) == (Exit.TASKS_FAILED, {"completed": 2, "failed": 1})
    calls = bench.calls("bulk")
    assert (await engine.refresh("j", bench.ledger, *bench.watching())).later == first.later
    assert bench.calls("bulk") == calls
    assert (await engine.report("j", bench.ledger)).exit_code == Exit.TASKS_FAILED


async def test_a_task_that_failed_before_its_record_was_settled_counts_as_well(bench):
    bench = await bench(failures=(OUT_OF_MEMORY,))
    result = await bench.submit(specs(3), until="finished")
    assert (result.exit_code, result.later) == (Exit.TASKS_FAILED, {"failed": 1})
    line = bench.outcomes()[1]
    assert (line["state"], line["status"], line["later"]) == ("created", "FAILED", "failed")
    assert (await bench.audit()).holds


async def test_failed_tasks_are_named_with_their_reasons(bench):
    bench = await bench(failures=(OUT_OF_MEMORY,))
    await bench.submit(specs(3))
    (status,) = await engine.status("j", bench.ledger, tasks=True, failed=True)
    assert (status.working, status.failed) == ({"completed": 2, "failed": 1}, 1)
    assert [(task.index, task.fate, task.reason) for task in status.failed_tasks] == [(1, "failed", "out of memory")]


async def test_drafts_are_taken_back_and_a_task_that_was_run_is_not(bench):
    bench = await bench(run=False)
    await bench.submit(specs(4))
    await bench.run_task(bench.outcomes()[2]["task_id"])
    result = await undo("j", bench.ledger, *bench.watching())
    assert (result.exit_code, result.later) == (Exit.SOME_FAILED, {"undone": 3})
    assert result.message == "3 tasks taken back; 1 left as they are: 1 completed"
    assert bench.calls("delete") == 3
    assert (await bench.audit()).holds


async def test_a_cancel_that_aborts_tasks_has_done_what_it_was_asked_for(bench):
    bench = await bench(life=Life(running_seconds=100))
    bench.stop_after = ("released", 2)
    await bench.submit(specs(2), until="finished")
    result = await bench.cancel()
    assert (result.state, result.exit_code, result.later) == ("canceled", Exit.ALL_CREATED, {"failed": 2})


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
