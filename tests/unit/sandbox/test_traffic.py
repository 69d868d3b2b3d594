import asyncio
from types import MappingProxyType

import pytest
from aiohttp import web

from engine.sandbox.behaviour import Behaviour, Latency, RateLimit
from engine.sandbox.errors import BehaviourError
from engine.sandbox.traffic import CallKinds, Traffic

from .api import ManualClock, tasks


def _traffic(behaviour, sleeps=None):
    async def sleep(seconds):
        sleeps.append(seconds)

    return Traffic(
        behaviour,
        calls=CallKinds(frozenset({"create", "status"}), deferrable=frozenset({"create"})),
        error=lambda kind, status, message: web.Response(status=status, text=message),
        clock=ManualClock(),
        sleep=sleep,
    )


async def _work(_):
    return web.Response(text="done")


@pytest.mark.parametrize("call", ["creat", "continue"])
def test_a_behaviour_that_names_an_unknown_call_is_refused(call):
    with pytest.raises(BehaviourError, match=f"unknown call '{call}'"):
        _traffic(Behaviour(rate_limits=(RateLimit(1, 1, call=call),)))


async def test_a_call_has_its_own_latency_or_that_of_all():
    sleeps = []
    latency = MappingProxyType({"create": Latency(2), "all": Latency(1, jitter_seconds=0.5)})
    traffic = _traffic(Behaviour(latency=latency), sleeps)
    await traffic.guard("create", _work)(None)
    await traffic.guard("status", _work)(None)
    assert sleeps[0] == 2
    assert 1 <= sleeps[1] <= 1.5


async def test_past_the_limit_there_is_429_with_the_seconds_to_wait():
    traffic = _traffic(Behaviour(rate_limits=(RateLimit(1, 9.5, retry_after=True),)))
    guarded = traffic.guard("create", _work)
    assert (await guarded(None)).status == 200
    refused = await guarded(None)
    assert refused.status == 429
    assert refused.headers["Retry-After"] == "10"
    assert traffic.stats.rate_limited == 1


async def test_429_has_the_vendors_shape_and_no_header_unless_wanted(start):
    api = await start(Behaviour(rate_limits=(RateLimit(1, 60, call="create"),)))
    assert (await api.create(tasks(1))).status == 202
    refused = await api.create(tasks(1))
    assert refused.status == 429
    assert refused.body["errors"][0]["type"] == 429
    assert "Retry-After" not in refused.headers


async def test_requests_in_work_are_counted_with_their_peak():
    traffic, release = _traffic(Behaviour()), asyncio.Event()

    async def wait(_):
        await release.wait()
        return web.Response()

    running = [asyncio.ensure_future(traffic.guard("create", wait)(None)) for _ in range(3)]
    await asyncio.sleep(0)
    assert traffic.stats.requests_in_work == 3
    release.set()
    await asyncio.gather(*running)
    await traffic.guard("status", _work)(None)
    assert (traffic.stats.requests_in_work, traffic.stats.peak_requests) == (0, 3)
    assert traffic.stats.requests == {"create": 3, "status": 1}
