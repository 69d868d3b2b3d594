"""SIGKILL right before and right after each step of a batch is durable, then `resume`: nothing lost, nothing twice."""

import asyncio
import os
from itertools import product

import pytest

from .ways import EVERY_WAY, WAYS

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
