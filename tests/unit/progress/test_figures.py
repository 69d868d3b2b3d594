"""What a run did, counted from its events: by itself, not with what earlier runs did."""

from itertools import pairwise

import pytest

from engine.adaptive.concurrency import LimitChanged
from engine.model.outcome import Tally
from engine.model.runs import NO_ANSWER, BatchTime, LimitStep
from engine.model.submission import State
from engine.progress.events import (
    BatchesFrozen,
    BatchMoved,
    BatchSettled,
    CallEnded,
    CallRetried,
    CallStarted,
    JobEnded,
    JobStarted,
    Paused,
    Spaced,
)
from engine.progress.figures import MOST_OF_REASONS, MOST_SLOWEST, MOST_STEPS, OTHER_REASONS, RunFigures

BEGUN = JobStarted("j", 1_000, 400, Tally(records=40, rejected=4, created=20, failed=6))


class Hand:
    """A clock that is set by hand."""

    at = 0.0

    def __call__(self):
        return self.at


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def figures(hand):
    figures = RunFigures(hand)
    figures.hear(BEGUN)
    return figures


def moved(before, after):
    return BatchMoved(7, before, after, 10, 100)


def test_a_run_counts_what_it_did_itself(figures):
    for event in (
        BatchesFrozen(1, 10, 1, 1_000, last=True),
        CallStarted("put"),
        CallEnded("put", 0.2, 500, 200),
        CallRetried("put", 1, 0.5, "HTTP 500"),
        BatchSettled(7, 8, 1),
    ):
        figures.hear(event)
    counts = figures.counts(warnings=3)
    assert (counts.records, counts.created, counts.failed, counts.rejected) == (10, 8, 1, 1)
    assert (counts.requests, counts.sent_bytes, counts.retries, counts.warnings) == (1, 500, 1, 3)


def test_a_sample_tells_rates_since_the_one_before(figures, hand):
    for event in (CallStarted("put"), CallStarted("put"), CallEnded("put", 0.2, 500, 200), BatchSettled(7, 20, 0)):
        figures.hear(event)
    hand.at = 10.0
    sample = figures.sample(1_000.0, 2, 4)
    assert (sample.at, sample.seconds, sample.tasks_per_second, sample.bytes_per_second) == (1_000.0, 10.0, 2.0, 50.0)
    assert (sample.requests_per_second, sample.requests_open, sample.in_flight, sample.limit) == (0.1, 1, 2, 4)
    hand.at = 20.0
    assert figures.sample(1_010.0, 2, 4).tasks_per_second == 0.0


def test_a_sample_says_why_the_limit_is_what_it_is(figures):
    figures.hear(LimitChanged("max_batch_bytes", 9, 8, "too large"))
    assert figures.sample(1.0, 0, 1).limit_reason == ""
    figures.hear(LimitChanged("max_in_flight", 9, 8, "push-back"))
    assert [figures.sample(1.0, 0, 1).limit_reason for _ in range(2)] == ["push-back", "push-back"]


def test_a_wait_is_counted_once_however_many_calls_wait(figures, hand):
    for at, wait in (
        (0.0, Paused("maintenance", 30.0)),
        (10.0, Paused("maintenance", 30.0)),
        (10.0, Spaced("pace", 2)),
    ):
        hand.at = at
        figures.hear(wait)
    assert figures.sample(1.0, 0, 1).waits == {"maintenance": 40.0, "pace": 2.0}
    assert figures.sample(2.0, 0, 1).waits == {}


def test_retries_are_counted_by_reason_and_reasons_are_few(figures):
    for number in range(2 * MOST_OF_REASONS):
        figures.hear(CallRetried("put", 1, 0.5, f"HTTP 500, request {number}"))
    retries = figures.sample(1.0, 0, 1).retries
    assert len(retries) == MOST_OF_REASONS + 1
    assert retries[OTHER_REASONS] == MOST_OF_REASONS


