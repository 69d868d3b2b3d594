import pytest

from engine.sandbox.sama.creation import BatchState, CreationRun, SandboxBatch, TaskAddress
from engine.sandbox.sama.rules import FailedTask


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
    run = _run(total=30, done=2, failures={1: (FailedTask(400, "no"),)})
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
