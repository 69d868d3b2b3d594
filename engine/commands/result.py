"""What an operation returns, and the end of a run: the job's state, its reports, its numbers and the exit code.

Why records were not created is counted in the ledger, and not in `rejects.ndjson`, which people edit. It is counted in
some thousand rows, so that the end of a hundred million rejects comes as quickly as that of ten.

The module is a long one: exit code, message and next steps of every end are told from the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.configuration import hide_secret
from engine.commands.lineage import Retried, retried
from engine.commands.paths import spelled
from engine.ledger.base import Ledger
from engine.model.doubt import INHERITED
from engine.model.errors import (
    BulkSubmitError,
    ConfigError,
    Exit,
    JobCanceled,
    JobError,
    LeaseLost,
    ShardsParked,
    SourceError,
)
from engine.model.job import Job, JobState
from engine.model.outcome import Later, Outcome, Tally
from engine.model.record import Reject, Source, Why, no_records
from engine.model.runs import REFRESH, UNDO, PastRun, Sample
from engine.model.settings import RunLimits
from engine.model.shard import Shard, Worker
from engine.progress.text import count
from engine.reports.outcomes import Reports, ReportWriter, existing_reports

if TYPE_CHECKING:
    from engine.reports.causes import Cause

DAMAGED = (ValueError, TypeError, LookupError)
"""What goes wrong where rows of the ledger do not fit each other: no bulksubmit writes such, but a disk may."""
MOST_REASONS = 5
"""Causes of failure that people and hooks are told of; the report page has more."""


class ServiceCan(Struct, frozen=True):
    """What the service of a job can be asked afterwards: it decides what a person is advised."""

    ask: bool = True
    """About a batch whose answer was lost: by its name, by a search, or by a repeat that does no more than once."""
    count: bool = True
    """How the created tasks stand."""
    people: bool = False
    """That is people's work on them; else they are computed."""


class Result(Struct, frozen=True):
    """What came of a run."""

    job: str
    state: str
    """open, finished or canceled"""
    tally: Tally
    elapsed_seconds: float
    exit_code: int
    message: str = ""
    """Why the run ended early; empty if it did not."""
    outcomes: Path | None = None
    rejects: Path | None = None
    orphans: int = 0
    """Empty batches left behind at the service."""
    unproven: int = 0
    """Created records whose task id may be that of another record of their batch."""
    resolved: int = 0
    """Records that were sent and whose fate this run has found out; the rest was known before, or never left."""
    service_can: ServiceCan = ServiceCan()
    later: Mapping[str, int] = {}
    """What became of created tasks afterwards, as far as is known → how many."""
    retried: Retried | None = None
    """What became of the failures that were tried again: of this job, or of the one that it retries."""
    causes: Sequence[Cause] = ()
    """Why records were not created, most records first."""
    parked: bool = False
    """It ended since nothing is left to be sent but shards with which several workers were lost."""

    def read_outcomes(self) -> Iterator[Outcome]:
        """Yield what became of each record, in their order, a line of `outcomes.ndjson` at a time.

        Raises:
            JobError: the reports could not be written; `message` says why.
            OSError: the file cannot be read any more.
        """
        if self.outcomes is None:
            raise JobError(f"job {self.job!r} has no reports: {self.message}")
        with self.outcomes.open("rb") as lines:
            for line in lines:
                yield Outcome.of_line(orjson.loads(line))


class UncertainRecords(Struct, frozen=True):
    """What of a job may be at the service without anybody knowing, and would be sent again next."""

    records: int
    batches: int
    examples: Sequence[str]
    """Of the first batches: their records, and why nobody knows."""
    job: str
    """In which they are sent again: their own, or one made of them."""
    sequences: frozenset[int] = frozenset()
    """Of the batches, where they are sent again in their place."""
    harmless: bool = False
    """What is there already is not created a second time: a repeat does no more than once."""


class FailedTask(Struct, frozen=True):
    """A created task that failed later, or was rejected."""

    index: int
    """Of its record."""
    task_id: str
    url: str
    fate: str
    reason: str


