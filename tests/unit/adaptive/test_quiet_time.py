from engine.adaptive.quiet_time import SETTLE_SECONDS, QuietTime


def test_a_service_gets_as_long_as_was_said():
    assert QuietTime().seconds == SETTLE_SECONDS
    assert QuietTime(5.0).seconds == 5.0


def test_a_service_that_was_slow_to_begin_gets_twice_that_time():
    quiet = QuietTime(120.0)
    assert not quiet.saw_start(59.0)
    assert quiet.seconds == 120.0
    assert quiet.saw_start(75.0)
    assert quiet.seconds == 150.0


def test_a_quicker_start_takes_nothing_back():
    quiet = QuietTime(120.0)
    quiet.saw_start(75.0)
    assert not quiet.saw_start(1.0)
    assert quiet.seconds == 150.0


def test_what_earlier_runs_have_seen_counts():
    assert QuietTime(120.0, slowest_start=100.0).seconds == 200.0
    assert QuietTime(300.0, slowest_start=100.0).seconds == 300.0
