import anyio
import pytest
from fakes.bench import a_bench
from fakes.clock import until

from engine.commands.undo import TakingBack, find_undoable, undo
from engine.model.errors import AlreadyTaken, Exit, JobError, Refused
from engine.model.outcome import Settlement
from engine.model.submission import State, Submission
from engine.run.context import Stop
from engine.sandbox.behaviour import Fault, Reads
from engine.sandbox.settings import SamaUnwritten, SandboxSama
from engine.services.created import TaskState

from .desk import counts, lines, stopped, tasks

FREE = SandboxSama(task_lists_per_second=0)


def free(**unwritten):
    return SandboxSama(task_lists_per_second=0, unwritten=SamaUnwritten(**unwritten))


def begun(count, start=0):
    """Return tasks with which somebody has begun: they are submitted at once."""
    return [task | {"submit": True} for task in tasks(count, start=start)]


async def undone(desk, job="j"):
    return await undo(job, desk.ledger, desk.emit, desk.new_stop())


async def left_there(desk, job="j"):
    return (await desk.status(job, tasks=True)).working


async def test_a_wrong_load_is_taken_back_and_each_record_says_so(desk):
    desk = await desk(sama=FREE)
    await desk.submit(desk.source(tasks(10)))
    found = await find_undoable("j", desk.ledger)
    assert (found.tasks, found.kind, found.host) == (10, "sama", "127.0.0.1")
    result = await undone(desk)
    assert (result.exit_code, result.later, counts(result)) == (Exit.ALL_CREATED, {"undone": 10}, (10, 0, 0, 0, 0))
    assert result.message == "10 tasks taken back"
    assert [line["later"] for line in lines(result.outcomes)] == ["undone"] * 10
    assert await left_there(desk) == {}
    assert (await desk.audit()).holds
    with pytest.raises(JobError, match="has no task that could be taken back"):
        await undone(desk)


@pytest.mark.parametrize("deletes", ["new", "some", "any"])
async def test_what_somebody_has_begun_stays_whatever_the_service_would_delete(desk, deletes):
    desk = await desk(sama=free(deletes=deletes))
    await desk.submit(desk.source([*tasks(4), *begun(2, start=4), *tasks(4, start=6)]))
    result = await undone(desk)
    assert (result.exit_code, result.later) == (Exit.SOME_FAILED, {"undone": 8})
    assert result.message == "8 tasks taken back; 2 left as they are: 2 completed"
    assert await left_there(desk) == {"completed": 2}
    told = [line["index"] for line in lines(result.outcomes) if line.get("later") == "undone"]
    assert told == [*range(4), *range(6, 10)]


async def test_what_was_taken_back_is_new_to_its_family_again(desk):
    desk = await desk(sama=FREE)
    source = desk.source(tasks(10))
    await desk.submit(source, family="f", delta=True)
    await undone(desk)
    assert (await desk.submit(source, job="again", family="f", delta=True)).tally.created == 10


async def test_what_was_taken_back_is_no_reason_to_refuse_the_same_file(desk):
    desk = await desk(sama=FREE)
    source = desk.source(tasks(10))
    await desk.submit(source)
    with pytest.raises(AlreadyTaken):
        await desk.submit(source, job="again")
    await undone(desk)
    assert (await desk.submit(source, job="again")).tally.created == 10


async def test_only_tasks_of_the_job_are_taken_back(desk):
    desk = await desk(sama=FREE)
    await desk.submit(desk.source(tasks(10)), job="other")
    await desk.submit(desk.source(tasks(10, start=10)))
    await undone(desk)
    assert await left_there(desk, "other") == {"new": 10}


@pytest.mark.parametrize("kind", ["drop_before", "drop_after"])
async def test_a_delete_whose_answer_is_lost_is_looked_up(desk, kind):
    desk = await desk(sama=FREE, faults=(Fault("delete", kind, nth=(1, 2)),))
    await desk.submit(desk.source(tasks(10)))
    result = await undone(desk)
    assert (result.exit_code, result.later) == (Exit.ALL_CREATED, {"undone": 10})
    assert await left_there(desk) == {}


