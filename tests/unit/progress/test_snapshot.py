import pytest

from engine.model.outcome import Settlement, Tally
from engine.model.submission import State
from engine.progress.events import (
    BatchesFrozen,
    BatchesWaiting,
    BatchMoved,
    BatchProgressed,
    BatchSettled,
    CallEnded,
    CallRetried,
    CallStarted,
    JobEnded,
    JobStarted,
    JobTallied,
    Paused,
    Spaced,
    Stopping,
)
from engine.progress.snapshot import WINDOW_SECONDS, Progress

NEW = JobStarted("j", 1_000)
RESUMED = JobStarted("j", 1_000, 400, Tally(records=40, rejected=4, created=20, failed=6))


class Hand:
    """A clock that is set by hand."""

    def __init__(self):
        self.at = 0.0

    def __call__(self):
        return self.at


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def progress(hand):
    return Progress(hand)


def fold(progress, *events):
    for event in events:
        progress.fold(event)
    return progress.view()


def moved(sequence, before, after, records=10, reason=""):
    return BatchMoved(sequence, before, after, records, 100, reason)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([NEW], {"job": "j", "size_bytes": 1_000, "records": 0, "created": 0}),
        ([RESUMED], {"read_bytes": 400, "records": 40, "rejected": 4, "created": 20, "failed": 6}),
        (
            [JobStarted("j", 1_000, 1_000, Tally(records=40))],
            {"read_complete": True, "expected_records": 40},
        ),
        (
            [RESUMED, BatchesFrozen(2, 20, 1, 600, last=False)],
            {"read_bytes": 600, "records": 60, "rejected": 5, "read_complete": False},
        ),
        (
            [RESUMED, JobTallied(Tally(records=70, created=50), 700)],
            {"read_bytes": 700, "records": 70, "created": 50, "expected_records": 100},
        ),
        ([NEW, BatchesFrozen(1, 10, 0, 1_000, last=True)], {"read_complete": True, "expected_records": 10}),
        ([NEW, BatchesFrozen(1, 10, 0, 250, last=False)], {"read_complete": False, "expected_records": 40}),
        ([CallStarted("put"), CallStarted("put"), CallEnded("put", 1.0, 9, 200)], {"in_flight": 1}),
        ([CallRetried("put", 1, 0.5, "HTTP 503")], {"retries": 1, "note": "last retry: HTTP 503"}),
        ([Paused("asked to", 12.0)], {"note": "waiting 12 s: asked to"}),
        ([Paused("asked to", 12.0), Paused("one call tries", 0.3)], {"note": "waiting 12 s: asked to"}),
        (
            [Spaced("requests_per_second is 0.5", 4.0)],
            {"note": "calls wait for their turn: requests_per_second is 0.5"},
        ),
        ([Paused("asked to", 12.0), Spaced("its pace", 4.0)], {"note": "waiting 12 s: asked to"}),
        ([Paused("asked to", 12.0), Stopping("SIGTERM")], {"note": "stopping: SIGTERM"}),
        ([BatchSettled(0, 8, 2, "no url"), BatchSettled(1, 0, 10, "other")], {"created": 8, "failed": 12}),
        ([BatchSettled(0, 10, 0), BatchSettled(1, 0, 1, "no url")], {"first_failure": "no url"}),
        (
            [BatchSettled(0, 8, 0, "lost", 2), BatchSettled(1, 7, 1, "no", 2)],
            {"created": 15, "failed": 1, "uncertain": 4, "settled": 20, "first_failure": "lost"},
        ),
        ([NEW, JobEnded("j", "finished")], {"job": "j", "created": 0}),
    ],
)
def test_events_become_a_picture(progress, events, expected):
    view = fold(progress, *events)
    assert {name: getattr(view if hasattr(view, name) else view.counts, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("settlement", "event"),
    [
        (Settlement(["a", "b"]), BatchSettled(4, 2, 0)),
        (Settlement(["a", None, None], {1: "no", 2: "never"}), BatchSettled(4, 1, 2, "no")),
        (Settlement(["a", None, None], {2: "no"}, uncertain={1: "lost"}), BatchSettled(4, 1, 1, "no", 1)),
        (Settlement([None, None], uncertain={0: "lost", 1: "gone"}), BatchSettled(4, 0, 0, "lost", 2)),
    ],
)
def test_what_is_told_of_a_settled_batch_is_what_its_settlement_says(settlement, event):
    assert BatchSettled.of(4, settlement) == event


def test_batches_are_counted_by_state(progress):
    view = fold(
        progress,
        NEW,
        BatchesFrozen(3, 30, 0, 500, last=False),
        moved(0, State.FROZEN, State.STAGING),
        moved(0, State.STAGING, State.STAGED),
        moved(1, State.FROZEN, State.STAGING),
    )
    assert {state: number for state, number in view.counts.states.items() if number} == {
        "frozen": 1,
        "staging": 1,
        "staged": 1,
    }


def test_a_batch_frozen_by_an_earlier_run_never_makes_a_count_negative(progress):
    view = fold(progress, RESUMED, moved(0, State.FROZEN, State.STAGING), moved(0, State.STAGING, State.SETTLED))
    assert {state: number for state, number in view.counts.states.items() if number} == {"settled": 1}


def test_tasks_that_a_poll_found_are_not_counted_again_when_their_batch_settles(progress):
    view = fold(progress, NEW, BatchProgressed(0, 300, 0), BatchProgressed(0, 700, 300))
    assert view.counts.created == 700
    assert fold(progress, BatchSettled(0, 990, 10, "bad")).counts.created == 990


def test_an_uncertain_batch_counts_until_it_is_found(progress):
    assert fold(progress, moved(0, State.RELEASING, State.UNCERTAIN, reason="answer lost")).counts.uncertain == 10
    assert progress.counts.first_failure == "answer lost"
    assert fold(progress, moved(0, State.UNCERTAIN, State.RELEASED)).counts.uncertain == 0


def test_tasks_that_were_seen_of_an_uncertain_batch_are_not_counted_twice(progress):
    view = fold(progress, NEW, BatchProgressed(0, 4, 0), moved(0, State.RELEASED, State.UNCERTAIN, reason="forgotten"))
    assert (view.counts.created, view.counts.uncertain, view.counts.settled) == (0, 10, 10)


def test_a_new_job_begins_with_nothing_of_the_last(progress, hand):
    fold(progress, RESUMED, CallRetried("put", 1, 1.0, "x"), Paused("y", 9.0))
    hand.at = 5.0
    view = fold(progress, NEW)
    assert (view.counts.retries, view.note, view.elapsed_seconds, view.counts.created) == (0, "", 0.0, 0)


def test_rates_are_means_over_the_window(progress, hand):
    fold(progress, NEW, BatchesFrozen(9, 9_000, 0, 500, last=False))
    for second in range(1, 101):
        hand.at = float(second)
        view = fold(progress, BatchSettled(second, 50 if second <= 60 else 10, 0), CallEnded("put", 1.0, 4_000, 200))
    assert view.tasks_per_second == pytest.approx(10)
    assert view.bytes_per_second == pytest.approx(4_000)
    hand.at += 2 * WINDOW_SECONDS
    progress.view()
    hand.at += WINDOW_SECONDS
    assert progress.view().tasks_per_second == 0


def test_a_batch_that_is_not_uncertain_any_more_makes_no_rate_negative(progress, hand):
    fold(progress, NEW, moved(0, State.RELEASING, State.UNCERTAIN, records=500))
    hand.at = WINDOW_SECONDS
    progress.view()
    hand.at = 2 * WINDOW_SECONDS
    view = fold(progress, moved(0, State.UNCERTAIN, State.RELEASING, records=500))
    assert (view.tasks_per_second, view.counts.uncertain) == (0.0, 0)


def test_a_rate_early_in_the_run_is_no_wild_guess(progress, hand):
    fold(progress, NEW)
    hand.at = 0.001
    assert fold(progress, BatchSettled(0, 10, 0)).tasks_per_second == 10


def test_a_pause_and_a_retry_are_forgotten_when_they_are_over(progress, hand):
    fold(progress, Paused("asked to", 12.0))
    assert progress.paused
    hand.at = 12.0
    assert not progress.paused
    assert progress.view().note == ""
    fold(progress, CallRetried("put", 1, 1.0, "HTTP 503"))
    hand.at += WINDOW_SECONDS
    assert progress.view().note == ""


def test_that_batches_are_not_begun_is_shown_until_something_moves(progress):
    said = "1 batch accepted, and not begun by the service for 2 min 10 s: 7; followed on"
    assert fold(progress, BatchesWaiting(1, 130.0, "7"), CallStarted("status")).note == said
    assert fold(progress, BatchProgressed(7, 5, 0)).note == ""


class TestEta:
    def run(self, progress, hand, *, last):
        fold(progress, NEW, BatchesFrozen(1, 100, 0, 500, last=last))
        hand.at = 10.0
        return fold(progress, BatchSettled(0, 50, 0)).eta

    def test_counts_the_records_to_go_once_all_are_read(self, progress, hand):
        eta = self.run(progress, hand, last=True)
        assert (eta.seconds, eta.basis) == (10.0, "50 records to go")

    def test_estimates_them_by_the_part_that_is_read_before(self, progress, hand):
        eta = self.run(progress, hand, last=False)
        assert eta.seconds == 30.0
        assert eta.basis == "150 records to go, their number estimated from the part that is read"

    def test_does_not_guess_before_anything_is_read(self, progress):
        assert fold(progress, NEW).eta.seconds is None

    def test_does_not_guess_while_calls_wait_or_nothing_settles(self, progress, hand):
        fold(progress, NEW, BatchesFrozen(1, 100, 0, 500, last=True))
        assert progress.view().eta.basis == "no record was settled lately"
        assert fold(progress, Spaced("its pace", 5.0)).eta.basis == "no record was settled lately"
        assert fold(progress, Paused("asked to", 5.0)).eta.basis == "calls wait"

    def test_is_over_when_every_record_is_settled(self, progress):
        view = fold(progress, NEW, BatchesFrozen(1, 100, 10, 500, last=True), BatchSettled(0, 80, 10))
        assert (view.counts.settled, view.eta.seconds) == (100, 0.0)


def test_memory_does_not_grow_with_the_run(progress, hand):
    fold(progress, NEW)
    for number in range(2_000):
        hand.at += 0.3
        fold(progress, BatchProgressed(number, 1, 0), BatchSettled(number, 10, 0))
    assert len(progress._samples) <= 2 * WINDOW_SECONDS + 2
    assert not progress.counts.seen_created
