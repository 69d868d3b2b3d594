import contextlib
from collections import Counter

import pytest

from engine.sandbox.behaviour import Behaviour, CreationPace, FailureRule, JournalSettings
from engine.sandbox.journal import Journal, count_markers, read_journal
from engine.sandbox.sama.creation import BLOCK_TASKS, BatchState, CreationRun, Creator, SandboxBatch, TaskAddress
from engine.sandbox.sama.rules import NotCreated
from engine.sandbox.traffic import Stats

from ..api import tasks  # noqa: TID252 - tests of one package


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.ndjson"


@pytest.fixture
def creator(path, clock):
    with contextlib.closing(Journal(JournalSettings(path))) as journal:
        yield lambda **behaviour: Creator(Behaviour(**behaviour), journal, Stats(), clock.now)


def _start(creator, count):
    batch = creator.open(42)
    creator.start(batch, tasks(count), creator.clock())
    return batch


def test_tasks_are_journaled_when_they_count_as_created(creator, path, clock):
    made = creator(creation=CreationPace(tasks_per_second=10, delay_seconds=5))
    batch, began = _start(made, 20), clock.now()
    clock.move_to(began + 6)
    made.advance_all()
    assert batch.runs[0].created == 10
    assert [entry.at - began for entry in read_journal(path)] == pytest.approx([5 + n / 10 for n in range(1, 11)])
    clock.move_to(began + 100)
    made.advance_all()
    assert count_markers(path) == Counter(str(n) for n in range(20))
    assert batch.state(clock.now()) is BatchState.COMPLETED


def test_creation_goes_in_blocks_oldest_batch_first(creator):
    made = creator()
    first, second = _start(made, BLOCK_TASKS - 1), _start(made, BLOCK_TASKS)
    assert made.advance_all()
    assert (first.runs[0].done, second.runs[0].done) == (BLOCK_TASKS - 1, 1)
    assert not made.advance_all()
    assert second.state(0) is BatchState.COMPLETED


def test_a_status_moves_its_own_batch_on(creator, path):
    made = creator()
    _start(made, BLOCK_TASKS)
    asked = _start(made, 3)
    made.advance(asked)
    assert [entry.batch_id for entry in read_journal(path)] == [asked.batch_id] * 3
    made.advance_all()
    made.advance_all()
    assert sum(1 for _ in read_journal(path)) == BLOCK_TASKS + 3


def test_failed_tasks_are_not_journaled(creator, path):
    made = creator(failures=(FailureRule("data.id", equals="1"),))
    batch = _start(made, 3)
    made.advance(batch)
    assert sorted(count_markers(path)) == ["0", "2"]
    assert batch.runs[0].created == 2


def test_only_so_many_batches_are_created_side_by_side(creator, clock):
    made = creator(creation=CreationPace(tasks_per_second=10, parallel_batches=2))
    batches, began = [_start(made, 10) for _ in range(5)], clock.now()
    assert [batch.runs[0].starts_at - began for batch in batches] == pytest.approx([0, 0, 1, 1, 2])


def test_a_stalled_batch_stops_halfway_and_holds_up_no_other(creator, path, clock):
    pace = CreationPace(tasks_per_second=10, parallel_batches=1, stalled=(1,), stall_seconds=50)
    made = creator(creation=pace)
    (stalled, other), began = [_start(made, 10) for _ in range(2)], clock.now()
    clock.move_to(began + 2.1)
    made.advance_all()
    assert (stalled.runs[0].created, other.runs[0].created) == (5, 10)
    assert stalled.state(clock.now()) is BatchState.PROCESSING
    clock.move_to(began + 52)
    made.advance_all()
    times = [entry.at - began for entry in read_journal(path) if entry.batch_id == stalled.batch_id]
    assert times == pytest.approx([*[n / 10 for n in range(1, 6)], *[50 + n / 10 for n in range(6, 11)]])


