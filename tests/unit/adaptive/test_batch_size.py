import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adaptive.batch_size import SLOW_BYTES, BatchBytes, OpenBatches, Upload

MEBIBYTE = 2**20


def taken(batches, count=16, *, seconds=0.5, mebibyte_seconds=0.0):
    """Let batches get through that nearly fill the limit; return the changes that it made."""
    changes = []
    for number in range(count):
        size = batches.limit - number % 4 * batches.limit // 10
        changes.append(batches.observe(size, seconds + mebibyte_seconds * size / MEBIBYTE))
    return [change for change in changes if change]


def refused(batches, size):
    return batches.observe(size, 0.0, Upload.TOO_LARGE)


def timed_out(batches, size):
    return batches.observe(size, 0.0, Upload.TIMED_OUT)


def test_batches_begin_as_large_as_they_may_be():
    batches = BatchBytes(4 * MEBIBYTE)
    assert batches.limit == 4 * MEBIBYTE
    assert taken(batches, 64) == []
    assert not batches.bars(4 * MEBIBYTE)


def test_a_payload_that_is_refused_halves_those_that_are_cut_from_now_on():
    batches = BatchBytes(4 * MEBIBYTE)
    change = refused(batches, 4_000_000)
    assert (change.name, change.before, change.after) == ("max_batch_bytes", 4 * MEBIBYTE, 2_000_000)
    assert change.reason == "a payload of 4000000 bytes was too large"


def test_what_got_through_before_tells_how_far_to_go_down():
    batches = BatchBytes(4 * MEBIBYTE)
    batches.observe(2_700_000, 0.5)
    assert refused(batches, 4_000_000).after == 2_700_000


def test_one_that_is_refused_though_larger_ones_got_through_is_not_refused_for_its_size():
    batches = BatchBytes(4 * MEBIBYTE)
    for _ in range(5):
        batches.observe(4_100_000, 0.5)
        assert refused(batches, 4_000_000) is None
    assert not batches.bars(4_000_000)
    assert refused(batches, 4_000_000).after == 2_000_000  # twice in a row: it takes less than it did


def test_what_gets_through_after_all_is_barred_no_more():
    batches = BatchBytes(4 * MEBIBYTE)
    refused(batches, 4_000_000)
    batches.observe(4_000_000, 0.5)  # it was under way, too
    assert not batches.bars(4_000_000)
    assert [change.after for change in taken(batches, 16)] == [4_000_000]


def test_batches_that_were_cut_before_a_change_are_no_reason_for_another():
    batches = BatchBytes(4 * MEBIBYTE)
    assert refused(batches, 4_000_000)
    assert [refused(batches, 4_000_000 - number) for number in range(60)] == [None] * 60
    assert timed_out(batches, 3_000_000) is None
    assert refused(batches, 2_000_000).after == 1_000_000


def test_what_is_frozen_already_and_as_large_as_what_was_refused_is_barred():
    batches = BatchBytes(4 * MEBIBYTE)
    refused(batches, 3_000_000)
    assert [batches.bars(size) for size in (1_800_000, 3_000_000, 4_000_000)] == [False, True, True]


@pytest.mark.parametrize("failed", [refused, timed_out])
def test_so_is_what_was_cut_for_a_limit_that_has_failed_unless_as_much_got_through(failed):
    batches = BatchBytes(4 * MEBIBYTE)
    failed(batches, 3_000_000)
    assert batches.bars(2_999_999)
    batches.observe(2_999_999, 1.0)
    assert not batches.bars(2_999_999)


@pytest.mark.parametrize("failed", [refused, timed_out])
def test_nothing_is_tried_beyond_what_got_through_once_one_did_not(failed):
    batches = BatchBytes(4 * MEBIBYTE)
    failed(batches, 2_000_000)
    assert taken(batches, 500) == []


def test_batches_grow_again_up_to_what_got_through_before():
    batches = BatchBytes(4 * MEBIBYTE)
    batches.observe(3_000_000, 0.5)
    refused(batches, 4_000_000)
    timed_out(batches, 3_000_000)
    assert batches.limit == 1_500_000
    (change,) = taken(batches, 40)
    assert (change.before, change.after) == (1_500_000, 3_000_000)
    assert change.reason == "100% of a batch's time does not depend on its size"


def test_batches_stay_small_where_time_goes_by_the_byte():
    batches = BatchBytes(4 * MEBIBYTE)
    timed_out(batches, 4 * MEBIBYTE)
    assert taken(batches, 64, seconds=0.01, mebibyte_seconds=0.5) == []


def test_batches_that_do_not_fill_the_limit_are_no_reason_to_raise_it():
    batches = BatchBytes(4 * MEBIBYTE)
    timed_out(batches, 4 * MEBIBYTE)
    assert not any(batches.observe(1000 + number, 0.5) for number in range(64))


