"""Times are counted in buckets: percentiles are right to a share, and what runs keep of them can be added."""

import random

import msgspec
import pytest

from engine.model.runs import Spread
from engine.progress.histogram import COARSE, Histogram


def test_percentiles_are_those_of_the_sorted_times_and_at_most_a_hundredth_too_long():
    draw = random.Random(1)
    times = sorted(draw.lognormvariate(-2, 1.5) for _ in range(20_000))
    histogram = Histogram()
    for seconds in times:
        histogram.record(seconds)
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        exact = times[int(share * len(times)) - 1]
        assert exact <= histogram.percentile(share) * (1 + 1e-9) <= exact * 1.0101
    assert histogram.percentiles().longest == times[-1]
    assert histogram.percentile(1.0) == times[-1]


def test_a_count_weighs_as_much_as_so_many_times():
    histogram = Histogram()
    histogram.record(1.0, 99)
    histogram.record(10.0)
    histogram.record(5.0, 0)
    found = histogram.percentiles()
    assert (found.count, found.longest) == (100, 10.0)
    assert found.p50 == found.p99 == pytest.approx(1.0, rel=0.01)
    assert found.p999 == 10.0
    assert (found.beyond(0.5), found.beyond(0.99), found.beyond(0.999)) == (50, 1, 0)


def test_memory_does_not_grow_with_the_times():
    draw = random.Random(2)
    histogram = Histogram()
    for _ in range(30_000):
        histogram.record(10 ** draw.uniform(-9, 9))
    assert histogram.count == 30_000
    assert histogram.buckets <= histogram.most_buckets < 3_000


def test_where_nothing_was_counted_there_is_nothing_to_tell():
    assert Histogram().percentiles().p99 == 0.0


def test_what_runs_keep_of_their_times_adds_up_to_the_percentiles_of_all():
    draw = random.Random(3)
    times = sorted(draw.lognormvariate(-2, 1.5) for _ in range(2_000))
    runs = [Histogram(COARSE) for _ in range(3)]
    for place, seconds in enumerate(times):
        runs[place % 3].record(seconds)
    whole = Histogram(COARSE)
    for run in runs:
        whole.add(msgspec.json.decode(msgspec.json.encode(run.spread), type=Spread))
    found = whole.percentiles()
    assert found.count == 2_000
    assert found.longest == pytest.approx(times[-1])
    for share, value in ((0.5, found.p50), (0.99, found.p99)):
        exact = times[int(share * len(times)) - 1]
        assert exact <= value * (1 + 1e-9) <= exact * 1.1001


def test_what_is_kept_of_a_run_is_some_dozen_numbers():
    assert Histogram(COARSE).most_buckets < 300
