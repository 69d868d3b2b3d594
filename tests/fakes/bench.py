"""A job of small records on a real ledger, a fake service and made-up time, joined as the engine joins them."""

import dataclasses
from contextlib import ExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import orjson
from msgspec.structs import replace

from engine.adaptive.batch_size import BatchBytes
from engine.batch.known import FamilyMemory, marker_for
from engine.batch.mapping import Mapper
from engine.batch.payload import PayloadReader
from engine.batch.planning import plan_batches, replanned
from engine.ledger.known import KnownRecords
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks
from engine.model.errors import BulkSubmitError
from engine.model.job import Job
from engine.model.settings import AUTO, DeltaSettings, MappingSettings, SendSettings, SourceSettings
from engine.model.submission import State, Submission
from engine.reports.audit import Evidence
from engine.run.context import Run, Stop, doubt_from_ledger
from engine.run.in_flight import InFlight
from engine.run.pipeline import IN_DOUBT, Pipeline
from engine.run.poller import Poller
from engine.run.recovery import Recovery
from engine.run.shards import Shards, lease_terms
from engine.run.uploader import Uploader
from engine.source.reader import read_blocks
from engine.source.sources import find_sources
from fakes.clock import FakeClock, Watched
from fakes.service import FakeService

NO_HOOKS = Hooks()
WORKERS = count(1)
ROADS = {
    State.FROZEN: [],
    State.STAGING: [State.STAGING],
    State.STAGED: [State.STAGING, State.STAGED],
    State.RELEASING: [State.STAGING, State.STAGED, State.RELEASING],
    State.RELEASED: [State.STAGING, State.STAGED, State.RELEASING, State.RELEASED],
}
"""Steps that bring a frozen batch to a state, as a service that stages has them."""


def write_records(path, count, *, start=0, **data):
    """Write tasks whose data has an id, from `start` on, a line each."""
    lines = [orjson.dumps({"data": {"id": str(number), **data}}) + b"\n" for number in range(start, start + count)]
    path.write_bytes(b"".join(lines))
    return path


