import pytest

from engine.adaptive.poll_batch import PolledBatch
from engine.adaptive.poll_pace import Pace
from engine.adaptive.poll_times import PollRules, PollTimes


def timetable(*, together=1, **pace):
    return PollTimes(PollRules(0.5, 30.0, together), Pace(together, **pace), {})


def watch(times, key, **known):
    one = times.open[key] = PolledBatch(
        **{"number": key, "key": key, "count": 100, "released_at": 0.0, "looked_at": 0.0, **known}
    )
    times.plan(one)
    return one


def test_a_batch_is_looked_at_a_little_after_it_should_be_done():
    one = watch(timetable(speed=50.0, start_seconds=3.0), 1)
    assert (one.begun_at, one.ends_at, one.due_at) == (3.0, 5.0, pytest.approx(5.1))


def test_one_that_takes_over_a_lane_begins_when_the_one_before_ends():
    times = timetable(speed=50.0)
    before = watch(times, 1)
    after = watch(times, 2, after=before)
    before.next = after
    assert after.ends_at == 4.0
    before.ends_at = 3.0
    times.plan_after(before)
    assert after.ends_at == 5.0


def test_of_one_under_way_what_is_left_counts_at_its_own_speed():
    one = watch(timetable(speed=50.0), 1, created=80, speed=10.0, looked_at=8.0, looks=1)
    assert one.ends_at == 10.0
    assert one.due_at == pytest.approx(10.2, abs=0.02)


def test_what_does_not_move_is_looked_at_ever_less_often():
    times = timetable(speed=50.0)
    waits = []
    for unchanged in (1, 2, 3, 9):
        one = watch(times, unchanged, created=50, speed=50.0, looked_at=1.0, looks=2, unchanged=unchanged)
        waits.append(one.due_at - 1.0)
    assert waits == pytest.approx([0.2, 0.4, 0.8, 30.0])


def test_a_poll_takes_those_due_and_fills_up_with_the_next():
    times = timetable(together=2, speed=50.0)
    for key, count in enumerate((100, 50, 200)):
        watch(times, key, count=count)
    assert times.take(0.5) == []
    assert times.take(times.first().due_at) == [1, 0]
    assert times.first().key == 2


def test_all_is_planned_anew_when_the_pace_is_another_but_not_for_every_bit():
    times = timetable(speed=50.0)
    one = watch(times, 1)
    times.count_look(1.0, fruitful=True)
    times.plan_anew()
    times.count_look(1.1, fruitful=True)
    times.pace.speed = 50.5
    times.plan_anew()
    assert one.ends_at == 2.0
    times.pace.speed = 100.0
    times.plan_anew()
    assert one.ends_at == 1.0
