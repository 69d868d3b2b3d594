"""The fake service, late: it acts later than it was told, shows late what it did, and may say no, or lie, to a cancel.

A call is judged at once and only its work comes later; what is still to come of a batch is dropped when the batch is
canceled. Made for a state machine, so nothing runs beside the calls: what is due is made up for when somebody calls.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from fakes.service import FakeService, Fault

from engine.model.doubt import Again, RemoteStatus
from engine.model.errors import PossiblyApplied, Refused
from engine.services.base import BatchProgress, Located, Staged, no_intent

NEVER = float("inf")


@dataclass(frozen=True)
class Later(Fault):
    """A call whose work is done so many seconds later, or never; it is answered, unless there is an error."""

    error: BaseException | None = None
    applied: bool = True
    seconds: float = NEVER


@dataclass
class LateService(FakeService):
    """`Later` may stand among the faults of the calls that create or release."""

    declares: Again | None = None
    """What makes a second release safe, if not what its manner says."""
    drafts: bool = False
    """What is staged is seen by people, and found by its mark; see `done_by`."""
    lag_seconds: float = 0.0
    """What it shows was true so long ago."""
    busy_while_late: bool = False
    """It says no to whoever releases or cancels a batch of which something is still to come."""
    cancels: str = "accept"
    """accept, refuse, or lie: it says yes, and stops nothing"""
    struck: int = 0
    """Calls that met a fault."""
    told: set = field(default_factory=set)
    """Remote ids of the batches whose release it has taken, whenever it acts."""
    made: dict = field(default_factory=dict)
    """Remote id → when its draft was made."""
    begun: dict = field(default_factory=lambda: defaultdict(list))
    """Remote id → when it began to create, each time."""
    canceled_at: dict = field(default_factory=dict)
    _put_off: float = 0.0
    """By how much what the call under way asks for is done later."""
    _agenda: list = field(default_factory=list)
    """(time, number, remote id, what is to be done then)"""
    _numbers: count = field(default_factory=count)
    _pending: Counter = field(default_factory=Counter)
    """By remote id: what is still to come."""

    @property
    def again(self):
        return self.declares or super().again

    @property
    def stage_again(self):
        return Again.SEARCH if self.drafts else super().stage_again

    def catch_up(self, until=None):
        """Do what is due; all that is still to come until infinity."""
        until = self.clock.monotonic() if until is None else until
        while self._agenda and self._agenda[0][0] <= until:
            due, _, remote_id, act = heapq.heappop(self._agenda)
            self._pending[remote_id] -= 1
            act(due)

    def is_idle(self, remote_id):
        """Tell whether a batch was never begun, and nothing is to come of it."""
        return not self.begun[remote_id] and not self._pending[remote_id]

    def is_gone(self, remote_id):
        """Tell whether a batch was a draft that was deleted."""
        return self.done_by == "stage" and self.remotes[remote_id].canceled

    async def stage(self, batch, payload, *, earlier_id=None, intent=no_intent):
        if not self.drafts:
            return await super().stage(batch, payload, earlier_id=earlier_id, intent=intent)
        if earlier_id is None:
            await intent()
        async with self._call("stage", "send"):
            if earlier_id is None:
                earlier_id = self._new(batch, payload)
                self._later(earlier_id, lambda at: self.made.setdefault(earlier_id, at))
            elif not self._is_seen(earlier_id):
                raise PossiblyApplied("the draft is not to be seen")
            return Staged(earlier_id)

    async def find(self, batch, payload):
        async with self._call("find", "ask"):
            ours = [remote_id for remote_id, remote in self.remotes.items() if remote.sequence == batch.sequence]
            return next((name for name in ours if self._is_seen(name) and not self.is_gone(name)), None)

    async def locate(self, batch, payload, since):
        located = await super().locate(batch, payload, since)
        return Located([name for name in located.names if self._shows_begun(name, self.seen_after)])

    async def remote_status(self, remote_id):
        async with self._call("remote_status", "ask"):
            if self.is_gone(remote_id):
                return RemoteStatus.NOT_THERE
            if self._shows_begun(remote_id):
                return RemoteStatus.STARTED
            if self._shows_canceled(remote_id):
                return RemoteStatus.ENDED
            return RemoteStatus.NOT_THERE if self.drafts and not self._is_seen(remote_id) else RemoteStatus.WAITING

    async def cancel(self, remote_id):
        async with self._call("cancel", "ask"):
            if self._is_busy(remote_id):
                raise Refused("busy", status=409)
            if self.cancels == "refuse":
                raise Refused("what was begun is not stopped", status=400)
            if self.cancels == "accept":
                self._cancel(remote_id)

    def _cancel(self, remote_id):
        self.remotes[remote_id].canceled = True
        self.canceled_at.setdefault(remote_id, self.clock.monotonic())

    def _create(self, remote_id):
        """Release a batch, at once or later; this is what a fake service does with it."""
        remote, told = self.remotes[remote_id], remote_id in self.told
        if self._is_busy(remote_id) or (told and self.release_again == "refuse"):
            raise Refused("InvalidBatchState: not waiting", status=409, released_before=True)
        if told and self.release_again == "noop":
            return
        if remote.payload is None or remote.canceled:
            super()._create(remote_id)  # which refuses it
        if self._put_off < NEVER:
            self.told.add(remote_id)
        self._later(remote_id, lambda at: self._begin(remote_id, at))

    def _begin(self, remote_id, at):
        remote = self.remotes[remote_id]
        if remote.canceled:
            return
        super()._create(remote_id)
        remote.starts_at = at
        self.begun[remote_id].append(at)
        self.made.setdefault(remote_id, at)

    def _later(self, remote_id, act):
        """Do what the call under way asks for, when it is to be done."""
        if self._put_off == 0:
            act(self.clock.monotonic())
        elif self._put_off < NEVER:
            self._pending[remote_id] += 1
            heapq.heappush(self._agenda, (self.clock.monotonic() + self._put_off, next(self._numbers), remote_id, act))

    def _is_busy(self, remote_id):
        return self.busy_while_late and self._pending[remote_id] > 0

    def _is_seen(self, remote_id):
        return self.made.get(remote_id, NEVER) <= self.clock.monotonic() - self.lag_seconds

    def _shows_begun(self, remote_id, later=0.0):
        return any(at <= self.clock.monotonic() - self.lag_seconds - later for at in self.begun[remote_id])

    def _shows_canceled(self, remote_id):
        return self.canceled_at.get(remote_id, NEVER) <= self.clock.monotonic() - self.lag_seconds

    def _progress(self, submission):
        remote_id = submission.remote_id
        if not self._shows_begun(remote_id) and not self._shows_canceled(remote_id):
            return BatchProgress(submission.sequence, 0, finished=False, waiting=True)
        remote = self.remotes[remote_id]
        if not self._shows_begun(remote_id):  # canceled before it was begun
            settlement = self._settlement(remote_id) if self.polls_settle else None
            return BatchProgress(submission.sequence, 0, finished=True, settlement=settlement)
        starts_at = remote.starts_at
        try:
            remote.starts_at += self.lag_seconds
            return super()._progress(submission)
        finally:
            remote.starts_at = starts_at

    def _strike(self, kind):
        fault = super()._strike(kind)
        self.struck += fault is not None
        self._put_off = fault.seconds if isinstance(fault, Later) else 0.0
        return None if isinstance(fault, Later) and fault.error is None else fault

    @asynccontextmanager
    async def _call(self, kind, sort):
        async with super()._call(kind, sort):
            self.catch_up()
            yield