def test_a_cancel_keeps_what_was_created(creator, path, clock):
    made = creator(creation=CreationPace(tasks_per_second=10))
    batch = _start(made, 20)
    clock.elapsed += 0.5
    made.close(batch, BatchState.CANCELED, "stop", clock.now())
    clock.elapsed += 100
    made.advance_all()
    assert batch.state(clock.now()) is BatchState.CANCELED
    assert sum(1 for _ in read_journal(path)) == 5


@pytest.mark.parametrize("keep", [True, False])
def test_task_data_is_kept_or_forgotten_but_never_that_of_failed_tasks(creator, keep):
    made = creator(keep_task_data=keep, failures=(FailureRule("data.id", equals="1"),))
    batch = _start(made, 3)
    made.advance(batch)
    assert bool(batch.runs[0].tasks) is keep
    assert batch.runs[0].failed_data == {1: {"id": "1"}}


def test_a_later_server_has_other_batch_ids(creator, clock):
    earlier = creator().open(42)
    clock.elapsed += 1
    assert creator().open(42).batch_id > earlier.batch_id


def _run(total=4, starts_at=100.0, speed=2.0, **fields):
    return CreationRun(7, 0, [{}] * total, total, starts_at, speed, **fields)


@pytest.mark.parametrize(("now", "due"), [(99, 0), (100, 0), (100.4, 0), (100.5, 1), (101, 2), (102, 4), (900, 4)])
def test_a_run_knows_what_is_due(now, due):
    assert _run().due(now) == due


def test_without_a_speed_all_is_due_at_the_start():
    run = _run(speed=0)
    assert (run.due(99.9), run.due(100)) == (0, 4)
    assert run.ends_at == 100


def test_each_task_has_its_time():
    run = _run()
    assert [run.created_at(position) for position in range(4)] == [100.5, 101, 101.5, 102]
    assert run.ends_at == 102


def test_nothing_becomes_due_after_a_cancel():
    run = _run(done=1, canceled=True)
    assert run.due(900) == 1
    assert [run.task_state(position) for position in range(3)] == ["created", "canceled", "canceled"]


def test_the_states_of_tasks_under_way():
    run = _run(total=30, done=2, failures={1: (NotCreated(400, "no"),)})
    states = [run.task_state(position) for position in range(30)]
    assert states == ["created", "failed", "ready", *["preprocessing"] * 9, *["queued"] * 18]
    assert run.created == 1


def test_before_its_start_all_tasks_are_queued():
    run = _run()
    assert {run.task_state(position) for position in range(4)} == {"queued"}


@pytest.mark.parametrize(
    ("runs", "closed", "state"),
    [
        ([], None, BatchState.WAITING),
        ([], BatchState.FAILED, BatchState.FAILED),
        ([_run(starts_at=200)], None, BatchState.QUEUED),
        ([_run()], None, BatchState.PROCESSING),
        ([_run(done=4)], None, BatchState.COMPLETED),
        ([_run(total=0)], None, BatchState.COMPLETED),
        ([_run(done=1, canceled=True)], None, BatchState.CANCELED),
        ([_run(done=4), _run()], None, BatchState.PROCESSING),
    ],
)
def test_the_state_of_a_batch(runs, closed, state):
    assert SandboxBatch(42, 1, 0.0, runs=runs, closed=closed).state(150) is state


def test_an_id_leads_back_to_the_task():
    address = TaskAddress(batch_id=367542001, run=1, position=999)
    task_id = address.task_id(started=1_750_000_000)
    assert len(task_id) == 24
    assert TaskAddress.parse(task_id, started=1_750_000_000) == address


@pytest.mark.parametrize("text", ["", "x" * 24, "684ee180" + "0" * 15, "684EE180" + "0" * 16, "0" * 24, "0" * 25])
def test_other_texts_are_no_ids(text):
    assert TaskAddress.parse(text, started=1_750_000_000) is None
