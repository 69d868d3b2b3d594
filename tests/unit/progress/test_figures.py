"""What a run did, counted from its events: by itself, not with what earlier runs did."""

import pytest

from engine.adaptive.concurrency import LimitChanged
from engine.model.outcome import Tally
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
from engine.progress.figures import MOST_OF_REASONS, OTHER_REASONS, RunFigures

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
