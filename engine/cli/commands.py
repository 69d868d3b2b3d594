"""What each command does: the operation it performs and the screen it ends with. Each returns the exit code."""
# ruff: noqa: PLC0415 - what only one command needs is imported when that one is called

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import typer

from engine.cli.options import Voice
from engine.cli.output.result import result_screen
from engine.cli.output.status import job_screen, jobs_screen
from engine.cli.output.streams import show
from engine.cli.signals import ask, perform, watch
from engine.commands import api
from engine.commands.api import Order, Result, UncertainRecords
from engine.model.errors import BulkSubmitError, ConfigError, JobError
from engine.model.record import Format
from engine.progress.events import Listener
from engine.progress.text import count, printable
from engine.run.context import Stop

if TYPE_CHECKING:
    from engine.cli.doors import Operations
    from engine.commands.api import BenchOrder, BenchPlan

Door: TypeAlias = Callable[[str, Path, Listener, Stop], Awaitable[Result]]

ENGINE: Operations = api
"""The real one; a test passes its own as typer's context object."""


def submit(order: Order, ledger: Path, voice: Voice, engine: Operations) -> int:
    """Make a job and work on it."""
    result = perform(partial(engine.submit, order, ledger), voice)
    return show(result_screen(result, ledger), voice)


def resume(
    job: str, ledger: Path, config: Path | None, voice: Voice, engine: Operations, *, processes: int | None
) -> int:
    """Go on with a job, from now on with another configuration if one is given."""
    result = perform(partial(engine.resume, job, ledger, config=config, processes=processes), voice)
    return show(result_screen(result, ledger), voice)


def work(door: Door, job: str, ledger: Path, voice: Voice) -> int:
    """Retry or cancel a job."""
    result = perform(partial(door, job, ledger), voice)
    return show(result_screen(result, ledger), voice)


def retry(job: str, ledger: Path, voice: Voice, engine: Operations, *, uncertain: bool, sure: bool) -> int:
    """Send again what was not created; what is uncertain only if a person says so, knowing what that may do."""
    if not uncertain:
        return work(engine.retry, job, ledger, voice)
    found = ask(partial(engine.uncertain, job, ledger), voice)
    if not sure:
        said = _uncertain_said(job, found)
        if not sys.stdin.isatty():
            raise JobError(f"{said} Nobody can be asked here: --yes says that they shall be sent again")
        if not _answered(f"{said} Send them again?"):
            raise BulkSubmitError(f"nothing of job {job} was sent again")
    return work(engine.send_again, job, ledger, voice)


def _uncertain_said(job: str, found: UncertainRecords) -> str:
    more = f" and {found.batches - len(found.examples)} more" if found.batches > len(found.examples) else ""
    return (
        f"{count(found.records, 'record')} in {count(found.batches, 'batch')} may be tasks already, and nobody knows: "
        f"{'; '.join(found.examples)}{more}. Each of them that is becomes a second task if it is sent again; look at "
        f"the service first.{f' They become job {found.job}.' if found.job != job else ''}"
    )


def cancel(job: str, ledger: Path, voice: Voice, engine: Operations, *, sure: bool) -> int:
    """Cancel a job, after asking whoever sits at the terminal."""
    question = f"Cancel job {job}? Nothing more will be sent and it cannot be resumed; what is created stays."
    if not sure and sys.stdin.isatty() and not _answered(question):
        raise BulkSubmitError(f"job {job} was not canceled")
    return work(engine.cancel, job, ledger, voice)


def _answered(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        return False


def status(job: str | None, ledger: Path, voice: Voice, engine: Operations, *, tasks: bool) -> int:
    """Show where a job, or every job, stands."""
    question = partial(engine.status, job, ledger, tasks=tasks)
    if tasks and not voice.quiet:
        question = partial(question, tell=_say)
    found = ask(question, voice)
    return show(job_screen(found[0], ledger) if job else jobs_screen(found, ledger), voice)


def _say(line: str) -> None:
    """Say something at once, beside the screen that comes at the end."""
    sys.stderr.write(printable(line) + "\n")
    sys.stderr.flush()


def report(job: str, ledger: Path, record: int | None, voice: Voice, engine: Operations) -> int:
    """Write the reports again, or tell what became of one record."""
    if record is not None:
        from engine.cli.output.checks import record_screen

        return show(record_screen(job, ask(partial(engine.find_record, job, ledger, record), voice)), voice)
    return show(result_screen(ask(partial(engine.report, job, ledger), voice), ledger), voice)


def audit(job: str, ledger: Path, voice: Voice, engine: Operations) -> int:
    """Prove that every record read has exactly one outcome."""
    from engine.cli.output.checks import audit_screen

    return show(audit_screen(ask(partial(engine.audit, job, ledger), voice), ledger), voice)


def validate(
    sources: Sequence[str],
    config: Path,
    format_: Format | None,
    voice: Voice,
    engine: Operations,
    *,
    processes: int | None,
) -> int:
    """Read everything, send nothing."""
    from engine.cli.output.checks import validation_screen

    found = watch(partial(engine.validate, sources, config, format_, processes=processes), voice)
    return show(validation_screen(found), voice)


def bench(order: BenchOrder, voice: Voice, engine: Operations, *, sure: bool) -> int:
    """Measure a service; one that is not on this machine only if a person says so, knowing what it creates."""
    from engine.cli.output.bench import bench_screen

    plan = ask(partial(engine.bench_plan, order), voice)
    if not plan.local and not sure:
        if not sys.stdin.isatty():
            raise ConfigError(f"{_bench_said(plan)} Nobody can be asked here: --yes says that they shall be created")
        if not _answered(f"{_bench_said(plan)} Create them?"):
            raise BulkSubmitError("nothing was created")
    return show(bench_screen(perform(partial(engine.bench, order), voice)), voice)


def _bench_said(plan: BenchPlan) -> str:
    project = f", project {plan.project}" if plan.project else ""
    return (
        f"A bench creates real tasks on {plan.host} ({plan.kind}{project}): {count(plan.most_tasks)} at most, in "
        f"{count(len(plan.loads), 'step')}. They stay until you delete them; outcomes.ndjson will list them."
    )
