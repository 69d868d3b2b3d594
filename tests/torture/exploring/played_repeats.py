"""A walk of `repeats`, played again by the real pipeline in made-up time against the same service."""

from __future__ import annotations

from collections import deque
from unittest.mock import AsyncMock, patch

import orjson
from fakes.bench import a_bench
from fakes.service import FakeService, Killed
from msgspec.structs import replace

from engine.commands.cancel import cancel_batches
from engine.model.doubt import Again
from engine.model.error_hints import Blame
from engine.model.errors import PossiblyApplied, Refused, Unavailable
from engine.model.job import JobState
from engine.model.outcome import Settlement
from engine.model.submission import State
from engine.run.recovery import Recovery
from engine.services.base import Located, Released

from .played import QUARTER_SECONDS
from .records import RECORDS, Holdings
from .worlds import SETTLE


class PlayedRepeats(FakeService):
    """The service of a walk, behind the port: it loses, dies and comes late where the walk did."""

    polling = canceling = counting = None

    def __init__(self, clock, walk) -> None:
        super().__init__(clock, stages=False, marks=walk.habits.again is Again.SEARCH)
        self.truth = Holdings(walk.habits)
        self.key_seconds = walk.habits.key_life * QUARTER_SECONDS
        self.settle_seconds = SETTLE * QUARTER_SECONDS
        # When it asks, the engine decides: by the end of the settle time it knows as much.
        self._script = deque(one for one in walk.chosen if one[0] != "wait before the question")

    @property
    def again(self):
        return self.truth.habits.again

    def choice(self, what, default=None):
        """Return what the walk chose, if it chose about this next."""
        return self._script.popleft()[1] if self._script and self._script[0][0] == what else default

    def catch_up(self):
        """Let the quarters pass that have passed by the clock."""
        self.truth.pass_time(int(self.clock.monotonic() / QUARTER_SECONDS + 1e-6) - self.truth.now)
        return self.truth

    async def locate(self, batch, payload, since):
        positions = _positions(payload)
        found = self.catch_up().search(positions)
        ids = [f"t{one}" if one in found else None for one in positions]
        missing = {at: "not found" for at, one in enumerate(positions) if one not in found}
        return Located(settlement=Settlement(ids, uncertain=missing))

    async def release(self, batch, remote_id, payload, intent, *, sent_before=False):
        positions = _positions(payload)
        if (pause := self.choice("pause before the repeat")) is not None:
            await self.clock.sleep(QUARTER_SECONDS * pause)
        await intent()
        truth = self.catch_up()
        if truth.is_at_work(positions):
            raise Refused("at work", status=409, released_before=True)
        end, *how = self.choice(f"release {positions}", ("answered",))
        if end == "does not get through":
            raise Unavailable("nobody answers")
        if end in {"lost", "dies"}:
            if how[0] is not None:
                truth.take(positions, how[1], how[0])
            raise Killed if end == "dies" else PossiblyApplied("the answer was lost")
        return Released(None, self._told(positions, truth.carry_out(positions), sent_before))

    def _told(self, positions, answer, sent_before):
        if answer == "refused":
            raise Refused("no", status=422, blame=Blame.PAYLOAD)
        words = dict(enumerate(answer))
        failed = {at: word for at, word in words.items() if word == "bad" or (word == "exists" and not sent_before)}
        return Settlement([None if at in failed else f"t{one}" for at, one in enumerate(positions)], failed)


def _positions(payload):
    return tuple(int(task["data"]["id"]) for task in orjson.loads(payload.array))


def can_be_played(walk):
    """Return whether the real engine does it all in the same order, which it does not with halves in doubt.

    And a page of a proxy means more calls to it than the walk has.
    """
    calls = [(what, chosen[0]) for what, chosen in walk.chosen if what.startswith("release")]
    whole = f"release {RECORDS}"
    alone = all(what == whole or end == "answered" for what, end in calls)
    return alone and not any(end.startswith("turned away") for _, end in calls) and len(calls) > 1


async def play_repeats(walk, folder):
    """Return what the real engine says of each record in the end, and what the service has then."""
    with patch.object(Recovery, "_search_works", AsyncMock(return_value=walk.habits.proven)):
        async with a_bench(folder, records=len(RECORDS)) as bench:
            service = bench.service = PlayedRepeats(bench.clock, walk)
            by_person = set()
            while True:
                try:
                    error = await bench.work(max_in_flight=1, released_again_by_user=by_person)
                except* Killed:
                    error = Killed()
                by_person = set()
                if (wait := service.choice("how long until resume")) is not None:
                    await bench.clock.sleep(QUARTER_SECONDS * wait)
                    if service.choice("and then") == "cancel":
                        await _cancel(bench)
                    continue
                then = service.choice("and then", "nothing")
                if then == "nothing":
                    break
                assert error is None, error
                if then != "resume":
                    pairs = await bench.batches()
                    by_person = {one.sequence for _, one in pairs if one.state is State.UNCERTAIN}
            await bench.clock.sleep(QUARTER_SECONDS * 2 * SETTLE)
            return await _fates(bench), service.catch_up()


async def _cancel(bench):
    await bench.ledger.set_job_state(bench.job.name, JobState.CANCELED)
    bench.job = replace(bench.job, state=JobState.CANCELED)
    await cancel_batches(bench.run())


async def _fates(bench):
    said = []
    for batch, submission in await bench.batches():
        settlement = await bench.ledger.settlement(bench.job.name, batch.sequence)
        if settlement is None:
            left = "unsent" if bench.job.state is JobState.CANCELED else "unresolved"
            said += ["uncertain" if submission.state is State.UNCERTAIN else left] * batch.count
            continue
        for at, task_id in enumerate(settlement.task_ids):
            said.append("uncertain" if at in settlement.uncertain else "failed" if task_id is None else "created")
    return tuple(said)
