"""SIGKILL at random moments, again and again, then `resume`: nothing lost, nothing twice, by the sandbox's journal."""

import asyncio
import os
import random

import pytest

from .ways import EVERY_WAY, FEW_WAYS, WAYS, late

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
KILLS = int(os.environ.get("BULKSUBMIT_KILLS", "200" if TORTURE else "9"))
SEED = int(os.environ.get("BULKSUBMIT_SEED", "4"))
BATCHES = 40
LATE_BATCHES = 40 if TORTURE else 15
"""Of a job whose calls arrive late: it takes long enough with fewer."""
LONGEST_SECONDS = 0.5
"""Most that a life is given: such a job takes about as long, so the kills spread over all of it."""
MOST_KILLS = 4
"""Of one job; then it may finish, or a slow disk would never let it."""
JOBS = 4
"""At a time."""


async def lived(lives, way, deaths, tally, batches=BATCHES):
    """Let jobs live and die side by side; return how often they died."""
    ends = await asyncio.gather(
        *(lives.live(way, batches, one, nights=number % 2 == 0) for number, one in enumerate(deaths))
    )
    for end in ends:
        end.tally.crashes = end.died
        tally.add(end.tally)
    for end in ends:
        assert not end.complaints, f"seed {SEED}"
    return sum(end.died for end in ends)


def drawn_deaths(draw):
    return [{"seconds": draw.uniform(0, LONGEST_SECONDS)} for _ in range(MOST_KILLS)]


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_kills_at_random_moments_lose_nothing_and_create_nothing_twice(lives, way, tally):
    draw = random.Random(f"{SEED}{way}")
    kills = 0
    while kills < KILLS / len(WAYS):
        jobs = min(JOBS, round(KILLS / len(WAYS) - kills) // MOST_KILLS + 1)
        kills += await lived(lives, way, [drawn_deaths(draw) for _ in range(jobs)], tally)
    assert not lives.sandboxes[way.behaviour][1].duplicated


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("way", [late(way) for way in (EVERY_WAY if TORTURE else FEW_WAYS)], ids=str)
async def test_kills_lose_nothing_and_create_nothing_twice_where_calls_arrive_late_and_reads_lag(lives, way, tally):
    draw = random.Random(f"{SEED}{way}")
    deaths = [drawn_deaths(draw) for _ in range(max(2, KILLS // 20))]
    await lived(lives, way, deaths, tally, LATE_BATCHES)
    assert not lives.sandboxes[way.behaviour][1].duplicated
