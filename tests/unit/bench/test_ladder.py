import pytest

from engine.bench.ladder import Point, closed_loads, find_knee, open_loads
from engine.model.errors import ConfigError


def levels(loads):
    return [load.level for load in loads]


def test_a_closed_loop_doubles_while_a_step_has_a_batch_for_each_place():
    assert levels(closed_loads(None, 10_000, 1000)) == [1, 2, 4, 8]
    assert levels(closed_loads(None, 10**6, 1000)) == [1, 2, 4, 8, 16, 32, 64]
    assert levels(closed_loads(None, 10, 1000)) == [1]


def test_steps_are_taken_as_they_are_named_and_auto_comes_last():
    loads = closed_loads("auto, 2,8", 500, 100)
    assert [load.label for load in loads] == ["2", "8", "auto"]
    assert {(load.records, load.batch_records, load.rate) for load in loads} == {(500, 100, None)}


def test_an_open_loop_sends_what_its_rate_makes_in_its_time_but_no_more_than_wanted():
    loads = open_loads(["50", "200.5", "9000"], 10_000, 1000, 10.0)
    assert [(load.rate, load.records) for load in loads] == [(50, 500), (200.5, 2005), (9000, 10_000)]


def test_batches_are_the_same_in_all_steps_and_the_lowest_rate_fills_one_a_second():
    assert {load.batch_records for load in open_loads(["50", "9000"], 10_000, 1000, 10.0)} == {50}
    assert {load.batch_records for load in open_loads(["0.5"], 10_000, 1000, 10.0)} == {1}
    assert {load.batch_records for load in open_loads(["5000"], 10_000, 1000, 10.0)} == {1000}


def test_the_automatic_rate_doubles_as_long_as_the_records_last_a_second():
    assert levels(open_loads(["auto"], 1000, 1000, 10.0)) == [100, 200, 400, 800]
    assert levels(open_loads(["auto"], 10, 1000, 10.0)) == [100]


@pytest.mark.parametrize("steps", ["", "0", "1,x", "2,1", "20,21", "1.5", "1001", "inf", "nan", "-4"])
def test_steps_that_are_no_rising_whole_numbers_are_refused(steps):
    with pytest.raises(ConfigError, match="--steps"):
        closed_loads(steps, 1000, 100)


@pytest.mark.parametrize("rates", [["0"], ["many"], ["100", "50"], ["100", "105"], ["auto", "100"], ["nan"]])
def test_rates_that_are_no_rising_numbers_are_refused(rates):
    with pytest.raises(ConfigError, match="--rate"):
        open_loads(rates, 1000, 100, 1.0)


def test_the_knee_is_the_last_step_that_paid():
    reached = [Point(100, 1.0), Point(195, 1.1), Point(300, 1.4), Point(310, 1.9)]
    knee = find_knee(reached)
    assert knee.place == 2
    assert "+3%" in knee.reason


def test_there_is_a_knee_as_well_where_the_median_doubles():
    knee = find_knee([Point(100, 1.0), Point(190, 2.0), Point(400, 2.0)])
    assert knee.place == 0
    assert "2.0 times" in knee.reason


@pytest.mark.parametrize("points", [[], [Point(100, 1)], [Point(100, 1), Point(105, 1.99), Point(200, 3.9)]])
def test_as_long_as_it_pays_there_is_no_knee(points):
    assert find_knee(points) is None


def test_where_nothing_was_created_before_any_creation_pays():
    assert find_knee([Point(0, 0), Point(10, 1)]) is None
