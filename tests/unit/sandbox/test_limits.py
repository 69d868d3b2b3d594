from engine.sandbox.behaviour import RateLimit
from engine.sandbox.limits import RateLimits


def _answers(limits, kind, *times):
    return [limits.refusal(kind, now) is None for now in times]


def test_a_window_opens_with_its_first_request():
    limits = RateLimits([RateLimit(2, 10)])
    assert _answers(limits, "status", 100, 105, 109.9, 110, 111, 112) == [True, True, False, True, True, False]


def test_a_limit_counts_its_own_call_only():
    limits = RateLimits([RateLimit(1, 10, call="tasks")])
    assert _answers(limits, "tasks", 0, 1) == [True, False]
    assert _answers(limits, "status", 0, 1) == [True, True]


def test_a_limit_for_all_leaves_out_what_another_host_serves():
    limits = RateLimits([RateLimit(1, 10)], outside=frozenset({"put"}))
    assert _answers(limits, "put", 0, 1) == [True, True]
    assert _answers(limits, "create", 2) == [True]
    assert _answers(limits, "status", 3) == [False]


def test_a_refused_request_uses_up_no_other_limit():
    limits = RateLimits([RateLimit(1, 10, call="tasks"), RateLimit(2, 10)])
    assert _answers(limits, "tasks", 0, 1, 2) == [True, False, False]
    assert _answers(limits, "status", 3, 4) == [True, False]


def test_the_refusal_says_how_long_to_wait():
    limits = RateLimits([RateLimit(1, 10)])
    limits.refusal("status", 100)
    assert limits.refusal("status", 104) == (RateLimit(1, 10), 6)
