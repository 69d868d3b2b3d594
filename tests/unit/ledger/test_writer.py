"""One thread, many operations in a commit: who waits, who is canceled, who is refused, and what the hooks see."""

import asyncio
import threading

import apsw
import pytest

from engine.ledger.database import SqliteWriter, open_writer
from engine.ledger.operations import Change
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks, Writer
from engine.model.errors import JobError, LedgerError
from engine.model.job import JobState
from engine.model.outcome import Settlement
from engine.model.submission import State, Submission

from .values import a_batch, a_job, frozen, ids, settle, submission

PATIENCE_SECONDS = 10
"""Longest wait for another thread; only a defect makes it pass."""


class Gate:
    """Hooks that note the groups, hold the writer back before a commit, and raise what a disk would raise there."""

    def __init__(self):
        self.groups = []
        self.error = None
        self._arrived = threading.Event()
        self._released = threading.Event()
        self._released.set()
        self.hooks = Hooks(self._before_commit, lambda changes: self.groups.append(list(changes)))

    def _before_commit(self, _changes):
        self._arrived.set()
        assert self._released.wait(PATIENCE_SECONDS)
        if self.error:
            raise self.error

    def close(self):
        self._arrived.clear()
        self._released.clear()

    def open(self):
        self._released.set()

    async def arrival(self):
        assert await asyncio.to_thread(self._arrived.wait, PATIENCE_SECONDS)

    async def gather(self, *operations):
        """Hold the writer at a first operation until the others are queued; return those as tasks."""
        self.close()
        first = asyncio.ensure_future(operations[0])
        await self.arrival()
        others = [asyncio.ensure_future(operation) for operation in operations[1:]]
        await asyncio.sleep(0)  # each of them runs up to its wait
        return [first, *others]


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
async def ledger(path, clock, gate):
    async with SqliteLedger.open(path, clock, hooks=gate.hooks) as ledger:
        yield ledger


def moves(ledger, sequences):
    return [ledger.move("j", Submission(number, State.STAGING), expected=State.FROZEN) for number in sequences]


async def test_operations_that_wait_are_committed_together(ledger, gate):
    await frozen(ledger, batches=64)
    tasks = await gate.gather(*moves(ledger, range(64)))
    gate.open()
    await asyncio.gather(*tasks)
    assert [len(group) for group in gate.groups[2:]] == [1, 63]


async def test_a_refused_operation_does_not_spoil_its_group(ledger, gate):
    await frozen(ledger, batches=4)
    unknown = ledger.set_job_state("x", JobState.FINISHED)
    half = ledger.freeze("j", [a_batch(4)], [], last=True)
    unspeakable = ledger.move("j", Submission(3, State.STAGING, note="\ud800"), expected=State.FROZEN)
    tasks = await gate.gather(*moves(ledger, [0, 1]), unknown, half, unspeakable, *moves(ledger, [2]))
    gate.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 2 + [JobError] + [LedgerError] * 2 + [type(None)]
    assert "a text is not valid Unicode" in str(results[4])
    assert gate.groups[-1] == [Change("move", "j", sequence, State.STAGING) for sequence in (1, 2)]
    assert (await ledger.tally("j")).states == {"staging": 3, "frozen": 1}


async def test_steps_and_settlements_that_wait_are_taken_each_as_if_it_were_alone(ledger, gate):
    await frozen(ledger, batches=5)
    right, wrong = Settlement(ids(2)), Settlement(ids(3))
    operations = [settle(ledger, "j", sequence, fate, State.FROZEN) for sequence, fate in ((1, right), (2, wrong))]
    again = ledger.move("j", Submission(1, State.RELEASING), expected=State.FROZEN)
    tasks = await gate.gather(*moves(ledger, [0]), *operations, again, *moves(ledger, [3, 4]))
    gate.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    moved = (
        "job 'j', batch 1: the step from frozen to releasing cannot be taken: it is in state settled. "
        "Is another process working on the job?"
    )
    assert [str(result) if result else "" for result in results] == [
        "",
        "",
        "job 'j', batch 2: the step from frozen to settled: 2 records went up, but 3 are to be settled",
        moved,
        "",
        "",
    ]
    assert [(change.operation, change.sequence) for change in gate.groups[-1]] == [
        ("settle", 1),
        ("move", 3),
        ("move", 4),
    ]
    assert (await ledger.tally("j")).states == {"staging": 3, "settled": 1, "frozen": 1}
    assert await ledger.settlements("j", range(5)) == {1: right}


async def test_a_canceled_caller_leaves_the_writer_and_the_others_alone(ledger, gate):
    await frozen(ledger, batches=3)
    tasks = await gate.gather(*moves(ledger, range(3)))
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.sleep(0)
    gate.open()
    await tasks[2]
    assert tasks[0].cancelled()
    assert tasks[1].cancelled()
    assert (await ledger.tally("j")).states == {"staging": 3}


