"""How often released batches are asked about, and how soon their end is known: the engine's poller in made-up time.

The service is a model with a known speed of creation, so that it is known, too, when each batch was created, and time
jumps from one event to the next: an hour takes no longer than its polls. The poller is the engine's own.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import anyio

from benchmarks.contenders.no_ledger import Forgetful
from benchmarks.harness import Row, Section, Session, Target
from benchmarks.simulation.creating import TOLERANCE, Creating, Creation, oracle_polls, plan, table
from engine.ledger.base import Ledger
from engine.model.batch import Batch
from engine.model.doubt import RemoteStatus
from engine.model.job import Job
from engine.model.outcome import Settlement
from engine.model.record import Position
from engine.model.settings import SendSettings
from engine.model.submission import State, Submission
from engine.run.context import Run, Stop
from engine.run.poller import Poller
from engine.services.base import Asked, BatchProgress, Polling, Service

BATCH_RECORDS = 1000
POLLS = Target(2.0, at_least=False)
DELAY = Target(100 * TOLERANCE, at_least=False)

ANSWER_SECONDS = 0.05
"""Round trip of a poll."""

METHOD = f"""The engine's own poller, with its default settings, against a model of a service in made-up time: \
batches of {BATCH_RECORDS:,} tasks are released at regular intervals, and the service creates their tasks first come, \
first served, at a speed that nobody tells the engine, one batch after the other or several side by side. A poll's \
answer takes {ANSWER_SECONDS * 1000:.0f} ms. The delay is the time from a batch's last task to the look of the \
service that tells of it, as a share of the batch's creation time: from its first task to its last, without its time \
in the queue. The way of that answer back to us, half of the {ANSWER_SECONDS * 1000:.0f} ms, comes on top; no poll can \
save it (at 5,000 tasks/s it is {ANSWER_SECONDS / 2 * 5_000 / BATCH_RECORDS:.1%} of a creation). The learning is \
included: nothing is left out at the beginning. The oracle knows more than the engine can: it is told beforehand when \
each batch will be done, and asks as seldom as it can while it learns of each end within {TOLERANCE:.0%} of that \
creation time, its answers taking no time; one poll covers one batch, as at Sama. Polls are counted without the one \
call that fetches the fate of each record, which both need."""


SCENARIOS = {
    "50 tasks/s, one batch at a time": Creating(50, 1, batches=60, release_seconds=0.25),
    "500 tasks/s, one batch at a time": Creating(500, 1, batches=60, release_seconds=0.25),
    "500 tasks/s, four batches side by side": Creating(125, 4, batches=60, release_seconds=0.25),
    "5,000 tasks/s, faster than batches come": Creating(5_000, 1, batches=60, release_seconds=0.25),
}
"""`python -m benchmarks.following` prints many more: those to which the tests hold the schedule alone."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What following one scenario took."""

    polls: int
    oracle_polls: int
    delays: Sequence[float]
    """By batch, as a share of its creation time."""


def measure(session: Session) -> Section:
    """Follow every scenario once: nothing in it is left to chance."""
    del session
    rows = []
    for name, scenario in SCENARIOS.items():
        followed = follow(scenario)
        polls = Row(f"polls, {name}", "oracle", [followed.polls / followed.oracle_polls], POLLS)
        delays = [100 * delay for delay in followed.delays]
        rows += [polls, Row(f"delay, {name}", "", delays, DELAY, "% of creation")]
    settings = {"longest first wait": SendSettings().poll_seconds, "longest wait": SendSettings().max_poll_seconds}
    return Section("following", "Following what was released", METHOD, rows, settings=settings)


def follow(scenario: Creating) -> Measured:
    """Let the engine follow a scenario."""
    creations = plan(scenario)
    service = _Model(creations)
    anyio.run(_follow, service, scenario, backend_options={"loop_factory": _JumpingLoop})
    delays = [(service.seen_at[number] - one.end) / one.seconds for number, one in enumerate(creations)]
    return Measured(service.polls, oracle_polls(creations, 1), delays)


async def _follow(service: _Model, scenario: Creating) -> None:
    job = Job("bench", "sama", "", (), "")
    clock, ledger = _LoopClock(), cast("Ledger", Forgetful())
    run = Run(job, cast("Service", service), ledger, clock, lambda: 0.5, lambda _: None, Stop())
    settings = SendSettings()
    poller = Poller(run, settings)
    slots = anyio.Semaphore(settings.polls_in_flight)

    async def poll(group: Sequence[int]) -> None:
        await poller.poll(group)
        slots.release()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_release, poller, scenario)
        while group := await poller.next_group():
            await slots.acquire()
            tasks.start_soon(poll, group)


async def _release(poller: Poller, scenario: Creating) -> None:
    for number in range(scenario.batches):
        start, end = (Position(0, index * BATCH_RECORDS) for index in (number, number + 1))
        batch = Batch(number, start, end, BATCH_RECORDS, 0, b"", b"")
        poller.add(batch, Submission(number, State.RELEASED, str(number)))
        await anyio.sleep(scenario.release_seconds)
    poller.finish()


class _Model:
    """A service that creates tasks as planned."""

    polls_together = 1
    open_batches = 500

    def __init__(self, creations: Sequence[Creation]) -> None:
        self._creations = creations
        self.polls = 0
        self.seen_at: dict[int, float] = {}

    async def progress(self, followed: Sequence[Asked]) -> Sequence[BatchProgress]:
        self.polls += 1
        await anyio.sleep(ANSWER_SECONDS / 2)
        now = anyio.current_time()
        answers = [self._progress(one.sequence, now) for one in followed]
        for answer in answers:
            if answer.finished:
                self.seen_at[answer.sequence] = now
        await anyio.sleep(ANSWER_SECONDS / 2)
        return answers

    def _progress(self, number: int, now: float) -> BatchProgress:
        creation = self._creations[number]
        return BatchProgress(number, creation.created(now), finished=now >= creation.end)

    @property
    def polling(self) -> Polling:
        return self

    async def remote_status(self, remote_id: str) -> RemoteStatus:
        raise NotImplementedError(remote_id)

    async def settlement(self, asked: Asked) -> Settlement:
        await anyio.sleep(ANSWER_SECONDS)
        return Settlement([asked.remote_id] * asked.count)


class _LoopClock:
    """The time of the event loop."""

    def now(self) -> float:
        return anyio.current_time()

    def monotonic(self) -> float:
        return anyio.current_time()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, seconds))


class _JumpingSelector(selectors.SelectSelector):
    """Waits for nothing: the time that would have passed is added to `elapsed`."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.elapsed += timeout or 0.0
        return super().select(0)


class _JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in made-up time; nothing in it may wait for a thread or a socket."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(cast("Any", self._jumping))

    def time(self) -> float:
        return self._jumping.elapsed


if __name__ == "__main__":
    print(table())
