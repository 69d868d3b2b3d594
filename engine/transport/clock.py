"""The time of this machine, as the engine's `Clock`."""

from __future__ import annotations

import time

import anyio


class SystemClock:
    """Real time."""

    def now(self) -> float:
        """Return Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait; a time that has passed already is no wait."""
        await anyio.sleep(max(0.0, seconds))
