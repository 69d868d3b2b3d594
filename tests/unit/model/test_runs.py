"""What a run did is known of one that was killed, too: by the numbers of the job before it and after it."""

import pytest

from engine.model.outcome import Tally
from engine.model.runs import PastRun, RunCounts, counted

NOTHING = RunCounts()


def run(number, before, *, ended=False, counts=NOTHING):
    return PastRun(
        number, 1.0, "host", "1", 2.0 if ended else None, 0 if ended else None, counts=counts, counts_before=before
    )


def test_a_run_that_was_killed_has_done_what_the_job_has_now_and_had_not_before():
    before = RunCounts.of_job(Tally(records=40, created=20, failed=6), {"completed": 1})
    now = RunCounts.of_job(Tally(records=70, created=45, failed=7, skipped=3), {"completed": 4, "undone": 2})
    (told,) = counted([run(1, before, counts=RunCounts(requests=9, created=1))], now)
    numbers = (told.counts.records, told.counts.created, told.counts.failed, told.counts.skipped, told.counts.requests)
    assert numbers == (30, 25, 1, 3, 9)
    assert told.counts.later == {"completed": 3, "undone": 2}


def test_what_the_next_run_did_is_not_counted_for_the_one_that_was_killed():
    then = RunCounts.of_job(Tally(records=40, created=20), {})
    now = RunCounts.of_job(Tally(records=90, created=90), {})
    first, second = counted([run(1, NOTHING), run(2, then)], now)
    assert (first.counts.created, second.counts.created) == (20, 70)


def test_what_other_workers_did_after_the_end_of_a_run_is_counted_for_it_until_the_next_one_begins():
    ended = run(1, NOTHING, ended=True, counts=RunCounts(created=5, requests=9))
    refused = run(2, None, ended=True)
    first, _, third = counted([ended, refused, run(3, RunCounts(created=20))], RunCounts(created=50))
    assert (first.counts.created, first.counts.requests, third.counts.created) == (20, 9, 30)


@pytest.mark.parametrize("ended", [False, True])
def test_what_a_run_of_an_older_ledger_has_said_itself_stands(ended):
    kept = run(1, None, ended=ended, counts=RunCounts(created=5))
    assert counted([kept], RunCounts(created=99)) == [kept]


def test_a_number_that_has_not_changed_is_not_named():
    same = RunCounts.of_job(Tally(records=5), {"completed": 2, "failed": 0})
    assert same.later == {"completed": 2}
    assert NOTHING.since(same, same) == NOTHING
