"""The facts of a job as one value, bounded for any job: the report page, its JSON and the dashboard are made of them.

All is read from the ledger, also while a run works on the job, and nobody else is asked. `overview` reads everything;
its parts can be had alone: `find_series`, `find_calls`, `find_nights`, and `causes.find_causes`, which takes longest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.ledger.base import Ledger
from engine.model.batch import batch_name
from engine.model.job import Job
from engine.model.outcome import Tally
from engine.model.runs import BatchTime, CallCounts, LimitStep, PastAudit, PastRun, RunCounts, Sample, Spread
from engine.progress.histogram import COARSE, Histogram, Percentiles
from engine.reports.causes import Causes, find_causes
from engine.reports.outcomes import TaskUrl

MOST_POINTS = 240
"""Of a series: what a line of a page's width can show."""
MOST_SAMPLED_RUNS = 100
RUNS_TOLD = 50
MOST_NIGHTS = 30
MOST_RELATIVES = 30
MOST_STEPS = 100
MOST_SLOWEST = 20
REASONS_TOLD = 20
MOST_KINDS = 20
"""Of calls; a service has some ten."""
MOST_SOURCES = 20
OTHERS = "others"
"""Stands for the kinds and reasons beyond these."""


class SourceFacts(Struct, frozen=True):
    """A source of a job."""

    path: str
    format: str
    size_bytes: int


class SeriesPoint(Struct, frozen=True):
    """What a run did in some seconds."""

    run: int
    worked_seconds: float
    """Seconds that the runs of the job had worked at the end of these, one run laid after the other: no job is worked
    on in between."""
    sample: Sample
    """Of several samples taken together: rates are means, counts are the highest, the limit is the last."""


class LimitChange(Struct, frozen=True):
    """A limit that a run has changed by itself."""

    run: int
    at: float
    """Unix seconds."""
    step: LimitStep


class CallFacts(Struct, frozen=True):
    """How the calls of one kind went, over all runs."""

    kind: str
    calls: int
    sent_bytes: int
    answers: Mapping[str, int]
    """HTTP status, or `no answer` → calls; most frequent first."""
    seconds: Percentiles
    """From when a call went out until it was answered or given up; at most a tenth too long."""


class SlowBatch(Struct, frozen=True):
    """One of the batches that took longest."""

    name: str
    run: int
    took: BatchTime
    remote_id: str | None
    """The service's name for it."""


class JobFacts(Struct, frozen=True):
    """Another job, in a line."""

    name: str
    state: str
    created_at: float
    """Unix seconds."""
    tally: Tally
    exit_code: int | None
    """Of its last run; None if that has not ended, or there was none."""


class Lineage(Struct, frozen=True):
    """The jobs that a job comes from, and those that come from it."""

    parents: Sequence[JobFacts] = ()
    """Its parent first, then that one's, and so on."""
    retries: Sequence[JobFacts] = ()
    """Those whose parent it is, oldest first."""


class AuditFacts(Struct, frozen=True):
    """The last audit of a job."""

    found: PastAudit
    outdated: bool
    """Something of the job has changed since."""


class NextCommand(Struct, frozen=True):
    """What a person may do next."""

    what: str
    command: str


class Overview(Struct, frozen=True):
    """The facts of a job. Times are Unix seconds, sizes bytes; no list is longer than its MOST_."""

    job: str
    service: str
    state: str
    running: bool
    at: float
    """When they were true."""
    created_at: float
    last_step_at: float
    family: str
    delta: bool
    parent: str | None
    attempt: int
    output: str
    """Folder of the reports."""
    sources: Sequence[SourceFacts]
    source_count: int
    size_bytes: int
    read_complete: bool
    tally: Tally
    later: Mapping[str, int]
    """What became of created tasks afterwards, as far as is known → how many."""
    counts: RunCounts
    """What all runs did together; without the steps and the batches of each."""
    runs: Sequence[PastRun]
    """The newest, oldest first; without what stands in `calls`, `limit_changes` and `slowest`."""
    run_count: int
    worked_seconds: float
    """Of all runs; of one that was killed, until its last sample."""
    series: Sequence[SeriesPoint]
    limit_changes: Sequence[LimitChange]
    """The newest, oldest first."""
    calls: Sequence[CallFacts]
    """Most frequent first."""
    batch_seconds: Percentiles
    """From a batch's first step until it was settled, of those that one run has both sent and settled."""
    slowest: Sequence[SlowBatch]
    causes: Causes
    nights: Sequence[JobFacts]
    """Of its family: the newest, newest first; itself among them if it is."""
    night_count: int
    lineage: Lineage
    audit: AuditFacts | None
    """None: it was never audited."""
    next: Sequence[NextCommand] = ()


