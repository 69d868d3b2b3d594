from itertools import islice
from types import SimpleNamespace

import orjson
import pytest

from engine.batch.chunker import Plan
from engine.bench.loads import Load, Point, Timing, closed_loads, find_knee, generated, open_loads, paced
from engine.model.batch import Batch
from engine.model.errors import ConfigError
from engine.model.record import Position, Reject
from engine.model.settings import MappingSettings
from engine.services import sama, sevenbridges


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


PLAIN = MappingSettings()


def some(count, *what):
    return list(islice(generated(*what), count))


def test_the_same_seed_makes_the_same_bytes_and_another_one_others():
    assert some(50, sama, "sama", PLAIN, 7) == some(50, sama, "sama", PLAIN, 7)
    assert not set(some(50, sama, "sama", PLAIN, 7)) & set(some(50, sama, "sama", PLAIN, 8))


def test_a_sama_task_has_an_id_of_its_own_and_some_570_bytes():
    lines = some(1000, sama, "sama", PLAIN, 1)
    assert len({orjson.loads(line)["data"]["id"] for line in lines}) == 1000
    assert all(b"\n" not in line for line in lines)
    assert 540 <= sum(map(len, lines)) / 1000 <= 600


def test_where_the_mapping_wraps_rows_a_row_is_made():
    (line,) = some(1, sama, "sama", MappingSettings(wrap="data"), 1)
    assert "data" not in orjson.loads(line)
    assert "image" in orjson.loads(line)


def test_for_a_template_its_columns_are_made():
    template = {
        "name": "align ${row.sample}",
        "inputs": {"reads": [{"path": "${row.r1}"}, {"path": "${row.r1}"}], "n": 1},
    }
    first, second = (
        orjson.loads(line) for line in some(2, sevenbridges, "sevenbridges", MappingSettings(template=template), 3)
    )
    assert first.keys() == {"sample", "r1"}
    assert first["sample"] != second["sample"]


@pytest.mark.parametrize("service", [sevenbridges, SimpleNamespace()])
def test_tasks_that_the_service_has_no_sample_of_are_not_made_up(service):
    with pytest.raises(ConfigError) as refused:
        generated(service, "mine", PLAIN, 1)
    assert str(refused.value) == (
        "service.kind 'mine': its tasks cannot be made up: name a SOURCE with tasks, or write a [mapping.template] "
        "that makes them of generated columns"
    )


def test_a_service_of_a_package_may_bring_a_sample():
    service = SimpleNamespace(sample=lambda draw, name: {"title": f"{name} of {draw.randrange(9)}"})
    first, second = some(2, service, "mine", PLAIN, 7)
    assert orjson.loads(first)["title"].startswith("bench-7-0 of ")
    assert orjson.loads(second)["title"].startswith("bench-7-1 of ")
