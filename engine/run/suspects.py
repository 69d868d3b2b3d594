"""Records that a proxy refuses, alone, while a call without them succeeds. Used by the uploader.

A firewall's page, or a connection that always breaks under one upload, does not show that the service refuses the
record. So such a record does not fail at once: it waits until others get through, and is sent once more. If it is
refused again, it fails. If three in a row are refused and nothing gets through in between, the records are not the
cause: the job stops, and none of them has failed.
"""

from __future__ import annotations

from functools import partial

import anyio

from engine.clock import Clock
from engine.model.errors import JobRefused
from engine.run.context import Stop, unless_stopped
from engine.run.queues import Signal

MOST_IN_A_ROW = 3
WAIT_SECONDS = 5.0
"""Longest wait for others to get through: where a record is the last of its job, nobody will."""
SOON_SECONDS = 1.0
"""Likewise of the third in a row: calls under way side by side end in any order."""


class Suspects:
    """Those of one run."""

    def __init__(self, clock: Clock, stop: Stop) -> None:
        self._clock, self._stop = clock, stop
        self._passed = Signal()
        self._tried: set[int] = set()
        self._in_a_row: set[int] = set()

    def passed(self) -> None:
        """Note that a payload got through."""
        self._in_a_row.clear()
        self._passed.give()

    async def is_worth_another_try(self, sequence: int, refusal: str) -> bool:
        """Wait for others to get through; False if this record was tried again already.

        Raises:
            JobRefused: too many in a row were refused.
        """
        if sequence in self._tried:
            self._tried.discard(sequence)
            return False
        self._tried.add(sequence)
        self._in_a_row.add(sequence)
        many = len(self._in_a_row) >= MOST_IN_A_ROW
        await unless_stopped(self._stop, partial(self._others, SOON_SECONDS if many else WAIT_SECONDS))
        if many and sequence in self._in_a_row and self._stop.error is None:
            raise JobRefused(
                f"{len(self._in_a_row)} records in a row do not get through, each by itself, and no other does in "
                f"between; the last: {refusal}. No record has failed for it. Have what stands in between let them "
                "pass, then run `bulksubmit resume`"
            )
        return True

    async def _others(self, seconds: float) -> None:
        """Wait until a payload gets through, so long at most."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._tire, group.cancel_scope, seconds)
            await self._passed.wait()
            group.cancel_scope.cancel()

    async def _tire(self, scope: anyio.CancelScope, seconds: float) -> None:
        await self._clock.sleep(seconds)
        scope.cancel()
