"""What many tests need: a clock whose time is made up, and aioresponses mended for aiohttp 3.14."""

from __future__ import annotations

import asyncio
import heapq
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import pytest
from aioresponses import aioresponses as mocked_http
from hypothesis import settings

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
