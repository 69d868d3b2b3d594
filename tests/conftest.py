"""What many tests need: a clock whose time is made up, and aioresponses mended for aiohttp 3.14.

And what a run of the tests needs: the table of the fault suites at its end, and how many processes test.
"""

from __future__ import annotations

import asyncio
import heapq
import os
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import pytest
from aioresponses import aioresponses as mocked_http
from hypothesis import settings
from torture.faults.tally import TABLE

settings.register_profile("house", deadline=None)  # a busy machine is no failure
settings.load_profile("house")


class VirtualClock:
    """Time passes only while everybody sleeps: then at once to the moment at which the first one wakes."""

    QUIET_TURNS = 30
    """Turns of the event loop in which nobody begins to sleep, after which nobody has anything to do."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._started = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._sleeps = 0
        self._hand: asyncio.Task[None] | None = None

    def now(self) -> float:
        return self._started + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self._sleeps += 1
        alarm = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, self._sleeps, alarm))
        if self._hand is None or self._hand.done():
            self._hand = asyncio.create_task(self._advance())
        await alarm

    async def _advance(self) -> None:
        while self._sleepers:
            await self._until_quiet()
            wake, _, alarm = heapq.heappop(self._sleepers)
            if not alarm.done():  # a cancelled sleep takes no time
                self._elapsed = wake
                alarm.set_result(None)

    async def _until_quiet(self) -> None:
        quiet, seen = 0, self._sleeps
        while quiet < self.QUIET_TURNS:
            await asyncio.sleep(0)
            quiet = quiet + 1 if seen == self._sleeps else 0
            seen = self._sleeps


@pytest.fixture
def clock():
    return VirtualClock()


class MendedResponse(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not know of `stream_writer`, without which aiohttp 3.14 builds no response."""

    def __init__(self, *args, **kwargs) -> None:
        kwargs.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **kwargs)


@pytest.fixture
def http(monkeypatch):
    """An `aioresponses` that takes the place of every request."""
    monkeypatch.setattr(aioresponses.core, "ClientResponse", MendedResponse)
    with mocked_http() as mock:
        yield mock


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Two processes for each core: much of the tests' time is waiting."""
    return 2 * (os.cpu_count() or 1)


def pytest_sessionfinish(session):
    """Hand the table of the faults to the process that started this one, if xdist did."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["faults"] = TABLE.as_dict()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take in the table of a process that has ended; one that was killed has none."""
    TABLE.add(getattr(node, "workeroutput", {}).get("faults", {"suites": {}, "notes": []}))


def pytest_terminal_summary(terminalreporter):
    if TABLE.suites or TABLE.notes:
        terminalreporter.section("faults")
        for line in TABLE.lines():
            terminalreporter.write_line(line)
