import pytest

from engine.bench.meter import Meter, expected_seconds, omitted
from engine.model.batch import Batch, part_sequences
from engine.model.record import Position
from engine.model.submission import State
from engine.progress.events import BatchMoved, BatchProgressed, BatchSettled, CallEnded, CallRetried, Paused


class Watch:
    """A meter, and what happens before its eyes at which second."""

    def __init__(self, rate=None, records=10):
        self.now = 0.0
        self.records = records
        self.meter = Meter(lambda: self.now, rate)

    def due(self, sequence, at):
        start, end = (Position(0, place * self.records) for place in (sequence, sequence + 1))
        self.meter.due(Batch(sequence, start, end, self.records, 100, b"", b""), at)

    def at(self, second, *events):
        self.now = second
        for event in events:
            self.meter.listen(event)

    def sent(self, sequence, began, taken):
        self.at(began, moved(sequence, State.FROZEN, State.STAGING))
        self.at(taken, moved(sequence, State.RELEASING, State.RELEASED))

    def settled(self, sequence, at):
        self.at(at, moved(sequence, State.RELEASED, State.SETTLED), BatchSettled(sequence, self.records, 0))


def moved(sequence, before, after):
    return BatchMoved(sequence, before, after, 10, 100)


def test_time_to_created_runs_from_when_a_batch_was_due_until_a_poll_showed_its_tasks():
    watch = Watch(rate=10.0)
    watch.due(0, 1.0)
    watch.sent(0, 3.0, 3.5)
    watch.at(4.0, BatchProgressed(0, 4, 0))
    watch.at(6.0, BatchProgressed(0, 10, 4), BatchSettled(0, 10, 0))
    measure = watch.meter.measured()
    assert (measure.records, measure.created, measure.unfinished, measure.time_to_created.count) == (10, 10, 0, 10)
    assert measure.time_to_created.p50 == pytest.approx(5.0, rel=0.01)
    assert measure.time_to_created.longest == 5.0
    assert measure.time_to_created_uncorrected.longest == 3.0


def test_the_schedule_shows_a_stall_that_whoever_sends_does_not_see():
    # Due every second, and each takes half a second; but the first answer takes five, and the others wait for it.
    watch = Watch(rate=10.0)
    for sequence in range(10):
        watch.due(sequence, sequence + 1.0)
    free = 0.0
    for sequence in range(10):
        began = max(sequence + 1.0, free)
        free = began + (5.0 if sequence == 0 else 0.5)
        watch.sent(sequence, began, free)
        watch.at(free, BatchSettled(sequence, 10, 0))
    measure = watch.meter.measured()
    assert measure.time_to_created_uncorrected.p50 == pytest.approx(0.5, rel=0.02)
    assert measure.time_to_created_uncorrected.p90 == pytest.approx(0.5, rel=0.02)
    assert measure.time_to_created.p50 > 2.0
    assert measure.time_to_created.p90 > 4.0


def test_a_closed_loop_gets_back_what_a_stall_kept_from_being_sent():
    watch = Watch()
    now = 0.0
    for sequence in range(10):
        watch.due(sequence, now)
        watch.sent(sequence, now, now + 0.1)
        now += 10.0 if sequence == 4 else 1.0
        watch.settled(sequence, now)
    measure = watch.meter.measured()
    assert measure.time_to_created_uncorrected.count == 100
    assert measure.time_to_created.count == 100 + 9 * 10
    assert measure.time_to_created_uncorrected.p90 == pytest.approx(1.0, rel=0.01)
    assert measure.time_to_created.p90 == pytest.approx(9.0, rel=0.01)


def test_an_upload_that_took_longer_than_others_kept_nothing_from_being_sent_if_its_batch_was_done_in_time():
    watch = Watch()
    for sequence in range(10):
        watch.due(sequence, sequence)
        watch.sent(sequence, sequence, sequence + (0.5 if sequence == 4 else 0.01))
        watch.settled(sequence, sequence + 1)
    measure = watch.meter.measured()
    assert measure.time_to_created == measure.time_to_created_uncorrected


def with_a_fourth_on_its_way():
    """Return a watch that has seen three batches done in a second each, and one more sent after them."""
    watch = Watch()
    for sequence in range(3):
        watch.due(sequence, sequence)
        watch.sent(sequence, sequence, sequence + 0.5)
        watch.settled(sequence, sequence + 1)
    watch.due(3, 3.0)
    watch.sent(3, 3.0, 3.5)
    return watch


def test_a_batch_that_was_split_holds_its_place_until_its_last_part_is_done():
    watch = with_a_fourth_on_its_way()
    watch.at(4.0, moved(3, State.RELEASING, State.SPLIT))
    left, right = part_sequences(3)
    watch.at(4.0, moved(left, State.RELEASED, State.SETTLED), BatchSettled(left, 5, 0))
    watch.at(7.0, moved(right, State.RELEASED, State.SETTLED), BatchSettled(right, 5, 0))
    measure = watch.meter.measured()
    assert measure.time_to_created_uncorrected.count == 40
    assert measure.time_to_created.count == 40 + 3 * 10


