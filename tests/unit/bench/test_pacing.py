import pytest

from engine.batch.chunker import Plan
from engine.bench.ladder import Load
from engine.bench.pacing import Timing, paced
from engine.model.batch import Batch
from engine.model.record import Position, Reject


class Hands:
    """Time that passes by waiting, and by the work that is done between two batches."""

    def __init__(self, stop_at=float("inf")):
        self.now = 1000.0
        self.stop_at = stop_at

    def wait(self, seconds):
        self.now += seconds
        return self.now >= self.stop_at

    @property
    def timing(self):
        return Timing(lambda: self.now, self.wait)


def batch(sequence, records=10):
    start, end = (Position(at * 100, at * records) for at in (sequence, sequence + 1))
    return Batch(sequence, start, end, records, 100, b"", b"")


def plans(count):
    rejects = [Reject(at * 10 + 3, at * 100, 5, 1, "bad") for at in range(count)]
    yield Plan([batch(at) for at in range(count - 1)], rejects[:-1], Position(), last=False)
    yield Plan((), (), Position(), last=False)
    yield Plan([batch(count - 1)], rejects[-1:], Position(), last=True)


def played(load, seconds, hands, count=6, work=0.0):
    """Return when each batch was due and when it was yielded, from the start; and the plans."""
    due, yielded, found = [], [], []
    for plan in paced(plans(count), load, seconds, hands.timing, lambda _, at: due.append(at - 1000.0)):
        found.append(plan)
        if plan.batches:
            yielded.append(hands.now - 1000.0)
            hands.now += work
    return due, yielded, found


OPEN, CLOSED = Load(60, 10, rate=10.0), Load(60, 10, 1)


def test_on_a_schedule_a_batch_is_due_when_its_last_record_arrives():
    due, yielded, _ = played(OPEN, 99.0, Hands())
    assert due == yielded == pytest.approx([1, 2, 3, 4, 5, 6])


def test_a_pipeline_that_lags_does_not_move_the_schedule():
    due, yielded, _ = played(OPEN, 99.0, Hands(), work=2.5)
    assert due == pytest.approx([1, 2, 3, 4, 5, 6])
    assert yielded == pytest.approx([1, 3.5, 6, 8.5, 11, 13.5])


def test_a_closed_loop_is_due_when_it_is_asked_and_ends_after_its_seconds():
    due, yielded, found = played(CLOSED, 5.0, Hands(), work=2.0)
    assert due == yielded == pytest.approx([0, 2, 4])
    assert found[-1].last
    assert not found[-1].batches


def test_each_batch_is_a_plan_with_its_own_rejects_and_only_the_end_says_so():
    _, _, found = played(OPEN, 99.0, Hands())
    assert [[one.sequence for one in plan.batches] for plan in found] == [[0], [1], [2], [3], [4], [], [5]]
    assert [[reject.index for reject in plan.rejects] for plan in found if plan.batches] == [
        [at * 10 + 3] for at in range(6)
    ]
    assert [plan.last for plan in found] == [False] * 6 + [True]


def test_a_step_that_is_stopped_while_it_waits_ends_there():
    due, _, found = played(OPEN, 99.0, Hands(stop_at=1003.0))
    assert due == pytest.approx([1, 2])
    assert (found[-1].last, found[-1].batches) == (True, ())
