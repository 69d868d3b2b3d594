"""What `prune` would do, by facts about jobs alone."""

import pytest

from engine.commands.prune import Fall, Known, Policy, judged
from engine.model.job import Job, JobState

DAY = 86_400.0
NOW = 1_000 * DAY


def known(name, days=100, must_stay="", needed="", **job):
    job = Job(name, "sama", "", (), "", **{"state": JobState.FINISHED, **job})
    return Known(job, NOW - days * DAY, must_stay, needed)


def falls(jobs, *, days=None, keep_last=None):
    policy = Policy(None if days is None else days * DAY, keep_last)
    return {verdict.job: (str(verdict.fall), verdict.reason) for verdict in judged(jobs, policy, NOW)}


def kept(jobs, **policy):
    return [name for name, (fall, _) in falls(jobs, **policy).items() if fall == Fall.KEPT]


def test_an_old_load_goes_and_the_newest_stays_however_old_it_is():
    jobs = [known("c", 95), known("b", 100), known("a", 300)]
    assert falls(jobs, days=90) == {
        "c": ("kept", "the newest of the ledger"),
        "b": ("removed", "older than 90 days"),
        "a": ("removed", "older than 90 days"),
    }


def test_both_limits_must_let_a_load_go():
    jobs = [known(str(number), 10 * number) for number in range(1, 8)]
    assert kept(jobs, days=45, keep_last=2) == ["1", "2", "3", "4"]
    assert kept(jobs, days=15, keep_last=5) == ["1", "2", "3", "4", "5"]
    assert falls(jobs, days=45, keep_last=2)["7"][1] == "older than 45 days, and not one of the 2 newest"


def test_each_family_has_its_newest_and_those_without_one_are_a_group():
    jobs = [known("f3", family="f"), known("x2"), known("f2", family="f"), known("g1", family="g"), known("x1")]
    assert kept(jobs, days=90) == ["f3", "x2", "g1"]
    assert falls(jobs, days=90)["g1"][1] == "the newest of family g"
    assert falls(jobs, days=1, keep_last=2)["f2"][1] == "one of the 2 newest of family f"


def test_what_must_stay_stays():
    jobs = [known("c"), known("b", must_stay="it is open"), known("a")]
    assert falls(jobs, days=90)["b"] == ("kept", "it is open")
    assert kept(jobs, days=90) == ["c", "b"]


def test_a_load_and_its_retries_go_together():
    retries = [known("a.retry.retry", 99, parent="a.retry"), known("a.retry", 100, parent="a"), known("a", 101)]
    assert kept([known("b"), *retries], days=90) == ["b"]
    fresh = [known("a.retry", 3, parent="a"), known("a", 101)]
    assert kept([known("b"), *fresh], days=90) == ["b", "a.retry", "a"]
    stuck = [known("a.retry", 100, parent="a", must_stay="it is open"), known("a", 101)]
    assert falls([known("b"), *stuck], days=90)["a"] == ("kept", "it is open (a.retry)")


def test_a_retry_makes_no_newer_load_of_an_old_one():
    jobs = [known("a.retry", parent="a"), known("c"), known("b"), known("a")]
    assert kept(jobs, keep_last=1) == ["a.retry", "c", "a"]  # the first: the newest of the ledger


def test_what_a_family_needs_keeps_its_rows_and_loses_its_reports():
    jobs = [known("b", family="f"), known("a", family="f", needed="its family knows records by it")]
    assert falls(jobs, days=90)["a"] == (
        "reports removed",
        "older than 90 days; the ledger keeps it, for its family knows records by it",
    )


@pytest.mark.parametrize("policy", [{"days": 9_000}, {"keep_last": 99}])
def test_what_an_earlier_prune_has_begun_is_removed_whatever_the_policy(policy):
    jobs = [known("b"), known("a.retry", parent="a"), known("a", state=JobState.REMOVED)]
    assert falls(jobs, **policy)["a"] == ("removed", "an earlier prune has begun with it")
    assert kept(jobs, **policy) == ["b", "a.retry"]
