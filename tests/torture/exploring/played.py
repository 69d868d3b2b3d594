"""A walk of the explorer, played again by the real pipeline in made-up time against the same service."""

from __future__ import annotations

from collections import defaultdict, deque
from unittest.mock import AsyncMock, patch

from fakes.bench import a_bench
from fakes.service import FakeService, Killed

from engine.model.doubt import Again, Declined, RemoteStatus
from engine.model.errors import PossiblyApplied, Refused, StillWaiting, Unavailable
from engine.model.outcome import Settlement
from engine.model.submission import State
from engine.run.recovery import Recovery
from engine.services.base import BatchProgress, Located, Released, Staged

from .explorer import GIVE_UP
from .worlds import SETTLE, Service

QUARTER_SECONDS = 30.0
RECORDS = 3


class PlayedService(FakeService):
    """The service of a walk, behind the port: it loses, dies and comes late where the walk did."""

    def __init__(self, clock, walk) -> None:
        super().__init__(clock, stages=walk.manner.stages, marks=walk.manner.again is Again.SEARCH)
        self.truth = Service(walk.manner)
        self._script = defaultdict(deque)
        for what, chosen in walk.chosen:
            self._script[what].append(chosen)

    @property
    def again(self):
        return self.truth.manner.again

    @property
    def stage_again(self):
        return self.truth.manner.stage_again

    def next_choice(self, what, default):
        """Return what the walk chose, one after the other."""
        return self._script[what].popleft() if self._script[what] else default

    def _catch_up(self):
        """Let the quarters pass that have passed by the clock."""
        self.truth.pass_time(int(self.clock.monotonic() / QUARTER_SECONDS + 1e-6) - self.truth.now)
        return self.truth

    def _called(self, name, what):
        end, _, delay = self.next_choice(name, ("answered", what, 0))
        truth = self._catch_up()
        if delay is not None:
            truth.take(what, delay)
        if end == "dies":
            raise Killed
        if end == "lost":
            raise PossiblyApplied("the answer was lost")

    async def find(self, batch, payload):
        return "r1" if self._catch_up().find() is RemoteStatus.WAITING else None

    async def locate(self, batch, payload, since):
        return Located(["r1"] if self._catch_up().search() is RemoteStatus.STARTED else ())

    async def stage(self, batch, payload, *, earlier_id=None, intent=None):
        if earlier_id is None and self.truth.manner.stage_again.value == "search":
            self._called("create a draft", "make")
        return Staged("r1")

    async def upload(self, staged, payload, *, few_tries=False):
        pass

    async def release(self, batch, remote_id, payload, intent, *, sent_before=False):
        objection = self._catch_up().objection()
        if objection is None:
            self._called("release", "release")
            return Released("r1")
        end = self.next_choice("release", "declined")
        if end == "dies after":
            raise Killed
        if end != "declined":
            raise PossiblyApplied("the answer was lost")
        refusal = Refused("no", status=422, released_before=objection is Declined.RELEASED_BEFORE)
        refusal.batch_not_found = objection is Declined.NOT_THERE
        raise refusal

    async def remote_status(self, remote_id):
        return self._catch_up().remote_status()

    async def progress(self, followed):
        truth = self._catch_up()
        remote_status = truth.remote_status() if truth.manner.is_asked else truth.search()
        if remote_status is RemoteStatus.NOT_THERE and truth.manner.is_asked:
            raise Refused("there is no such batch", status=404)
        created = RECORDS if remote_status is RemoteStatus.STARTED else 0
        finished = remote_status in {RemoteStatus.STARTED, RemoteStatus.ENDED}
        return [BatchProgress(followed[0].sequence, created, finished, waiting=not finished)]

    async def settlement(self, asked):
        if self.truth.created:
            return Settlement([f"t{at}" for at in range(asked.count)])
        return Settlement.refused(asked.count, "it was canceled")

    async def cancel(self, remote_id):
        end = self.next_choice("cancel", "answered")
        if end == "dies before":
            raise Killed
        confirmed = self._catch_up().cancel()
        if end == "dies after":
            raise Killed
        if end != "answered" or not confirmed:
            raise Refused("it cannot be canceled", status=409)


async def play(walk, folder):
    """Return how the real engine ends the same walk, and what the service has then.

    Of one batch alone nothing is settled by which a search could be proven: that it works is taken for granted.
    """
    proven = patch.object(Recovery, "_search_works", AsyncMock(return_value=True))
    with proven:
        return await _played(walk, folder)


async def _played(walk, folder):
    async with a_bench(folder, records=RECORDS) as bench:
        service = PlayedService(bench.clock, walk)
        bench.service = service
        while True:
            try:
                error = await bench.work(give_up_seconds=GIVE_UP * QUARTER_SECONDS, max_in_flight=4)
            except* Killed:
                error = Killed()
            if isinstance(error, Killed):
                await bench.clock.sleep(QUARTER_SECONDS * service.next_choice("how long until resume", 0))
                continue
            end = await _end(bench, error)
            if end == "uncertain" and service.next_choice("and then", "nothing") == "resume":
                await bench.clock.sleep(QUARTER_SECONDS * SETTLE)
                continue
            await bench.clock.sleep(QUARTER_SECONDS * 2 * SETTLE)
            return end, service._catch_up()


async def _end(bench, error):
    if isinstance(error, StillWaiting | Unavailable):
        return "stopped"
    assert error is None, error
    (batch, submission), *_ = await bench.batches()
    if submission.state is State.UNCERTAIN:
        return "uncertain"
    settlement = await bench.ledger.settlement(bench.job.name, batch.sequence)
    return "created" if settlement.created else "failed"
