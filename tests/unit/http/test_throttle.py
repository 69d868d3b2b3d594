"""When a call may go out, and the reason of each wait. Time is made up: nothing here sleeps."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from engine.adaptive.window import Allowance
from engine.http.classify import Loss, judge_loss, judge_status
from engine.http.retry import CallState, GiveUp, RetryRules
from engine.http.throttle import (
    GO,
    LEARNED_PACE,
    OUTAGE,
    WINDOW_USED_UP,
    Admission,
    Throttle,
)
from engine.progress.events import Paused, Spaced
from engine.services.base import Call

STATUS = Call("status", "GET", "https://api.example.com/v2/batches/1.json")
CREATE = Call("create", "POST", "https://api.example.com/v2/batches.json", repeatable=False)
PUT = Call("put", "PUT", "https://bucket.s3.amazonaws.com/key", authenticated=False)
LISTED = replace(STATUS, kind="tasks", lane="tasks")
OK, PUSHED_BACK = (judge_status(status, repeatable=True) for status in (200, 429))
LOST = judge_loss(Loss.CUT, repeatable=False)


def throttle(requests_per_second=None, **rules):
    return Throttle(RetryRules(**rules), requests_per_second, lambda: 0.5)


def admitted(throttle, call, now=0.0):
    """Return a call that was let go."""
    state = CallState(call)
    assert throttle.admit(state, now) == GO
    state.sent_at = now
    return state


def ended(throttle, call, verdict, now=0.0):
    """Let a call go and end; return what people are told."""
    return throttle.observe(admitted(throttle, call, now), verdict, now)


# The reason of each wait


def test_whoever_is_held_by_a_push_back_says_what_the_service_said_and_people_are_told_once():
    one = throttle()
    reason = "the service asks for it (status 429)"
    assert ended(one, STATUS, replace(PUSHED_BACK, asked_seconds=30.0)) == Paused(reason, 30.0)
    assert one.admit(CallState(CREATE), 10.0) == Admission(20.0, reason)


def test_a_push_back_of_one_lane_holds_no_other():
    one = throttle()
    ended(one, LISTED, replace(PUSHED_BACK, asked_seconds=30.0))
    assert one.admit(CallState(LISTED), 10.0).seconds == 20.0
    assert one.admit(CallState(STATUS), 10.0) == GO


def test_a_push_back_for_longer_than_we_are_patient_is_a_reason_to_give_up():
    one = throttle(give_up_seconds=900.0)
    ended(one, STATUS, replace(PUSHED_BACK, asked_seconds=3600.0))
    assert one.admit(CallState(CREATE), 0.0) == GiveUp("the service asks not to be called for 3600 s")


def test_a_place_that_comes_before_the_end_of_a_push_back_is_void():
    one = throttle(requests_per_second=1.0)
    first, second = admitted(one, STATUS), CallState(STATUS)
    assert one.admit(second, 0.0).seconds == 1.0
    one.observe(first, replace(PUSHED_BACK, asked_seconds=30.0), 0.5)
    assert one.admit(second, 1.0).seconds == 29.5
    assert one.admit(CallState(STATUS), 1.0).seconds == 30.5


def test_whoever_waits_for_the_configured_pace_says_so():
    one = throttle(requests_per_second=0.25)
    admitted(one, STATUS)
    reason = "requests_per_second is 0.25"
    assert one.admit(CallState(STATUS), 0.0) == Admission(4.0, reason, Spaced(reason, 4.0))
    assert one.admit(CallState(STATUS), 1.0) == Admission(7.0, reason), "people know of it for three seconds more"
    assert one.admit(CallState(STATUS), 5.0) == Admission(7.0, reason, Spaced(reason, 7.0))


def test_whoever_waits_for_the_documented_pace_of_its_lane_says_so_and_no_other_call_waits():
    one, call = throttle(), replace(LISTED, lane_seconds=4.0)
    admitted(one, call)
    reason = "the service takes one such call in 4 s"
    assert one.admit(CallState(call), 0.0) == Admission(4.0, reason, Spaced(reason, 4.0))
    assert one.admit(CallState(STATUS), 0.0) == GO


def test_whoever_waits_for_the_pace_that_a_service_was_found_to_take_says_so():
    one = throttle()
    ended(one, STATUS, PUSHED_BACK)
    second = CallState(STATUS)
    waits = [one.admit(CallState(STATUS), 0.0) for _ in range(200)]
    assert waits[-1].seconds > 1
    assert {wait.reason for wait in waits if wait.seconds} == {LEARNED_PACE}
    assert sum(wait.news is not None for wait in waits) == 1
    assert one.admit(CallState(PUT), 0.0) == GO, "the store has limits of its own"
    assert second.due is None


def test_a_wait_of_a_second_at_most_is_no_news():
    one = throttle(requests_per_second=1.0)
    admitted(one, STATUS)
    assert one.admit(CallState(STATUS), 0.0) == Admission(1.0, "requests_per_second is 1")


@pytest.mark.parametrize("yielding", [False, True])
def test_whoever_waits_for_the_next_window_says_so(yielding):
    one = throttle()
    ended(one, STATUS, replace(OK, window=Allowance(10, 0, 40.0)))
    call = replace(STATUS, yielding=yielding)
    assert one.admit(CallState(call), 0.0) == Admission(40.0, WINDOW_USED_UP, Paused(WINDOW_USED_UP, 40.0))
    assert one.admit(CallState(call), 10.0) == Admission(30.0, WINDOW_USED_UP), "people know of it"
    assert one.admit(CallState(call), 40.0) == GO


def test_whoever_probes_says_so_and_the_others_wait_until_it_has_ended():
    one = throttle()
    ended(one, CREATE, LOST)
    probe, other = CallState(CREATE), CallState(CREATE)
    assert one.admit(probe, 0.0) == Admission(0.375, OUTAGE, Paused(OUTAGE, 0.375))
    assert one.admit(other, 0.0) == Admission(math.inf, OUTAGE)
    assert one.admit(probe, 0.375) == GO
    one.observe(probe, LOST, 1.0)
    assert one.admit(other, 1.0) == Admission(0.75, OUTAGE, Paused(OUTAGE, 0.75))


def test_other_lanes_are_not_held_by_an_outage():
    one = throttle()
    ended(one, CREATE, LOST)
    assert one.admit(CallState(STATUS), 0.0) == GO
    assert one.admit(CallState(PUT), 0.0) == GO


def test_a_probe_that_is_canceled_leaves_its_turn_to_another():
    one = throttle()
    ended(one, CREATE, LOST)
    probe = CallState(CREATE)
    one.admit(probe, 0.0)
    one.observe(probe, None, 0.1)
    assert one.admit(CallState(CREATE), 0.1).seconds < math.inf


def test_an_outage_of_longer_than_we_are_patient_is_a_reason_to_give_up():
    one = throttle(give_up_seconds=100.0)
    ended(one, STATUS, judge_status(200, repeatable=True))
    ended(one, CREATE, LOST)
    waiting = CallState(CREATE)
    one.admit(waiting, 0.0)
    one.observe(waiting, None, 0.0)
    assert one.admit(waiting, 100.0) == GiveUp("nothing has got through for 100 s, and give_up_seconds is 100")


def test_a_window_that_ends_later_than_we_are_patient_is_a_reason_to_give_up():
    one = throttle(give_up_seconds=100.0)
    ended(one, STATUS, replace(judge_status(200, repeatable=True), window=Allowance(1000, 0, 300.0)))
    given_up = one.admit(CallState(STATUS), 0.0)
    assert isinstance(given_up, GiveUp)
    assert "for another 300 s, and give_up_seconds is 100" in given_up.reason


def test_a_call_waits_for_its_own_retry_whose_reason_was_told_when_it_was_decided():
    one = throttle()
    state = CallState(STATUS, retry_at=7.0)
    wait = one.admit(state, 2.0)
    assert (wait.seconds, wait.news) == (5.0, None)
    assert wait.reason
    assert one.admit(state, 7.0) == GO


def test_a_call_that_was_canceled_under_way_counts_as_a_request_of_the_window():
    one = throttle()
    ended(one, STATUS, replace(OK, window=Allowance(10, 2, 40.0)))
    canceled = admitted(one, STATUS)
    one.observe(canceled, None, 0.0)
    one.observe(canceled, None, 0.0)
    admitted(one, STATUS)
    assert one.admit(CallState(STATUS), 0.0).seconds > 0
