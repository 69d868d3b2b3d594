"""Tasks that end after their records were settled: refreshed, followed, named, taken back."""

import engine
from engine.commands.undo import undo
from engine.model.errors import Exit
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
