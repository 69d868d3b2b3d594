import random

import pytest

from engine.adaptive.throughput import CallCost, Throughput


def test_the_cost_of_calls_tells_bytes_from_fixed_cost():
    draw = random.Random(1)
    by_bytes, fixed, both = CallCost(), CallCost(), CallCost()
    for _ in range(200):
        size = draw.randrange(1000, 100_000)
        by_bytes.observe(size, size * 1e-6)
        fixed.observe(size, 0.1 + draw.random() * 0.001)
        both.observe(size, 0.05 + size * 1e-6)
    assert by_bytes.size_share > 0.98
    assert fixed.size_share < 0.02
    assert 0.4 < both.size_share < 0.6


def test_with_batches_of_one_size_nobody_can_tell_what_bytes_cost():
    cost = CallCost()
    for _ in range(100):
        cost.observe(1000, 0.1)
    assert cost.size_share == 0


def test_pace_is_worth_calls_where_bytes_cost_nothing_and_bytes_where_they_cost_all():
    fixed, by_bytes = CallCost(), CallCost()
    for size in (1000, 3000) * 50:
        fixed.observe(size, 0.1)
        by_bytes.observe(size, size * 1e-4)
    pace = Throughput.of(calls=10, sent_bytes=10_000, seconds=2.0)
    assert pace.worth(fixed) == pytest.approx(5.0)
    assert pace.worth(by_bytes) == pytest.approx(2.5, rel=0.01)