async def overview(job: Job, ledger: Ledger, task_url: TaskUrl, *, now: float) -> Overview:
    """Return the facts of a job.

    Args:
        job: any, also one that is being worked on.
        ledger: that knows it.
        task_url: the page of a task by its id; "" where there is none.
        now: Unix seconds.
    """
    running = ledger.is_locked(job.name)
    runs = await ledger.runs(job.name)
    counts = sum_of(runs)
    series, worked_seconds = await find_series(job, ledger, runs, now=now if running else None)
    family = [one for one in await ledger.jobs() if job.family and one.family == job.family]
    sources = [SourceFacts(one.path, one.format, one.size) for one in job.sources[:MOST_SOURCES]]
    return Overview(
        job=job.name,
        service=job.service,
        state=str(job.state),
        running=running,
        at=now,
        created_at=job.created_at,
        last_step_at=await ledger.last_step_at(job.name),
        family=job.family,
        delta=job.delta,
        parent=job.parent,
        attempt=job.attempt,
        output=job.output,
        sources=sources,
        source_count=len(job.sources),
        size_bytes=job.size_bytes,
        read_complete=job.read_complete,
        tally=await ledger.tally(job.name),
        later=await ledger.count_later(job.name),
        counts=counts,
        runs=[replace(run, counts=_without_lists(run.counts)) for run in runs[-RUNS_TOLD:]],
        run_count=len(runs),
        worked_seconds=worked_seconds,
        series=series,
        limit_changes=[
            LimitChange(run.number, run.begun_at + step.at_seconds, step)
            for run in runs
            for step in run.counts.limit_steps
        ][-MOST_STEPS:],
        calls=find_calls(runs),
        batch_seconds=_percentiles([run.counts.batch_seconds for run in runs]),
        slowest=await _slowest(job, ledger, runs),
        causes=await find_causes(job, ledger, task_url),
        nights=[await _facts(one, ledger) for one in family[:MOST_NIGHTS]],
        night_count=len(family),
        lineage=await find_lineage(job, ledger),
        audit=await find_audit(job, ledger),
    )


_NUMBERS = (
    *("records", "created", "failed", "rejected", "uncertain", "skipped"),
    *("sent_bytes", "requests", "retries", "warnings", "limits_changed"),
)


def sum_of(runs: Sequence[PastRun]) -> RunCounts:
    """Return what runs did together, of reasons the REASONS_TOLD of them; without their calls, steps and batches."""
    every = [run.counts for run in runs]
    waits, retries, stages = Counter[str](), Counter[str](), Counter[str]()
    for one in every:
        waits.update(one.waits)
        retries.update(one.retry_reasons)
        stages.update(one.seconds)
    return RunCounts(
        **{name: sum(getattr(one, name) for one in every) for name in _NUMBERS},
        seconds=dict(stages),
        waits=_most(waits),
        retry_reasons=_most(retries),
    )


def _most(sums: Counter[str], most: int = REASONS_TOLD) -> dict[str, int]:
    top = dict(sums.most_common(most))
    rest = sums.total() - sum(top.values())
    return top | {OTHERS: rest} if len(sums) > most else top


def _without_lists(counts: RunCounts) -> RunCounts:
    return replace(counts, calls={}, limit_steps=(), batch_seconds=Spread(), slowest=())


async def find_series(
    job: Job, ledger: Ledger, runs: Sequence[PastRun], *, now: float | None = None, most: int = MOST_POINTS
) -> tuple[Sequence[SeriesPoint], float]:
    """Return what the newest MOST_SAMPLED_RUNS of some runs did over time, and for how long all have worked.

    `now`: Unix seconds, if the newest of them works still.
    """
    points: list[SeriesPoint] = []
    worked = 0.0
    for place, run in enumerate(runs):
        samples = await ledger.samples(job.name, run.number) if place >= len(runs) - MOST_SAMPLED_RUNS else ()
        last = samples[-1].at if samples else run.begun_at
        ended = run.ended_at or (now if now is not None and run is runs[-1] else None) or last
        points += [SeriesPoint(run.number, worked + max(sample.at - run.begun_at, 0.0), sample) for sample in samples]
        worked += max(ended - run.begun_at, 0.0)
    return thinned(points, most), worked


