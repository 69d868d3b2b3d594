import pytest

from engine.http.blame import Said
from engine.http.classify import Advice, Effect, Loss, Verdict, judge_loss, judge_refusal, judge_status
from engine.model.error_hints import Carries

APPLIED, NOT, POSSIBLY = Effect.APPLIED, Effect.NOT_APPLIED, Effect.POSSIBLY_APPLIED
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
    assert (verdict.effect, verdict.advice, verdict.stranger) == (NOT, advice, not said.own)


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
