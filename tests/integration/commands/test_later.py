"""What becomes of created tasks after their job: Sama's here, those of Seven Bridges beside their service."""

import aiohttp
import pytest

import engine
from engine.clock import SystemClock
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import ConfigError, Exit, JobError
from engine.model.outcome import LaterFate
from engine.model.settings import RunLimits
from engine.progress.events import Noticed
from engine.sandbox.behaviour import WorkPace
from engine.sandbox.settings import SandboxSama

from .desk import lines, tasks

FREE = SandboxSama(task_lists_per_second=0)


async def rejected(desk, result, index):
    """Have people reject the work on a task."""
    task_id = lines(result.outcomes)[index]["task_id"]
    url = f"{desk.sandbox.url}/projects/42/tasks/{task_id}/reject.json"
    async with aiohttp.ClientSession() as session:
        answer = await session.put(url, params={"access_key": "sandbox-key"}, json={"reasons": ["blurred"]})
        assert answer.status == 200
    return task_id


async def refreshed(desk, job="j"):
    return await engine.refresh(job, desk.ledger, desk.emit, desk.new_stop())


async def test_tasks_that_people_rejected_are_named_and_are_no_failure_of_the_job(desk):
    desk = await desk(sama=FREE)
    submitted = await desk.submit(desk.source([task | {"submit": True} for task in tasks(8)]))
    task_id = await rejected(desk, submitted, 7)
    status = await desk.status(tasks=True, failed=True)
    assert (status.working, status.failed) == ({"completed": 7, "rejected": 1}, 1)
    (task,) = status.failed_tasks
    assert (task.index, task.task_id, task.fate) == (7, task_id, "rejected")
    assert "goes through their hands once more" in task.reason
    result = await refreshed(desk)
    assert (result.exit_code, result.later) == (Exit.ALL_CREATED, {"completed": 7, "rejected": 1})
    told = [(line["state"], line["later"]) for line in lines(result.outcomes)]
    assert told == [*[("created", "completed")] * 7, ("created", "rejected")]
    assert (await desk.audit()).holds


async def test_work_that_was_completed_may_be_rejected_and_is_asked_about_again(desk):
    desk = await desk(sama=FREE)
    submitted = await desk.submit(desk.source([task | {"submit": True} for task in tasks(2)]))
    assert (await refreshed(desk)).later == {"completed": 2}
    await rejected(desk, submitted, 0)
    assert (await refreshed(desk)).later == {"completed": 1, "rejected": 1}
    second, third = (await desk.status()).runs[1:]
    assert (second.counts.later, third.counts.later) == ({"completed": 2}, {"completed": -1, "rejected": 1})


async def test_the_work_of_people_is_followed_to_the_end_of_each_task(desk):
    desk = await desk(sama=FREE, work=WorkPace(tasks_per_second=100, step_seconds=0.05))
    await desk.submit(desk.source(tasks(5)))
    result = await desk.resume(until="finished")
    assert (result.exit_code, result.later) == (Exit.ALL_CREATED, {"completed": 5})
    assert [run.command for run in (await desk.status()).runs] == ["submit", "resume"]


async def test_a_deadline_ends_the_wait_for_people_and_names_the_command_that_goes_on(desk):
    desk = await desk(sama=FREE)
    await desk.submit(desk.source(tasks(3)))
    result = await desk.resume(until="finished", limits=RunLimits(deadline="1s"))
    (said,) = [event.text for event in desk.events if isinstance(event, Noticed) and "people" in event.text]
    assert "it can take weeks until all have" in said
    assert f"`bulksubmit refresh j --ledger {desk.ledger}` asks once" in said
    assert (result.state, result.exit_code) == ("finished", Exit.STOPPED_EARLY)
    assert f"`bulksubmit resume j --until finished --ledger {desk.ledger}` goes on" in result.message
    assert (await desk.status()).runs[-1].reason == result.message


async def test_what_is_so_no_longer_is_forgotten(desk):
    desk = await desk(sama=FREE)
    await desk.submit(desk.source(tasks(3)))
    async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:
        await ledger.note_later("j", {1: LaterFate("rejected", "no", 1.0)})
    result = await refreshed(desk)
    assert result.later == {}
    assert all("later" not in line for line in lines(result.outcomes))


async def test_tasks_of_a_job_that_exists_are_followed_until_they_are_finished_and_not_until_anything_else(desk):
    desk = await desk(sama=FREE)
    await desk.submit(desk.source(tasks(1)))
    with pytest.raises(JobError, match="can only be followed until they are finished"):
        await desk.resume(until="created")
    with pytest.raises(ConfigError, match="`bulksubmit resume JOB --until finished` follows people's work"):
        await desk.submit(desk.source(tasks(1)), until="finished", job="k")