class JobStatus(Struct, frozen=True):
    """Where a job stands."""

    job: Job
    tally: Tally
    running: bool
    """A process works on it just now."""
    working: Mapping[str, int] = {}
    """State at the service → created tasks; only where asked for."""
    service_can: ServiceCan = ServiceCan()
    runs: Sequence[PastRun] = ()
    """Oldest first; what the newest one does, `running` tells."""
    samples: Sequence[Sample] = ()
    """Of the newest run, oldest first; only where one job is asked about."""
    later: Mapping[str, int] = {}
    """What became of created tasks afterwards, as far as is known → how many."""
    workers: Sequence[Worker] = ()
    """Processes that send the job together, oldest first; only where one job is asked about."""
    shards: Sequence[Shard] = ()
    """What they share, in order; likewise."""
    failed_tasks: Sequence[FailedTask] | None = None
    """The first of the tasks that have failed; None if nobody has asked."""
    failed: int = 0
    """How many have, as the service says it now."""

    retried: Retried | None = None
    """What became of the failures that were tried again, of this job or of the one that it retries; likewise."""
    last_step_at: float = 0.0
    """When a batch moved last, in Unix seconds, where the newest run has no end to tell."""

    @property
    def last_sign_at(self) -> float:
        """When something of the job was heard last, in Unix seconds."""
        newest = self.runs[-1] if self.runs else None
        signs = [self.job.created_at, *([newest.begun_at, newest.ended_at or 0.0] if newest else [])]
        return max([*signs, self.last_step_at, *(sample.at for sample in self.samples[-1:])])

    @property
    def canceled_by(self) -> PastRun | None:
        """The run that canceled the job; None if it is not canceled, or an older bulksubmit did it."""
        if self.job.state is not JobState.CANCELED:
            return None
        # Nothing but these can follow it: whatever loads something opens the job again.
        newest = next((run for run in reversed(self.runs) if run.command not in {REFRESH, UNDO}), None)
        return newest if newest and newest.command else None

    @property
    def killed(self) -> bool:
        """The newest run has no end, and nobody works on the job."""
        return bool(self.runs) and self.runs[-1].ended_at is None and not self.running


class Validation(Struct, frozen=True):
    """What reading everything found, nothing sent."""

    records: int
    rejected: int
    batches: int
    size_bytes: int
    rejects: Sequence[tuple[Source, Reject]]
    """(source, reject) of the first hundred; offsets are joined."""
    tasks: Sequence[str] = ()
    """The first three as they would go up, each cut to a line."""
    nothing: str = ""
    """What to say where there is no record."""
    twins: int = 0
    """Records whose key an earlier one has, where the service knows records by keys of the source."""
    first_twins: Sequence[tuple[Source, Reject]] = ()
    """The first of them, as `rejects`; the reason names the record that came first."""


