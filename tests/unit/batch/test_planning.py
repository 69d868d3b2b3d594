"""Planning begun anew on the way: where it goes on, and what does not change by it."""

from __future__ import annotations

import pytest
from fakes.inputs import sources_of
from hypothesis import given
from hypothesis import strategies as st

from engine.batch.mapping import Mapper
from engine.batch.planning import plan_batches, replanned
from engine.bench.loads import Load, Timing, paced
from engine.model.batch import Limits
from engine.model.record import Position
from engine.model.settings import MappingSettings, SourceSettings

MAPPER = Mapper(MappingSettings(), lambda row: "bad" if "bad" in row else None)
LINES = st.lists(
    st.sampled_from([b'{"a":1}\n', b'{"bad":1}\n', b"oops\n", b'{"b":"' + b"y" * 90 + b'"}\n']), max_size=80
)


class Sizes:
    """Says for each plan how many bytes a batch may have, as told; the last word stands."""

    def __init__(self, *told):
        self.told = list(told)

    def __call__(self):
        return self.told.pop(0) if len(self.told) > 1 else self.told[0]


class Reading:
    """Plans sources, and counts how often it was begun and ended."""

    def __init__(self, *contents):
        self.sources = sources_of(*contents)
        self.begun = []
        self.ended = 0

    def __call__(self, last, most_bytes):
        self.begun.append((last.sequence if last else None, most_bytes))
        start, sequence = (last.end, last.sequence + 1) if last else (Position(), 0)
        limits = Limits(10, most_bytes)
        try:
            yield from plan_batches(
                self.sources, SourceSettings(), MAPPER, limits, start=start, sequence=sequence, window_bytes=128
            )
        finally:
            self.ended += 1


@given(LINES, LINES, st.lists(st.integers(10, 400), min_size=1, max_size=30))
def test_batches_of_any_sizes_hold_every_record_and_reject_once(first, second, told):
    reading = Reading(b"".join(first), b"".join(second))
    plans = list(replanned(reading, None, Sizes(*told)))
    whole = list(Reading(b"".join(first), b"".join(second))(None, 400))
    batches = [batch for plan in plans for batch in plan.batches]
    assert [plan.last for plan in plans] == [False] * (len(plans) - 1) + [True]
    assert [batch.sequence for batch in batches] == list(range(len(batches)))
    assert [batch.start for batch in batches[1:]] == [batch.end for batch in batches[:-1]]
    assert sum(batch.count for batch in batches) == sum(batch.count for plan in whole for batch in plan.batches)
    assert [reject for plan in plans for reject in plan.rejects] == [
        reject for plan in whole for reject in plan.rejects
    ]
    assert plans[-1].reached == whole[-1].reached
    assert all(batch.count <= 1 or batch.size_bytes <= max(told) for batch in batches)
    assert reading.ended == len(reading.begun)


def test_planning_begins_anew_only_where_the_size_changes_and_the_one_before_has_ended():
    reading = Reading(b'{"a":1}\n' * 100)
    steps = replanned(reading, None, Sizes(30, 30, 30, 60))
    sizes = []
    for plan in steps:
        sizes += [batch.count for batch in plan.batches]
        assert reading.ended >= len(reading.begun) - 1
    assert [most for _, most in reading.begun] == [30, 60]
    assert sizes[0] == 3
    assert sizes[-2] == 7
    assert sum(sizes) == 100


def test_whoever_takes_no_more_plans_ends_the_reading():
    reading = Reading(b'{"a":1}\n' * 100)
    steps = replanned(reading, None, Sizes(30))
    next(steps)
    steps.close()
    assert reading.ended == 1


def test_a_schedule_goes_on_when_planning_begins_anew():
    reading = Reading(b'{"a":1}\n' * 60)
    now, due = [0.0], []

    def wait(seconds):
        now[0] += seconds
        return False

    timing = Timing(lambda: now[0], wait)
    told = Sizes(30, 30, 60, 30, 60)
    plans = paced(replanned(reading, None, told), Load(60, 10, rate=10.0), 99.0, timing, lambda _, at: due.append(at))
    counted = sum(batch.count for plan in plans for batch in plan.batches)
    assert counted == 60
    assert len(reading.begun) > 2
    assert due == sorted(due)
    assert due[-1] == pytest.approx(6.0)