async def test_closing_writes_what_is_queued(path, clock, gate):
    async with SqliteLedger.open(path, clock, hooks=gate.hooks) as ledger:
        await frozen(ledger, batches=5)
        tasks = await gate.gather(*moves(ledger, range(5)))
        closing = asyncio.ensure_future(ledger.close())
        await asyncio.sleep(0)
        with pytest.raises(LedgerError, match="is closed"):
            await ledger.set_job_state("j", JobState.FINISHED)
        gate.open()
        await asyncio.gather(closing, *tasks)
    async with SqliteLedger.open(path, clock) as ledger:
        assert (await ledger.tally("j")).states == {"staging": 5}


@pytest.mark.parametrize("error", [apsw.FullError("full"), apsw.IOError("broken"), ValueError("a defect in a hook")])
async def test_a_failed_commit_fails_its_group_and_all_later_ones(ledger, gate, error):
    await frozen(ledger, batches=3)
    tasks = await gate.gather(*moves(ledger, range(3)))
    gate.error = error
    gate.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    gate.error = None
    with pytest.raises(LedgerError, match=str(error)) as later:
        await ledger.set_job_state("j", JobState.FINISHED)
    assert {(type(result), str(result)) for result in results} == {(LedgerError, str(later.value))}
    assert (await ledger.tally("j")).states == {"frozen": 3}


async def test_a_disk_that_fails_under_a_step_that_nobody_waits_for_is_told_by_written(ledger, gate):
    await frozen(ledger)
    await ledger.move("j", Submission(0, State.STAGING), expected=State.FROZEN, wait=False)
    gate.error = apsw.FullError("full")
    for _ in range(2):
        with pytest.raises(LedgerError, match="the disk is full"):
            await ledger.written()
    assert (await ledger.tally("j")).states == {"frozen": 1}


async def test_steps_gather_for_a_turn_of_the_loop_and_while_a_group_is_written(ledger, gate):
    await frozen(ledger, batches=8)
    await ledger.move("j", Submission(7, State.STAGING), expected=State.FROZEN, wait=False)
    await asyncio.gather(*moves(ledger, range(3)))
    assert [change.sequence for change in gate.groups[-1]] == [7, 0, 1, 2]


async def test_a_ledger_that_another_program_holds_refuses_and_goes_on_later(path, clock):
    async with SqliteLedger.open(path, clock, busy_seconds=0) as ledger:
        await frozen(ledger)
        other = apsw.Connection(str(path))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="another program holds it for writing"):
            await ledger.set_job_state("j", JobState.FINISHED)
        assert (await ledger.job("j")).state is JobState.OPEN
        other.execute("ROLLBACK")
        await ledger.set_job_state("j", JobState.FINISHED)
        other.close()


async def test_the_hooks_see_every_change(ledger, gate):
    await ledger.create_job(a_job())
    await ledger.freeze("j", [a_batch(0), a_batch(1, 0, at=2)], [], last=False)
    await ledger.freeze("j", [], [], last=True)
    await ledger.move("j", Submission(0, State.RELEASING), expected=State.FROZEN)
    await settle(ledger, "j", 0, Settlement(ids(2)), State.RELEASING)
    await ledger.set_job_state("j", JobState.FINISHED)
    with pytest.raises(LedgerError):
        await ledger.move("j", Submission(0, State.STAGING), expected=State.FROZEN)
    assert gate.groups == [
        [Change("create_job", "j", state=JobState.OPEN)],
        [Change("freeze", "j", 0, State.FROZEN), Change("freeze", "j", 1, State.SETTLED)],
        [Change("freeze", "j")],
        [Change("move", "j", 0, State.RELEASING)],
        [Change("settle", "j", 0, State.SETTLED)],
        [Change("set_job_state", "j", state=JobState.FINISHED)],
    ]


async def test_a_commit_is_durable_when_its_hook_is_called(path, clock):
    seen = []

    def on_commit(_changes):
        other = apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)
        seen.append(other.execute("SELECT state FROM jobs").get)
        other.close()

    async with SqliteLedger.open(path, clock, hooks=Hooks(on_commit=on_commit)) as ledger:
        await ledger.create_job(a_job())
        await ledger.set_job_state("j", JobState.CANCELED)
    assert seen == ["open", "canceled"]


async def test_a_read_sees_what_was_awaited(ledger):
    await frozen(ledger)
    for step, before in [(State.STAGING, State.FROZEN)] + [(State.STAGING, State.STAGING)] * 20:
        await ledger.move("j", Submission(0, step, note=str(before)), expected=before)
        assert (await submission(ledger, "j", 0)).note == before


def test_a_loop_that_is_gone_is_no_concern_of_the_writer(path, gate):
    connection = open_writer(path)

    def operation(connection):
        connection.raw.execute("CREATE TABLE proof (a)")
        return [Change("test", "j")]

    async def forgetful():
        writer = Writer(str(path), SqliteWriter(path, connection), gate.hooks)
        (_canceled_by_run,) = await gate.gather(writer.write(operation))
        return writer

    writer = asyncio.run(forgetful())
    gate.open()
    writer.stop()
    writer.join()
    assert apsw.Connection(str(path)).table_exists("main", "proof")
