"""SIGKILL at random moments, again and again, then `resume`: nothing lost, nothing twice, by the sandbox's journal."""

import asyncio
import os
import random

import pytest

from .ways import WAYS

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
KILLS = int(os.environ.get("BULKSUBMIT_KILLS", "200" if TORTURE else "9"))
SEED = int(os.environ.get("BULKSUBMIT_SEED", "4"))
BATCHES = 40
LONGEST_SECONDS = 0.5
"""Most that a life is given: such a job takes about as long, so the kills spread over all of it."""
MOST_KILLS = 4
"""Of one job; then it may finish, or a slow disk would never let it."""
JOBS = 4
"""At a time."""


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_kills_at_random_moments_lose_nothing_and_create_nothing_twice(lives, way, tally):
    draw = random.Random(f"{SEED}{way}")
    kills = 0
    while kills < KILLS / len(WAYS):
        jobs = min(JOBS, round(KILLS / len(WAYS) - kills) // MOST_KILLS + 1)
        deaths = [[{"seconds": draw.uniform(0, LONGEST_SECONDS)} for _ in range(MOST_KILLS)] for _ in range(jobs)]
        for end in await asyncio.gather(*(lives.live(way, BATCHES, one) for one in deaths)):
            kills += end.died
            end.tally.crashes = end.died
            tally.add(end.tally)
            assert not end.complaints, f"seed {SEED}"
    assert not lives.sandboxes[way.service][1].duplicated
