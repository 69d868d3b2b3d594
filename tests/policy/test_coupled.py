from engine.policy.coupled import OpenJobs


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
