"""SIGKILL right before and right after each step of a batch is durable, then `resume`: nothing lost, nothing twice."""

import asyncio
import os
from itertools import product

import pytest

from .ways import EVERY_WAY, KEYED, MARKED, PRESIGNED, WAYS

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
BATCHES = 5
NUMBERS = range(1, BATCHES + 1) if TORTURE else [1, 3]
MOMENTS = ["before", "after"]


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_a_kill_at_any_step_loses_nothing_and_creates_nothing_twice(lives, way, tally):
    deaths = [
        {"state": state, "number": number, "moment": moment}
        for state, number, moment in product(way.states, NUMBERS if way in WAYS or TORTURE else NUMBERS[:1], MOMENTS)
    ]
    ends = await asyncio.gather(*(lives.live(way, BATCHES, [death]) for death in deaths))
    for death, end in zip(deaths, ends, strict=True):
        end.tally.crashes = end.died
        tally.add(end.tally)
        assert not end.complaints
        assert end.died == 1, f"it never came to {death}"
    assert not lives.sandboxes[way.behaviour][1].duplicated


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("way", EVERY_WAY if TORTURE else [PRESIGNED, MARKED, KEYED], ids=str)
async def test_so_it_is_where_the_next_worker_has_to_wait_for_the_lease_of_the_killed_one(lives, way, tally):
    moments = MOMENTS if TORTURE else MOMENTS[1:]
    deaths = [{"state": state, "number": 2, "moment": moment} for state, moment in product(way.states, moments)]
    ends = await asyncio.gather(*(lives.live(way, BATCHES, [death], shared=True) for death in deaths))
    for death, end in zip(deaths, ends, strict=True):
        end.tally.crashes = end.died
        tally.add(end.tally)
        assert not end.complaints
        assert end.died == 1, f"it never came to {death}"
    assert not lives.sandboxes[way.behaviour][1].duplicated