def thinned(points: Sequence[SeriesPoint], most: int) -> Sequence[SeriesPoint]:
    """Return no more than `most` points: those side by side of one run are taken together."""
    while len(points) > most:
        share = 2 if len(points) < 2 * most else len(points) // most
        groups: list[list[SeriesPoint]] = []
        for point in points:
            if groups and len(groups[-1]) < share and groups[-1][-1].run == point.run:
                groups[-1].append(point)
            else:
                groups.append([point])
        if len(groups) == len(points):  # so many runs with a sample each
            return points[-most:]
        points = [_together(group) for group in groups]
    return points


def _together(points: Sequence[SeriesPoint]) -> SeriesPoint:
    if len(points) == 1:
        return points[0]
    samples, last = [point.sample for point in points], points[-1].sample
    seconds = sum(sample.seconds for sample in samples)
    waits, retries = Counter[str](), Counter[str]()
    for sample in samples:
        waits.update(sample.waits)
        retries.update(sample.retries)

    def mean(name: str) -> float:
        parts: list[float] = [getattr(sample, name) * sample.seconds for sample in samples]
        return sum(parts) / max(seconds, 1e-3)

    together = Sample(
        last.at,
        seconds,
        mean("tasks_per_second"),
        mean("bytes_per_second"),
        mean("requests_per_second"),
        max(sample.requests_open for sample in samples),
        max(sample.in_flight for sample in samples),
        last.limit,
        last.limit_reason,
        _most(waits),
        _most(retries),
    )
    return SeriesPoint(points[-1].run, points[-1].worked_seconds, together)


def find_calls(runs: Sequence[PastRun]) -> Sequence[CallFacts]:
    """Return how the calls of each kind went over some runs, most frequent first."""
    kinds: dict[str, list[CallCounts]] = {}
    for run in runs:
        for kind, counts in run.counts.calls.items():
            kinds.setdefault(kind if kind in kinds or len(kinds) < MOST_KINDS else OTHERS, []).append(counts)
    found = [_call_facts(kind, every) for kind, every in kinds.items()]
    return sorted(found, key=lambda one: -one.calls)


def _call_facts(kind: str, every: Sequence[CallCounts]) -> CallFacts:
    answers = Counter[str]()
    for one in every:
        answers.update(one.answers)
    return CallFacts(
        kind,
        sum(one.calls for one in every),
        sum(one.sent_bytes for one in every),
        _most(answers),
        _percentiles([one.seconds for one in every]),
    )


def _percentiles(spreads: Sequence[Spread]) -> Percentiles:
    histogram = Histogram(COARSE)
    for spread in spreads:
        histogram.add(spread)
    return histogram.percentiles()


async def _slowest(job: Job, ledger: Ledger, runs: Sequence[PastRun]) -> Sequence[SlowBatch]:
    times = [(took.seconds, run.number, took) for run in runs for took in run.counts.slowest]
    times.sort(key=lambda one: -one[0])
    slowest = []
    for _, run, took in times[:MOST_SLOWEST]:
        found = await ledger.batch(job.name, took.sequence)
        slowest.append(SlowBatch(batch_name(took.sequence), run, took, found[1].remote_id if found else None))
    return slowest


async def find_lineage(job: Job, ledger: Ledger) -> Lineage:
    """Return the jobs that a job comes from, and those that come from it."""
    jobs = {one.name: one for one in await ledger.jobs()}
    parents: list[Job] = []
    while len(parents) < MOST_RELATIVES and (parent := jobs.get((parents or [job])[-1].parent or "")) is not None:
        if parent.created_at > (parents or [job])[-1].created_at:  # the name was given anew since
            break
        parents.append(parent)
    retries = [one for one in jobs.values() if one.parent == job.name and one.created_at >= job.created_at]
    return Lineage(
        [await _facts(one, ledger) for one in parents],
        [await _facts(one, ledger) for one in reversed(retries[:MOST_RELATIVES])],
    )


async def _facts(job: Job, ledger: Ledger) -> JobFacts:
    runs = await ledger.runs(job.name)
    return JobFacts(
        job.name,
        str(job.state),
        job.created_at,
        await ledger.tally(job.name),
        runs[-1].exit_code if runs else None,
    )


async def find_audit(job: Job, ledger: Ledger) -> AuditFacts | None:
    """Return what the last audit of a job found."""
    found = await ledger.last_audit(job.name)
    if found is None:
        return None
    changed_at = max(await ledger.last_step_at(job.name), await ledger.last_later_at(job.name))
    return AuditFacts(found, outdated=changed_at > found.at)
