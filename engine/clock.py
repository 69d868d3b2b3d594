"""The clock that is passed to whatever waits or asks for the time: that of this machine, or a made-up one in tests."""

from __future__ import annotations

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """Time, and waiting."""

    def now(self) -> float:
        """Return Unix seconds."""

    def monotonic(self) -> float:
        """Return seconds that never jump."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """Real time."""

    def now(self) -> float:
        """Return Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait; return at once if `seconds` is 0 or less."""
        await anyio.sleep(max(0.0, seconds))
