from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from engine.http.retry import (
    LONGEST_ASKED_SECONDS,
    GiveUp,
    Retry,
    RetryRules,
    asked_wait,
    decide,
    probe_spacing,
    retry_after,
)

RULES = RetryRules(base_seconds=0.5, cap_seconds=20.0, give_up_seconds=900.0)
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC).timestamp()
draws = st.floats(0, 1, exclude_max=True)


def test_the_bound_doubles_up_to_the_cap():
    waits = [decide(RULES, attempt=n, failing_seconds=0, draw=1.0).after_seconds for n in range(1, 9)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 20, 20]


@given(st.integers(1, 10**9), draws)
def test_full_jitter_stays_between_nothing_and_the_cap(attempt, draw):
    decision = decide(RULES, attempt=attempt, failing_seconds=0, draw=draw)
    assert isinstance(decision, Retry)
    assert 0 <= decision.after_seconds <= RULES.cap_seconds
    assert decision.reason


def test_it_gives_up_after_give_up_seconds_and_says_for_how_long_it_tried():
    assert isinstance(decide(RULES, attempt=50, failing_seconds=899, draw=0.5), Retry)
    decision = decide(RULES, attempt=50, failing_seconds=900, draw=0.5)
    assert isinstance(decision, GiveUp)
    assert "900" in decision.reason


def test_no_patience_means_no_retry():
    assert isinstance(decide(RetryRules(give_up_seconds=0), attempt=1, failing_seconds=0, draw=0.5), GiveUp)


@given(st.integers(1, 40), draws, st.floats(0, 900))
def test_what_the_service_asks_for_is_a_minimum(attempt, draw, asked):
    decision = decide(RULES, attempt=attempt, failing_seconds=0, draw=draw, asked_seconds=asked)
    assert asked <= decision.after_seconds <= asked + RULES.base_seconds


def test_a_longer_wait_than_we_have_patience_for_is_not_shortened_but_given_up():
    decision = decide(RULES, attempt=1, failing_seconds=600, draw=0.5, asked_seconds=301)
    assert isinstance(decision, GiveUp)
    assert "301" in decision.reason


@given(st.integers(0, 10**6), draws)
def test_probes_are_spaced_by_at_least_half_the_bound(probes, draw):
    spacing = probe_spacing(RULES, probes, draw)
    assert 0.25 <= spacing <= RULES.cap_seconds
    if probes > 6:
        assert spacing >= RULES.cap_seconds / 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30),
        ("Sunday, 01-Mar-26 12:00:30 GMT", 30),
        ("Sun Mar  1 12:00:30 2026", 30),
        ("Sun, 01 Mar 2026 13:00:30 +0100", 30),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_ASKED_SECONDS),
        ("99999999999999999999", LONGEST_ASKED_SECONDS),
        ("", None),
        ("-5", None),
        ("1e3", None),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("١٢", None),
        ("0x10", None),
        ("1, 2", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value, seconds):
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_whatever_stands_in_retry_after_the_wait_is_sane(value):
    seconds = retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= LONGEST_ASKED_SECONDS


@given(st.integers(-(10**6), 86_400))
def test_an_http_date_means_the_time_left_until_then(offset):
    value = format_datetime(datetime.fromtimestamp(NOW + offset, UTC), usegmt=True)
    assert retry_after(value, NOW) == max(0, offset)


def ask(status, **headers):
    sent = CIMultiDict((name.replace("_", "-"), value) for name, value in headers.items())
    return asked_wait(sent, NOW, status=status)


def test_a_date_is_read_by_the_clock_of_whoever_wrote_it():
    headers = {"Retry_After": "Sun, 01 Mar 2026 12:00:30 GMT", "Date": "Sun, 01 Mar 2026 12:00:20 GMT"}
    assert ask(503, **headers) == 10


def test_retry_after_counts_beside_errors_only():
    assert ask(429, retry_after="3") == 3
    assert ask(503, retry_after="3") == 3
    assert ask(202, retry_after="3") is None


def test_an_allowance_that_is_used_up_is_waited_for():
    reset = str(int(NOW) + 42)
    assert ask(429, x_ratelimit_reset=reset) == 42
    assert ask(429, x_ratelimit_reset="42") == 42
    assert ask(429, x_ratelimit_reset="tomorrow") is None
    assert ask(429) is None


def test_retry_after_goes_before_the_rate_limit_headers():
    assert ask(429, retry_after="1", x_ratelimit_reset="300") == 1
