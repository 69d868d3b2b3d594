from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from engine.adaptive.window import Allowance
from engine.http.classify import (
    BLAME_TABLE,
    LONGEST_ASKED_SECONDS,
    STORE_LATER,
    Loss,
    Said,
    Verdict,
    allowance,
    asked_wait,
    is_for_size,
    judge_loss,
    judge_refusal,
    judge_status,
    retry_after,
    whose_fault,
)
from engine.http.messages import names_records
from engine.model.error_hints import Blame, Carries
from engine.model.errors import PossiblyApplied, Refused, Unauthorized, Unavailable, UnexpectedAnswer, WrongAddress
from engine.model.settings import WindowHeaders

NOT, POSSIBLY = False, True
"""Whether it may have been done."""
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC).timestamp()
REPEAT, REFUSED, ASK = Unavailable, Refused, PossiblyApplied


BY_STATUS = {
    # status: (of a call that must not be repeated, of one that may be)
    200: ((NOT, None), (NOT, None)),
    202: ((NOT, None), (NOT, None)),
    204: ((NOT, None), (NOT, None)),
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
        assert tuple((verdict.lost, verdict.error) for verdict in verdicts) == expected, status
        assert all(str(status) in verdict.reason for verdict in verdicts), status


def test_nothing_that_may_have_happened_is_ever_repeated_on_its_own():
    verdicts = {status: judge_status(status, repeatable=False) for status in range(100, 600)}
    assert not [status for status, one in verdicts.items() if (one.lost, one.error) == (POSSIBLY, REPEAT)]


NO = Verdict(REFUSED, "status 4xx")


@pytest.mark.parametrize(
    ("carries", "said", "error"),
    [
        (Carries.NOTHING, Said(401), Unauthorized),
        (Carries.NOTHING, Said(404, own=False), REPEAT),
        (Carries.NOTHING, Said(404), REFUSED),
        (Carries.RECORDS, Said(403, own=False), REFUSED),
        (Carries.BYTES, Said(400, code="OperationAborted"), REPEAT),
        (Carries.BYTES, Said(403, code="AccessDenied"), REFUSED),
    ],
)
def test_what_to_do_about_a_plain_no_follows_from_whose_fault_it_is(carries, said, error):
    verdict = judge_refusal(NO, carries, said)
    assert (verdict.lost, verdict.error, verdict.by_proxy) == (NOT, error, not said.own)


def test_an_upload_that_the_store_found_too_slow_has_timed_out():
    verdict = judge_refusal(NO, Carries.BYTES, Said(400, code="RequestTimeout"))
    assert (verdict.error, verdict.lost, verdict.timed_out) == (REPEAT, POSSIBLY, True)
    assert not judge_refusal(NO, Carries.RECORDS, Said(400, code="RequestTimeout")).timed_out


@pytest.mark.parametrize(
    ("loss", "once", "again"),
    [
        (Loss.UNREACHABLE, (NOT, REPEAT), (NOT, REPEAT)),
        (Loss.CONNECT_TIMEOUT, (NOT, REPEAT), (NOT, REPEAT)),
        (Loss.UNTRUSTED, (NOT, WrongAddress), (NOT, WrongAddress)),
        (Loss.FORBIDDEN, (NOT, WrongAddress), (NOT, WrongAddress)),
        (Loss.ANSWER_TIMEOUT, (POSSIBLY, ASK), (POSSIBLY, REPEAT)),
        (Loss.CUT, (POSSIBLY, ASK), (POSSIBLY, REPEAT)),
        (Loss.GARBLED, (POSSIBLY, UnexpectedAnswer), (POSSIBLY, REPEAT)),
        (Loss.TOO_LARGE, (POSSIBLY, UnexpectedAnswer), (POSSIBLY, UnexpectedAnswer)),
    ],
)
def test_each_loss_has_its_verdict(loss, once, again):
    for repeatable, expected in ((False, once), (True, again)):
        verdict = judge_loss(loss, repeatable=repeatable)
        assert (verdict.lost, verdict.error) == expected


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
        ("31536000", LONGEST_ASKED_SECONDS),
        (str(int(NOW) + 2), 2),
        (str(int(NOW) - 2), 0),
        (f"{int(NOW) + 2}.5", 2.5),
        (str(int(NOW + 2) * 1000), 2),
        ("99999999999999999999", None),
        ("9" * 400, None),
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
@example("0\x1f")
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
    assert ask(429, x_ratelimit_reset=f"{int(NOW) + 42}000") == 42
    assert ask(429, x_ratelimit_reset="300000") == 300, "300 s in milliseconds: no window lasts three days"
    assert ask(429, x_ratelimit_reset="4" * 400) is None
    assert ask(429, x_ratelimit_reset="tomorrow") is None
    assert ask(429) is None


def test_what_asks_for_no_wait_leaves_it_to_our_own_backoff():
    for value in ("0", "Sun, 01 Mar 2026 11:00:00 GMT", str(int(NOW) - 60), "-5"):
        assert ask(429, retry_after=value) is None
    assert ask(429, retry_after="0", x_ratelimit_reset="42") == 42


def test_retry_after_goes_before_the_rate_limit_headers():
    assert ask(429, retry_after="1", x_ratelimit_reset="300") == 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "2000000042"}, (1000, 7, 42)),
        ({"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "42"}, (7, 7, 42)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "42"}, (1, 0, 42)),
        ({"X-RateLimit-Limit": "0", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "42"}, None),
        ({"X-RateLimit-Limit": "-1", "X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "42"}, None),
        ({"X-RateLimit-Limit": "9" * 400, "X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "42"}, None),
        ({"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "-7", "X-RateLimit-Reset": "42"}, None),
        ({"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "4" * 400, "X-RateLimit-Reset": "42"}, None),
        ({"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "4", "X-RateLimit-Reset": "2000000042000"}, (9, 4, 42)),
        ({"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "4", "X-RateLimit-Reset": "1900000000"}, (9, 4, 0)),
        ({"X-RateLimit-Remaining": "many", "X-RateLimit-Reset": "42"}, None),
        ({"X-RateLimit-Remaining": "7"}, None),
        ({}, None),
    ],
)
def test_the_headers_are_read(headers, expected):
    assert allowance(headers, now=2e9) == (Allowance(*expected) if expected else None)


HUBSPOT = WindowHeaders("X-HubSpot-RateLimit-Remaining", "X-HubSpot-RateLimit-Max", "", every=10.0)
AIRY = WindowHeaders("RateLimit-Remaining", "RateLimit-Limit", "RateLimit-Reset")


@pytest.mark.parametrize(
    ("names", "headers", "expected"),
    [
        (HUBSPOT, {"X-HubSpot-RateLimit-Remaining": "7", "X-HubSpot-RateLimit-Max": "100"}, (100, 7, 10.0, True)),
        (HUBSPOT, {"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "42"}, None),
        (AIRY, {"RateLimit-Remaining": "7", "RateLimit-Limit": "9", "RateLimit-Reset": "42"}, (9, 7, 42, False)),
        (AIRY, {"RateLimit-Remaining": "7", "RateLimit-Limit": "9"}, None),
    ],
)
def test_a_window_may_be_told_by_other_names_and_have_a_fixed_length(names, headers, expected):
    assert allowance(headers, 2e9, names) == (Allowance(*expected) if expected else None)


def test_the_end_of_a_window_by_another_name_is_waited_for_after_a_429():
    assert asked_wait({"RateLimit-Reset": "42"}, NOW, status=429, names=AIRY) == 42


# Whose fault a refusal is


NOTHING, RECORDS, RELEASE, BYTES = Carries
CONTENT = (400, 409, 422)
ELSEWHERE = (301, 307, 308)
REFUSALS = [301, 302, 303, 307, 308, *range(400, 429), 431, 451, 501, 505]
EVERY_ANSWER = [
    Said(status, own, code, names)
    for status, own, code, names in product(
        REFUSALS, (True, False), ("", "InvalidArgument", "EntityTooLarge", *STORE_LATER), (True, False)
    )
]


@pytest.mark.parametrize(
    ("carries", "said", "blame"),
    [
        # The store of presigned uploads.
        (BYTES, Said(400, code="RequestTimeout"), Blame.NOT_NOW),
        (BYTES, Said(409, code="OperationAborted"), Blame.NOT_NOW),
        (BYTES, Said(307, code="TemporaryRedirect"), Blame.NOT_NOW),
        (BYTES, Said(413, own=False), Blame.PAYLOAD),
        (BYTES, Said(400, code="EntityTooLarge"), Blame.PAYLOAD),
        (BYTES, Said(403, code="AccessDenied"), Blame.URL),
        (BYTES, Said(401, own=False), Blame.URL),
        (BYTES, Said(400, code="InvalidArgument"), Blame.URL),
        (BYTES, Said(404, code="NoSuchBucket"), Blame.URL),
        (BYTES, Said(404, own=False), Blame.NOT_NOW),
        (BYTES, Said(422, own=False, names_records=True), Blame.NOT_NOW),
        # Calls that carry records.
        (RECORDS, Said(413, own=False), Blame.PAYLOAD),
        (RECORDS, Said(400), Blame.PAYLOAD),
        (RECORDS, Said(422), Blame.PAYLOAD),
        (RECORDS, Said(422, names_records=True), Blame.RECORDS),
        (RECORDS, Said(409), Blame.PAYLOAD),
        (RECORDS, Said(404), Blame.JOB),
        (RECORDS, Said(405), Blame.JOB),
        (RECORDS, Said(403, own=False), Blame.SUSPECT),
        (RECORDS, Said(406, own=False), Blame.SUSPECT),
        (RECORDS, Said(401), Blame.KEY),
        (RECORDS, Said(401, own=False), Blame.KEY),
        (RECORDS, Said(403), Blame.KEY),
        *((RECORDS, Said(status, own), Blame.JOB) for status in ELSEWHERE for own in (True, False)),
        (RECORDS, Said(302, own=False), Blame.SUSPECT),
        # Calls that release what was brought before.
        (RELEASE, Said(422), Blame.PAYLOAD),
        (RELEASE, Said(400, names_records=True), Blame.RECORDS),
        (RELEASE, Said(404), Blame.RECORDS),
        (RELEASE, Said(409), Blame.RECORDS),
        (RELEASE, Said(405), Blame.JOB),
        (RELEASE, Said(404, own=False), Blame.NOT_NOW),
        (RELEASE, Said(403), Blame.KEY),
        *((RELEASE, Said(status, own), Blame.JOB) for status in ELSEWHERE for own in (True, False)),
        # Calls that carry nothing.
        (NOTHING, Said(400), Blame.JOB),
        (NOTHING, Said(404), Blame.JOB),
        (NOTHING, Said(422, names_records=True), Blame.JOB),
        (NOTHING, Said(403), Blame.KEY),
        (NOTHING, Said(403, own=False), Blame.NOT_NOW),
        (NOTHING, Said(404, own=False), Blame.NOT_NOW),
        (NOTHING, Said(301, own=False), Blame.NOT_NOW),
    ],
    ids=str,
)
def test_each_call_and_answer_has_its_blame(carries, said, blame):
    assert whose_fault(carries, said) is blame


def test_a_call_without_records_decides_no_records_fate():
    blamed = {whose_fault(NOTHING, said) for said in EVERY_ANSWER}
    assert blamed == {Blame.KEY, Blame.JOB, Blame.NOT_NOW}


def test_a_store_says_of_a_payload_only_that_it_is_too_large():
    for said in EVERY_ANSWER:
        assert (whose_fault(BYTES, said) is Blame.PAYLOAD) == (said.code not in STORE_LATER and is_for_size(said))
    assert {whose_fault(BYTES, said) for said in EVERY_ANSWER} == {Blame.PAYLOAD, Blame.URL, Blame.NOT_NOW}


@pytest.mark.parametrize("carries", [RECORDS, RELEASE, NOTHING])
def test_what_is_in_nobodys_words_is_no_fact_about_a_record(carries):
    pages = [said for said in EVERY_ANSWER if not said.own and said.status != 413]
    for said in pages:
        about_no_record = {Blame.KEY, Blame.SUSPECT, Blame.NOT_NOW, *([Blame.JOB] if said.status in ELSEWHERE else [])}
        assert whose_fault(carries, said) in about_no_record, said


def test_every_row_counts_for_something_and_says_why():
    counted = {
        next(row for row in BLAME_TABLE if row.fits(carries, said)) for carries, said in product(Carries, EVERY_ANSWER)
    }
    assert counted == set(BLAME_TABLE)
    assert all(row.reason for row in BLAME_TABLE)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"errors":[{"type":"InvalidInputSchema","message":"x"}]}', False),
        (b'{"errors":[{"task_id":"1","message":"x"}]}', True),
        (b'[{"index":3}]', True),
        (b'{"errors":["nope"]}', False),
        (b"<html>", False),
        (b"7", False),
    ],
)
def test_an_error_may_name_the_record_that_it_is_about(body, names):
    assert names_records(body) is names
