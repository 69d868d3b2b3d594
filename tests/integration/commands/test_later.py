"""What becomes of created tasks after their job: Sama's here, those of Seven Bridges beside their service."""

import aiohttp
import pytest

import engine
from engine.clock import SystemClock
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import ConfigError, Exit, JobError
from engine.model.outcome import LaterFate
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
    assert (result.exit_code, result.later) == (Exit.ALL_CREATED, {"rejected": 1})
    line = lines(result.outcomes)[7]
    assert (line["state"], line["later"]) == ("created", "rejected")
    assert (await desk.audit()).holds


async def test_what_is_so_no_longer_is_forgotten(desk):
    desk = await desk(sama=FREE)
    await desk.submit(desk.source(tasks(3)))
    async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:
        await ledger.note_later("j", {1: LaterFate("rejected", "no", 1.0)})
    result = await refreshed(desk)
    assert result.later == {}
    assert all("later" not in line for line in lines(result.outcomes))


async def test_where_nothing_ends_there_is_nothing_to_follow_to_its_end(desk):
    desk = await desk(sama=FREE)
    await desk.submit(desk.source(tasks(1)))
    with pytest.raises(ConfigError, match="a Sama task is done when it is created"):
        await desk.resume(until="finished")
    with pytest.raises(JobError, match="can only be followed until they are finished"):
        await desk.resume(until="created")