def test_a_batch_that_is_never_done_holds_its_place_to_the_end():
    watch = with_a_fourth_on_its_way()
    watch.at(8.0)
    measure = watch.meter.measured()
    assert (measure.time_to_created_uncorrected.count, measure.time_to_created.count) == (40, 40 + 4 * 10)


def test_the_longest_wait_is_told_with_its_reason():
    watch = Watch()
    watch.at(1.0, Paused("429", 1.0), Paused("the budget is used up", 290.0), Paused("429", 2.0))
    measure = watch.meter.measured()
    assert (measure.longest_pause_seconds, measure.pause_reason, measure.pauses) == (290.0, "the budget is used up", 3)


def test_what_has_no_end_counts_with_the_time_that_it_waited():
    watch = Watch(rate=10.0)
    watch.due(0, 1.0)
    watch.due(1, 2.0)
    watch.sent(0, 1.0, 1.5)
    watch.at(3.0, BatchProgressed(0, 6, 0))
    watch.at(9.0)
    measure = watch.meter.measured()
    assert (measure.records, measure.created, measure.unfinished) == (20, 6, 14)
    assert (measure.time_to_created.count, measure.time_to_created.longest) == (20, 8.0)


def test_a_closed_loop_does_not_count_what_had_no_place_yet():
    watch = Watch()
    watch.due(0, 0.0)
    watch.due(1, 0.0)
    watch.sent(0, 1.0, 2.0)
    watch.at(3.0, BatchSettled(0, 10, 0))
    measure = watch.meter.measured()
    assert (measure.records, measure.batches, measure.seconds) == (10, 1, 2.0)


def test_the_halves_of_a_batch_count_for_it_and_failed_records_have_no_time():
    watch = Watch(rate=10.0)
    watch.due(0, 1.0)
    watch.sent(0, 1.0, 1.5)
    watch.at(2.0, moved(0, State.STAGED, State.SPLIT))
    left, right = part_sequences(0)
    watch.at(3.0, moved(left, State.FROZEN, State.STAGING), BatchSettled(left, 5, 0))
    watch.at(4.0, BatchSettled(right, 3, 2, "no such thing"))
    measure = watch.meter.measured()
    assert (measure.created, measure.failed, measure.unfinished, measure.batches) == (8, 2, 0, 1)
    assert (measure.time_to_created.count, measure.first_error) == (8, "no such thing")


def test_throughput_is_that_of_the_first_95_of_100():
    watch = Watch(rate=10.0, records=100)
    watch.due(0, 10.0)
    watch.sent(0, 10.0, 10.5)
    watch.at(20.0, BatchProgressed(0, 96, 0))
    watch.at(100.0, BatchProgressed(0, 100, 96))
    measure = watch.meter.measured()
    assert measure.throughput == pytest.approx(96 / 20)
    assert measure.seconds == 100.0


def test_push_back_errors_and_retries_are_counted_apart():
    watch = Watch()
    ends = [CallEnded("create", 0.1, 5, status) for status in (200, 429, 503, None, 404, 429)]
    watch.at(1.0, *ends, CallRetried("create", 1, 0.5, "429"), Paused("429", 1.0))
    measure = watch.meter.measured()
    assert (measure.calls, measure.answers_429, measure.errors, measure.retries, measure.pauses) == (6, 2, 2, 1, 1)


def test_the_seconds_tell_what_was_due_and_created_in_each():
    watch = Watch(rate=10.0)
    for sequence in range(3):
        watch.due(sequence, sequence + 1.0)
        watch.sent(sequence, sequence + 1.0, sequence + 1.1)
    watch.at(3.5, *(BatchSettled(sequence, 10, 0) for sequence in range(3)))
    seconds = watch.meter.measured().timeline
    assert [(one.second, one.due, one.created) for one in seconds] == [(0, 0, 0), (1, 10, 0), (2, 10, 0), (3, 10, 30)]
    assert seconds[3].median == pytest.approx(1.5, rel=0.01)
    assert seconds[3].longest == 2.5


def test_a_stall_stands_for_the_batches_that_it_kept_from_being_sent():
    # One batch a second, and one that held its place for 5 s: four were not sent, the last after 4 s.
    assert list(omitted(5.0, 1.0)) == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("held", [0.0, 0.9, 1.0, 1.9])
def test_what_takes_less_than_twice_as_long_as_usual_kept_nothing_back(held):
    assert list(omitted(held, 1.0)) == []


def test_without_anything_usual_nothing_is_put_back():
    assert list(omitted(5.0, expected_seconds([]))) == []


def test_a_few_stalls_do_not_change_what_is_usual():
    assert expected_seconds([0.1] * 10 + [30.0] * 3) == 0.1
