import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adaptive.rate import LearnedRate, Pacer


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


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_no_window_sees_more_calls_than_the_rate_allows(per_second, gaps):
    pacer, now, sent = Pacer(per_second), 0.0, []
    for gap in gaps:
        now += gap
        sent.append(now + pacer.book(now))
    for start in range(len(sent)):
        for end in range(start, len(sent)):
            assert end - start <= (sent[end] - sent[start]) * per_second + 1e-6


def test_a_push_back_holds_everybody_and_the_rate_goes_on_behind_it():
    pacer = Pacer(per_second=10)
    assert pacer.hold(60.0)
    assert pacer.held_until == 60
    assert [round(pacer.book(50.0), 6) for _ in range(3)] == [10, 10.1, 10.2]


def test_a_push_back_is_never_shortened():
    pacer = Pacer()
    pacer.hold(60.0)
    assert not pacer.hold(30.0)
    assert not pacer.hold(60.0)
    assert pacer.book(0.0) == 60


def calls_against(limit_at, seconds, *, burst=5, rate=None):
    """Call as fast as the rate allows a service with a token bucket; return (time, let in) of each call."""
    rate = rate or LearnedRate()
    now, tokens, refilled, calls = 0.0, float(burst), 0.0, []
    while now < seconds:
        now += rate.book(now) + 0.001
        tokens, refilled = min(burst, tokens + (now - refilled) * limit_at(now)), now
        calls.append((now, tokens >= 1))
        if tokens >= 1:
            tokens -= 1
            rate.answered(now)
        else:
            rate.pushed_back(now, now, now + 1.0)
            now += 1.0
    return calls


def share_let_in(calls, limit, since, until):
    """Return what was let in of what would have been, and the share of calls that were refused."""
    verdicts = [let_in for at, let_in in calls if since <= at < until]
    return sum(verdicts) / (limit * (until - since)), verdicts.count(False) / len(verdicts)


def test_nobody_waits_until_something_is_refused():
    rate = LearnedRate()
    assert [rate.book(5.0) for _ in range(100)] == [0.0] * 100
    rate.answered(5.0)
    assert rate.per_second is None


@pytest.mark.parametrize("limit", [0.5, 2, 20, 200])
def test_a_limit_that_is_not_told_is_found_and_used(limit):
    calls = calls_against(lambda _: limit, 400 + 400 / limit)
    used, refused = share_let_in(calls, limit, 100 + 100 / limit, 400 + 400 / limit)
    assert 0.8 < used <= 1.01
    assert refused < 0.05


@pytest.mark.parametrize(("before", "after"), [(20, 2), (2, 20)])
def test_a_limit_that_changes_is_found_again(before, after):
    calls = calls_against(lambda now: before if now < 300 else after, 900)
    used, refused = share_let_in(calls, after, 500, 900)
    assert 0.8 < used <= 1.01
    assert refused < 0.05


def test_calls_that_were_on_their_way_together_cut_the_pace_once():
    rate = LearnedRate()
    for _ in range(10):
        rate.book(0.0)
    rate.pushed_back(1.0, 0.0, 2.0)
    pace = rate.per_second
    assert pace == pytest.approx(7)
    rate.pushed_back(1.1, 0.0, 2.0)
    rate.answered(0.5)
    assert rate.per_second == pace
    assert rate.book(1.2) == pytest.approx(0.8)
    assert rate.book(1.2) == pytest.approx(0.8 + 1 / 7)


def test_a_service_that_refuses_everything_is_still_asked_now_and_then():
    rate = LearnedRate(slowest=0.1)
    now = 0.0
    for _ in range(100):
        now += rate.book(now) + 1
        rate.pushed_back(now, now, now)
    assert rate.per_second == 0.1


def test_places_that_are_due_soon_may_be_taken_many_at_once():
    pacer = Pacer(per_second=8)
    assert pacer.book_ahead(5.0, 3, seconds=1.0) == (0.0, 3)
    assert pacer.book_ahead(5.0, 100, seconds=1.0) == (0.375, 5)
    assert pacer.book_ahead(5.0, 100, seconds=1.0)[1] == 0
    assert pacer.book(5.0) == 1.0


def test_of_a_slow_pace_the_next_place_may_be_taken_once_it_is_due_soon():
    pacer = Pacer(per_second=0.1)
    assert [pacer.book_ahead(now, 5, seconds=1.0)[1] for now in (0.0, 1.0, 9.0, 9.5, 10.0)] == [1, 0, 0, 1, 0]


def test_a_push_back_cuts_the_measured_pace_where_calls_are_booked_elsewhere():
    rate = LearnedRate()
    rate.pushed_back(1.0, 1.0, 1.0, measured=50.0)
    assert rate.per_second == 35.0
