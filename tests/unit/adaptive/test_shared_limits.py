"""Reports of workers in, grants out. Time is made up; what many workers do with it together is in http/test_share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adaptive.shared_limits import (
    DROPPED_SECONDS,
    FlightReport,
    HeardOfWindow,
    PaceReport,
    Report,
    SharedLimits,
    WindowReport,
)
from engine.adaptive.window import Allowance

LANE = "/repeatable"


class Ledger:
    """A text that is revised; the time is said by the test."""

    def __init__(self):
        self.text = None

    def sync(self, worker, now=0.0, **said):
        limits = SharedLimits.of(self.text)
        grant = limits.sync(Report(worker, **said), 1e9 + now)
        self.text = limits.text()
        return grant


@pytest.fixture
def ledger():
    return Ledger()


def paced(wanted, per_second=40.0, **said):
    return {"": PaceReport(per_second, wanted, **said)}


def number(grant):
    return grant.places[""].number


# Pace


def test_places_of_two_workers_follow_one_another(ledger):
    first = ledger.sync("a", paces=paced(10)).places[""]
    second = ledger.sync("b", paces=paced(10)).places[""]
    assert (first.first_in_seconds, first.number, first.per_second) == (0.0, 10, 40.0)
    assert (second.first_in_seconds, second.number) == (0.25, 10)


def test_no_worker_has_more_than_its_part_of_what_is_granted_ahead(ledger):
    assert number(ledger.sync("a", paces=paced(1000))) == 60
    assert number(ledger.sync("b", paces=paced(1000))) == 30
    assert number(ledger.sync("b", 1.0, paces=paced(1000, held=20))) == 10
    assert number(ledger.sync("a", 1.0, paces=paced(1000, held=30))) == 0


def test_whoever_wants_less_than_its_part_leaves_the_rest_to_the_others(ledger):
    ledger.sync("small", paces=paced(2))
    assert number(ledger.sync("large", paces=paced(1000))) == 58


def test_of_a_slow_pace_one_place_at_a_time_is_granted(ledger):
    assert [number(ledger.sync(worker, paces=paced(5, per_second=0.25))) for worker in "abc"] == [1, 0, 0]
    assert number(ledger.sync("b", 3.0, paces=paced(5, per_second=0.25))) == 1


def test_of_different_configured_rates_the_least_holds_for_all_as_long_as_its_worker_is_there(ledger):
    ledger.sync("a", paces=paced(1, per_second=10.0))
    assert ledger.sync("b", paces=paced(1, per_second=40.0)).places[""].per_second == 10.0
    ledger.sync("a", 1.0, leaving=True)
    assert ledger.sync("b", 1.0, paces=paced(1, per_second=40.0)).places[""].per_second == 40.0


def test_a_retry_after_that_one_worker_heard_holds_the_places_of_all(ledger):
    ledger.sync("a", paces=paced(0, hold_seconds=30.0))
    place = ledger.sync("b", 10.0, paces=paced(5)).places[""]
    assert (place.held_seconds, place.number) == (20.0, 0)
    place = ledger.sync("b", 29.0, paces=paced(5)).places[""]
    assert (round(place.first_in_seconds, 3), place.number) == (1.0, 5)


def test_the_first_push_back_makes_a_pace_of_what_all_workers_sent(ledger):
    for now in (0.0, 0.5, 1.0, 1.5, 2.0):
        for worker in "ab":
            grant = ledger.sync(worker, now, paces=paced(0, None, sent=20))
    assert grant.places[""].per_second is None
    cut = ledger.sync("a", 2.0, paces=paced(10, None, pushed_back=True)).places[""]
    assert cut.cuts == 1
    assert 0.5 * 80 < cut.per_second < 0.9 * 80
    assert cut.number == 0, "calls at the pace before come to their end first"


def test_a_push_back_of_a_call_that_was_sent_before_the_last_cut_is_old_news(ledger):
    rates = [ledger.sync(worker, 1.0, paces=paced(1, None, sent=20, pushed_back=True)) for worker in "abc"]
    assert {grant.places[""].cuts for grant in rates} == {1}
    assert len({grant.places[""].per_second for grant in rates}) == 1


# Window


def window(remaining, *, limit=100, ends_in=60.0, age=0.0, pushed_back=False):
    return HeardOfWindow(age, Allowance(limit, remaining, ends_in), pushed_back)


def test_what_is_left_of_a_window_is_less_what_any_worker_holds(ledger):
    ledger.sync("a", window=WindowReport(held=30, heard=[window(100)]))
    assert ledger.sync("b", window=WindowReport(wanted=100)).requests == 70
    assert ledger.sync("a", window=WindowReport(held=30, wanted=1)).requests == 0
    assert ledger.sync("b", 0.5, window=WindowReport(held=20, heard=[window(50)])).requests == 0
    assert ledger.sync("a", 0.5, window=WindowReport(held=10, wanted=100)).requests == 20


def test_until_the_service_has_answered_requests_are_counted_and_then_they_are_free_if_it_speaks_of_no_window(ledger):
    assert ledger.sync("a", window=WindowReport(wanted=5)).requests == 5
    assert ledger.sync("b", answered=True).requests is None
    assert ledger.sync("a", window=WindowReport(held=5, heard=[window(90)])).requests == 0


def test_what_a_worker_held_that_is_gone_counts_as_sent(ledger):
    ledger.sync("a", window=WindowReport(held=30, heard=[window(100)]))
    ledger.sync("b", window=WindowReport(held=0, wanted=0))
    late = DROPPED_SECONDS + 0.1
    ledger.sync("b", late / 2)
    assert ledger.sync("b", late, window=WindowReport(wanted=100)).requests == 70
    assert ledger.sync("a", late, window=WindowReport(held=30, heard=[window(60)])).requests == 0


def test_one_call_of_all_workers_opens_a_window(ledger):
    ledger.sync("a", window=WindowReport(heard=[window(0, ends_in=10.0)]))
    grants = [ledger.sync(worker, 10.0, window=WindowReport(wanted=5)).requests for worker in "abc"]
    assert grants == [1, 0, 0]
    opened = WindowReport(heard=[window(99, age=0.2)], wanted=5)
    assert ledger.sync("a", 10.5, window=opened).requests == 5


def test_a_window_is_not_opened_while_an_answer_of_the_one_before_may_come(ledger):
    def fixed(remaining, age):
        return HeardOfWindow(age, Allowance(100, remaining, 10.0, fixed=True), pushed_back=False)

    ledger.sync("a", window=WindowReport(held=1, heard=[fixed(1, 0.0)]))
    assert ledger.sync("b", 10.0, window=WindowReport(wanted=5)).requests == 0
    ledger.sync("a", 10.5, window=WindowReport(heard=[fixed(0, 0.6)]))
    assert ledger.sync("b", 10.6, window=WindowReport(wanted=5)).requests == 1


def test_calls_that_yield_get_a_part_of_a_window_while_others_want_it(ledger):
    ledger.sync("a", window=WindowReport(heard=[window(100)]))
    grant = ledger.sync("a", window=WindowReport(wanted=10, wanted_yielding=50))
    assert (grant.requests, grant.yielding_requests) == (10, 20)


# Outages


def test_the_worker_that_meets_an_outage_probes_and_the_first_answer_opens_the_lane_for_all(ledger):
    waiting = frozenset({LANE})
    ledger.sync("b")
    probe = ledger.sync("a", outages={LANE: 0.5}, waiting=waiting).outages[LANE]
    assert (probe.mine, probe.in_seconds) == (True, 0.5)
    assert not ledger.sync("b", outages={LANE: 0.1}, waiting=waiting).outages[LANE].mine
    probe = ledger.sync("a", 1.0, outages={LANE: 4.0}, waiting=waiting).outages[LANE]
    assert (probe.mine, probe.in_seconds) == (True, 4.0)
    assert ledger.sync("a", 5.0, opened=waiting).outages == {}
    assert ledger.sync("b", 5.0).outages == {}


def test_a_worker_that_has_nothing_to_probe_with_leaves_the_turn_to_the_next_one(ledger):
    ledger.sync("a", outages={LANE: 0.5})
    assert ledger.sync("b", waiting=frozenset({LANE})).outages[LANE].mine
    assert not ledger.sync("a", waiting=frozenset({LANE})).outages[LANE].mine


@pytest.mark.parametrize("leaves", [True, False])
def test_the_turn_to_probe_passes_on_from_a_worker_that_is_gone(ledger, leaves):
    ledger.sync("a", outages={LANE: 0.5}, waiting=frozenset({LANE}))
    ledger.sync("b")
    if leaves:
        ledger.sync("a", leaving=True)
    ledger.sync("b", DROPPED_SECONDS / 2)
    mine = ledger.sync("b", DROPPED_SECONDS, waiting=frozenset({LANE})).outages[LANE].mine
    assert mine is leaves
    assert ledger.sync("b", DROPPED_SECONDS + 0.1, waiting=frozenset({LANE})).outages[LANE].mine


def test_an_outage_ends_with_the_last_worker(ledger):
    ledger.sync("a", outages={LANE: 0.5}, waiting=frozenset({LANE}))
    ledger.sync("a", leaving=True)
    assert ledger.sync("b", 1.0).outages == {}


# Batches in flight


def flight(most=None, limit=1, taken=0, *, pushed_back=False):
    return FlightReport(most, limit, taken, pushed_back)


def test_a_configured_number_in_flight_is_divided(ledger):
    assert ledger.sync("a", flight=flight(10)).in_flight == 10
    assert ledger.sync("b", 1.0, flight=flight(10)).in_flight == 0, "the first still has them all"
    assert ledger.sync("a", 2.0, flight=flight(10, taken=8)).in_flight == 5
    assert ledger.sync("b", 2.0, flight=flight(10)).in_flight == 2
    assert ledger.sync("a", 3.0, flight=flight(10, taken=5)).in_flight == 5
    assert ledger.sync("b", 3.0, flight=flight(10)).in_flight == 5
    ledger.sync("b", 4.0, leaving=True)
    assert ledger.sync("a", 4.0, flight=flight(10, taken=5)).in_flight == 10


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 1)), max_size=40), st.integers(1, 9))
def test_all_workers_together_never_have_more_in_flight_than_configured(steps, most):
    ledger, taken, now = Ledger(), {}, 0.0
    for worker, share in steps:
        now += 0.1
        granted = ledger.sync(worker, now, flight=flight(most, taken=taken.get(worker, 0))).in_flight
        taken[worker] = max(round(granted * share), min(taken.get(worker, 0), granted))
        assert sum(taken.values()) <= most


def test_what_pays_is_found_out_by_the_worker_that_is_there_longest_and_taken_over_by_the_others(ledger):
    assert ledger.sync("z", flight=flight(limit=4)).in_flight is None
    assert ledger.sync("a", 1.0, flight=flight(limit=1)).in_flight == 4
    ledger.sync("z", 2.0, flight=flight(limit=7))
    assert ledger.sync("a", 2.0, flight=flight(limit=4)).in_flight == 7
    ledger.sync("z", 3.0, leaving=True)
    assert ledger.sync("a", 3.0, flight=flight(limit=7)).in_flight is None


@pytest.mark.parametrize("most", [None, 10])
def test_who_sends_no_batches_has_no_part_of_those_in_flight_and_does_not_find_out_how_many_pay(ledger, most):
    assert ledger.sync("asks", flight=None).in_flight is None
    assert ledger.sync("z", 1.0, flight=flight(most, limit=4)).in_flight == most
    assert ledger.sync("asks", 2.0, flight=None).in_flight is None
    assert not ledger.sync("asks", 2.0, flight=None).pushed_back
    assert ledger.sync("z", 3.0, flight=flight(most, limit=4)).in_flight == most


def test_a_push_back_that_any_worker_hears_is_told_to_the_one_that_finds_the_limit_once(ledger):
    ledger.sync("z", flight=flight(limit=4))
    assert not ledger.sync("a", 1.0, flight=flight(pushed_back=True)).pushed_back
    assert ledger.sync("z", 1.0, flight=flight(limit=4)).pushed_back
    assert not ledger.sync("z", 1.5, flight=flight(limit=4)).pushed_back
    assert not ledger.sync("z", 2.0, flight=flight(limit=4, pushed_back=True)).pushed_back, "it has heard that itself"


# What is kept


def test_time_never_runs_back_though_another_server_keeps_the_ledger_now(ledger):
    ledger.sync("a", 100.0, paces=paced(10))
    places = [ledger.sync("a", now, paces=paced(10)).places[""] for now in (40.0, 40.25, 40.5)]
    assert [round(place.first_in_seconds, 3) for place in places] == [0.25, 0.25, 0.25]


REPORTS = st.builds(
    Report,
    worker=st.sampled_from("abc"),
    paces=st.fixed_dictionaries(
        {
            "": st.builds(
                PaceReport,
                per_second=st.none() | st.floats(0.1, 100),
                wanted=st.integers(0, 100),
                sent=st.integers(0, 100),
                answered=st.integers(0, 100),
                pushed_back=st.booleans(),
                cuts=st.integers(0, 3),
                hold_seconds=st.floats(0, 100),
            )
        }
    ),
    window=st.builds(
        WindowReport,
        held=st.integers(0, 10),
        wanted=st.integers(0, 10),
        heard=st.lists(st.just(window(5)) | st.just(HeardOfWindow(0.0, None, pushed_back=False)), max_size=3),
    ),
    outages=st.dictionaries(st.just(LANE), st.floats(0, 20)),
    opened=st.frozensets(st.just(LANE)),
    waiting=st.frozensets(st.just(LANE)),
    leaving=st.booleans(),
)


@given(st.lists(st.tuples(REPORTS, st.floats(0, 20)), max_size=30))
def test_whatever_is_reported_can_be_kept_and_read_again(steps):
    limits, now = SharedLimits(), 1e9
    for report, seconds in steps:
        now += seconds
        grant = SharedLimits.of(limits.text()).sync(report, now)
        assert limits.sync(report, now) == grant
        assert SharedLimits.of(limits.text()) == limits
        assert (grant.requests or 0) <= report.window.wanted
        if not report.leaving:
            assert grant.places[""].number <= report.paces[""].wanted


def test_a_worker_that_leaves_gives_back_what_it_did_not_use(ledger):
    ledger.sync("a", window=WindowReport(heard=[window(100)]))
    assert ledger.sync("a", window=WindowReport(wanted=40)).requests == 40
    ledger.sync("a", 1.0, window=WindowReport(held=0), leaving=True)
    assert ledger.sync("b", 1.0, window=WindowReport(wanted=100)).requests == 100
