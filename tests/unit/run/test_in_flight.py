import asyncio

import anyio
import anyio.lowlevel
import pytest

from engine.run.in_flight import InFlightLimit


async def settle():
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


class Crowd:
    """Tasks that take a slot each and say so."""

    def __init__(self, limiter, group):
        self.limiter, self.group, self.inside = limiter, group, []

    async def add(self, *names):
        for name in names:
            self.group.start_soon(self._enter, name)
            await settle()

    async def _enter(self, name):
        await self.limiter.acquire()
        self.inside.append(name)


async def test_no_more_get_in_than_the_limit_allows_and_they_learn_how_many_there_are():
    limiter = InFlightLimit(2)
    assert [await limiter.acquire(), await limiter.acquire()] == [1, 2]
    with anyio.move_on_after(0) as scope:
        await limiter.acquire()
    assert scope.cancelled_caught
    assert limiter.taken == 2


async def test_slots_go_to_those_who_came_first():
    async with anyio.create_task_group() as group:
        crowd = Crowd(InFlightLimit(1), group)
        await crowd.add("a", "b", "c")
        for _ in range(2):
            crowd.limiter.release()
            await settle()
        assert crowd.inside == ["a", "b", "c"]


async def test_nobody_overtakes_those_who_wait():
    async with anyio.create_task_group() as group:
        crowd = Crowd(InFlightLimit(1), group)
        await crowd.add("a", "b")
        crowd.limiter.release()
        group.start_soon(crowd._enter, "late")
        await settle()
        assert crowd.inside == ["a", "b"]
        crowd.limiter.release()
        await settle()
        assert crowd.inside == ["a", "b", "late"]


async def test_a_higher_limit_lets_in_those_who_wait_at_once():
    async with anyio.create_task_group() as group:
        crowd = Crowd(InFlightLimit(1), group)
        await crowd.add("a", "b", "c", "d")
        crowd.limiter.limit = 3
        await settle()
        assert crowd.inside == ["a", "b", "c"]
        group.cancel_scope.cancel()


async def test_a_lower_limit_lets_nobody_in_until_enough_have_left():
    async with anyio.create_task_group() as group:
        crowd = Crowd(InFlightLimit(3), group)
        await crowd.add("a", "b", "c", "d")
        crowd.limiter.limit = 1
        for _ in range(2):
            crowd.limiter.release()
            await settle()
        assert crowd.inside == ["a", "b", "c"]
        crowd.limiter.release()
        await settle()
        assert crowd.inside == ["a", "b", "c", "d"]
        assert crowd.limiter.taken == 1


async def test_one_cancelled_while_waiting_takes_no_slot_with_it():
    limiter = InFlightLimit(1)
    await limiter.acquire()
    with anyio.move_on_after(0):
        await limiter.acquire()
    limiter.release()
    assert await limiter.acquire() == 1


async def test_one_cancelled_in_the_moment_of_its_turn_passes_the_slot_on():
    limiter = InFlightLimit(1)
    await limiter.acquire()
    async with anyio.create_task_group() as group:
        unlucky = asyncio.create_task(limiter.acquire())
        await settle()
        crowd = Crowd(limiter, group)
        await crowd.add("next")
        limiter.release()
        unlucky.cancel()
        await settle()
        assert unlucky.cancelled()
        assert crowd.inside == ["next"]
        assert limiter.taken == 1


async def test_a_slot_cannot_be_given_back_twice():
    limiter = InFlightLimit(1)
    await limiter.acquire()
    limiter.release()
    with pytest.raises(RuntimeError, match="more often than acquired"):
        limiter.release()


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_lets_nobody_pass_is_an_error(limit):
    with pytest.raises(ValueError, match="let nobody pass"):
        InFlightLimit(limit)
