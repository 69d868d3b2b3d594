"""Workers that share the limits of one service, against models of it: what it sees of all of them together.

Time is made up: each worker has a clock of its own, and a sync takes a while.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
from msgspec.structs import replace

from engine.adaptive.shared_limits import (
    DROPPED_SECONDS,
    GRANT_SECONDS,
    FlightReport,
    Grant,
    SharedLimits,
    WindowReport,
)
from engine.adaptive.window import Allowance
from engine.http.retry import CallState, GiveUp, RetryRules
from engine.http.share import Share, WindowShare
from engine.http.throttle import HELD, OUTAGE, UNKNOWN_LIMITS, WINDOW_USED_UP, Throttle
from engine.services.base import Call
from tests.fakes.workers import LOST, OK, PUSHED_BACK, STATUS, Answering, Bucket, Changing, FixedWindow, Worker, World

CREATE = Call("create", "POST", "https://api.example.com/v2/batches.json", repeatable=False)
NUMBERS = (1, 2, 4, 10)
CALLERS = 60
"""At once, of all workers: more than a service takes."""


def bucket():
    return Bucket(40, 10)


def fast():
    return Bucket(1000, 1000)


# All workers together


@pytest.mark.parametrize("latency_seconds", [0.005, 0.2])
@pytest.mark.parametrize("number", NUMBERS)
def test_the_configured_rate_is_used_and_never_exceeded(number, latency_seconds):
    world = World(bucket(), seed=number, latency_seconds=latency_seconds)
    workers = world.workers(number, CALLERS // number, requests_per_second=40)
    world.run(60)
    assert world.pushed_back() == []
    assert world.let_in(5, 60) >= 0.97 * 55 * 40
    of_each = Counter(name for _, name, _ in world.calls)
    assert max(of_each.values()) < 2 * min(of_each[worker.name] for worker in workers), "each has its part"


@pytest.mark.parametrize("number", NUMBERS)
def test_a_worker_that_has_little_to_send_leaves_the_rest_to_the_others(number):
    world = World(bucket(), seed=number)
    world.workers(1, CALLERS, requests_per_second=40)
    for index in range(number):
        Worker(world, f"slow{index}", 1, requests_per_second=40, rest=2.0)
    world.run(60)
    assert world.pushed_back() == []
    assert world.let_in(5, 60) >= 0.9 * 55 * 40


@pytest.mark.parametrize("number", NUMBERS)
def test_windows_are_used_to_the_last_request_and_never_exceeded(number):
    world = World(FixedWindow(1000, 300), seed=number)
    world.workers(number, CALLERS // number)
    world.run(899)
    assert world.pushed_back() == []
    assert [world.let_in(start, start + 300) for start in (0, 300, 600)] == [1000] * 3


@pytest.mark.parametrize("number", NUMBERS)
def test_windows_that_end_while_calls_are_under_way_are_not_exceeded(number):
    world = World(FixedWindow(1000, 20.3), seed=number)
    world.workers(number, 120 // number, seconds=2.0)
    world.run(203)
    assert world.pushed_back() == []
    assert world.let_in(20.3, 203) >= 0.9 * 9000


@pytest.mark.parametrize("number", NUMBERS)
def test_a_rate_that_nobody_told_is_found_by_all_together(number):
    world = World(bucket(), seed=number)
    world.workers(number, CALLERS // number)
    world.run(200)
    assert world.let_in(30, 200) >= 0.8 * 170 * 40
    assert len(world.pushed_back(since=30)) <= 0.02 * 170 * 40


@pytest.mark.parametrize("number", NUMBERS)
def test_what_one_worker_is_asked_to_wait_all_of_them_wait(number):
    asking = Answering(replace(PUSHED_BACK, asked_seconds=30.0))
    world = World(Changing(fast(), (20.0, asking), (20.1, fast())), seed=number)
    world.workers(number, 40 // number, requests_per_second=40)
    world.run(80)
    told_at = world.pushed_back()[0][0]
    assert [time for time, _, _ in world.calls if told_at + 1.0 < time < told_at + 30] == []
    assert world.let_in(told_at + 30, told_at + 40) > 200


@pytest.mark.parametrize("number", NUMBERS)
def test_in_an_outage_one_call_of_all_workers_probes_at_a_time(number):
    world = World(Changing(fast(), (20.0, Answering(LOST)), (80.0, fast())), seed=number)
    workers = world.workers(number, 20 // number, requests_per_second=40, call=CREATE)
    world.run(120)
    probes = [time for time, _, status in world.calls if status is None and time > 21]
    gaps = [later - earlier for earlier, later in pairwise(probes)]
    assert 5 <= len(probes) <= 12
    assert min(gaps) > 0.25
    assert {name for time, name, _ in world.calls if time > 110} == {worker.name for worker in workers}


def test_another_worker_probes_once_the_one_that_did_is_dead():
    world = World(Changing(fast(), (20.0, Answering(LOST)), (60.0, fast())))
    workers = world.workers(3, 4, requests_per_second=40, call=CREATE)
    world.run(25)
    prober = next(name for _, name, status in reversed(world.calls) if status is None)
    next(worker for worker in workers if worker.name == prober).dead = True
    world.run(100)
    assert {name for time, name, _ in world.calls if time > 25 + DROPPED_SECONDS + 1} == {"w0", "w1", "w2"} - {prober}
    assert world.let_in(85, 100) > 300


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("service", "rate"), [(bucket, 40), (lambda: FixedWindow(1000, 100), None)])
def test_workers_come_leave_stop_and_die(service, rate, seed):
    world = World(service(), seed, latency_seconds=0.02)
    first, second, third, fourth = world.workers(4, 18, requests_per_second=rate)
    world.run(20)
    Worker(world, "late", 18, requests_per_second=rate)
    world.run(40)
    first.leave()
    world.run(60)
    second.dead = True  # with a grant
    world.run(80)
    third.stopped_until = 105.0
    world.run(130)
    fourth.unreachable = True
    world.run(150)
    fourth.unreachable = False
    world.run(199.9)
    assert world.pushed_back() == []
    assert min(world.let_in(start, start + 100) for start in (0, 100)) >= (0.97 * 4000 if rate else 1000)
    assert [time for time, name, _ in world.calls if name == fourth.name and 130 + GRANT_SECONDS < time < 150] == []
    if rate:
        assert {name for time, name, _ in world.calls if time > 160} == {"late", third.name, fourth.name}


def test_a_worker_that_was_stopped_and_wakes_sends_nothing_before_a_new_grant():
    world = World(fast())
    (worker,) = world.workers(1, 10, requests_per_second=40)
    world.run(10)
    worker.stopped_until, worker.unreachable = 15.0, True
    world.run(20)
    assert [time for time, _, _ in world.calls if time > 10.5] == []
    worker.unreachable = False
    world.run(30)
    assert world.let_in(22, 30) > 200


def test_while_the_ledger_cannot_be_reached_nobody_sends_and_then_all_go_on():
    world = World(bucket())
    workers = world.workers(4, 15, requests_per_second=40)
    world.run(20)
    for worker in workers:
        worker.unreachable = True
    world.run(60)
    assert [time for time, _, _ in world.calls if time > 20.5 + GRANT_SECONDS] == []
    for worker in workers:
        worker.unreachable = False
    world.run(90)
    assert world.pushed_back() == []
    assert world.let_in(62, 90) >= 0.97 * 28 * 40


# One worker


class Alone:
    """A throttle with its share, and limits that are revised when the test says so."""

    def __init__(self, name="w", limits=None, **rules):
        self.share, self.limits, self.asked = Share(name), limits or SharedLimits(), 0
        self.share.on_ask = self.count
        self.throttle = Throttle(RetryRules(**rules), None, lambda: 0.5, self.share)

    def count(self):
        self.asked += 1

    def sync(self, now=0.0, took=0.0):
        report = self.share.report(now, FlightReport())
        self.share.grant(report, self.limits.sync(report, 1e9 + now), now, now + took)

    def admit(self, call=STATUS, now=0.0):
        return self.throttle.admit(CallState(call), now)

    def go(self, call=STATUS, now=0.0):
        """Let a call go, with a sync if it needs one."""
        state = CallState(call)
        for _ in range(3):
            if self.throttle.admit(state, now).seconds == 0:
                break
            self.sync(now)
        assert state.under_way
        state.sent_at = now
        return state

    def end(self, verdict, call=STATUS, now=0.0):
        self.throttle.observe(self.go(call, now), verdict, now)


def test_nothing_goes_out_before_the_first_grant_and_one_is_asked_for():
    alone = Alone()
    assert (alone.admit().seconds, alone.admit().reason) == (math.inf, UNKNOWN_LIMITS)
    assert alone.asked == 2
    upload = replace(STATUS, authenticated=False)
    assert alone.admit(upload).reason == UNKNOWN_LIMITS


def test_a_grant_ends_two_seconds_after_its_sync_began_however_long_that_took():
    alone = Alone()
    alone.go()
    alone.end(OK)
    alone.sync(10.0, took=1.5)
    assert alone.admit(now=11.9).seconds == 0
    assert alone.admit(now=12.0).reason == UNKNOWN_LIMITS


def test_where_a_service_speaks_of_no_limit_calls_need_no_grant_of_their_own():
    alone = Alone()
    alone.end(OK)
    alone.sync()
    assert {alone.admit().seconds for _ in range(1000)} == {0}


def test_a_window_that_is_used_up_says_when_it_ends_and_that_may_be_a_reason_to_give_up():
    alone = Alone(give_up_seconds=100.0)
    alone.end(replace(OK, window=Allowance(10, 0, 40.0)))
    assert alone.admit().reason == WINDOW_USED_UP
    alone.sync()
    assert (alone.admit().seconds, alone.admit().reason) == (40.0, WINDOW_USED_UP)
    alone = Alone(give_up_seconds=100.0)
    alone.end(replace(OK, window=Allowance(10, 0, 300.0)))
    assert alone.admit().reason == WINDOW_USED_UP
    alone.sync()
    assert isinstance(alone.admit(), GiveUp)


def test_a_call_that_is_canceled_before_it_goes_gives_its_request_back():
    alone = Alone()
    alone.end(replace(OK, window=Allowance(10, 2, 40.0)))
    states = [CallState(STATUS) for _ in range(3)]
    for _ in range(2):
        for state in states:
            if not state.counted:
                alone.throttle.admit(state, 0.0)
        alone.sync()
    assert [state.counted for state in states] == [True, True, False]
    held = alone.share.window.unanswered
    states[0].under_way = False
    alone.throttle.observe(states[0], None, 0.0)
    assert alone.share.window.unanswered == held - 1
    assert alone.throttle.admit(states[2], 0.0).seconds == 0


def test_a_call_that_waits_for_the_wish_of_the_service_that_another_worker_heard_says_so():
    alone = Alone()
    alone.end(OK)
    other = Alone("other", alone.limits)
    other.end(replace(PUSHED_BACK, asked_seconds=30.0))
    other.sync()
    alone.sync()
    assert alone.admit().reason == HELD
    alone.sync(29.5)
    assert alone.admit(now=29.5).seconds > 0
    alone.sync(30.0)
    alone.admit(now=30.0)
    alone.sync(30.0)
    assert alone.admit(now=30.0).seconds < 2, "behind the others, at the pace that was found then"


def test_an_outage_that_another_worker_has_met_holds_calls_of_that_lane_until_it_has_ended_or_patience_has():
    alone = Alone(give_up_seconds=100.0)
    alone.end(OK)
    other = Alone("other", alone.limits)
    other.end(LOST, CREATE)
    other.admit(CREATE)
    other.sync()
    alone.sync()
    waiting = CallState(CREATE)
    assert alone.throttle.admit(waiting, 0.0).reason == OUTAGE
    assert alone.throttle.admit(waiting, 0.0).seconds == math.inf
    assert alone.admit(STATUS).seconds == 0, "another lane"
    for now in range(5, 101, 5):
        other.admit(CREATE, now)
        other.sync(now)
        alone.sync(now)
    assert isinstance(alone.throttle.admit(waiting, 100.0), GiveUp)


def test_the_turn_to_probe_is_taken_over_with_the_time_of_the_next_probe():
    alone = Alone()
    other = Alone("other", alone.limits)
    other.end(LOST, CREATE)
    probe = CallState(CREATE)
    other.throttle.admit(probe, 0.0)
    other.sync()
    alone.go()
    waiting = CallState(CREATE)
    assert alone.throttle.admit(waiting, 0.0).seconds == math.inf
    other.throttle.admit(probe, 0.0)
    probe.under_way = True
    other.throttle.observe(probe, LOST, 0.5)
    other.throttle.observe(probe, None, 0.5)
    for _ in range(2):
        other.sync(0.5)
    alone.sync(0.5)
    assert round(alone.throttle.admit(waiting, 0.5).seconds, 3) == 0.75


def test_requests_that_are_not_used_yet_are_reported_as_held_and_can_be_used_until_the_next_grant():
    window = WindowShare(lambda: None, lambda: None)
    window.grant(WindowReport(), Grant(requests=5), 0.0)
    assert [window.take(0.0, yielding=False) for _ in range(2)] == [0, 0]
    told = window.report(0.5)
    assert (told.held, window.unused) == (4, 2), "one goes back: as many are expected as came"
    assert [window.take(0.5, yielding=False) for _ in range(3)] == [0, 0, math.inf]
    window.grant(told, Grant(requests=1), 0.6)
    assert window.report(0.6).held == 5


def test_polls_wait_for_requests_of_their_own_kind():
    alone = Alone()
    alone.end(replace(OK, window=Allowance(100, 99, 40.0)))
    polls = [CallState(replace(STATUS, yielding=True)) for _ in range(50)]
    for _ in range(2):
        alone.admit(CREATE)
        for poll in polls:
            alone.throttle.admit(poll, 0.0)
        alone.sync()
    taken = sum(alone.throttle.admit(poll, 0.0).seconds == 0 for poll in polls)
    assert taken == 20, "a fifth of the window, while others want it"


def test_a_lane_with_a_documented_pace_is_shared_too():
    world = World(fast())
    listed = replace(STATUS, lane="tasks", lane_seconds=4.0)
    world.workers(4, 3, call=listed)
    world.run(100)
    times = [time for time, _, _ in world.calls]
    assert 23 <= len(times) <= 26
    assert min(later - earlier for earlier, later in pairwise(times)) > 3.5
