from hypothesis import given
from hypothesis import strategies as st

from engine.policy.rate import Pacer


def test_without_a_rate_nobody_waits():
    pacer = Pacer()
    assert [pacer.book(5.0) for _ in range(3)] == [0, 0, 0]


def test_calls_that_come_together_are_spaced():
    pacer = Pacer(per_second=10)
    assert [round(pacer.book(5.0), 6) for _ in range(4)] == [0, 0.1, 0.2, 0.3]


def test_time_that_was_not_used_is_not_saved_up():
    pacer = Pacer(per_second=10)
    pacer.book(0.0)
    assert [round(pacer.book(100.0), 6) for _ in range(3)] == [0, 0.1, 0.2]


def test_a_burst_may_go_at_once_after_a_rest():
    pacer = Pacer(per_second=10, burst=3)
    assert [round(pacer.book(100.0), 6) for _ in range(5)] == [0, 0, 0, 0.1, 0.2]


@given(st.floats(0.1, 1000), st.integers(1, 20), st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_no_window_sees_more_calls_than_the_rate_and_the_burst_allow(per_second, burst, gaps):
    pacer, now, sent = Pacer(per_second, burst), 0.0, []
    for gap in gaps:
        now += gap
        sent.append(now + pacer.book(now))
    for start in range(len(sent)):
        for end in range(start, len(sent)):
            assert end - start + 1 <= burst + (sent[end] - sent[start]) * per_second + 1e-6


def test_a_push_back_holds_everybody_and_the_rate_goes_on_behind_it():
    pacer = Pacer(per_second=10)
    assert pacer.hold(60.0)
    assert pacer.held_seconds(50.0) == 10
    assert [round(pacer.book(50.0), 6) for _ in range(3)] == [10, 10.1, 10.2]
    assert pacer.held_seconds(60.0) == 0


def test_a_push_back_is_never_shortened():
    pacer = Pacer()
    pacer.hold(60.0)
    assert not pacer.hold(30.0)
    assert not pacer.hold(60.0)
    assert pacer.book(0.0) == 60
