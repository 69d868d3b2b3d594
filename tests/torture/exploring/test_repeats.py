"""What makes a repeat safe, kind by kind: no record lost, none twice, none that exists called failed, none made up.

Every way through every service of `records.every_habit` is walked. Rules that are left out on purpose show that the
walk finds what each of them prevents.
"""

from __future__ import annotations

from itertools import islice

import pytest

from engine.model.doubt import Again
from torture.faults.tally import TABLE

from .explorer import Dice
from .played_repeats import can_be_played, play_repeats
from .records import Habits, every_habit
from .repeats import Bounds, RepeatWalk, explore_repeats
from .test_explorer import TORTURE
from .worlds import SETTLE

HABITS = list(every_habit())
PLAYED = 40 if TORTURE else 20


def is_walked(habits):
    """Return whether a kind of service is walked in the short form, too: each thing that it may do, not each pair."""
    if habits.again is Again.SEARCH and not TORTURE:
        return habits in {Habits(Again.SEARCH), Habits(Again.SEARCH, lag=SETTLE), Habits(Again.SEARCH, proven=False)}
    ways = {("each", "good"), ("whole", "one bad")}
    if habits.again is Again.KEY:  # of which there are most places
        ways = {("whole", "one bad")} if habits.key_life == SETTLE else {("each", "good")}
    elif habits.foreign:
        ways = {("each", "one bad")}
    return TORTURE or (habits.told, habits.content) in ways


WALKED = list(filter(is_walked, HABITS))
BOUNDS = Bounds(lost=3, kills=2, away=2) if TORTURE else Bounds()


@pytest.mark.slow
@pytest.mark.parametrize("again", sorted({habits.again for habits in HABITS}))
def test_no_promise_is_broken_wherever_a_batch_may_go(again):
    places = paths = 0
    ends = {}
    for habits in WALKED:
        if habits.again is not again:
            continue
        explored = explore_repeats(habits, bounds=BOUNDS)
        assert not explored.violations, explored.violations[0]
        assert explored.paths > 1
        places, paths = places + explored.places, paths + explored.paths
        for end, times in explored.ends.items():
            ends[end] = ends.get(end, 0) + times
    assert ("created", "created") in ends
    TABLE.notes.append(f"explored, repeats with {again}: {places:,} places, {paths:,} paths, {len(ends)} ends")


@pytest.mark.parametrize(
    ("habits", "left_out", "ends"),
    [
        pytest.param(Habits(Again.KEY), {"ages": False}, "CREATED TWICE", id="a key that is too old"),
        pytest.param(
            Habits(Again.KEY),
            {"believes_proxies": True},
            "CREATED TWICE",
            id="a proxy is not the service",
        ),
        pytest.param(
            Habits(Again.EXISTS, "whole"),
            {"inherited": frozenset()},
            "CALLED FAILED",
            id="halves remember",
        ),
        pytest.param(
            Habits(Again.SAFE), {"believes_proxies": True}, "CALLED FAILED", id="nor of a record that may be there"
        ),
    ],
)
def test_the_walk_finds_what_each_rule_prevents(habits, left_out, ends):
    explored = explore_repeats(habits, wanted=ends, bounds=Bounds(away=2), **left_out)
    assert explored.violations, f"not found in {explored.paths} paths"
    told = explored.violations[0].splitlines()
    assert told[0].startswith("Habits(")
    assert told[-1].endswith(ends)


def drawn_walks():
    """Yield walks by chance, through each kind of service in turn."""
    seed = 0
    while True:
        for habits in HABITS:
            seed += 1
            walk = RepeatWalk(habits, Dice(seed))
            end = walk.run()
            walk.judge(end)
            if can_be_played(walk):
                yield seed, walk, end


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "walk", "end"), list(islice(drawn_walks(), PLAYED)))
async def test_the_real_engine_ends_a_walk_alike(tmp_path, seed, walk, end):
    played, truth = await play_repeats(walk, tmp_path)
    story = "\n".join([f"seed {seed}, {walk.habits}", *walk.log, "", "played:", *truth.log])
    assert played == end, story
    assert sorted(position for _, position in truth.created) == sorted(
        position for _, position in walk.service.created
    ), story