def test_stages_are_measured_from_their_first_event_to_their_last(figures, hand):
    for at, event in (
        (1.0, BatchesFrozen(1, 10, 0, 1_000, last=True)),
        (2.0, moved(State.FROZEN, State.STAGING)),
        (5.0, moved(State.RELEASING, State.RELEASED)),
        (9.0, moved(State.RELEASED, State.SETTLED)),
        (11.0, JobEnded("j", "finished")),
    ):
        hand.at = at
        figures.hear(event)
    assert figures.counts(0).seconds == {"read": 1.0, "send": 3.0, "settle": 4.0, "all": 11.0}


def test_calls_are_counted_by_kind_with_their_answers_bytes_and_times(figures):
    for event in (
        CallEnded("put", 0.2, 500, 200),
        CallEnded("put", 2.0, 500, 503),
        CallEnded("put", 60.0, 0, None),
        CallEnded("status", 0.1, 0, 200),
    ):
        figures.hear(event)
    calls = figures.counts(0).calls
    assert (calls["put"].calls, calls["put"].sent_bytes) == (3, 1_000)
    assert calls["put"].answers == {"200": 1, "503": 1, NO_ANSWER: 1}
    assert sum(calls["put"].seconds.counts.values()) == 3
    assert calls["put"].seconds.longest == 60.0
    assert calls["status"].calls == 1


def test_waits_and_retries_of_the_whole_run_stay_when_samples_are_forgotten(figures, hand):
    for at in (0.0, 20.0):
        hand.at = at
        figures.hear(Paused("maintenance", 5.0))
        figures.hear(CallRetried("put", 1, 0.5, "HTTP 500"))
        figures.sample(at, 0, 1)
    counts = figures.counts(0)
    assert (counts.waits, counts.retry_reasons) == ({"maintenance": 10.0}, {"HTTP 500": 2})


def test_a_batch_is_measured_from_its_first_step_to_its_settlement_if_the_run_saw_both(figures, hand):
    road = [State.FROZEN, State.STAGING, State.STAGED, State.RELEASING, State.RELEASED, State.SETTLED]
    for at, (before, after) in enumerate(pairwise(road)):
        hand.at = float(at)
        figures.hear(moved(before, after))
    figures.hear(BatchMoved(8, State.RELEASED, State.SETTLED, 10, 100))  # an earlier run has sent it
    counts = figures.counts(0)
    assert counts.slowest == [BatchTime(7, 10, 100, 4.0, 1.0)]
    assert sum(counts.batch_seconds.counts.values()) == 1


def test_the_slowest_batches_are_kept_and_no_more(figures, hand):
    for sequence in range(3 * MOST_SLOWEST):
        figures.hear(BatchMoved(sequence, State.FROZEN, State.RELEASING, 10, 100))
        hand.at += (sequence * 7) % (3 * MOST_SLOWEST)
        figures.hear(BatchMoved(sequence, State.RELEASING, State.RELEASED, 10, 100))
        figures.hear(BatchMoved(sequence, State.RELEASED, State.SETTLED, 10, 100))
    slowest = [took.seconds for took in figures.counts(0).slowest]
    assert slowest == sorted((float(s) for s in range(2 * MOST_SLOWEST, 3 * MOST_SLOWEST)), reverse=True)


def test_what_a_run_remembers_of_batches_ends_with_them(figures):
    for after in (State.SETTLED, State.SPLIT, State.UNCERTAIN):
        figures.hear(moved(State.FROZEN, State.RELEASING))
        figures.hear(moved(State.RELEASING, after))
    assert figures._batches == {}


def test_of_many_steps_of_a_limit_the_first_the_newest_and_some_between_are_kept(figures, hand):
    for number in range(1_000):
        hand.at = float(number)
        figures.hear(LimitChanged("max_in_flight", number, number + 1, "it pays"))
    counts = figures.counts(0)
    assert counts.limits_changed == 1_000
    assert MOST_STEPS // 2 <= len(counts.limit_steps) <= MOST_STEPS
    assert counts.limit_steps[-1] == LimitStep(999.0, "max_in_flight", 999, 1_000, "it pays")
    assert counts.limit_steps[0].at_seconds == 0.0