@dataclass
class Bench:
    """Everything that a run needs; `run()` begins one as a new process would."""

    job: Job
    ledger: Watched
    clock: FakeClock
    service: FakeService
    events: list = field(default_factory=list)
    ahead_of: list = field(default_factory=list)
    """Sequences of the batches for which payloads were to be prepared."""
    stop: Stop = field(default_factory=Stop)
    worker: str = "worker"
    plans_job: bool = True
    """It holds the job's lock."""

    def run(self):
        self.stop = Stop()
        return Run(self.job, self.service, self.ledger, self.clock, lambda: 1.0, self.events.append, self.stop)

    @property
    def mapper(self):
        return Mapper(MappingSettings(), self.service.check)

    @property
    def reader(self):
        return PayloadReader(self.job.sources, SourceSettings(), self.mapper, self.service.reference)

    @property
    def evidence(self):
        """What an audit holds the job against; its windows are other ones than those of the first reading."""

        marker = marker_for(self.job, DeltaSettings())

        def tasks_from(start):
            for block in read_blocks(self.job.sources, start, SourceSettings(), 100):
                tasks = self.mapper.apply(block)
                yield marker.mark(block, tasks) if marker else tasks

        return Evidence("fake", tasks_from, self.service.reference, self.service.task_url, self.reader.as_json)

    def plans(self, last=None, most_bytes=None):
        start, sequence = (last.end, last.sequence + 1) if last else (None, 0)
        limits = self.service.limits
        with ExitStack() as opened:
            known = None
            if self.job.family:
                records = opened.enter_context(KnownRecords(self.ledger.address))
                known = FamilyMemory(records, self.job, DeltaSettings())
            yield from plan_batches(
                self.job.sources,
                SourceSettings(),
                self.mapper,
                replace(limits, bytes=most_bytes or limits.bytes),
                start=start,
                sequence=sequence,
                reference=self.service.reference,
                window_bytes=256,
                known=known,
            )

    async def read(self, batch):
        run = Run(self.job, self.service, self.ledger, self.clock, lambda: 1.0, self.events.append, self.stop)
        return self.reader.read(batch, await run.indexes(batch))

    async def ahead(self, batches):
        self.ahead_of += [batch.sequence for batch in batches]

    async def halves(self, batch, rejected, skips=()):
        return self.reader.halves(batch, rejected, skips)

    async def freeze(self):
        """Freeze all of the sources; return the batches."""
        for plan in self.plans():
            await self.ledger.freeze(
                self.job.name, plan.batches, plan.rejects, last=plan.last, skips=plan.skips, taken=plan.taken
            )
        return [batch for batch, _ in await self.batches()]

    async def batches(self):
        return [pair async for pair in self.ledger.batches(self.job.name)]

    async def submissions(self):
        return [submission for _, submission in await self.batches()]

    async def states(self):
        return [submission.state for submission in await self.submissions()]

    async def bring(self, batch, state, remote_id="r1"):
        """Take a frozen batch to a state, as an earlier process did."""
        before, submission = State.FROZEN, Submission(batch.sequence)
        for step in ROADS[state]:
            submission = Submission(batch.sequence, step, None if step is State.STAGING else remote_id)
            await self.ledger.move(self.job.name, submission, expected=before)
            before = step
        return submission

    async def submit(self, batch, sizes=None):
        """Take a batch on from where the ledger says that it stands, through recovery where it is in doubt."""
        return (await self.carry(batch, sizes)).submission

    async def carry(self, batch, sizes=None):
        """Likewise; return where it came out, with its halves."""
        submissions = {submission.sequence: submission for submission in await self.submissions()}
        submission, run = submissions[batch.sequence], self.run()
        uploader = Uploader(run, self, sizes)
        recovery = Recovery(run, uploader, self, uploader.submit)
        if submission.state in IN_DOUBT:
            return await recovery.resolve(batch, submission, doubt_from_ledger(run, submission))
        submitted = await uploader.submit(batch, submission)
        if submitted.doubt is None:
            return submitted
        return await recovery.resolve(batch, submitted.submission, submitted.doubt, submitted.failure)

    def pipeline(self, *, strict=False, released_again_by_user=(), most_records=None, **settings):
        send, run = SendSettings(**settings), self.run()
        run = replace(
            run,
            job=replace(run.job, strict=strict),
            released_again_by_user=set(released_again_by_user),
            most_records=most_records,
        )
        return self.joined(run, send, BatchBytes(self.service.limits.bytes) if send.max_in_flight == AUTO else None)

    def joined(self, run, send, sizes):
        uploader, in_flight = Uploader(run, self, sizes=sizes), InFlight(send, self.clock, run.emit)

        def plans(last):
            return replanned(self.plans, last, lambda: sizes.limit) if sizes else self.plans(last)

        shards = self.shards(run, send) if self.ledger.shares_jobs else None
        return Pipeline(run, plans, uploader, Poller(run, send), in_flight, send, shards)

    def shards(self, run, send):
        terms = lease_terms(send, f"{self.worker}-{next(WORKERS)}")
        person = {"again": run.released_again_by_user, "emit": run.emit}
        return Shards(run.job, run.ledger, run.clock, run.stop, terms, plans=self.plans_job, **person)

    async def work(self, **options):
        """Run the job once, as a new process would; return why it stopped."""
        # What a run that was canceled had queued is written first, as it is before a process ends.
        await self.ledger.set_job_state(self.job.name, self.job.state)
        self.job = await self.ledger.job(self.job.name)
        plans = self.ledger.shares_jobs and self.plans_job
        with self.ledger.lock(self.job.name) if plans else nullcontext():
            return await self.pipeline(**options).work()

    def end(self, error=None):
        """End the run that is under way."""
        self.stop.request(error or BulkSubmitError("that is enough"))


@asynccontextmanager
async def a_bench(folder: Path, records=10, *, sources=None, hooks=NO_HOOKS, job="j", shares_jobs=False, **service):
    """Open a ledger in `folder` that knows one job of some records, or of the given sources."""
    clock = FakeClock()
    paths = sources or [write_records(folder / "tasks.ndjson", records)]
    found = find_sources([str(path) for path in paths], SourceSettings())
    async with SqliteLedger.open(folder / "ledger.db", clock, hooks=hooks, shares_jobs=shares_jobs) as ledger:
        order = Job(job, "fake", "", found, str(folder / "output"))
        await ledger.create_job(order)
        yield Bench(order, Watched(ledger, clock), clock, FakeService(clock, **service))


@asynccontextmanager
async def another_worker(bench, worker="other", *, plans_job=False, hooks=NO_HOOKS):
    """Open the ledger of a bench as one more process that sends the same job, with the same service and time."""
    async with SqliteLedger.open(bench.ledger.address, bench.clock, hooks=hooks, shares_jobs=True) as ledger:
        own = {"ledger": Watched(ledger, bench.clock), "events": [], "ahead_of": [], "stop": Stop()}
        yield dataclasses.replace(bench, worker=worker, plans_job=plans_job, **own)