async def summarize(  # noqa: PLR0913 - what there is to say at the end
    job: Job,
    ledger: Ledger,
    started: float,
    error: BulkSubmitError | None = None,
    *,
    setup: wiring.Setup | None = None,
    note: str = "",
    rewrite: bool = True,
    before: Tally | None = None,
    begun: ReportWriter | None = None,
) -> Result:
    """Return the numbers of a job and write its reports; an open job whose records all have their fate is finished.

    `started` is the reading of the clock when the operation began, `setup` the job's configuration, where it is loaded
    already. Without `rewrite`, reports that are there are left as they are: a person may be mending the rejects.
    `before` is what earlier runs had done; left out, this operation sends nothing. `begun`: the reports, as far as they
    were written beside the run.
    """
    tally = await ledger.tally(job.name)
    job = await ledger.job(job.name)
    reports = None if rewrite else existing_reports(job)
    trouble = ""
    if reports is None and not isinstance(error, LeaseLost):  # else whoever has the job by now writes them
        reports, trouble = await _reports(job, ledger, setup, begun)
    if error is None and job.state is JobState.OPEN and job.read_complete and not tally.unresolved:
        # Last of all: killed before it, the job is worked on once more, and then its reports are written.
        await ledger.set_job_state(job.name, JobState.FINISHED)
        job = await ledger.job(job.name)
    if not tally.records and job.read_complete:
        note = note or no_records(job.sources)
    held_back = await ledger.held_back(job.name) if tally.skipped else ()
    note = "; ".join(filter(None, [note, _about_held_back(held_back)]))
    later = await ledger.count_later(job.name)
    doubtful = any(why is Why.UNCERTAIN for why, _, _ in held_back)
    code = exit_code(tally, error, job.state, later, doubtful=doubtful)
    if setup is not None and before is not None and job.state is JobState.FINISHED:
        code = told_if_empty(code, tally.created - before.created, setup)
    return Result(
        job.name,
        job.state,
        tally,
        wiring.CLOCK.monotonic() - started,
        Exit.ERROR if trouble and not code else code,
        "; ".join(
            filter(None, [str(error) if error else "", spelled(note, ledger.address), spelled(trouble, ledger.address)])
        ),
        reports.outcomes if reports else None,
        reports.rejects if reports else None,
        len(await ledger.orphans(job.name)),
        await ledger.count_unproven(job.name),
        _sent(tally) - _sent(before) if before is not None else 0,
        service_can(job, setup),
        later,
        await retried(job, ledger) if job.parent or tally.failed or tally.rejected else None,
        await _causes(job, ledger) if not_created(tally) else (),
        isinstance(error, ShardsParked),
    )


def headline(result: Result) -> str:
    """Say in a sentence how a job ended, or why it has not."""
    tally = result.tally
    if result.state == JobState.OPEN:
        return f"Job {result.job} is not finished. {result.message}".strip()
    if result.state == JobState.CANCELED:
        reason = f" {result.message.removesuffix('.')}." if result.message else ""
        unsent = f" and {count(tally.unresolved, 'record')} not sent" if tally.unresolved else ""
        return f"Job {result.job} is canceled.{reason} {count(tally.created, 'task')} had been created{unsent}."
    if not tally.records:
        return f"Job {result.job} is finished: no records."
    if tally.created == tally.records:
        return f"Job {result.job} is finished: {count(tally.records, 'record')}, all created."
    if tally.created + tally.skipped == tally.records:
        fates = f"{count(tally.created)} created, {count(tally.skipped)} known already"
        return f"Job {result.job} is finished: {count(tally.records, 'record')}, {fates}."
    return f"Job {result.job} is finished: {count(tally.created)} of {count(tally.records, 'record')} created."


def message_of(result: Result) -> str:
    """Say in some sentences how a run ended, whatever its exit code: for who reads nothing else of it."""
    if result.state != JobState.FINISHED:
        return headline(result)
    tally, said = result.tally, [headline(result)]
    fates = {"failed": tally.failed, "rejected": tally.rejected, "uncertain": tally.uncertain}
    if missed := ", ".join(f"{count(number)} {fate}" for fate, number in fates.items() if number):
        often = f"; most often: {result.causes[0].words}" if result.causes else ""
        said.append(f"{missed}{often}.")
    if result.exit_code == Exit.NOTHING:
        said.append("No record was sent (fail_if_empty).")
    if later := later_words(result.later):
        said.append(f"{later[0].upper()}{later[1:]}.")
    return " ".join([*said, result.message]).rstrip()


def later_words(later: Mapping[str, int]) -> str:
    """Return what became of created tasks afterwards, in words; "" if nothing is known of any."""
    numbers = later_numbers(later)
    return f"of their tasks, later {numbers}" if numbers else ""


def later_numbers(later: Mapping[str, int]) -> str:
    """Return how many tasks became what; "" if nothing is known of any."""
    return ", ".join(f"{count(number)} {fate}" for fate, number in sorted(later.items()) if number)


async def _causes(job: Job, ledger: Ledger) -> Sequence[Cause]:
    """Return why records of a job were not created, most records first; none where the ledger is damaged there."""
    from engine.reports.causes import LATER, find_causes  # noqa: PLC0415 - most jobs have no failure to tell

    try:
        found = await find_causes(job, ledger, lambda _: "")
    except (BulkSubmitError, *DAMAGED):  # the job is what it is: `audit` says what is wrong there
        return ()
    return [cause for cause in found.top if cause.fate not in LATER.values()]