def test_what_timed_out_is_tried_again_ever_later():
    batches = BatchBytes(4 * MEBIBYTE)
    batches.observe(4 * MEBIBYTE, 0.5)
    waits = []
    for _ in range(4):
        change = timed_out(batches, batches.limit)
        assert (change.after, change.reason) == (2 * MEBIBYTE, f"a payload of {4 * MEBIBYTE} bytes timed out")
        assert batches.bars(4 * MEBIBYTE)
        waits.append(next(count for count in range(10**4) if taken(batches, 1)))
        assert batches.limit == 4 * MEBIBYTE
        assert not batches.bars(4 * MEBIBYTE)
    assert waits == [31, 63, 127, 255]


def test_what_was_refused_stays_barred_when_what_timed_out_is_forgiven():
    batches = BatchBytes(4 * MEBIBYTE)
    refused(batches, 3_000_000)
    timed_out(batches, batches.limit)
    taken(batches, 200)
    assert batches.limit < 3_000_000
    assert batches.bars(3_000_000)


@pytest.mark.parametrize("size", [100, SLOW_BYTES - 1])
def test_a_small_payload_does_not_time_out_for_its_size(size):
    batches = BatchBytes(4 * MEBIBYTE)
    assert timed_out(batches, size) is None
    assert not batches.bars(size)


@given(st.lists(st.tuples(st.integers(1, 2**23), st.floats(0.001, 300), st.sampled_from(Upload)), max_size=200))
def test_batches_never_leave_what_is_allowed(uploads):
    batches = BatchBytes(4 * MEBIBYTE)
    for size, seconds, fate in uploads:
        before = batches.limit
        change = batches.observe(size, seconds, fate)
        assert 1024 <= batches.limit <= batches.most
        assert (change.before, change.after) == (before, batches.limit) if change else batches.limit == before


def test_open_jobs_follow_the_creation_speed_by_littles_law():
    jobs = OpenBatches(most=500)
    change = jobs.observe(3000, 1.0, batch_records=1000, lag_seconds=2.0)
    assert (change.name, change.before, change.after) == ("max_open_batches", 500, 16)  # twice six, and four
    assert "3000 tasks/s are created, 6.0 batches in the 2.0 s" in change.reason


def test_a_slow_service_still_has_the_next_jobs_in_line():
    jobs = OpenBatches(most=500)
    jobs.observe(3, 1.0, batch_records=1000, lag_seconds=1.0)
    assert 4 <= jobs.limit <= 5


def test_small_changes_of_speed_make_no_noise():
    jobs = OpenBatches(most=500)
    jobs.observe(30_000, 1.0, batch_records=1000, lag_seconds=2.0)
    assert jobs.observe(31_000, 2.0, batch_records=1000, lag_seconds=2.0) is None


def test_the_speed_is_that_of_a_whole_second_whatever_polls_fall_into_it():
    jobs = OpenBatches(most=500)
    assert jobs.observe(1000, 0.4, batch_records=1000, lag_seconds=2.0) is None
    assert jobs.observe(2000, 0.9, batch_records=1000, lag_seconds=2.0) is None
    assert "3000 tasks/s" in jobs.observe(0, 1.0, batch_records=1000, lag_seconds=2.0).reason


def test_the_speed_follows_what_is_seen():
    jobs = OpenBatches(most=500)
    for second in range(1, 12):
        jobs.observe(1000 if second == 1 else 3000, float(second), batch_records=1000, lag_seconds=2.0)
    assert 15 <= jobs.limit <= 16  # nearly as if it had been 3,000 from the beginning


def test_open_jobs_never_exceed_what_is_allowed_nor_stop_for_want_of_news():
    jobs = OpenBatches(most=10)
    assert jobs.observe(10**6, 1.0, batch_records=10, lag_seconds=5.0) is None
    assert jobs.observe(0, 61.0, batch_records=10, lag_seconds=5.0) is None
    assert jobs.limit == 10


def cut_off(batches, size):
    return batches.observe(size, 0.0, Upload.RESET)


def test_what_is_cut_off_again_and_again_makes_batches_smaller():
    batches = BatchBytes(4 * MEBIBYTE)
    change = cut_off(batches, 4_000_000)
    assert (change.after, change.reason) == (2_000_000, "a payload of 4000000 bytes was cut off again and again")
    assert batches.bars(4_000_000)


def test_what_is_cut_off_although_as_much_got_through_is_taken_for_chance_once():
    batches = BatchBytes(4 * MEBIBYTE)
    batches.observe(4_000_000, 0.5)
    assert cut_off(batches, 4_000_000) is None
    assert cut_off(batches, 4_000_000).after == 2_000_000


def test_a_small_payload_is_not_cut_off_for_its_size():
    assert cut_off(BatchBytes(4 * MEBIBYTE), SLOW_BYTES - 1) is None
