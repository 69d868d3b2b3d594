from hypothesis import given
from hypothesis import strategies as st

from engine.policy.coupled import BatchBytes, OpenJobs, Upload

MEBIBYTE = 2**20


def feed(batches, fixed_seconds, mebibyte_seconds, calls=16):
    changes = []
    for number in range(calls):
        size = batches.limit - number % 4 * batches.limit // 10
        changes.append(batches.observe(size, fixed_seconds + mebibyte_seconds * size / MEBIBYTE))
    return [change for change in changes if change]


def test_batches_grow_while_a_call_costs_the_same_whatever_its_size():
    batches = BatchBytes(most=4 * MEBIBYTE, limit=MEBIBYTE)
    (change,) = feed(batches, 0.5, 0.01)
    assert (change.name, change.before, change.after) == ("max_batch_bytes", MEBIBYTE, 2 * MEBIBYTE)
    assert "does not depend on its size" in change.reason


def test_batches_stay_where_time_goes_by_the_byte():
    batches = BatchBytes(most=4 * MEBIBYTE, limit=MEBIBYTE)
    assert feed(batches, 0.01, 0.5, calls=64) == []


def test_batches_that_do_not_fill_the_limit_are_no_reason_to_raise_it():
    batches = BatchBytes(most=4 * MEBIBYTE, limit=MEBIBYTE)
    assert not any(batches.observe(1000 + number, 0.5) for number in range(64))


def test_a_payload_that_is_too_large_halves_what_follows_and_its_size_is_never_tried_again():
    batches = BatchBytes(most=4 * MEBIBYTE, limit=2 * MEBIBYTE)
    change = batches.observe(2 * MEBIBYTE, 0.1, Upload.TOO_LARGE)
    assert (change.after, change.reason) == (MEBIBYTE, "a payload of 2097152 bytes: too large")
    for _ in range(10):
        feed(batches, 0.5, 0.0)
    assert MEBIBYTE < batches.limit < 2 * MEBIBYTE


def test_an_upload_that_times_out_halves_too():
    batches = BatchBytes(most=4 * MEBIBYTE, limit=2 * MEBIBYTE)
    assert batches.observe(2 * MEBIBYTE, 300.0, Upload.TIMED_OUT).after == MEBIBYTE


@given(st.lists(st.tuples(st.integers(1, 2**23), st.floats(0.001, 300), st.sampled_from(Upload)), max_size=200))
def test_batches_never_leave_what_is_allowed(uploads):
    batches = BatchBytes(most=4 * MEBIBYTE, limit=MEBIBYTE)
    for size, seconds, fate in uploads:
        batches.observe(size, seconds, fate)
        assert batches.least <= batches.limit <= batches.most


def test_open_jobs_follow_the_creation_speed_by_littles_law():
    jobs = OpenJobs(most=500)
    change = jobs.observe(3000, 1.0, batch_records=1000, lag_seconds=2.0)
    assert (change.name, change.before, change.after) == ("max_open_batches", 500, 16)  # twice six, and four
    assert "3000 tasks/s" in change.reason


def test_a_slow_service_still_has_the_next_jobs_in_line():
    jobs = OpenJobs(most=500)
    jobs.observe(3, 1.0, batch_records=1000, lag_seconds=1.0)
    assert 4 <= jobs.limit <= 5


def test_small_changes_of_speed_make_no_noise():
    jobs = OpenJobs(most=500)
    jobs.observe(30_000, 1.0, batch_records=1000, lag_seconds=2.0)
    assert jobs.observe(31_000, 1.0, batch_records=1000, lag_seconds=2.0) is None


def test_jobs_that_run_side_by_side_are_not_held_back():
    jobs = OpenJobs(most=500)
    assert jobs.observe(10, 1.0, batch_records=1000, lag_seconds=1.0, in_line=False) is None
    assert jobs.limit == 500


def test_open_jobs_never_exceed_what_is_allowed_nor_stop_for_want_of_news():
    jobs = OpenJobs(most=10)
    assert jobs.observe(10**6, 1.0, batch_records=10, lag_seconds=5.0) is None
    assert jobs.observe(0, 60.0, batch_records=10, lag_seconds=5.0) is None
    assert jobs.limit == 10