def not_created(tally: Tally) -> int:
    """Return of how many records it is known that they are no tasks, or not known whether they are."""
    return tally.failed + tally.rejected + tally.uncertain


def _sent(tally: Tally) -> int:
    return tally.created + tally.failed + tally.uncertain


def service_can(job: Job, setup: wiring.Setup | None = None) -> ServiceCan:
    """Return what the service of a job can be asked; everything, where its package is not there to tell."""
    try:
        service = (wiring.offline(setup, job) if setup else wiring.load_offline(job)).service
    except (OSError, BulkSubmitError):
        return ServiceCan()
    asked = service.polling is not None or service.referencing is not None or service.again in INHERITED
    return ServiceCan(
        asked, service.counting is not None, service.refreshing is not None and service.refreshing.by_people
    )


def report_writer(job: Job, ledger: Ledger, setup: wiring.Setup | None = None) -> ReportWriter:
    """Return what writes the reports of a job."""
    offline = wiring.offline(setup, job) if setup else wiring.load_offline(job)
    return ReportWriter(job, ledger, offline.service.task_url, offline.payloads(job).as_json)


async def _reports(
    job: Job, ledger: Ledger, setup: wiring.Setup | None, begun: ReportWriter | None
) -> tuple[Reports | None, str]:
    try:
        with begun or report_writer(job, ledger, setup) as writer:
            return await writer.finish(), ""
    except (OSError, BulkSubmitError, *DAMAGED) as error:
        return None, f"the reports could not be written ({error}); `bulksubmit report {job.name}` writes them later"


def _about_held_back(held_back: Sequence[tuple[Why, str, int]]) -> str:
    """Say of which records an earlier job does not plainly have the same, and what helps."""
    said = []
    for why, job, number in held_back:
        if why is Why.UNCERTAIN:
            said.append(
                f"{count(number, 'record')} not sent, since nobody knew what became of the same in job {job}: "
                f"`bulksubmit status {job}` says what helps"
            )
        else:
            said.append(f"{count(number, 'record')} changed since job {job} and not sent (delta.changed)")
    return "; ".join(said)


def told_if_empty(code: int, sent: int, setup: wiring.Setup) -> int:
    """Return the exit code of a call: another one if it sent no record and whoever asked wants to hear of that."""
    empty = code == Exit.ALL_CREATED and not sent
    return Exit.NOTHING if empty and setup.settings.limits.fail_if_empty else code


def nothing_sent(result: Result, config: str, limits: RunLimits | None) -> Result:
    """Return the result of a call that found nothing to do, with the exit code that the limits of the call want."""
    with suppress(ConfigError):  # where it cannot be read, nobody has said to want that
        setup = wiring.load(config, hide_secret, limits=limits)
        return replace(result, exit_code=told_if_empty(result.exit_code, 0, setup))
    return result


def exit_code(
    tally: Tally,
    error: BulkSubmitError | None,
    state: JobState = JobState.OPEN,
    later: Mapping[str, int] | None = None,
    *,
    doubtful: bool = False,
) -> int:
    """Return what tells a scheduler how a run ended; `doubtful`: records wait for what became of an earlier job's."""
    if isinstance(error, ConfigError | SourceError | JobCanceled) and error.exit_code == Exit.USAGE:
        return Exit.MEND_FIRST  # the job exists: once it is mended, `resume` goes on
    if error is not None:
        return error.exit_status
    if tally.unresolved and state is not JobState.CANCELED:
        return Exit.STOPPED_EARLY
    if tally.uncertain or doubtful:
        return Exit.SOME_UNCERTAIN
    not_created, failed_later = tally.failed or tally.rejected, bool(later and later.get(Later.FAILED))
    if state is JobState.CANCELED or not (
        not_created or failed_later
    ):  # canceled: what a person has asked for was done
        return Exit.ALL_CREATED
    return Exit.SOME_FAILED if not_created else Exit.TASKS_FAILED
