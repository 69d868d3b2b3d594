from itertools import pairwise

import pytest

from engine.adaptive.poll_batch import PolledBatch
from engine.adaptive.poll_pace import CreationSpeed, Pace, Sighting


def watched(**known):
    return PolledBatch(**{"number": 1, "key": 0, "count": 100, "released_at": 0.0, "looked_at": 0.0, **known})


def sure_pace(speed=100.0):
    return Pace(1, speed=speed, sure=True)


def test_the_speed_over_all_batches_follows_what_is_seen():
    speed = CreationSpeed()
    speed.observe(100, 0.0)
    assert speed.tasks_per_second == 0
    speed.observe(100, 1.0)
    assert speed.tasks_per_second == 100
    for _ in range(10):
        speed.observe(200, 1.0)
    assert 195 < speed.tasks_per_second < 200


def test_a_first_batch_found_done_ended_between_two_looks():
    pace = Pace(1)
    pace.take_first(watched(looked_at=1.0), 4.0)
    assert pace.speed == pytest.approx(100 / 2)
    assert pace.sure


def test_one_found_done_at_the_first_look_only_shows_a_least_speed():
    pace = Pace(1)
    pace.take_first(watched(), 4.0)
    assert (pace.speed, pace.sure) == (25.0, False)
    pace.hit(watched(aim=pace.aim, planned_speed=25.0), lanes_known=False)
    assert pace.speed == 50.0


def test_the_aim_creeps_earlier_with_each_hit_until_one_misses():
    pace = sure_pace()
    aims = [pace.aim]
    for _ in range(3):
        pace.hit(watched(aim=pace.aim, planned_speed=100.0), lanes_known=False)
        aims.append(pace.aim)
    steps = [before - after for before, after in pairwise(aims)]
    assert steps == sorted(steps)
    assert steps[0] > 0
    pace.missed(watched(aim=pace.aim))
    assert pace.aim > aims[-1]


def test_a_look_that_was_planned_at_another_aim_does_not_move_it():
    pace = sure_pace()
    before = pace.aim
    pace.hit(watched(aim=before + 0.1, planned_speed=100.0), lanes_known=False)
    pace.missed(watched(aim=before - 0.1))
    assert pace.aim == before


def test_too_many_hits_in_a_row_cast_doubt_on_the_lanes_if_their_number_is_known():
    pace = sure_pace()
    doubts = [pace.hit(watched(aim=pace.aim, planned_speed=pace.speed), lanes_known=True) for _ in range(6)]
    assert doubts == [False] * 5 + [True]


def test_a_surprise_counts_only_when_two_looks_saw_it():
    pace = sure_pace()
    assert pace.surprises(200.0)
    assert not pace.surprises(120.0)
    pace.take(Sighting(200.0, rough=False, pair=False, surprise=True))
    assert pace.speed == 100.0
    pace.take(Sighting(200.0, rough=False, pair=True, surprise=True))
    assert pace.speed == 200.0
    pace.take(Sighting(900.0, rough=True, pair=False, surprise=False))
    assert pace.speed == 200.0


def test_where_a_poll_covers_many_the_aim_stays():
    pace = Pace(100, speed=100.0, sure=True)
    before = pace.aim
    pace.hit(watched(aim=before, planned_speed=100.0), lanes_known=False)
    pace.missed(watched(aim=before))
    assert pace.aim == before
