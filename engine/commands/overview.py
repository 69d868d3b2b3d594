"""The facts of a job, for people who were not there: `report --html` and `report --html --json`, and the dashboard."""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread

from engine.commands import query, wiring
from engine.commands.paths import open_ledger
from engine.files import DEFAULT_LEDGER, replace_file
from engine.ledger.address import LedgerAddress
from engine.model.errors import BulkSubmitError
from engine.model.job import Job
from engine.reports.outcomes import TaskUrl
from engine.reports.overview import Overview
from engine.reports.overview import overview as overview_of

PAGE = "report.html"


async def overview(name: str, ledger: LedgerAddress | str = DEFAULT_LEDGER, *, audit: bool = False) -> Overview:
    """Return the facts of a job, bounded for any job: numbers, series, causes of failures, runs, the last audit.

    Args:
        name: of the job; it may be worked on meanwhile.
        ledger: file or URL of a database that remembers it.
        audit: audit the job before, which reads every source again; else the last audit is told.

    Raises:
        JobError: there is no such job.
    """
    if audit:
        await query.audit(name, ledger)
    async with open_ledger(ledger) as opened:
        job = await opened.job(name)
        return await overview_of(job, opened, _task_url(job), now=wiring.CLOCK.now())


async def write_page(facts: Overview, file: Path | str | None = None) -> Path:
    """Write the facts of a job as one HTML page; return its path.

    Args:
        facts: of the job.
        file: to write, in the place of what is there; where left out, report.html beside the job's other reports.

    Raises:
        BulkSubmitError: it cannot be written; what was there stays.
    """
    from engine.reports.page import page  # noqa: PLC0415 - the facts alone need none

    path = Path(file) if file is not None else Path(facts.output) / PAGE
    content = page(facts).encode()
    try:
        await anyio.to_thread.run_sync(replace_file, path, content)
    except OSError as error:
        why = error.strerror or error
        raise BulkSubmitError(f"{path} cannot be written ({why}): name another file after --html") from error
    return path


def _task_url(job: Job) -> TaskUrl:
    """Return what gives the page of a task; it has none where the service's package is gone."""
    try:
        return wiring.load_offline(job).service.task_url
    except (OSError, BulkSubmitError):
        return lambda _: ""
