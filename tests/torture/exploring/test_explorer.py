"""Nothing twice, nothing lost, nothing that exists called failed, and every path ends: by walking everywhere.

The bounds stand in `explorer` and in docs/guarantees.md. `make test` walks every way through so many services of each
kind that every pair of their manners occurs, with reads that lag not, half a settle time, and a whole one; those that
refuse a repeat only with reads that lag. BULKSUBMIT_TORTURE=1 walks through all of them.
"""

from __future__ import annotations

import os
from dataclasses import astuple
from itertools import islice

import pytest
from fakes.pairwise import pairwise

from engine.model.doubt import Again
from torture.faults.tally import TABLE

from .explorer import Dice, Violation, Walk, every_manner, explore
from .played import play
from .rules import STORIES, old_rule
from .worlds import SETTLE, Manner

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
PLAYED = 50


def manners():
    if TORTURE:
        return list(every_manner(range(SETTLE + 1)))
    some = [
        manner for manner in every_manner((0, SETTLE // 2, SETTLE)) if manner.lag or manner.again is not Again.REFUSED
    ]
    return [one for kind in Again for one in pairwise((manner for manner in some if manner.again is kind), astuple)]


@pytest.mark.slow
def test_no_promise_is_broken_wherever_a_batch_may_go():
    places = paths = 0
    ends = {}
    for manner in manners():
        explored = explore(manner)
        assert not explored.violations, explored.violations[0]
        assert explored.paths > 1
        places, paths = places + explored.places, paths + explored.paths
        ends = {end: ends.get(end, 0) + explored.ends.get(end, 0) for end in {*ends, *explored.ends}}
    assert set(ends) == {"created", "failed", "stopped", "uncertain"}
    TABLE.notes.append(f"explored: {places:,} places, {paths:,} paths; ends: {ends}")


@pytest.mark.slow
def test_no_promise_is_broken_where_another_worker_takes_over_between_any_two_steps():
    places = paths = 0
    some = manners() if TORTURE else [manner for manner in manners() if manner.lag != SETTLE // 2]
    for manner in some:
        explored = explore(manner, leases=True)
        assert not explored.violations, explored.violations[0]
        places, paths = places + explored.places, paths + explored.paths
    TABLE.notes.append(f"explored with two workers: {places:,} places, {paths:,} paths")


@pytest.mark.parametrize(
    ("manner", "twice"),
    [
        (Manner(Again.ASK, repeat="obey"), True),
        (Manner(Again.ASK, repeat="refuse"), False),
        (Manner(Again.SEARCH, repeat="obey"), True),
        (Manner(Again.NEVER), False),
    ],
    ids=str,
)
def test_a_release_that_goes_out_after_the_take_over_comes_twice_only_where_a_repeat_is_obeyed(manner, twice):
    """It is the window that the leases cannot guard; docs/guarantees.md names it."""
    explored = explore(manner, window=True, wanted="CREATED TWICE")
    assert bool(explored.violations) == twice


@pytest.mark.parametrize("story", STORIES, ids=[story.name for story in STORIES])
def test_the_explorer_finds_what_the_old_rule_did(story):
    explored = explore(story.manner, old_rule, ends_waiting=story.ends_waiting, wanted=story.ends)
    assert explored.violations, f"not found in {explored.paths} paths"
    told = explored.violations[0].splitlines()
    assert told[0].startswith("Manner(")
    assert told[-1].endswith(story.ends)
    assert len(told) >= 3


def test_a_service_that_acts_later_than_the_settle_time_can_break_the_promise():
    """It is the one assumption: with it gone, the explorer finds the window that docs/guarantees.md names."""

    class TooLate(Manner):
        @property
        def delays(self):
            return range(2 * SETTLE)

    explored = explore(TooLate(Again.ASK, repeat="obey"), wanted="CREATED TWICE")
    assert explored.violations


def drawn_walks():
    """Yield walks by chance, through each kind of service in turn."""
    seed = 0
    while True:
        for manner in every_manner((0, 1, SETTLE)):
            seed += 1
            walk = Walk(manner, Dice(seed))
            try:
                end = walk.run()
                walk.judge(end)
            except Violation as violation:
                pytest.fail(str(violation))
            if not any(chosen == "makes no sense" for _, chosen in walk.chosen) and len(walk.chosen) > 1:
                yield seed, walk, end


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "walk", "end"), list(islice(drawn_walks(), 0, 3 * PLAYED, 3)))
async def test_the_real_engine_ends_a_walk_alike(tmp_path, seed, walk, end):
    played, truth = await play(walk, tmp_path)
    story = "\n".join([f"seed {seed}, {walk.manner}", *walk.log, "", "played:", *truth.log])
    assert played == end, story
    assert len(truth.created) == len(walk.service.created), story
