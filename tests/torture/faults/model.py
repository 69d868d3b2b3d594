"""One job, the service that it goes to, and the processes that work on it, one after the other, each until its end.

A life is a run of the real engine on the files that the one before left behind. It may be stopped in order, lose its
disk, or be killed: then nothing that it does afterwards reaches the service or the disk, and the next life begins with
the ledger's files as they stood at that moment, its write-ahead log unfinished.

Where several processes may send the job, a life may also stand still for some time, while another one takes part in
sending it, as a worker of its own, or while nobody does, as if the ledger were away; and whoever is killed leaves
leases behind, for whose end the next life waits.

Everything runs in step, or a failing example would not replay: time is made up, the ledger's thread works while the
event loop waits for it, and what else would be done in threads is done at once.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from concurrent.futures import Executor, Future
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import anyio
import anyio.to_thread
import orjson
from fakes.bench import Bench
from fakes.clock import FakeClock, Watched
from fakes.service import Killed
from fakes.stopping import Process
from msgspec.structs import replace

from engine.adaptive.batch_size import BatchBytes
from engine.commands import wiring
from engine.commands.cancel import cancel_batches, cancel_orphans
from engine.ledger.known import KnownRecords
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks, Writer
from engine.model import shard
from engine.model.batch import Limits, good_indexes
from engine.model.doubt import Again, RemoteStatus
from engine.model.errors import CallFailed, Interrupted, JobError, LedgerError, PossiblyApplied
from engine.model.job import Job, JobState
from engine.model.outcome import Fate, Settlement
from engine.model.settings import SendSettings, SourceSettings
from engine.model.shard import ShardState
from engine.model.submission import State
from engine.reports.audit import audit
from engine.run.context import unless_stopped
from engine.services.base import no_intent
from engine.source.sources import find_sources

from .late import LateService

JOB = "j"
CANCELED_THERE = "canceled at the service"
LONGEST_CALL_SECONDS = 20.0
"""Much less than the default, or most of the time would go by in waiting for the end of leases."""
STANDSTILL_SECONDS = (30.0, 90.0, 600.0)
"""Less than a lease, more, and more than the settle time as well."""


class Kind(StrEnum):
    """What is the matter with a record."""

    GOOD = "good"
    UNFIT = "unfit"
    """Not fit to be sent."""
    FAILING = "failing"
    """The service says no to it alone."""
    POISON = "poison"
    """The service refuses every batch that holds it."""


@dataclass(frozen=True)
class Plan:
    """A job and the manner of its service."""

    records: tuple[Kind, ...]
    mode: str
    batch: int = 3
    """Most records of a batch."""
    most_records: int = 10**9
    release_again: str = "duplicate"
    call_seconds: float = 0.0
    tasks_per_second: float = float("inf")
    seen_after: float = 0.0
    lag_seconds: float = 0.0
    busy_while_late: bool = False
    cancels: str = "accept"
    in_flight: int = 2
    shared: bool = False
    """Several processes may send it."""


MODES = {
    "staged": {},
    "staged, polled together": {"polls_together": 5, "polls_settle": True},
    "drafts": {"drafts": True, "declares": Again.REFUSED, "release_again": "refuse"},
    "done by its stage": {"done_by": "stage", "cancels": "accept"},
    "done by its release": {"done_by": "release"},
    "inline": {"stages": False},
    "inline, done by its release": {"stages": False, "done_by": "release"},
    "inline, marked": {"stages": False, "marks": True},
}


@dataclass(frozen=True)
class End:
    """How a life ends before its work is done: at the n-th event, durable step, or step of reading."""

    at: str
    """event, before a step, after a step, disk before a step, disk after a step, reading; standstill: after a durable
    step it stands still for some time, and goes on; or standstill alone: likewise, and nobody else works meanwhile"""
    number: int


@dataclass(frozen=True)
class Outcome:
    """What the ledger says of one record."""

    fate: Fate
    sequence: int = -1
    batched: int = 0
    """Records that went up with it."""
    remote_id: str | None = None
    task_id: str | None = None
    error: str = ""


@dataclass
class Server(LateService):
    """The late service, outliving every process that calls it; it keeps the account by which they are judged."""

    dead: bool = False
    """The process that calls was killed: nothing of it arrives any more."""
    created: list = field(default_factory=list)
    """(task id, record's id) of each task that there is, as often as it was created."""
    untidied: set = field(default_factory=set)
    """Sequences of the batches whose cancelation did not go well."""
    unanswered: set = field(default_factory=set)
    """Remote ids of the batches of which a release was lost: it could still arrive."""

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        try:
            return await super().release(batch, remote_id, payload, intent, sent_before=sent_before)
        except (PossiblyApplied, Killed):
            self.unanswered.add(remote_id)
            raise

    async def cancel(self, remote_id):
        try:
            await super().cancel(remote_id)
        except CallFailed:
            self.untidied.add(self.remotes[remote_id].sequence)
            raise

    def _cancel(self, remote_id):
        super()._cancel(remote_id)
        if self.done_by == "stage":  # what is staged there is a draft
            ours = {f"{remote_id}-{at}" for at in range(len(self.remotes[remote_id].tasks))}
            self.created = [(task_id, name) for task_id, name in self.created if task_id not in ours]

    def _begin(self, remote_id, at):
        before = self.remotes[remote_id].releases
        super()._begin(remote_id, at)
        if self.remotes[remote_id].releases == before:
            return
        tasks = [(f"{remote_id}-{at}", task["data"]["id"]) for at, task in enumerate(self.remotes[remote_id].tasks)]
        self.created += [(task_id, name) for task_id, name in tasks if name not in self.failing]

    def _settlement(self, remote_id):
        settlement, remote = super()._settlement(remote_id), self.remotes[remote_id]
        if remote.canceled and not remote.releases:
            return Settlement.refused(len(settlement.task_ids), CANCELED_THERE)
        return settlement

    @asynccontextmanager
    async def _call(self, kind, sort):
        self._hear_no_dead()
        try:
            async with super()._call(kind, sort):
                self._hear_no_dead()  # who died while the call was under way
                yield
        except Killed:
            self.dead = True
            raise

    def _hear_no_dead(self):
        if self.dead:
            raise Killed


class Watcher(list):
    """Events of a life, which may be stopped at one of them."""

    def __init__(self, life_end: End | None) -> None:
        super().__init__()
        self.stop = None
        self._at = life_end.number if life_end and life_end.at == "event" else 0

    def append(self, event):
        super().append(event)
        if len(self) == self._at:
            self.stop()


class Life(Bench):
    """What one process has in its hands."""

    end_of_life: End | None = None
    server: Server | None = None

    def plans(self, last=None, most_bytes=None):
        for number, plan in enumerate(super().plans(last, most_bytes), 1):
            if self.end_of_life == End("reading", number):
                self.server.dead = True
                raise Killed
            yield plan

    def pipeline_of(self, run, in_flight):
        send = SendSettings(max_in_flight=in_flight, call_seconds=LONGEST_CALL_SECONDS)
        return self.joined(run, send, BatchBytes(self.service.limits.bytes))


class InStep:
    """The queue of a ledger's writer: whoever puts something in waits until it is written."""

    def __init__(self, writer) -> None:
        self._queue, self._written = writer._queue, threading.Semaphore(0)
        self.get, self.empty = self._queue.get, self._queue.empty
        writer._queue = self
        writer._write = lambda group: (Writer._write(writer, group), self._written.release())

    def put(self, queued):
        self._queue.put(queued)
        if queued is not None:
            self._written.acquire()


class InStepReader(Executor):
    """The reader's thread of a ledger: whoever asks has the answer at once."""

    def submit(self, work, /, *args):
        answer = Future()
        try:
            answer.set_result(work(*args))
        except BaseException as error:  # noqa: BLE001 - whoever asked gets it
            answer.set_exception(error)
        return answer


async def at_once(work, *args, **_options):
    """Be `anyio.to_thread.run_sync`, without a thread."""
    await asyncio.sleep(0)
    return work(*args)


class World:
    """Survives every life."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._held = ExitStack()
        self._home = Path(self._held.enter_context(tempfile.TemporaryDirectory()))
        self._runner = self._held.enter_context(asyncio.Runner())
        self._held.enter_context(patch.object(anyio.to_thread, "run_sync", at_once))
        self._held.enter_context(patch.object(shard, "SHARD_BATCHES", 2))  # so that each of two workers has something
        self._clock = FakeClock()
        self._lives = 0
        self._steps = 0
        self._end: End | None = None
        self.steps: list[tuple[str, int | None, State | None]] = []
        """(operation, sequence, state) of everything that became durable."""
        self.server = self._server()
        self._source = self._home / "tasks.ndjson"
        self._source.write_bytes(b"".join(_line(number, kind) for number, kind in enumerate(plan.records)))
        sources = find_sources([str(self._source)], SourceSettings())
        self._job = Job(JOB, "fake", "", sources, str(self._home / "out"), family="nightly", delta=True)
        self.live(lambda life: life.ledger.create_job(self._job), None)

    def close(self):
        self._held.close()

    def live(self, work, end: End | None):
        """Let a process do some work until its end; return what it returned, None if it was killed."""
        return self._runner.run(self._live(work, end))

    def names(self, *kinds):
        return {str(number) for number, kind in enumerate(self.plan.records) if kind in kinds}

    def _server(self):
        plan = self.plan
        manner = {"release_again": plan.release_again, "cancels": plan.cancels, **MODES[plan.mode]}
        return Server(
            self._clock,
            limits=Limits(plan.batch, 1 << 20),
            call_seconds=plan.call_seconds,
            tasks_per_second=plan.tasks_per_second,
            seen_after=plan.seen_after,
            most_records=plan.most_records,
            failing=dict.fromkeys(self.names(Kind.FAILING), "no"),
            poison=frozenset(self.names(Kind.POISON)),
            lag_seconds=plan.lag_seconds,
            busy_while_late=plan.busy_while_late,
            **manner,
        )

    async def _live(self, work, end):
        self._end, self._steps, self.server.dead = end, 0, False
        self._process = Process()
        async with self._opened(Hooks(before_commit=self._before, on_commit=self._after)) as ledger:
            life, result = await self._born(ledger, end), None
            try:
                async with anyio.create_task_group() as beside:
                    with ledger.lock(JOB) if self.plan.shared else nullcontext():
                        if self.plan.shared:
                            beside.start_soon(self._take_part)
                            self._process.seizes(life)
                        result = await work(life)
                    if not self._process.stood_still.is_set():
                        beside.cancel_scope.cancel()
            except* (Killed, LedgerError):  # an error of the ledger may be told before there is a run to end
                if not (self.server.dead or self._disk_is_broken):
                    raise
            finally:
                if self.server.dead:
                    self._leave_behind()
        return None if self.server.dead else result

    @asynccontextmanager
    async def _opened(self, hooks):
        opened = SqliteLedger.open(self._ledger, self._clock, hooks=hooks, shares_jobs=self.plan.shared)
        async with AsyncExitStack() as stack:
            with self._clock.stopped():
                ledger = await stack.enter_async_context(opened)
            InStep(ledger._writer)
            ledger._reading.shutdown()
            ledger._reading = InStepReader()
            ledger._writer._connection.raw.pragma("synchronous", 0)  # a lost power is another test's matter
            yield ledger

    async def _take_part(self):
        """Once the life stands still, be another worker, which goes on with what that loses."""
        await self._process.stood_still.wait()
        if self._end.at == "standstill alone":
            await self._wake()
            return
        try:
            async with anyio.create_task_group() as both:
                both.start_soon(self._wake)
                await self._be_another()
        except BaseException:
            self._process.kill()  # whatever kills one of them kills both
            raise

    async def _be_another(self):
        async with self._opened(Hooks(before_commit=self._before_theirs, on_commit=self._note)) as ledger:
            worker = await self._born(ledger, None)
            if worker.job.state is JobState.OPEN:
                worker.plans_job = False
                await worker.pipeline_of(worker.run(), self.plan.in_flight).work()

    async def _wake(self):
        await self._clock.sleep(STANDSTILL_SECONDS[self._end.number % len(STANDSTILL_SECONDS)])
        self._process.go_on()

    async def _born(self, ledger, end):
        events = Watcher(end)
        watched = Watched(ledger, self._clock)
        known = [job for job in await watched.jobs() if job.name == JOB] or [self._job]
        life = Life(known[0], watched, self._clock, self.server, events)
        life.end_of_life, life.server = end, self.server
        events.stop = lambda: life.end(Interrupted(15))
        return life

    @property
    def _disk_is_broken(self):
        return self._end is not None and self._end.at.startswith("disk") and self._steps >= self._end.number

    @property
    def _ledger(self):
        return self._home / str(self._lives) / "ledger.db"

    def _leave_behind(self):
        """Give the next life the files as they are: the closing of this one's ledger never happened."""
        folder = self._ledger.parent
        self._lives += 1
        self._ledger.parent.mkdir()
        for name in ("ledger.db", "ledger.db-wal"):
            if (folder / name).exists():
                shutil.copyfile(folder / name, self._ledger.parent / name)

    def _before_theirs(self, _changes):
        if self.server.dead:
            raise Killed

    def _before(self, changes):
        self._before_theirs(changes)
        self._steps += 1
        self._strike("before a step")

    def _note(self, changes):
        self.steps += [(change.operation, change.sequence, change.state) for change in changes]

    def _after(self, changes):
        self._note(changes)
        self._strike("after a step")
        stands = self._end is not None and self._end.at.startswith("standstill") and self._end.number == self._steps
        if stands and self.plan.shared:
            self._runner.get_loop().call_soon_threadsafe(self._process.stop)  # before it hears of the step

    def _strike(self, when):
        if self._end == End(when, self._steps):
            self.server.dead = True
            raise Killed
        if self._end == End(f"disk {when}", self._steps):
            raise OSError(28, "No space left on device")


def _line(number, kind):
    if kind is Kind.UNFIT:
        return b"{no json\n"
    return orjson.dumps({"data": {"id": str(number)}}) + b"\n"


# What a process may be started for, as the operations of `engine` do it


async def resume(life, in_flight, released_again_by_user=frozenset()):
    """Go on with the job; return why the run ended early, if it did."""
    job = life.job
    if job.state is JobState.FINISHED and not (await life.ledger.tally(JOB)).uncertain:
        return None
    run = replace(life.run(), released_again_by_user=set(released_again_by_user))
    error = await life.pipeline_of(run, in_flight).work()
    if error is None:
        await cancel_orphans(run)
    await summarize(life, error)
    return error


async def send_again(life, in_flight):
    """Send what is uncertain again, or of an open job what still waits, by the word of a person."""
    waits = life.job.state is JobState.OPEN
    states = frozenset({State.RELEASED if waits else State.UNCERTAIN})
    again = {
        submission.sequence
        async for _, submission in life.ledger.batches(JOB, states)
        if not waits or await life.service.remote_status(submission.remote_id) is RemoteStatus.WAITING
    }
    await life.ledger.set_job_state(JOB, JobState.OPEN)
    life.job = await life.ledger.job(JOB)
    return await resume(life, in_flight, frozenset(again))


async def cancel(life, in_flight):
    """Let the service create nothing more."""
    if life.job.state is JobState.FINISHED:
        raise JobError("finished")
    await life.ledger.set_job_state(JOB, JobState.CANCELED)
    life.job = await life.ledger.job(JOB)
    run = life.run()
    if life.ledger.shares_jobs:
        await unless_stopped(run.stop, life.shards(run, SendSettings()).alone)
    with patch.object(wiring, "load_offline", lambda _: SimpleNamespace(payloads=lambda _: life.reader)):
        try:
            await unless_stopped(run.stop, lambda: cancel_batches(run))
        except CallFailed as failure:
            run.end(failure)
    error = await life.pipeline_of(run, in_flight).work()
    await cancel_orphans(run)
    return error


async def open_parked(life):
    """Do what a person does who finds that shards were lost with too many workers; return whether there were any."""
    if all(one.state is not ShardState.PARKED for one in await life.ledger.shards(JOB)):
        return False
    await life.ledger.open_shards(JOB, parked=True)
    return True


async def summarize(life, error):
    job, tally = await life.ledger.job(JOB), await life.ledger.tally(JOB)
    if error is None and job.state is JobState.OPEN and job.read_complete and not tally.unresolved:
        await life.ledger.set_job_state(JOB, JobState.FINISHED)


# What may be known of a job


@dataclass(frozen=True)
class Sight:
    """A job, as its ledger has it."""

    job: Job
    outcomes: tuple[Outcome, ...]
    """By record, up to the last one that is frozen."""
    findings: tuple[str, ...]
    """Of the audit."""


async def look(life):
    """Read everything there is about the job."""
    outcomes, findings = [], []
    async for batch, submission in life.ledger.batches(JOB):
        if batch.start.index != len(outcomes):
            findings.append(f"{batch} begins after record {len(outcomes)}")
        rejects = await life.ledger.rejects(JOB, batch.start.index, batch.end.index)
        settlement = await life.ledger.settlement(JOB, batch.sequence)
        known = dict.fromkeys((reject.index for reject in rejects), Outcome(Fate.REJECTED))
        for at, index in enumerate(good_indexes(batch, list(known))):
            known[index] = _outcome(batch, submission, settlement, at)
        outcomes += [known[index] for index in range(batch.start.index, batch.end.index)]
    audited = await audit(life.job, life.ledger, life.evidence)
    if not audited.holds:
        findings += audited.findings or ["the audit does not hold"]
    findings += await at_once(family_word, life, outcomes)
    return Sight(life.job, tuple(outcomes), tuple(findings))


def family_word(life, outcomes):
    """Return of which records the family knows something else than what became of them."""
    canceled = life.job.state is JobState.CANCELED
    with KnownRecords(life.ledger.address) as records:
        known = {index for (_, index), _ in records.family_records("nightly", 2)}
        sent = {index for index, outcome in enumerate(outcomes) if outcome.fate is not Fate.REJECTED}
        findings = [f"the family knows {known}, and {sent} are frozen"] if known != sent else []
        for index in known & sent:
            fate, word = outcomes[index].fate, records.fate((1, index))
            unsent = {Fate.UNRESOLVED, Fate.UNCERTAIN} if canceled else {Fate.UNCERTAIN}
            if word not in (unsent if fate is Fate.UNRESOLVED else {fate}):
                findings.append(f"record {index} is {fate}, and its family says {word}")
    return findings


def _outcome(batch, submission, settlement, at):
    where = (batch.sequence, batch.count, submission.remote_id)
    if submission.state is not State.SETTLED:
        return Outcome(Fate.UNCERTAIN if submission.state is State.UNCERTAIN else Fate.UNRESOLVED, *where)
    if at in settlement.uncertain:
        return Outcome(Fate.UNCERTAIN, *where)
    task_id = settlement.task_ids[at]
    fate = Fate.FAILED if task_id is None else Fate.CREATED
    return Outcome(fate, *where, task_id, settlement.errors.get(at, ""))
