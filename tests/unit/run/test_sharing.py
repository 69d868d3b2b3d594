"""The syncs of a worker, with a ledger in memory and a made-up clock."""

from __future__ import annotations

import anyio
import pytest
from multidict import CIMultiDict

from engine.adaptive.concurrency import LimitChanged
from engine.adaptive.shared_limits import GRANT_SECONDS, SYNC_SECONDS, SharedLimits
from engine.http.caller import HttpCaller
from engine.http.classify import judge_status
from engine.http.retry import CallState, RetryRules
from engine.http.share import Share
from engine.http.throttle import Throttle
from engine.model.errors import LedgerError
from engine.model.settings import SecretStr, SendSettings, ServiceSettings
from engine.progress.events import Paused, unheard
from engine.run.in_flight import SHARED, InFlight
from engine.run.sharing import UNREACHABLE, Sharing, budget_name
from engine.services.base import Answer, Call
from tests.fakes.clock import under_way, until
from tests.fakes.workers import Bucket

STATUS = Call("status", "GET", "https://api.example.com/v2/batches/1.json")
OK = judge_status(200, repeatable=True)


class Texts:
    """Texts that are revised as the ledger does it."""

    def __init__(self, clock):
        self.clock, self.texts, self.revised_at, self.down = clock, {}, [], False

    async def revise(self, name, change):
        await anyio.lowlevel.checkpoint()
        if self.down:
            raise LedgerError("no connection")
        change(self.texts.get(name), self.clock.now())  # as where the first try has to be made again
        self.texts[name] = change(self.texts.get(name), self.clock.now())
        self.revised_at.append(self.clock.monotonic())


class Setting:
    """A worker and its parts."""

    def __init__(self, clock, texts, name="w", **send):
        self.clock, self.texts, self.events = clock, texts, []
        self.share = Share(name)
        self.throttle = Throttle(RetryRules(), 10.0, lambda: 0.5, self.share)
        self.in_flight = InFlight(SendSettings(**send), clock, self.events.append)
        self.sharing = Sharing("budget", texts.revise, self.share, self.in_flight, clock, self.events.append)
        self.woken = 0
        self.share.on_grant = self.wake

    def wake(self):
        self.woken += 1

    def admit(self):
        return self.throttle.admit(CallState(STATUS), self.clock.monotonic()).seconds


@pytest.fixture
def texts(clock):
    return Texts(clock)


async def test_there_is_a_sync_every_half_second(clock, texts):
    worker = Setting(clock, texts)
    async with under_way(worker.sharing.run()):
        await until(lambda: worker.woken == 4)
    assert texts.revised_at[:4] == [number * SYNC_SECONDS for number in range(4)]


async def test_a_call_that_waits_has_a_sync_made_at_once(clock, texts):
    worker = Setting(clock, texts)
    async with under_way(worker.sharing.run()):
        await until(lambda: texts.revised_at)
        while worker.woken < 1:
            await anyio.lowlevel.checkpoint()
        assert worker.admit() > 0
        await until(lambda: len(texts.revised_at) == 2)
        assert texts.revised_at[1] < 0.1


async def test_at_the_end_all_is_given_back_and_nothing_more_goes_out(clock, texts):
    worker = Setting(clock, texts)
    async with under_way(worker.sharing.run()):
        await until(lambda: worker.woken)
        assert list(SharedLimits.of(texts.texts["budget"]).workers) == ["w"]
    assert SharedLimits.of(texts.texts["budget"]).workers == {}
    assert not worker.share.holds(clock.monotonic())


async def test_while_the_ledger_cannot_be_reached_people_are_told_and_the_run_goes_on_afterwards(clock, texts):
    worker = Setting(clock, texts)
    async with under_way(worker.sharing.run()):
        await until(lambda: worker.woken)
        texts.down = True
        await until(lambda: clock.monotonic() > GRANT_SECONDS + 1)
        assert not worker.share.holds(clock.monotonic())
        told = worker.events.count(Paused(UNREACHABLE, GRANT_SECONDS))
        assert told == len(worker.events) == 2, "in three seconds"
        texts.down = False
        await until(lambda: worker.share.holds(clock.monotonic()))


