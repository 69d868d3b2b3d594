from engine.adaptive.settle_time import SETTLE_SECONDS, SettleTime


def test_a_service_gets_as_long_as_was_said():
    assert SettleTime().seconds == SETTLE_SECONDS
    assert SettleTime(5.0).seconds == 5.0


def test_a_service_that_was_slow_to_begin_gets_twice_that_time():
    settle_time = SettleTime(120.0)
    assert not settle_time.saw_start(59.0)
    assert settle_time.seconds == 120.0
    assert settle_time.saw_start(75.0)
    assert settle_time.seconds == 150.0


def test_a_quicker_start_takes_nothing_back():
    settle_time = SettleTime(120.0)
    settle_time.saw_start(75.0)
    assert not settle_time.saw_start(1.0)
    assert settle_time.seconds == 150.0


def test_what_earlier_runs_have_seen_counts():
    assert SettleTime(120.0, slowest_start=100.0).seconds == 200.0
    assert SettleTime(300.0, slowest_start=100.0).seconds == 300.0
