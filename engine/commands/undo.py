"""Take the tasks of a job back that nobody has begun: a load that should not have been.

A task is only told to go if the service has just shown it and says that nobody has begun it. It counts as undone once
it is not shown any more. So an answer that was lost, or a kill, costs a second look and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.endings import tells_end
from engine.commands.later import SeenTask, asked_about, least_seconds, refreshing_of, tasks_of
from engine.commands.paths import open_ledger
from engine.commands.probe import SOURCE as PROBED
from engine.commands.result import Result, summarize
from engine.commands.runs import RunMemory, remembered
from engine.commands.submit import family_lock
from engine.files import DEFAULT_LEDGER
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.model.errors import RESUME, BulkSubmitError, Exit, JobError, Refused
from engine.model.job import Job, JobState
from engine.model.outcome import Later, LaterFate
from engine.model.runs import UNDO
from engine.progress.events import Listener, Noticed, unheard
from engine.progress.text import count
from engine.reports.outcomes import KnownBatch, settled_batches
from engine.run.context import Stop, pause_unless_stopped, unless_stopped
from engine.services.base import Service
from engine.services.created import TaskState, Undoing

_FIRST_PAUSE_SECONDS = 1.0
"""Before it is looked again whether tasks are gone: a read may lag behind."""
_TOLD_SECONDS = 10.0
"""Between two lines that say how far it is."""


class Undoable(Struct, frozen=True):
    """What `undo` would take back at most, and where: people are asked by it."""

    tasks: int
    kind: str
    host: str
    seconds: float
    """How long it takes at least."""


async def find_undoable(name: str, ledger: LedgerAddress | str = DEFAULT_LEDGER) -> Undoable:
    """Tell how many tasks of a job there may be to take back, and where.

    Raises:
        JobError: it is not finished, its service cannot take tasks back, or there are none.
    """
    async with open_ledger(ledger) as opened:
        job = await opened.job(name)
        setup = wiring.load_offline(job).setup
        service = wiring.offline(setup, job).service
        _, tasks = await _undoable(job, opened, service)
        _, seconds = await least_seconds(job, opened, service)
        return Undoable(tasks, service.kind, str(urlsplit(setup.service.base_url).hostname), seconds)


async def _undoable(job: Job, ledger: Ledger, service: Service) -> tuple[Undoing, int]:
    if job.state is JobState.OPEN:
        raise JobError(f"job {job.name!r} is not finished; `bulksubmit cancel {job.name}` first, then undo it")
    if service.undoing is None:
        raise JobError(f"service {service.kind} cannot take tasks back that were created")
    undone = (await ledger.count_later(job.name)).get(Later.UNDONE, 0)
    tasks = (await ledger.tally(job.name)).created - undone
    if not tasks:
        raise JobError(f"job {job.name!r} has no task that could be taken back")
    return service.undoing, tasks


@tells_end
async def undo(
    name: str, ledger: LedgerAddress | str = DEFAULT_LEDGER, emit: Listener = unheard, stop: Stop | None = None
) -> Result:
    """Take back the created tasks of a job that nobody has begun; interrupted, it may be repeated and goes on.

    Raises:
        JobError: the job is not finished, its service cannot take tasks back, or there are none.
        JobLocked: a process works on it, or on another job of its family.
    """
    stop = stop or Stop()
    async with open_ledger(ledger) as opened:
        job = await opened.job(name)
        with opened.lock(name), family_lock(job, opened):  # what is taken back is new to the family
            setup = wiring.load(job.config)
            if any(Path(source.path).name == PROBED for source in job.sources):  # of a probe nobody is told
                setup = replace(setup, settings=replace(setup.settings, hooks=()))
            await _undoable(job, opened, wiring.offline(setup, job).service)
            work = partial(_undo, job, opened, setup, stop)
            return await remembered(job, opened, setup, emit, stop, work, command=UNDO)


async def _undo(job: Job, ledger: Ledger, setup: wiring.Setup, stop: Stop, memory: RunMemory) -> Result:
    started, error = wiring.CLOCK.monotonic(), None
    async with wiring.online(setup, job, memory.emit, ledger) as service:
        undoing, _ = await _undoable(job, ledger, service)
        taking = TakingBack(job, ledger, service, undoing, stop, memory.emit)
        try:
            await memory.beside(lambda: unless_stopped(stop, taking.work))
        except BulkSubmitError as failure:
            error = failure
    error = stop.error or error
    return _undone(await summarize(await ledger.job(job.name), ledger, started, error, setup=setup), taking.left, error)


def _undone(result: Result, left: Mapping[str, int], error: BulkSubmitError | None) -> Result:
    """Say in a result what was taken back, and what is left; its exit code tells whether anything is."""
    if error is not None:
        said = str(error)
        return replace(result, message=said if RESUME in said else f"{said}; {RESUME} goes on")
    undone = result.later.get(Later.UNDONE, 0)
    said = f"{count(undone, 'task')} taken back"
    if left:
        words = ", ".join(f"{count(number)} {why}" for why, number in sorted(left.items()))
        said += f"; {count(sum(left.values()))} left as they are: {words}"
    if result.tally.uncertain:
        said += (
            f"; what the {count(result.tally.uncertain, 'uncertain record')} became is not known: look for them there"
        )
    return replace(result, message=said, exit_code=Exit.SOME_FAILED if left else Exit.ALL_CREATED)


class TakingBack:
    """Takes the tasks of one job back."""

    def __init__(
        self, job: Job, ledger: Ledger, service: Service, undoing: Undoing, stop: Stop, emit: Listener = unheard
    ) -> None:
        self._job, self._ledger, self._service, self._stop, self._emit = job, ledger, service, stop, emit
        self._refreshing, self._undoing = refreshing_of(service), undoing
        self._began = self._told_at = wiring.CLOCK.monotonic()
        self._gone = 0
        self.left: Counter[str] = Counter()
        """Why tasks are left as they are → how many."""

    async def work(self) -> None:
        """Take back what can be; what is not shown at first may only be shown late, and gets a second look."""
        if await self._round(last=False):
            past = self._began + self._service.settle_seconds - wiring.CLOCK.monotonic()
            if await pause_unless_stopped(self._stop, wiring.CLOCK, max(past, 0.0)):
                await self._round(last=True)

    async def _round(self, *, last: bool) -> bool:
        """Take back what is shown and can be; return whether some tasks were not shown. At last those are gone."""
        hidden = False
        self.left.clear()
        async for group in settled_batches(self._job, self._ledger, self._refreshing.polls_together):
            tasks = [seen for known in group for seen in tasks_of(known) if seen.known != Later.UNDONE]
            if tasks:
                hidden |= await self._take_back(group, tasks, last=last)
            self._tell()
        return hidden

    def _tell(self) -> None:
        """Say how far it is, now and then: a million tasks take hours."""
        now = wiring.CLOCK.monotonic()
        if now - self._told_at >= _TOLD_SECONDS:
            self._told_at = now
            left = f", {count(self.left.total())} left as they are" if self.left else ""
            self._emit(Noticed(f"{count(self._gone, 'task')} taken back so far{left}"))

    async def _take_back(self, group: Sequence[KnownBatch], tasks: Sequence[SeenTask], *, last: bool) -> bool:
        before = await self._states(group, tasks)
        shown = [seen for seen in tasks if seen.task_id in before]
        told = [seen for seen in shown if before[seen.task_id].untouched]
        refused = await self._tell_all(group, told) if told else {}
        after = await self._once_gone(group, told, refused) if told else before
        gone = {seen.index: "taken back" for seen in told if seen.task_id not in after}
        if last:
            gone |= {seen.index: "it was not there any more" for seen in tasks if seen.task_id not in before}
        self._gone += len(gone)
        if gone:
            now = wiring.CLOCK.now()
            await self._ledger.note_later(
                self._job.name, {index: LaterFate(Later.UNDONE, why, now) for index, why in gone.items()}
            )
        for seen in shown:
            if seen.index not in gone:
                state = after.get(seen.task_id, before[seen.task_id])
                self.left[refused.get(seen.task_id, "still there") if state.untouched else state.word] += 1
        return len(shown) < len(tasks)

    async def _states(self, group: Sequence[KnownBatch], tasks: Sequence[SeenTask]) -> Mapping[str, TaskState]:
        return await self._refreshing.task_states(asked_about(group, tasks))

    async def _tell_all(self, group: Sequence[KnownBatch], tasks: Sequence[SeenTask]) -> Mapping[str, str]:
        """Tell the service to take tasks back; return, by id, why it refuses single ones."""
        refused: dict[str, str] = {}
        most = self._undoing.undone_together
        parts = [tasks[at : at + most] for at in range(0, len(tasks), most)]
        while parts:
            part = parts.pop()
            try:
                await self._undoing.undo([seen.task_id for seen in part])
            except Refused as refusal:
                if len(part) == 1:
                    refused[part[0].task_id] = str(refusal)
                    continue
                # One of them was begun in this moment: only what is still as it was may be told to go.
                states = await self._states(group, part)
                rest = [seen for seen in part if seen.task_id in states and states[seen.task_id].untouched]
                middle = (len(rest) + 1) // 2
                parts += [half for half in (rest[:middle], rest[middle:]) if half]
        return refused

    async def _once_gone(
        self, group: Sequence[KnownBatch], told: Sequence[SeenTask], refused: Mapping[str, str]
    ) -> Mapping[str, TaskState]:
        """Return what is shown of tasks that were told to go, once it is nothing or the settle time is over."""
        began, pause = wiring.CLOCK.monotonic(), _FIRST_PAUSE_SECONDS
        while True:
            states = await self._states(group, told)
            waited = wiring.CLOCK.monotonic() - began
            open_ = [one for one in told if one.task_id not in refused and one.task_id in states]
            if waited >= self._service.settle_seconds or not any(states[one.task_id].untouched for one in open_):
                return states
            if not await pause_unless_stopped(self._stop, wiring.CLOCK, pause):
                return states
            pause = min(2 * pause, self._service.settle_seconds)