async def test_an_undo_that_died_goes_on_and_counts_what_is_gone(desk):
    desk = await desk(sama=FREE)
    await desk.submit(desk.source(tasks(20)))
    calls = desk.sandbox.stats.requests["tasks"]
    stop = desk.new_stop()

    def emit(event):
        del event

    async with anyio.create_task_group() as group:
        group.start_soon(undo, "j", desk.ledger, emit, stop)
        await until(lambda: desk.calls("delete"))  # the process ends just after the service has heard of it
        group.cancel_scope.cancel()
    assert desk.calls("tasks") == calls + 1
    result = await undone(desk)
    assert (result.exit_code, result.later) == (Exit.ALL_CREATED, {"undone": 20})


async def test_a_list_that_lags_behind_takes_nothing_for_gone_before_the_settle_time(desk):
    desk = await desk(sama=FREE, reads=Reads(list_seconds=0.2))
    await desk.submit(desk.source(tasks(10)))
    result = await undone(desk)
    assert (result.exit_code, result.later) == (Exit.ALL_CREATED, {"undone": 10})


async def test_of_a_job_that_is_not_finished_nothing_is_taken_back(desk):
    desk = await desk(sama=FREE)
    await stopped(desk)
    with pytest.raises(JobError, match=r"`bulksubmit cancel j --ledger .*` first, then undo it"):
        await undone(desk)


class Made:
    """A service with created tasks and what an undo needs; somebody may begin one while it is deleted."""

    kind, settle_seconds, polls_together, undone_together, by_people = "made", 0.0, 1, 100, True

    def __init__(self, ids, *, begun_late=(), stubborn=()):
        self.refreshing = self.undoing = self
        self.words = dict.fromkeys(ids, "new")
        self.begun_late, self.stubborn = set(begun_late), set(stubborn)
        self.calls = []

    async def task_states(self, batches):
        (asked,) = batches
        words = {one: self.words[one] for one in asked.task_ids if one in self.words}
        return {one: TaskState(word, untouched=word == "new") for one, word in words.items()}

    async def undo(self, task_ids):
        self.calls.append(len(task_ids))
        for one in self.begun_late.intersection(task_ids):
            self.words[one] = "in progress"
        if {one for one in task_ids if self.words[one] != "new"} | self.stubborn.intersection(task_ids):
            raise Refused("not all of them are new")
        for one in task_ids:
            del self.words[one]


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=10) as bench:
        (batch,) = await bench.freeze()
        await bench.bring(batch, State.RELEASED)
        settled = Submission(0, State.SETTLED, "r1")
        ids = [f"t{number}" for number in range(10)]
        await bench.ledger.settle("j", settled, Settlement(ids), expected=State.RELEASED)
        yield bench


async def taken_back(bench, service):
    taking = TakingBack(bench.job, bench.ledger, service, service, Stop())
    await taking.work()
    return taking.left, await bench.ledger.later_fates("j", 0, 10)


async def test_one_that_is_begun_between_the_look_and_the_call_stays_and_the_others_go(bench):
    service = Made([f"t{number}" for number in range(10)], begun_late={"t3"})
    left, fates = await taken_back(bench, service)
    assert left == {"in progress": 1}
    assert sorted(fates) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert service.words == {"t3": "in progress"}


async def test_one_that_the_service_will_not_take_back_is_found_and_told_with_its_words(bench):
    service = Made([f"t{number}" for number in range(10)], stubborn={"t7"})
    left, fates = await taken_back(bench, service)
    assert left == {"not all of them are new": 1}
    assert 7 not in fates
    assert len(fates) == 9


async def test_one_that_is_not_there_any_more_counts_as_gone_and_nobody_is_told_to_go_unseen(bench):
    service = Made([f"t{number}" for number in range(8)])
    left, fates = await taken_back(bench, service)
    assert not left
    assert [fates[index].reason for index in (7, 8, 9)] == ["taken back", *["it was not there any more"] * 2]
    assert service.calls == [8]
