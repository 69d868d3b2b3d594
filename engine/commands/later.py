"""What becomes of created tasks after their job: asked, kept with the job, and followed to their end.

`refresh` is the operation; `resume --until finished`, `status --tasks --failed`, `retry --task-failed` and `undo` ask
the same questions. A record stays *created* whatever its task does later: a later fate stands beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import anyio
from msgspec import Struct
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.endings import tells_end
from engine.commands.paths import open_ledger
from engine.commands.result import Result, summarize
from engine.commands.runs import RunMemory, remembered
from engine.files import DEFAULT_LEDGER
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.model.errors import BulkSubmitError, DeadlineReached, JobError
from engine.model.job import Job
from engine.model.outcome import LASTING, Later, LaterFate
from engine.model.runs import REFRESH
from engine.model.submission import State
from engine.progress.events import Listener, Noticed, unheard
from engine.progress.text import count, duration
from engine.reports.outcomes import KnownBatch, settled_batches
from engine.run.bounds import Ending, ending_of
from engine.run.context import Stop, pause_unless_stopped, unless_stopped
from engine.services.base import Service
from engine.services.created import CreatedTasks, Refreshing, TaskState

T = TypeVar("T")

UNTIL_THE_END = "finished"
"""The word of `--until` for a task that has ended."""
TOLD_SECONDS = 3.0
"""A shorter wait is not worth a word beforehand."""
PEOPLE_SECONDS = 600.0
"""Longest pause between two looks at what people work on: that takes days, and each look many calls."""
_TAKES_WEEKS = (
    "people work on {tasks} that have not ended: it can take weeks until all have. They are asked about again and "
    "again until then; --deadline ends that, and so does Ctrl-C. `bulksubmit refresh {job}` asks once"
)


class SeenTask(Struct, frozen=True):
    """A created task that the service was asked about."""

    index: int
    """Of its record."""
    task_id: str
    state: TaskState | None
    """None: the service does not show it."""
    known: str | None
    """What the ledger has of it: a later fate."""


@tells_end
async def refresh(
    name: str, ledger: LedgerAddress | str = DEFAULT_LEDGER, emit: Listener = unheard, stop: Stop | None = None
) -> Result:
    """Ask the service how the created tasks of a job stand, and bring its reports up to date.

    Raises:
        JobError: there is no such job, or its service does not tell.
        JobLocked: a process works on it.
    """
    stop = stop or Stop()
    async with open_ledger(ledger) as opened:
        job = await opened.job(name)
        with opened.lock(name):
            setup = wiring.load(job.config)
            refreshing_of(wiring.offline(setup, job).service)
            work = partial(_follow, job, opened, setup, stop, to_the_end=False)
            return await remembered(job, opened, setup, emit, stop, work, command=REFRESH)


async def follow_to_the_end(job: Job, setup: wiring.Setup, ledger: Ledger, emit: Listener, stop: Stop) -> Result:
    """Follow the created tasks of a finished job, which this process has locked, until all have ended: `resume`."""
    goes_on = f"resume {job.name} --until {UNTIL_THE_END}"
    work = partial(_follow, job, ledger, setup, stop, to_the_end=True)
    return await remembered(job, ledger, setup, emit, stop, work, command="resume", goes_on=goes_on)


async def _follow(
    job: Job, ledger: Ledger, setup: wiring.Setup, stop: Stop, memory: RunMemory, *, to_the_end: bool
) -> Result:
    """Ask about the created tasks of a job, once or until all have ended."""
    started, error, emit = wiring.CLOCK.monotonic(), None, memory.emit
    async with wiring.online(setup, job, emit, ledger) as service:
        await tell_duration(job, ledger, service, lambda text: emit(Noticed(text)))
        try:
            if to_the_end:
                await memory.beside(lambda: _look_until_the_end(job, setup, ledger, service, stop, emit))
            else:
                await memory.beside(lambda: unless_stopped(stop, lambda: _look(job, ledger, service)))
        except BulkSubmitError as failure:
            error = failure
    return await summarize(await ledger.job(job.name), ledger, started, stop.error or error, setup=setup)


async def _look_until_the_end(
    job: Job, setup: wiring.Setup, ledger: Ledger, service: Service, stop: Stop, emit: Listener
) -> None:
    """Ask again and again, until all tasks have ended, the run shall end, or its time is over.

    Raises:
        DeadlineReached, WindowClosed: it is. A look may take hours, so it is broken off then.
    """
    clock, send = wiring.CLOCK, setup.settings.send
    began = clock.monotonic()
    ending = ending_of(setup.settings.window, setup.deadline_at, clock.now())
    if send.deadline_seconds is not None and (ending is None or clock.now() + send.deadline_seconds < ending.at):
        ending = Ending(clock.now() + send.deadline_seconds, DeadlineReached())
    pause, by_people = send.poll_seconds, refreshing_of(service).by_people
    while still_open := await _in_time(ending, lambda: unless_stopped(stop, lambda: _look(job, ledger, service))):
        if by_people and pause == send.poll_seconds:
            emit(Noticed(_TAKES_WEEKS.format(tasks=count(still_open.shown + still_open.hidden, "task"), job=job.name)))
        passed = clock.monotonic() - began
        pause = min(2 * pause, PEOPLE_SECONDS if by_people else send.max_poll_seconds)
        if ending is not None and clock.now() + pause > ending.at:
            raise ending.error
        if still_open.shown == 0 and passed >= service.settle_seconds:  # they are not there any more
            return
        if not await pause_unless_stopped(stop, clock, pause):
            return


async def _in_time(ending: Ending | None, look: Callable[[], Awaitable[T]]) -> T:
    """Look, but not beyond the end of the time.

    Raises:
        DeadlineReached, WindowClosed: it came first.
    """
    if ending is None:
        return await look()
    looking = asyncio.ensure_future(look())
    clock_rings = asyncio.ensure_future(wiring.CLOCK.sleep(max(0.0, ending.at - wiring.CLOCK.now())))
    try:
        await asyncio.wait((looking, clock_rings), return_when=asyncio.FIRST_COMPLETED)
        if not looking.done():
            raise ending.error
        return looking.result()
    finally:
        for task in (looking, clock_rings):
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait((looking, clock_rings))


class _StillOpen(Struct, frozen=True):
    """How many tasks may still change."""

    shown: int
    hidden: int
    """The service does not show them: reads may lag behind, or somebody has deleted them."""

    def __bool__(self) -> bool:
        return bool(self.shown or self.hidden)


async def _look(job: Job, ledger: Ledger, service: Service) -> _StillOpen:
    """Ask once about all tasks that have not ended, and keep what is new."""
    shown = hidden = 0
    # People may reject what is completed; then they work on it again.
    lasting = LASTING - {Later.COMPLETED} if refreshing_of(service).by_people else LASTING
    async for group in seen_tasks(job, ledger, service, without=lasting):
        fates: dict[int, LaterFate | None] = {}
        for seen in group:
            state = seen.state
            if state is None:
                hidden += 1
                continue
            shown += not state.ended
            if state.later is not None and state.later != seen.known:
                fates[seen.index] = LaterFate(state.later, state.reason, wiring.CLOCK.now())
            elif state.later is None and seen.known is not None:
                fates[seen.index] = None
        if fates:
            await ledger.note_later(job.name, fates)
    return _StillOpen(shown, hidden)


def refreshing_of(service: Service) -> Refreshing:
    """Return what asks about created tasks.

    Raises:
        JobError: nothing does.
    """
    if service.refreshing is None:
        raise JobError(f"service {service.kind} does not tell how single tasks stand")
    return service.refreshing


async def tell_duration(job: Job, ledger: Ledger, service: Service, tell: Callable[[str], object]) -> None:
    """Say beforehand how long it takes to ask about all tasks, if that is long."""
    batches, seconds = await least_seconds(job, ledger, service)
    if seconds >= TOLD_SECONDS:
        tell(
            f"asking about the tasks of {count(batches, 'batch')} takes about {duration(seconds)}, as fast as the "
            "service lets them be listed"
        )


async def least_seconds(job: Job, ledger: Ledger, service: Service) -> tuple[int, float]:
    """Return of how many batches there are tasks to ask about, and how long that takes at least."""
    batches = ledger.batches(job.name, frozenset({State.SETTLED}))
    sizes = [batch.count async for batch, submission in batches if submission.remote_id is not None]
    return len(sizes), service.counting.counting_seconds(sizes) if service.counting else 0.0


async def seen_tasks(
    job: Job, ledger: Ledger, service: Service, *, without: frozenset[Later]
) -> AsyncIterator[Sequence[SeenTask]]:
    """Ask about the created tasks of a job, group after group; those with some later fates are left out."""
    refreshing = refreshing_of(service)
    async for group in settled_batches(job, ledger, refreshing.polls_together):
        asked = [seen for known in group for seen in tasks_of(known) if seen.known not in without]
        if asked:
            states = await refreshing.task_states(asked_about(group, asked))
            yield [replace(seen, state=states.get(seen.task_id)) for seen in asked]


def asked_about(group: Sequence[KnownBatch], asked: Sequence[SeenTask]) -> Sequence[CreatedTasks]:
    """Return the question about some tasks of a group of batches."""
    wanted = {seen.task_id for seen in asked}
    tasks = [
        CreatedTasks(
            str(known.submission.remote_id),
            known.batch.count,
            [task_id for task_id in known.settlement.task_ids if task_id in wanted],
        )
        for known in group
        if known.settlement is not None
    ]
    return [one for one in tasks if one.task_ids]


def tasks_of(known: KnownBatch) -> Sequence[SeenTask]:
    """Return the created tasks of a batch, of which nobody was asked yet."""
    settlement, created = known.settlement, list[SeenTask]()
    if settlement is None:
        return ()
    for position, (index, task_id) in enumerate(zip(known.places()[0], settlement.task_ids, strict=True)):
        if task_id is not None:
            later = known.later.get(index)
            at_once = settlement.details.get(position, {}).get("later")
            created.append(SeenTask(index, task_id, None, later.fate if later else at_once))
    return created
