"""What many ask for at once is read once."""

import asyncio

import pytest

from engine.dashboard.reading import FRESH_SECONDS, Shared
from unit.ledger.values import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


async def test_all_who_ask_together_share_one_answer(clock):
    shared, made, gate = Shared(clock.monotonic), [], asyncio.Event()

    async def make():
        made.append(1)
        await gate.wait()
        return len(made)

    asking = [asyncio.ensure_future(shared.get("k", make)) for _ in range(5)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*asking) == [1] * 5
    assert await shared.get("k", make) == 1
    clock.time += 2 * FRESH_SECONDS
    assert await shared.get("k", make) == 2


async def test_who_leaves_takes_nothing_from_the_others(clock):
    shared, gate = Shared(clock.monotonic), asyncio.Event()

    async def make():
        await gate.wait()
        return "made"

    first, second = (asyncio.ensure_future(shared.get("k", make)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second == "made"


async def test_an_error_is_told_to_all_and_tried_again(clock):
    shared = Shared(clock.monotonic)

    async def fail():
        raise ValueError("no")

    async def work():
        return "made"

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await shared.get("k", fail)
    clock.time += 2 * FRESH_SECONDS
    assert await shared.get("k", work) == "made"
