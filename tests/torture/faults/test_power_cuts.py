"""The power goes at the ledger's 1st, 2nd, 3rd, … sync, until a job passes clean; then `resume`, with the same server.

The disk is found in a state that it may be in by then; nothing lost, nothing twice, by the sandbox's journal.
"""

import asyncio
import os
import random

import pytest

from .power import Tail
from .ways import EVERY_WAY, WAYS

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
SEED = 11
BATCHES = 3
GROUP = 8
"""Syncs at a time."""
NIGHT_SYNCS = 60
"""About as many as three nights have, at least."""
MOST_SYNCS = 200
"""More than such a job has."""


def cuts(draw, number):
    """Return the deaths of the jobs that meet a cut at this sync: under torture each way, and a second cut after it."""
    if not TORTURE:
        return [[{"sync": number, "tail": draw.choice(list(Tail))}]]
    again = [[{"sync": draw.randint(1, number), "tail": draw.choice(list(Tail))}] for _ in Tail]
    return [[{"sync": number, "tail": tail}, *second] for tail, second in zip(Tail, [[], *again[1:]], strict=True)]


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("way", EVERY_WAY if TORTURE else WAYS, ids=str)
async def test_nights_between_which_the_power_goes_lose_nothing_and_create_nothing_twice(lives, way, tally):
    """Three jobs of a family have three times as many syncs; some of them are drawn."""
    draw = random.Random(f"{SEED}{way}")
    drawn = sorted(draw.sample(range(1, NIGHT_SYNCS), NIGHT_SYNCS // 2 if TORTURE else 5))
    deaths = [[{"sync": number, "tail": draw.choice(list(Tail))}] for number in drawn]
    ends = await asyncio.gather(*(lives.live(way, BATCHES, death, nights=True) for death in deaths))
    for end in ends:
        end.tally.power_cuts = end.died
        tally.add(end.tally)
        assert not end.complaints
    assert sum(end.died for end in ends) > len(ends) / 3
    assert not lives.sandboxes[way.behaviour][1].duplicated


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("way", EVERY_WAY if TORTURE else WAYS, ids=str)
async def test_a_power_cut_at_any_sync_loses_nothing_and_creates_nothing_twice(lives, way, tally):
    draw = random.Random(f"{SEED}{way}")
    cut = 0
    for first in range(1, MOST_SYNCS, GROUP):
        deaths = [death for number in range(first, first + GROUP) for death in cuts(draw, number)]
        ends = await asyncio.gather(*(lives.live(way, BATCHES, death) for death in deaths))
        for end in ends:
            end.tally.power_cuts = end.died
            tally.add(end.tally)
            assert not end.complaints
        cut += sum(end.died > 0 for end in ends)
        if not any(end.died for end in ends):
            break
    else:
        pytest.fail("there was no end to the syncs")
    assert cut > 2 * len(way.states)
    assert not lives.sandboxes[way.behaviour][1].duplicated
