import pytest

from engine.policy.outcome import Advice, Effect, Loss, judge_loss, judge_status

APPLIED, NOT, POSSIBLY = Effect.APPLIED, Effect.NOT_APPLIED, Effect.POSSIBLY_APPLIED
REPEAT, REFUSED, ASK = Advice.REPEAT, Advice.REFUSED, Advice.ASK


@pytest.mark.parametrize(
    ("status", "once", "again"),
    [
        (200, (APPLIED, Advice.ACCEPT), (APPLIED, Advice.ACCEPT)),
        (202, (APPLIED, Advice.ACCEPT), (APPLIED, Advice.ACCEPT)),
        (204, (APPLIED, Advice.ACCEPT), (APPLIED, Advice.ACCEPT)),
        (301, (NOT, REFUSED), (NOT, REFUSED)),
        (302, (POSSIBLY, ASK), (NOT, REFUSED)),
        (303, (POSSIBLY, ASK), (NOT, REFUSED)),
        (307, (NOT, REFUSED), (NOT, REFUSED)),
        (308, (NOT, REFUSED), (NOT, REFUSED)),
        (400, (NOT, REFUSED), (NOT, REFUSED)),
        (401, (NOT, Advice.UNAUTHORIZED), (NOT, Advice.UNAUTHORIZED)),
        (403, (NOT, Advice.UNAUTHORIZED), (NOT, Advice.UNAUTHORIZED)),
        (404, (NOT, REFUSED), (NOT, REFUSED)),
        (408, (POSSIBLY, ASK), (POSSIBLY, REPEAT)),
        (409, (NOT, REFUSED), (NOT, REFUSED)),
        (413, (NOT, REFUSED), (NOT, REFUSED)),
        (422, (NOT, REFUSED), (NOT, REFUSED)),
        (425, (NOT, REPEAT), (NOT, REPEAT)),
        (429, (NOT, REPEAT), (NOT, REPEAT)),
        (500, (POSSIBLY, ASK), (POSSIBLY, REPEAT)),
        (501, (NOT, REFUSED), (NOT, REFUSED)),
        (502, (POSSIBLY, ASK), (POSSIBLY, REPEAT)),
        (503, (POSSIBLY, ASK), (POSSIBLY, REPEAT)),
        (504, (POSSIBLY, ASK), (POSSIBLY, REPEAT)),
        (505, (NOT, REFUSED), (NOT, REFUSED)),
        (520, (POSSIBLY, ASK), (POSSIBLY, REPEAT)),
        (999, (POSSIBLY, ASK), (POSSIBLY, REPEAT)),
    ],
)
def test_each_status_has_its_verdict_for_calls_that_must_not_and_that_may_be_repeated(status, once, again):
    for repeatable, expected in ((False, once), (True, again)):
        verdict = judge_status(status, repeatable=repeatable, authenticated=True)
        assert (verdict.effect, verdict.advice) == expected
        assert str(status) in verdict.reason


@pytest.mark.parametrize("status", range(100, 600))
def test_nothing_that_may_have_happened_is_ever_repeated_on_its_own(status):
    verdict = judge_status(status, repeatable=False, authenticated=True)
    assert (verdict.effect, verdict.advice) != (POSSIBLY, REPEAT)


@pytest.mark.parametrize("status", [401, 403])
def test_a_presigned_url_that_is_turned_down_has_expired_and_says_nothing_of_our_credentials(status):
    assert judge_status(status, repeatable=True, authenticated=False).advice is REFUSED


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
    assert judge_status(504, repeatable=True, authenticated=True).timed_out
    assert not judge_status(500, repeatable=True, authenticated=True).timed_out
    assert not judge_loss(Loss.CUT, repeatable=True).timed_out
