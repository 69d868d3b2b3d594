from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from engine.http.blame import Said
from engine.http.classify import (
    LONGEST_ASKED_SECONDS,
    Advice,
    Allowance,
    Effect,
    Loss,
    Verdict,
    allowance,
    asked_wait,
    judge_loss,
    judge_refusal,
    judge_status,
    retry_after,
)
from engine.model.error_hints import Carries

APPLIED, NOT, POSSIBLY = Effect.APPLIED, Effect.NOT_APPLIED, Effect.POSSIBLY_APPLIED
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC).timestamp()
REPEAT, REFUSED, ASK = Advice.REPEAT, Advice.REFUSED, Advice.ASK


BY_STATUS = {
    # status: (of a call that must not be repeated, of one that may be)
    200: ((APPLIED, Advice.ACCEPT), (APPLIED, Advice.ACCEPT)),
    202: ((APPLIED, Advice.ACCEPT), (APPLIED, Advice.ACCEPT)),
    204: ((APPLIED, Advice.ACCEPT), (APPLIED, Advice.ACCEPT)),
    301: ((NOT, REFUSED), (NOT, REFUSED)),
    302: ((POSSIBLY, ASK), (NOT, REFUSED)),
    303: ((POSSIBLY, ASK), (NOT, REFUSED)),
    307: ((NOT, REFUSED), (NOT, REFUSED)),
    308: ((NOT, REFUSED), (NOT, REFUSED)),
    400: ((NOT, REFUSED), (NOT, REFUSED)),
    401: ((NOT, REFUSED), (NOT, REFUSED)),
    403: ((NOT, REFUSED), (NOT, REFUSED)),
    404: ((NOT, REFUSED), (NOT, REFUSED)),
    408: ((POSSIBLY, ASK), (POSSIBLY, REPEAT)),
    409: ((NOT, REFUSED), (NOT, REFUSED)),
    413: ((NOT, REFUSED), (NOT, REFUSED)),
    422: ((NOT, REFUSED), (NOT, REFUSED)),
    425: ((NOT, REPEAT), (NOT, REPEAT)),
    429: ((NOT, REPEAT), (NOT, REPEAT)),
    500: ((POSSIBLY, ASK), (POSSIBLY, REPEAT)),
    501: ((NOT, REFUSED), (NOT, REFUSED)),
    502: ((POSSIBLY, ASK), (POSSIBLY, REPEAT)),
    503: ((POSSIBLY, ASK), (POSSIBLY, REPEAT)),
    504: ((POSSIBLY, ASK), (POSSIBLY, REPEAT)),
    505: ((NOT, REFUSED), (NOT, REFUSED)),
    520: ((POSSIBLY, ASK), (POSSIBLY, REPEAT)),
    999: ((POSSIBLY, ASK), (POSSIBLY, REPEAT)),
}


def test_each_status_has_its_verdict_for_calls_that_must_not_and_that_may_be_repeated():
    for status, expected in BY_STATUS.items():
        verdicts = [judge_status(status, repeatable=repeatable) for repeatable in (False, True)]
        assert tuple((verdict.effect, verdict.advice) for verdict in verdicts) == expected, status
        assert all(str(status) in verdict.reason for verdict in verdicts), status


def test_nothing_that_may_have_happened_is_ever_repeated_on_its_own():
    verdicts = {status: judge_status(status, repeatable=False) for status in range(100, 600)}
    assert not [status for status, one in verdicts.items() if (one.effect, one.advice) == (POSSIBLY, REPEAT)]


NO = Verdict(NOT, REFUSED, "status 4xx")


@pytest.mark.parametrize(
    ("carries", "said", "advice"),
    [
        (Carries.NOTHING, Said(401), Advice.UNAUTHORIZED),
        (Carries.NOTHING, Said(404, own=False), REPEAT),
        (Carries.NOTHING, Said(404), REFUSED),
        (Carries.RECORDS, Said(403, own=False), REFUSED),
        (Carries.BYTES, Said(400, code="OperationAborted"), REPEAT),
        (Carries.BYTES, Said(403, code="AccessDenied"), REFUSED),
    ],
)
def test_what_to_do_about_a_plain_no_follows_from_whose_fault_it_is(carries, said, advice):
    verdict = judge_refusal(NO, carries, said)
    assert (verdict.effect, verdict.advice, verdict.by_proxy) == (NOT, advice, not said.own)


def test_an_upload_that_the_store_found_too_slow_has_timed_out():
    verdict = judge_refusal(NO, Carries.BYTES, Said(400, code="RequestTimeout"))
    assert (verdict.advice, verdict.effect, verdict.timed_out) == (REPEAT, POSSIBLY, True)
    assert not judge_refusal(NO, Carries.RECORDS, Said(400, code="RequestTimeout")).timed_out


@pytest.mark.parametrize(
    ("loss", "once", "again"),
    [
        (Loss.UNREACHABLE, (NOT, REPEAT), (NOT, REPEAT)),
        (Loss.CONNECT_TIMEOUT, (NOT, REPEAT), (NOT, REPEAT)),
        (Loss.UNTRUSTED, (NOT, Advice.STOP), (NOT, Advice.STOP)),
        (Loss.FORBIDDEN, (NOT, Advice.STOP), (NOT, Advice.STOP)),
        (Loss.ANSWER_TIMEOUT, (POSSIBLY, ASK), (POSSIBLY, REPEAT)),
        (Loss.CUT, (POSSIBLY, ASK), (POSSIBLY, REPEAT)),
        (Loss.GARBLED, (POSSIBLY, Advice.DISTRUST), (POSSIBLY, REPEAT)),
        (Loss.TOO_LARGE, (POSSIBLY, Advice.DISTRUST), (POSSIBLY, Advice.DISTRUST)),
    ],
)
def test_each_loss_has_its_verdict(loss, once, again):
    for repeatable, expected in ((False, once), (True, again)):
        verdict = judge_loss(loss, repeatable=repeatable)
        assert (verdict.effect, verdict.advice) == expected


def test_time_outs_are_told_apart_because_their_retry_costs_more():
    assert judge_loss(Loss.ANSWER_TIMEOUT, repeatable=True).timed_out
    assert judge_loss(Loss.CONNECT_TIMEOUT, repeatable=True).timed_out
    assert judge_status(504, repeatable=True).timed_out
    assert not judge_status(500, repeatable=True).timed_out
    assert not judge_loss(Loss.CUT, repeatable=True).timed_out


def test_a_connection_that_broke_is_told_from_a_service_that_is_not_there():
    assert judge_loss(Loss.CUT, repeatable=True).reset
    assert not judge_loss(Loss.UNREACHABLE, repeatable=True).reset
    assert not judge_loss(Loss.ANSWER_TIMEOUT, repeatable=True).reset


# What headers ask


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


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "2000000042"}, (1000, 7, 42)),
        ({"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "42"}, (7, 7, 42)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "42"}, (1, 0, 42)),
        ({"X-RateLimit-Remaining": "many", "X-RateLimit-Reset": "42"}, None),
        ({"X-RateLimit-Remaining": "7"}, None),
        ({}, None),
    ],
)
def test_the_headers_are_read(headers, expected):
    assert allowance(headers, now=2e9) == (Allowance(*expected) if expected else None)
