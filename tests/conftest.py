"""What many tests need: a clock whose time is made up, and aioresponses mended for aiohttp 3.14."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import pytest
from aioresponses import aioresponses as mocked_http


class VirtualClock:
    """Time passes only while everybody sleeps: then at once to the moment at which the first one wakes."""

    QUIET_TURNS = 30
    """Turns of the event loop without anybody beginning or ending a sleep, after which nobody has anything to do."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._started = start
        self._elapsed = 0.0
        self._wakes: list[float] = []
        self._stirrings = 0

    def now(self) -> float:
        return self._started + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        wake = self._elapsed + max(0.0, seconds)
        self._wakes.append(wake)
        self._stirrings += 1
        try:
            while self._elapsed < wake:
                await self._until_quiet(wake)
                if wake == min(self._wakes):
                    self._elapsed = max(self._elapsed, wake)
            await asyncio.sleep(0)
        finally:
            self._wakes.remove(wake)
            self._stirrings += 1

    async def _until_quiet(self, wake: float) -> None:
        quiet, seen = 0, self._stirrings
        while quiet < self.QUIET_TURNS and self._elapsed < wake:
            await asyncio.sleep(0)
            quiet = quiet + 1 if seen == self._stirrings else 0
            seen = self._stirrings


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
