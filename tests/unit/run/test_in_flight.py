import asyncio
from collections import deque
from http import HTTPStatus

import anyio
import anyio.lowlevel
import pytest

from engine.adaptive.concurrency import CallFate
from engine.model.settings import SendSettings
from engine.progress.events import CallEnded, unheard
from engine.run.in_flight import MOST_BYTES, InFlight, Slot


async def settle():
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def places(clock):
    """Return a function that makes so many places."""
    return lambda number: InFlight(SendSettings(max_in_flight=number), clock, unheard)


class Crowd:
    """Batches that take a place each and say so."""

    def __init__(self, places, group):
        self.places, self.group, self.inside, self.slots = places, group, [], []

    async def add(self, *names, size_bytes=1):
        for name in names:
            self.group.start_soon(self._enter, name, size_bytes)
            await settle()

    async def _enter(self, name, size_bytes=1):
        self.slots.append(await self.places.take(size_bytes))
        self.inside.append(name)

    async def leave(self):
        self.places.give_back(self.slots.pop(0), None)
        await settle()


async def test_no_more_get_in_than_the_limit_allows_and_they_learn_how_many_there_are(places):
    two = places(2)
    assert [(await two.take(1)).in_flight, (await two.take(1)).in_flight] == [1, 2]
    with anyio.move_on_after(0) as scope:
        await two.take(1)
    assert scope.cancelled_caught
    assert two.taken == 2


async def test_places_go_to_those_who_came_first(places):
    async with anyio.create_task_group() as group:
        crowd = Crowd(places(1), group)
        await crowd.add("a", "b", "c")
        for _ in range(2):
            await crowd.leave()
        assert crowd.inside == ["a", "b", "c"]


async def test_nobody_overtakes_those_who_wait(places):
    async with anyio.create_task_group() as group:
        crowd = Crowd(places(1), group)
        await crowd.add("a", "b")
        crowd.places.give_back(crowd.slots.pop(0), None)
        group.start_soon(crowd._enter, "late")
        await settle()
        assert crowd.inside == ["a", "b"]
        await crowd.leave()
        assert crowd.inside == ["a", "b", "late"]


async def test_a_higher_limit_lets_in_those_who_wait_at_once(places):
    async with anyio.create_task_group() as group:
        crowd = Crowd(places(1), group)
        await crowd.add("a", "b", "c", "d")
        crowd.places.limit = 3
        await settle()
        assert crowd.inside == ["a", "b", "c"]
        group.cancel_scope.cancel()


async def test_a_lower_limit_lets_nobody_in_until_enough_have_left(places):
    async with anyio.create_task_group() as group:
        crowd = Crowd(places(3), group)
        await crowd.add("a", "b", "c", "d")
        crowd.places.limit = 1
        for _ in range(2):
            await crowd.leave()
        assert crowd.inside == ["a", "b", "c"]
        await crowd.leave()
        assert crowd.inside == ["a", "b", "c", "d"]
        assert crowd.places.taken == 1


async def test_payloads_under_way_are_bounded_and_one_that_is_longer_goes_alone(places):
    async with anyio.create_task_group() as group:
        crowd = Crowd(places(9), group)
        await crowd.add("half", "other half", size_bytes=MOST_BYTES // 2)
        await crowd.add("long", size_bytes=2 * MOST_BYTES)
        await crowd.add("short")
        assert crowd.inside == ["half", "other half"]
        await crowd.leave()
        assert crowd.inside == ["half", "other half"], "the long one is first in line, and goes alone"
        await crowd.leave()
        assert crowd.inside == ["half", "other half", "long"]
        await crowd.leave()
        assert crowd.inside == ["half", "other half", "long", "short"]


async def test_one_canceled_while_waiting_takes_no_place_with_it(places):
    one = places(1)
    slot = await one.take(1)
    with anyio.move_on_after(0):
        await one.take(1)
    one.give_back(slot, None)
    assert (await one.take(1)).in_flight == 1


async def test_one_canceled_while_it_waits_for_room_lets_the_next_go(places):
    async with anyio.create_task_group() as group:
        crowd = Crowd(places(9), group)
        await crowd.add("half", size_bytes=MOST_BYTES // 2)
        unlucky = asyncio.create_task(crowd.places.take(MOST_BYTES))
        await settle()
        await crowd.add("short")
        unlucky.cancel()
        await settle()
        assert crowd.inside == ["half", "short"]


async def test_one_canceled_in_the_moment_of_its_turn_passes_the_place_on(places):
    one = places(1)
    slot = await one.take(1)
    async with anyio.create_task_group() as group:
        unlucky = asyncio.create_task(one.take(1))
        await settle()
        crowd = Crowd(one, group)
        await crowd.add("next")
        one.give_back(slot, None)
        unlucky.cancel()
        await settle()
        assert unlucky.cancelled()
        assert crowd.inside == ["next"]
        assert one.taken == 1


async def test_of_two_who_give_a_place_back_the_first_does(places):
    two = places(2)
    slot = await two.take(1)
    await two.take(1)
    two.give_back(slot, None)
    two.give_back(slot, None)
    assert two.taken == 1


def test_a_place_that_nobody_took_cannot_be_given_back(places):
    with pytest.raises(RuntimeError, match="more places were given back than taken"):
        places(1).give_back(Slot(1, 1, 0.0), None)


# Shared with other workers


def auto(clock):
    return InFlight(SendSettings(), clock, unheard)


async def finish(places, clock, number):
    """Let so many batches of a second each go through, as many at once as there are places."""
    slots = deque()
    for _ in range(number):
        while len(slots) < places.limit:
            slots.append(await places.take(1))
        clock.move_to(clock.now() + 1 / places.limit)
        places.give_back(slots.popleft(), CallFate.DONE)
    for slot in slots:
        places.give_back(slot, None)


async def test_where_the_number_is_configured_there_are_no_places_before_the_first_grant(places):
    ten = places(10)
    ten.await_grant()
    assert ten.limit == 0
    ten.follow(5)
    assert (ten.limit, ten.report().most, ten.report().limit) == (5, 10, 5)


async def test_whoever_follows_learns_nothing_and_goes_on_from_there_once_it_leads(clock):
    one = auto(clock)
    one.await_grant()
    one.follow(8)
    await finish(one, clock, 50)
    assert one.limit == 8
    one.follow(None)
    assert one.limit == 8
    await finish(one, clock, 300)
    assert one.limit > 8


async def test_whoever_leads_is_left_alone(clock):
    one = auto(clock)
    await finish(one, clock, 2)
    limit = one.limit
    one.follow(None)
    await finish(one, clock, 50)
    assert one.limit > 4 * limit, "it goes on with its slow start"


async def test_a_push_back_is_reported_once_and_that_of_another_worker_lowers_the_limit(clock):
    one = auto(clock)
    one.hear(CallEnded("status", 0.1, 0, HTTPStatus.TOO_MANY_REQUESTS))
    assert [one.report().pushed_back, one.report().pushed_back] == [True, False]
    one = auto(clock)
    await finish(one, clock, 50)
    limit = one.limit
    one.others_pushed_back()
    assert one.limit < limit
