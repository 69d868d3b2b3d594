from hypothesis import given
from hypothesis import strategies as st

from engine.http.retry import GiveUp, Retry, RetryRules, backoff, probe_spacing

RULES = RetryRules(base_seconds=0.5, cap_seconds=20.0, give_up_seconds=900.0)
draws = st.floats(0, 1, exclude_max=True)


def test_the_bound_doubles_up_to_the_cap():
    waits = [backoff(RULES, n, 0, 1.0).after_seconds for n in range(1, 9)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 20, 20]


@given(st.integers(1, 10**9), draws)
def test_full_jitter_stays_between_nothing_and_the_cap(attempt, draw):
    decision = backoff(RULES, attempt, 0, draw)
    assert isinstance(decision, Retry)
    assert 0 <= decision.after_seconds <= RULES.cap_seconds
    assert decision.reason


def test_it_gives_up_after_give_up_seconds_and_says_for_how_long_it_tried():
    assert isinstance(backoff(RULES, 50, 899, 0.5), Retry)
    decision = backoff(RULES, 50, 900, 0.5)
    assert isinstance(decision, GiveUp)
    assert "900" in decision.reason


def test_the_last_try_is_made_when_patience_ends_and_not_later():
    assert backoff(RULES, 50, 899, 0.9).after_seconds == 1


def test_no_patience_means_no_retry():
    assert isinstance(backoff(RetryRules(give_up_seconds=0), 1, 0, 0.5), GiveUp)


@given(st.integers(1, 40), draws, st.floats(0, 900))
def test_what_the_service_asks_for_is_a_minimum(attempt, draw, asked):
    decision = backoff(RULES, attempt, 0, draw, asked)
    assert asked <= decision.after_seconds <= asked + RULES.base_seconds


def test_a_longer_wait_than_we_have_patience_for_is_not_shortened_but_given_up():
    decision = backoff(RULES, 1, 600, 0.5, 301)
    assert isinstance(decision, GiveUp)
    assert "301" in decision.reason


@given(st.integers(0, 10**6), draws)
def test_probes_are_spaced_by_at_least_half_the_bound(probes, draw):
    spacing = probe_spacing(RULES, probes, draw)
    assert 0.25 <= spacing <= RULES.cap_seconds
    if probes > 6:
        assert spacing >= RULES.cap_seconds / 2
