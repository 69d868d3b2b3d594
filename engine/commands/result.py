"""The end of a run in, its result out: the job's state, its reports, its numbers and the exit code."""

from __future__ import annotations

from engine.clock import Clock, SystemClock
from engine.commands import wiring
from engine.commands.orders import Result
from engine.ledger.base import Ledger
from engine.model.errors import BulkSubmitError, ConfigError, Exit, SourceError
from engine.model.job import Job, JobState
from engine.model.outcome import Tally
from engine.reports.outcomes import Reports, existing_reports, write_reports

CLOCK: Clock = SystemClock()


async def summarize(
    job: Job, ledger: Ledger, started: float, error: BulkSubmitError | None, *, note: str = "", rewrite: bool = True
) -> Result:
    """Return the numbers of a job and write its reports; an open job whose records all have their fate is finished.

    Without `rewrite`, reports that are there are left as they are: a person may be mending the rejects.
    """
    tally = await ledger.tally(job.name)
    job = await ledger.job(job.name)
    reports = None if rewrite else existing_reports(job)
    trouble = ""
    if reports is None:
        reports, trouble = await _reports(job, ledger)
    if error is None and job.state is JobState.OPEN and job.read_complete and not tally.unresolved:
        # Last of all: killed before it, the job is worked on once more, and then its reports are written.
        await ledger.set_job_state(job.name, JobState.FINISHED)
        job = await ledger.job(job.name)
    if not tally.records and job.read_complete:
        note = note or "the sources hold no record"
    code = exit_code(tally, error)
    return Result(
        job.name,
        job.state,
        tally,
        CLOCK.monotonic() - started,
        Exit.ERROR if trouble and not code else code,
        "; ".join(filter(None, [str(error) if error else "", note, trouble])),
        reports.outcomes if reports else None,
        reports.rejects if reports else None,
        len(await ledger.orphans(job.name)),
        await ledger.count_unproven(job.name),
    )


async def _reports(job: Job, ledger: Ledger) -> tuple[Reports | None, str]:
    try:
        offline = wiring.load_offline(job)
        reports = await write_reports(job, ledger, offline.service.task_url, offline.payloads(job).as_json)
    except (OSError, BulkSubmitError) as error:
        return None, f"the reports could not be written ({error}); `bulksubmit report {job.name}` writes them later"
    return reports, ""


def exit_code(tally: Tally, error: BulkSubmitError | None) -> int:
    """Return what tells a scheduler how a run ended."""
    if isinstance(error, ConfigError | SourceError):  # the job exists: once it is mended, `resume` goes on
        return Exit.MEND_FIRST
    if error is not None:
        return error.exit_status
    if tally.unresolved:
        return Exit.STOPPED_EARLY
    if tally.uncertain:
        return Exit.SOME_UNCERTAIN
    return Exit.SOME_FAILED if tally.failed or tally.rejected else Exit.ALL_CREATED
