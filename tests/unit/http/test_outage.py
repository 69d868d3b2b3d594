"""When calls go out freely and when as probes. Time is made up."""

from hypothesis import given
from hypothesis import strategies as st

from engine.http.outage import BUDGET_TOKENS, REOPEN_TOKENS, Outage
from engine.http.retry import RetryRules

RULES = RetryRules(base_seconds=0.5, cap_seconds=20.0)


def fail(outage, now=0.0, *, draw=1.0, timed_out=False, fate_unknown=False, probe=False):
    return outage.failed(now, draw, timed_out=timed_out, fate_unknown=fate_unknown, probe=probe)


def spent():
    outage = Outage(RULES)
    while not outage.probing:
        fail(outage)
    return outage


def test_a_retry_costs_five_tokens_and_ten_after_a_time_out():
    outage = Outage(RULES)
    assert fail(outage) == 5
    assert fail(outage, timed_out=True) == 10
    assert outage.tokens == BUDGET_TOKENS - 15


def test_a_retry_that_helps_is_refunded_and_a_clean_success_earns_one():
    outage = Outage(RULES, tokens=100)
    outage.answered(10)
    outage.answered(0)
    assert outage.tokens == 111


@given(st.lists(st.sampled_from(["retry", "time-out", "refund", "clean"])))
def test_the_budget_neither_overflows_nor_goes_into_debt(steps):
    outage = Outage(RULES)
    for step in steps:
        if step in ("retry", "time-out"):
            fail(outage, timed_out=step == "time-out")
        else:
            outage.answered(5 if step == "refund" else 0)
        assert 0 <= outage.tokens <= BUDGET_TOKENS


def test_a_hundred_retries_are_free_before_the_gate_closes():
    outage = Outage(RULES)
    for _ in range(100):
        fail(outage)
    assert not outage.probing
    fail(outage)
    assert outage.probing


def test_a_call_whose_fate_is_unknown_closes_the_gate_at_once():
    outage = Outage(RULES)
    fail(outage, fate_unknown=True)
    assert outage.probing
    assert outage.probe_at == 0.5


def test_probes_are_spaced_wider_and_wider_up_to_the_cap():
    outage = spent()
    now, waits = 0.0, []
    for _ in range(8):
        waits.append(outage.probe_at - now)
        now += waits[-1]
        assert fail(outage, now, probe=True) == 0
    assert waits == [0.5, 1, 2, 4, 8, 16, 20, 20]


def test_calls_that_were_under_way_when_the_gate_closed_do_not_delay_the_first_probe():
    outage = spent()
    for _ in range(7):
        fail(outage, 0.1)
    assert outage.probe_at == 0.5


def test_the_first_answer_opens_the_gate_with_a_little_budget():
    outage = spent()
    outage.answered()
    assert not outage.probing
    assert outage.tokens == REOPEN_TOKENS
    assert outage.failing_seconds(0.0) == 0


def test_the_time_without_an_answer_is_measured_by_attempts_made():
    outage = Outage(RULES)
    fail(outage, 100.0)
    assert outage.failing_seconds(100.0) == 0
    fail(outage, 130.0, probe=True)
    assert outage.failing_seconds(135.0) == 30
    assert outage.failing_seconds(10_000.0) == 0, "an outage of long ago is no reason not to try"