async def test_people_are_told_of_a_ledger_that_is_waited_for(clock, texts):
    setting = Setting(clock, texts)

    async def revise(name, change):
        await clock.sleep(10)
        await texts.revise(name, change)

    setting.sharing = Sharing("budget", revise, setting.share, setting.in_flight, clock, setting.events.append)
    async with under_way(setting.sharing.run()):
        await until(lambda: texts.revised_at)
    assert [event.reason for event in setting.events if isinstance(event, Paused)] == [UNREACHABLE]


async def test_a_run_ends_though_the_ledger_cannot_be_reached(clock, texts):
    worker = Setting(clock, texts)
    texts.down = True
    async with under_way(worker.sharing.run()) as syncs:
        await until(lambda: worker.events)
    assert syncs.cancelled()


async def test_who_sends_no_batches_may_call_beside_one_that_has_all_of_those_in_flight(clock, texts):
    class Wire:
        async def send(self, request):
            return Answer(200, CIMultiDict(), b"")

    sends, share = Setting(clock, texts, "sends", max_in_flight=10), Share("asks")
    caller = HttpCaller(Wire(), service_at(), SendSettings(requests_per_second=10.0), clock=clock, share=share)
    asks = Sharing("budget", texts.revise, share, None, clock, unheard)
    async with under_way(asks.run()), under_way(sends.sharing.run()):
        for _ in range(20):
            await caller.call(STATUS)
        assert 1.9 <= clock.monotonic() <= 3.5
        assert sends.in_flight.limit == 10
    assert SharedLimits.of(texts.texts["budget"]).workers == {}


async def test_two_workers_share_the_configured_number_in_flight(clock, texts):
    first, second = (Setting(clock, texts, name, max_in_flight=10) for name in ("first", "second"))
    assert first.in_flight.limit == 0
    async with under_way(first.sharing.run()):
        await until(lambda: first.in_flight.limit == 10)
        assert first.events == [LimitChanged("max_in_flight", 0, 10, SHARED)]
        async with under_way(second.sharing.run()):
            await until(lambda: first.in_flight.limit == second.in_flight.limit == 5)
        await until(lambda: first.in_flight.limit == 10)


async def test_the_callers_of_four_workers_keep_the_rate_of_a_service_together_and_use_it(clock, texts):
    service, seen = Bucket(40, 10), []

    class Wire:
        async def send(self, request):
            seen.append(service.call(clock.monotonic()).status)
            await clock.sleep(0.2)
            return Answer(seen[-1], CIMultiDict(), b"")

    async def calls(caller):
        while clock.monotonic() < 20.0:
            await caller.call(STATUS)

    async with anyio.create_task_group() as workers:
        for name in "abcd":
            settings, share = SendSettings(requests_per_second=40.0), Share(name)
            caller = HttpCaller(Wire(), service_at(), settings, clock=clock, share=share)
            in_flight = InFlight(settings, clock, unheard)
            workers.start_soon(Sharing("budget", texts.revise, share, in_flight, clock, unheard).run)
            for _ in range(15):
                workers.start_soon(calls, caller)
        await clock.sleep(20.0)
        workers.cancel_scope.cancel()
    assert set(seen) == {200}
    assert len(seen) >= 0.97 * 40 * 19.5, "but for the first half second"
    assert SharedLimits.of(texts.texts["budget"]).workers == {}


# The name of a budget


class Secretive(ServiceSettings, frozen=True, kw_only=True):
    token: SecretStr

    def secret_headers(self):
        return {"Authorization": SecretStr(f"Bearer {self.token.get_secret_value()}")}


def service_at(base_url="https://api.example.com/v2", token="hunter2"):  # noqa: S107 - made up
    return Secretive(kind="toy", base_url=base_url, token=SecretStr(token))


def test_jobs_into_one_service_with_the_same_account_have_one_budget_wherever_they_go_there():
    assert budget_name(service_at()) == budget_name(service_at("https://api.example.com/v2/other"))
    assert budget_name(service_at()).startswith("https://api.example.com ")


def test_another_account_or_service_has_another_budget_and_no_secret_is_in_its_name():
    names = {budget_name(each) for each in (service_at(), service_at(token="other"), service_at("https://example.com"))}
    assert len(names) == 3
    assert all("hunter2" not in name for name in names)
