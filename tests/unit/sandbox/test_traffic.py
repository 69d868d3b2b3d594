import asyncio
from types import MappingProxyType

import pytest
from fakes.clock import FakeClock
from yarl import URL

from engine.sandbox.behaviour import Behaviour, BehaviourError, Fault, Latency, RateLimit
from engine.sandbox.messages import SandboxAnswer, SandboxCall, SandboxRequest
from engine.sandbox.traffic import CallKinds, RateLimits, Traffic

from .api import tasks

CALLS = CallKinds(frozenset({"create", "status"}), deferrable=frozenset({"create"}))
REQUEST = SandboxRequest("GET", URL("http://localhost/"), {})


def _traffic(behaviour):
    def error(_, status, message):
        return SandboxAnswer(status, message.encode())

    return Traffic(behaviour, calls=CALLS, error=error, clock=FakeClock().now)


async def _serve(traffic, kind, *, sleeps=None, read=None):
    async def no_body(_):
        return b""

    async def sleep(seconds):
        sleeps.append(seconds)

    return await traffic.serve(SandboxCall(kind, REQUEST, lambda _: SandboxAnswer()), read or no_body, sleep)


@pytest.mark.parametrize("call", ["creat", "continue"])
def test_a_behaviour_that_names_an_unknown_call_is_refused(call):
    with pytest.raises(BehaviourError, match=f"unknown call '{call}'"):
        _traffic(Behaviour(rate_limits=(RateLimit(1, 1, call=call),)))


async def test_a_call_has_its_own_latency_or_that_of_all():
    sleeps = []
    latency = MappingProxyType({"create": Latency(2), "all": Latency(1, jitter_seconds=0.5)})
    traffic = _traffic(Behaviour(latency=latency))
    await _serve(traffic, "create", sleeps=sleeps)
    await _serve(traffic, "status", sleeps=sleeps)
    assert sleeps[0] == 2
    assert 1 <= sleeps[1] <= 1.5


async def test_past_the_limit_there_is_429_with_the_seconds_to_wait():
    traffic = _traffic(Behaviour(rate_limits=(RateLimit(1, 9.5, retry_after=True),)))
    assert (await _serve(traffic, "create")).status == 200
    refused = await _serve(traffic, "create")
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

    async def read(_):
        await release.wait()
        return b""

    running = [asyncio.ensure_future(_serve(traffic, "create", read=read)) for _ in range(3)]
    await asyncio.sleep(0)
    assert traffic.stats.requests_in_work == 3
    release.set()
    await asyncio.gather(*running)
    await _serve(traffic, "status")
    assert (traffic.stats.requests_in_work, traffic.stats.peak_requests) == (0, 3)
    assert traffic.stats.requests == {"create": 3, "status": 1}


def _answers(limits, kind, *times):
    return [limits.refusal(kind, now) is None for now in times]


def test_a_window_opens_with_its_first_request():
    limits = RateLimits([RateLimit(2, 10)])
    assert _answers(limits, "status", 100, 105, 109.9, 110, 111, 112) == [True, True, False, True, True, False]


def test_a_limit_counts_its_own_call_only():
    limits = RateLimits([RateLimit(1, 10, call="tasks")])
    assert _answers(limits, "tasks", 0, 1) == [True, False]
    assert _answers(limits, "status", 0, 1) == [True, True]


def test_a_limit_for_all_leaves_out_what_another_host_serves():
    limits = RateLimits([RateLimit(1, 10)], outside=frozenset({"put"}))
    assert _answers(limits, "put", 0, 1) == [True, True]
    assert _answers(limits, "create", 2) == [True]
    assert _answers(limits, "status", 3) == [False]


def test_a_refused_request_uses_up_no_other_limit():
    limits = RateLimits([RateLimit(1, 10, call="tasks"), RateLimit(2, 10)])
    assert _answers(limits, "tasks", 0, 1, 2) == [True, False, False]
    assert _answers(limits, "status", 3, 4) == [True, False]


def test_the_refusal_says_how_long_to_wait():
    limits = RateLimits([RateLimit(1, 10)])
    limits.refusal("status", 100)
    assert limits.refusal("status", 104) == (RateLimit(1, 10), 6)


def _faulty(**fault):
    return _traffic(Behaviour(faults=(Fault(nth=(1,), **fault),)))


@pytest.mark.parametrize("kind", ["act_later", "drop_late", "refuse_late", "html_late", "swallow"])
def test_only_work_that_creates_or_releases_can_be_put_off(kind):
    assert _faulty(call="create", kind=kind)
    with pytest.raises(BehaviourError, match=f"{kind} is for .* \\(create\\), not for status"):
        _faulty(call="status", kind=kind)


def test_for_such_a_fault_all_calls_are_those_that_create_or_release():
    traffic = _faulty(call="all", kind="swallow")
    assert traffic.next_fault("status") is None
    assert traffic.next_fault("create").kind == "swallow"
