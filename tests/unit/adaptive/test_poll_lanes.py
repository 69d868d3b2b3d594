from engine.adaptive.poll_batch import PolledBatch
from engine.adaptive.poll_lanes import Lanes


def dealt(lanes, *, created=()):
    """Return lanes with three open batches, each of which should end one second after the one before."""
    open_ = {}
    for key in range(3):
        open_[key] = PolledBatch(key + 1, key, 100, 0.0, 0.0, created=50 if key in created else 0, ends_at=key + 1.0)
    found = Lanes(open_)
    found.set_number(lanes)
    return found, list(open_.values())


def test_the_first_are_worked_on_and_the_others_wait():
    _, batches = dealt(2)
    assert [one.waits for one in batches] == [False, False, True]


def test_what_is_under_way_has_a_lane_wherever_it_stands():
    _, batches = dealt(1, created=[2])
    assert [one.waits for one in batches] == [False, True, False]


def test_more_lanes_free_those_that_waited():
    lanes, batches = dealt(1)
    assert lanes.set_number(float("inf")) == batches[1:]
    assert not any(one.waits for one in batches)


def test_a_batch_takes_over_the_lane_that_is_free_first_and_not_before_it_matters():
    lanes, (first, second, third) = dealt(2)
    look = PolledBatch(9, 9, 1, 0.0, 0.0, due_at=0.5)
    assert lanes.admit(look) is None
    assert lanes.admit(None) is None  # all are being asked about: the answers come first
    look.due_at = 1.5
    assert lanes.admit(look) is third
    assert (third.after, first.next, second.next) == (first, third, None)
    assert lanes.admit(look) is None


def test_a_lane_whose_batch_is_done_is_free():
    lanes, (first, _, third) = dealt(2)
    first.done = True
    assert lanes.admit(None) is third


def test_what_hangs_keeps_nobody_waiting():
    lanes, (first, _, third) = dealt(2)
    lanes.leave(first)
    assert lanes.admit(None) is third
    assert third.after is None


def test_those_ahead_are_open_or_ended_lately():
    lanes, (first, second, third) = dealt(float("inf"))
    assert lanes.ahead(third, 0.5) == 2
    assert lanes.ahead(third, 1.5) == 1
    lanes.ended(first)
    del lanes.open[first.key]
    assert lanes.ahead(third, 0.5) == 2
    assert lanes.ahead(second, 5.0) == 0


def test_a_batch_that_began_when_another_ended_took_over_its_lane():
    lanes, (_, _, third) = dealt(float("inf"))
    assert lanes.took_over(third, 2.05, 1.0)
    assert not lanes.took_over(third, 2.5, 1.0)
