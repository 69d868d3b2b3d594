"""The command line: arguments in, exit code out. Each command is declared here, and only here.

A command has its options, its help, the operation that it calls and the screen that it ends with. What it needs is
imported when it is called, so that `--help` and a wrong option are answered at once. The module is a long one, since
it names each option of all the commands.
"""
# ruff: noqa: PLC0415, PLR0913 - imports wait until a command is called; a command has one argument for each option

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

import engine
from engine.cli import options
from engine.cli.options import Command, LimitOptions, LoadOptions, OutputOptions
from engine.files import DEFAULT_LEDGER
from engine.progress.text import count, printable

if TYPE_CHECKING:
    from engine.bench.results import BenchPlan
    from engine.cli.output.screen import Screen
    from engine.ledger.address import LedgerAddress

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer's own name for it moved between its versions, from click to itself; this way to it is public in all."""
USAGE = 2
CONTEXT: dict[str, Any] = {"help_option_names": ["--help", "-h"], "max_content_width": 100}

app = typer.Typer(
    help="Submit records in bulk to an HTTP API: each becomes a task once, and each is accounted for.",
    epilog="First steps: `bulksubmit demo`. Your own load: `init`, `check`, `preview`, `submit`, `audit`. Exit codes: "
    "0 all created, 2 usage, 3 some failed, 4 some uncertain, 5 go on later, 6 locked, 7 a limit is met, "
    "8 nothing to send, 9 a person must mend something, 10 tasks failed later; README says which a "
    "scheduler may try again.",
    rich_markup_mode=None,  # rich would double the time that --help takes
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings=CONTEXT,
)


def call(arguments: Sequence[str]) -> int:
    """Perform the command that the arguments name; return the exit code.

    Every error ends as one message on standard error and, with `--json`, as one JSON object on standard output.
    """
    as_json = "--json" in arguments
    name, rest = "bulksubmit", list(arguments)
    if rest and rest[0] in _COMMANDS:  # the root would find it, too, but make all others, and import pydantic: 0.1 s
        name = f"{name} {rest[0]}"
        command = parser_of(rest.pop(0), rest)
    else:
        command = root()
    try:
        code = command.main(rest, prog_name=name, standalone_mode=False)
    except UsageError as error:
        return _tell_usage(error, as_json=as_json)
    except BrokenPipeError:  # whoever reads the help has seen enough
        return 0
    except Exception as error:  # noqa: BLE001 - the last one who can say it in words
        from engine.cli.output.screen import tell_error

        return tell_error(error, as_json=as_json)
    return int(code or 0)


def _tell_usage(error: Any, *, as_json: bool) -> int:
    """Let typer say what was wrong, where the usage stands and how to get help."""
    error.message = error.message.replace("Value error, ", "")  # how pydantic begins, which typer asks about choices
    with suppress(OSError):  # a standard error that is closed or full
        error.show()
    if as_json:
        from engine.cli.output.screen import write_json

        write_json({"error": error.format_message(), "exit_code": USAGE})
    return USAGE


_Work: TypeAlias = Callable[..., "Screen | None"]


_COMMANDS: dict[str, Callable[..., None]] = {}
"""By name, what declares a command: only of the one that is called, or shown, typer needs to know."""


def _command(*, shows_progress: bool = True) -> Callable[[_Work], _Work]:
    """Make a function a command: its parameters are options, and so are the fields of those in `_GROUPS`.

    The screen that it returns is shown at the end, and has the exit code. One that shows no progress has no `--quiet`.
    """

    def kept(work: _Work) -> _Work:
        _COMMANDS[work.__name__] = partial(_declare, work, shows_progress=shows_progress)
        return work

    return kept


@cache
def root() -> Any:
    """Return the parser of all commands."""
    for declare in _COMMANDS.values():
        declare(to=app)
    return typer.main.get_command(app)


def parser_of(name: str, arguments: Sequence[str] = ()) -> Any:
    """Return the parser of one command, called with some arguments; to make all takes a fifth of what `--help` does."""
    alone = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    _COMMANDS[name](to=alone, more=_questions(arguments) if name == "init" else ())
    return typer.main.get_command(alone)


_GROUPS: dict[str, type[Any]] = {"load": LoadOptions, "limits": LimitOptions, "output_options": OutputOptions}
"""Parameter that stands for many options → what holds them."""


def _declare(work: _Work, *, shows_progress: bool, to: typer.Typer, more: Sequence[inspect.Parameter] = ()) -> None:
    """Declare a command to typer; `more`: options that it takes as keywords besides."""
    own = dict(inspect.signature(work, eval_str=True, locals={"Screen": Any}).parameters)  # it is loaded to be shown
    own = {name: one for name, one in own.items() if one.kind is not one.VAR_KEYWORD} | {one.name: one for one in more}
    groups = {name: inspect.signature(_GROUPS[name], eval_str=True).parameters for name in own if name in _GROUPS}
    spread = [one for name, one in own.items() if name not in groups]
    spread += [one for fields in groups.values() for one in fields.values()]
    parameters = {one.name: one.replace(kind=one.KEYWORD_ONLY) for one in spread}
    if not shows_progress:
        parameters.pop("quiet", None)

    def run(**given: Any) -> None:
        for group, fields in groups.items():
            given[group] = _GROUPS[group](**{name: given.pop(name) for name in fields if name in given})
        screen = work(**given)
        if screen is not None:
            from engine.cli.output.screen import show

            raise typer.Exit(show(screen, given["output_options"]))

    # By these typer learns of the options.
    run.__annotations__ = {name: one.annotation for name, one in parameters.items()}
    vars(run)["__signature__"] = inspect.Signature(list(parameters.values()))
    to.command(work.__name__, cls=Command, help=work.__doc__, context_settings=CONTEXT)(run)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"bulksubmit {engine.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _perform(
    work: Callable[..., Awaitable[engine.Result]], ledger: LedgerAddress, output_options: OutputOptions
) -> Screen:
    """Work on a job; end with its result."""
    from engine.cli.output.result import result_screen
    from engine.cli.signals import perform

    return result_screen(perform(work, output_options), ledger)


def _answered(question: str) -> bool:
    from engine.cli.signals import breakable

    try:
        with breakable():
            return typer.confirm(printable(question), err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        return False


def _confirm(said: str, question: str, *, shall: str, otherwise: str) -> None:
    """Ask whoever sits there; raise unless the answer is yes. `shall`: what --yes says where nobody can be asked."""
    if not sys.stdin.isatty():
        raise engine.errors.JobError(f"{said} Nobody can be asked here: --yes says that {shall}")
    if not _answered(f"{said} {question}"):
        raise engine.errors.BulkSubmitError(otherwise)


@_command()
def submit(
    *,
    sources: options.SourcePaths,
    job: options.JobName = None,
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    output: options.Output = None,
    strict: options.Strict = False,
    again: options.SubmitAgain = False,
    delta: options.Delta = False,
    dask: options.Dask = "",
    load: LoadOptions,
    limits: LimitOptions,
    output_options: OutputOptions,
) -> Screen:
    """Send records and follow each to its end.

    What a job of the ledger has taken already is not sent a second time, unless you say --again.
    """
    work = partial(
        engine.submit,
        sources,
        load.config,
        ledger,
        job=job,
        output=output,
        strict=strict,
        again=again,
        delta=delta,
        dask=dask,
        **_order(load, limits),
    )
    return _perform(work, ledger, output_options)


def _run_limits(said: LimitOptions) -> engine.RunLimits:
    return engine.RunLimits(**asdict(said))


def _order(load: LoadOptions, limits: LimitOptions) -> dict[str, Any]:
    """Return what `submit` and `nightly` take alike, by the names that the operations have for it."""
    order = asdict(load)
    del order["config"]
    return {"format": order.pop("source_format"), "limits": _run_limits(limits), **order}


@_command()
def resume(
    *,
    job: options.JobArgument,
    config: options.NewConfig = None,
    processes: options.Processes = None,
    dask: options.Dask = "",
    parked: options.Parked = False,
    metrics_textfile: options.MetricsTextfile = None,
    until: options.UntilTheEnd = "",
    yes: options.Yes = False,
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    limits: LimitOptions,
    output_options: OutputOptions,
) -> Screen:
    """Go on with a job where it stopped.

    What is settled is left alone, what was under way is looked up first, and nothing is sent twice. Of a finished job,
    the service is asked again about what is uncertain, where it can be asked. Of a canceled one, all that was not sent
    goes, and what was never read, after asking.
    """
    work = partial(
        engine.resume,
        job,
        ledger,
        config=config,
        processes=processes,
        dask=dask,
        parked=parked,
        limits=_run_limits(limits),
        metrics_textfile=metrics_textfile,
        until=until,
    )
    if yes:
        return _perform(partial(work, reopen=True), ledger, output_options)
    try:
        return _perform(work, ledger, output_options)
    except engine.errors.JobCanceled as canceled:
        shall, otherwise = "all of it shall be sent", f"job {job} was not resumed"
        _confirm(str(canceled), "Send all of it now?", shall=shall, otherwise=otherwise)
    return _perform(partial(work, reopen=True), ledger, output_options)


@_command()
def work(
    *,
    job: options.JobIfAny = None,
    stay: options.Stay = False,
    processes: options.Processes = None,
    dask: options.Dask = "",
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    output_options: OutputOptions,
) -> Screen:
    """Send jobs together with other processes.

    On this machine or on others: the ledger is a database of PostgreSQL that all of them reach. Each takes
    some batches at a time, and what a lost one had is taken over. Where no process reads a job's sources any more, this
    one does.
    """
    from engine.cli.output.result import work_screen
    from engine.cli.signals import perform

    done = perform(partial(engine.work, job, ledger, stay=stay, processes=processes, dask=dask), output_options)
    return work_screen(done, ledger)


@_command()
def nightly(
    *,
    sources: options.NightSources,
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    load: LoadOptions,
    limits: LimitOptions,
    output_options: OutputOptions,
) -> Screen:
    """Send what is new tonight: a line for cron.

    First every open job of the family is ended. It goes on to its end if its files are what they were; else what was
    released is followed, and it is closed: its unsent records are sent from tonight's files. Then the records that no
    job of the family has created are sent, as job FAMILY-DATE. If an open job cannot be ended, that one is not begun.
    """
    work = partial(engine.nightly, sources, load.config, ledger, **_order(load, limits))
    return _perform(work, ledger, output_options)


@_command(shows_progress=False)
def status(
    *,
    job: options.JobIfAny = None,
    tasks: options.Tasks = False,
    state: options.WantedState = None,
    since: options.Since = None,
    limit: options.MostJobs = None,
    failed: options.Failed = False,
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    output_options: OutputOptions,
) -> Screen:
    """Show where a job stands, or list all jobs.

    Of one job: its runs, why the last one ended, what is safe, and the command that goes on.
    """
    from engine.cli.output.screen import say
    from engine.cli.output.status import job_screen, jobs_screen, moment_of
    from engine.cli.signals import ask

    if failed and not (tasks and job):
        raise engine.errors.ConfigError(
            "--failed goes with a job and --tasks: the service is asked about each of its tasks"
        )
    if job and (state or since or limit):
        raise typer.BadParameter("--state, --since and --limit choose among jobs; leave them out, or leave out JOB")
    work = partial(engine.status, job, ledger, tasks=tasks, failed=failed, tell=say, state=state, limit=limit)
    found = ask(partial(work, since=moment_of(since, time.time()) if since else 0.0), output_options)
    return job_screen(found[0], ledger) if job else jobs_screen(found, ledger, chosen=bool(state or since))


@_command(shows_progress=False)
def report(
    *,
    job: options.JobArgument,
    record: options.RecordIndex = None,
    key: options.RecordKey = None,
    missing: options.MissingKeys = False,
    html: options.HtmlFile = False,
    file: options.PageFile = None,
    audit: options.AuditFirst = False,
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    output_options: OutputOptions,
) -> Screen:
    """Write the reports again, or find one record.

    The reports are outcomes.ndjson and rejects.ndjson in the job's output folder; `--record` and `--key` tell what
    became of one record, over all attempts at it, and write nothing. `--missing` writes missing.ndjson there and
    nothing else. `--html` writes one page for people: outcomes, causes of failures, rates, limits, times of calls,
    runs, what to do next; with `--json`, the same as one object.
    """
    from engine.cli.output.checks import missing_screen, story_screen
    from engine.cli.output.result import result_screen
    from engine.cli.signals import ask

    if (record is not None) + (key is not None) + missing + html > 1:
        raise typer.BadParameter("--record, --key, --missing and --html ask for different things: take one of them.")
    if not html and (file is not None or audit):
        raise typer.BadParameter("FILE and --audit go with --html.")
    if html:
        from engine.cli.output.overview import page_screen, with_next

        facts = ask(partial(engine.overview, job, ledger, audit=audit), output_options)
        (stands,) = ask(partial(engine.status, job, ledger), output_options)
        facts = with_next(facts, stands, ledger)
        path = ask(partial(engine.write_page, facts, file), output_options)
        return page_screen(facts, path, ledger)
    if missing:
        return missing_screen(ask(partial(engine.missing, job, ledger), output_options), ledger)
    if record is not None or key is not None:
        story = ask(partial(engine.tell_story, job, ledger, record=record, key=key), output_options)
        return story_screen(story, ledger)
    return result_screen(ask(partial(engine.report, job, ledger), output_options), ledger)


@_command(shows_progress=False)
def audit(
    *, job: options.JobArgument, ledger: options.LedgerPath = DEFAULT_LEDGER, output_options: OutputOptions
) -> Screen:
    """Prove that each record has one outcome.

    Reads the ledger and every source again, from the first byte to the last; nothing is sent.
    """
    from engine.cli.output.checks import audit_screen
    from engine.cli.signals import ask

    return audit_screen(ask(partial(engine.audit, job, ledger), output_options), ledger)


@_command(shows_progress=False)
def backup(
    *, file: options.BackupFile, ledger: options.LedgerPath = DEFAULT_LEDGER, output_options: OutputOptions
) -> Screen:
    """Copy the ledger whole, also while jobs run.

    A plain copy of the file leaves behind what stands beside it. Only one of the two may go on: both would send what
    neither has sent yet.
    """
    from engine.cli.output.status import backup_screen
    from engine.cli.signals import ask

    return backup_screen(ask(partial(engine.backup, file, ledger), output_options), file, ledger)


@_command(shows_progress=False)
def ledger(
    *,
    work: options.LedgerWork,  # noqa: ARG001 - there is one so far
    source: options.CopiedLedger,
    to: options.NewLedger,
    output_options: OutputOptions,
) -> Screen:
    """Copy a ledger to another place.

    From a file to a database, or back, while no process works on its jobs. All of it is there at the end, or nothing;
    then each table is read again on both sides and compared. Only one of the two may go on: both would send what
    neither has sent yet.
    """
    from engine.cli.output.status import copy_screen
    from engine.cli.signals import ask

    return copy_screen(ask(partial(engine.copy_ledger, source, to), output_options), source, to)


@_command()
def retry(
    *,
    job: options.JobArgument,
    uncertain: options.Uncertain = False,
    task_failed: options.TaskFailed = False,
    yes: options.Yes = False,
    from_file: options.MendedFile = None,
    config: options.RetryConfig = None,
    metrics_textfile: options.MetricsTextfile = None,
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    limits: LimitOptions,
    output_options: OutputOptions,
) -> Screen:
    """Send failed and rejected records again.

    They are taken from the rejects.ndjson of a finished or canceled job, where they may be mended first, and become
    a job of their own: JOB.retry, then JOB.retry-2 and so on, each with what none of them has created. What was mended
    in the rejects.ndjson of any of them goes; a line that is taken out is left alone. Uncertain ones are left alone,
    for sent again they could become second tasks; --uncertain sends those, and nothing else, after it has said which
    and asked: uncertain batches in their place, then, called once more, the uncertain records of other batches as a
    job of their own. Of a job that is not finished, those are the batches that the service has accepted and does not
    begin with. --task-failed submits those again whose tasks were created and have failed since, as a job of their own,
    after it has said how many and what they have cost.
    """
    if (uncertain or task_failed) and (config is not None or from_file is not None):
        raise typer.BadParameter("--config and --from go with neither --uncertain nor --task-failed.")
    bounds: dict[str, Any] = {"limits": _run_limits(limits), "metrics_textfile": metrics_textfile}
    if task_failed:
        if not yes:
            _confirm_tasks(job, ledger, output_options)
        return _perform(partial(engine.retry_tasks, job, ledger, **bounds), ledger, output_options)
    if uncertain:
        from engine.cli.signals import ask

        found = _uncertain_said(job, ask(partial(engine.find_uncertain, job, ledger), output_options))
        if not yes:
            shall, otherwise = "they shall be sent again", f"nothing of job {job} was sent again"
            said = f"Job {job} of ledger {ledger}: {found}"
            _confirm(said, "Send them again?", shall=shall, otherwise=otherwise)
    return _perform(
        partial(engine.retry, job, ledger, uncertain=uncertain, config=config, from_file=from_file, **bounds),
        ledger,
        output_options,
    )


def _confirm_tasks(job: str, ledger: LedgerAddress, output_options: OutputOptions) -> None:
    from engine.cli.signals import ask

    found = ask(partial(engine.find_failed_tasks, job, ledger), output_options)
    shall, otherwise = "they shall be submitted again", f"nothing of job {job} was submitted again"
    _confirm(_failed_said(job, found), "Submit them again?", shall=shall, otherwise=otherwise)


def _failed_said(job: str, found: engine.FailedTasks) -> str:
    costs = ", ".join(f"{amount:,.2f} {currency}" for currency, amount in sorted(found.price.items()))
    of = f" (known of {count(found.priced)})" if found.priced < found.tasks else ""
    cost = f"the first time they cost {costs}{of}" if costs else "what they have cost is not known"
    return (
        f"{count(found.tasks, 'task')} of job {job} failed on {found.host} ({found.kind}); {cost}. They become tasks a "
        f"second time, as job {found.job}."
    )


def _uncertain_said(job: str, found: engine.UncertainRecords) -> str:
    more = f" and {found.batches - len(found.examples)} more" if found.batches > len(found.examples) else ""
    return (
        f"{count(found.records, 'record')} in {count(found.batches, 'batch')} may be tasks already, and nobody knows: "
        f"{'; '.join(found.examples)}{more}. {_if_sent_again(found)}"
        f"{f' They become job {found.job}.' if found.job != job else ''}"
    )


def _if_sent_again(found: engine.UncertainRecords) -> str:
    if found.harmless:
        return "Sent again, those that are there already are not created a second time."
    return "Each of them that is becomes a second task if it is sent again; look at the service first."


@_command()
def cancel(
    *,
    job: options.JobArgument,
    yes: options.Yes = False,
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    output_options: OutputOptions,
) -> Screen:
    """Send nothing more of a job.

    The service is asked to create nothing more of what it has; what is created stays. What was not sent is kept as it
    is, unresolved: `resume` goes on with it. With a ledger in PostgreSQL, processes that send the job end first.
    """
    if not yes:
        from engine.cli.output.status import cancel_said
        from engine.cli.signals import ask

        (found,) = ask(partial(engine.status, job, ledger), output_options)
        _confirm(
            cancel_said(found),
            f"Cancel job {job} of ledger {ledger}?",
            shall="it shall be canceled",
            otherwise=f"job {job} was not canceled",
        )
    return _perform(partial(engine.cancel, job, ledger), ledger, output_options)


@_command()
def undo(
    *,
    job: options.JobArgument,
    yes: options.Yes = False,
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    output_options: OutputOptions,
) -> Screen:
    """Take back tasks that have not begun.

    For a load that should not have been. Each task is looked at first: one that has begun stays. Interrupted,
    it may be called again and goes on. The exit code is 3 where some tasks stay.
    """
    if not yes:
        from engine.cli.signals import ask

        shall, otherwise = "they shall be taken back", f"nothing of job {job} was taken back"
        found = ask(partial(engine.find_undoable, job, ledger), output_options)
        _confirm(_undo_said(job, found), "Take them back?", shall=shall, otherwise=otherwise)
    return _perform(partial(engine.undo, job, ledger), ledger, output_options)


def _undo_said(job: str, found: engine.Undoable) -> str:
    from engine.progress.text import duration

    takes = f" It takes {duration(found.seconds)} at least." if found.seconds >= 1 else ""
    return (
        f"Job {job} has {count(found.tasks, 'task')} on {found.host} ({found.kind}). Those that have not begun would "
        f"be deleted there; the others stay.{takes}"
    )


@_command()
def refresh(
    *, job: options.JobArgument, ledger: options.LedgerPath = DEFAULT_LEDGER, output_options: OutputOptions
) -> Screen:
    """Ask how created tasks stand now.

    Brings the reports up to date: a record that was created stays so, and its line in outcomes.ndjson says what became
    of its task later. The exit code is 10 where all were created and tasks failed.
    """
    return _perform(partial(engine.refresh, job, ledger), ledger, output_options)


@_command()
def prune(
    *,
    older_than: options.OlderThan = None,
    keep_last: options.KeepLast = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    output_options: OutputOptions,
) -> Screen:
    """Remove old jobs and their reports.

    A load and its retries go together. Kept in any case: what is open or uncertain, the newest of each family, and what
    a family knows its records by. What is removed is forgotten: nobody can tell any more that its records were sent.
    """
    from engine.cli.output.prune import prune_screen
    from engine.cli.signals import ask, perform

    seconds = options.age_seconds(older_than)
    work = partial(engine.prune, ledger, older_than_seconds=seconds, keep_last=keep_last)
    planned = ask(partial(work, dry_run=True), output_options)
    question = _prune_said(planned)
    if dry_run or not question:
        return prune_screen(planned, ledger, dry_run=dry_run)
    if not yes and not sys.stdin.isatty():
        raise engine.errors.JobError(f"{question} Nobody can be asked here: --yes says so, --dry-run shows which")
    if not yes and not _answered(f"{question} (--dry-run shows which)"):
        raise engine.errors.BulkSubmitError("nothing was removed")
    return prune_screen(perform(work, output_options), ledger, dry_run=False)


def _prune_said(planned: engine.Pruned) -> str:
    gone, reports = (
        sum(verdict.fall == fall for verdict in planned.verdicts) for fall in ("removed", "reports removed")
    )
    parts = [f"{count(gone, 'job')} with all that is known of them"] if gone else []
    parts += [f"the reports of {count(reports, 'job')}"] if reports else []
    return f"Remove {' and '.join(parts)}?" if parts else ""


@_command()
def check(
    *,
    sources: options.LoadSources = None,
    config: options.ConfigFile,
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    output: options.Output = None,
    source_format: options.SourceFormat = None,
    probe: options.Probe = False,
    keep: options.KeepProbe = False,
    trace: options.ShowTrace = False,
    yes: options.Yes = False,
    output_options: OutputOptions,
) -> Screen:
    """Go the whole way and create nothing.

    Variables, proxy, name, TLS, clock, key, project, limits, disk, ledger, and the first records of SOURCE against what
    the service says of itself: each line says what was found and how to mend it. The exit code is 9 if one of them
    fails. With --probe, two tasks are created then, after asking, as a job of their own. With --trace, what the service
    is asked and answers is shown, too.
    """
    from engine.cli.output.check import check_screen, probe_screen, trace_screen, with_trace
    from engine.cli.output.screen import show
    from engine.cli.signals import ask, perform

    if probe and not sources:
        raise typer.BadParameter("--probe needs a SOURCE, whose first two good records it sends.")
    heard = engine.Trace() if trace else None
    work = partial(engine.check, config, sources or [], ledger, output=output, format=source_format, trace=heard)
    report = ask(work, output_options)
    if not probe or report.failed:
        return with_trace(check_screen(report), heard, planned=not report.failed)
    if not output_options.as_json:
        show(check_screen(report), output_options)
    if not yes:
        shall, otherwise = "they shall be created", "no probe was made, and nothing was created"
        _confirm(_probe_said(report, sources or []), "Create them?", shall=shall, otherwise=otherwise)
    order = partial(engine.probe, config, sources or [], ledger, records=report.good, format=source_format, trace=heard)
    try:
        probed = perform(order, output_options)
    except BaseException:
        if heard is not None and not output_options.as_json:  # it shows why, better than any sentence
            show(trace_screen(heard), output_options)
        raise
    deleted, created = "", probed.result.tally.created
    if created and report.undoable and not keep and (yes or _answered(f"Delete what job {probed.result.job} created?")):
        deleted = perform(partial(engine.undo, probed.result.job, probed.ledger), output_options).message
    return with_trace(probe_screen(report, probed, deleted), heard)


def _probe_said(report: engine.CheckReport, sources: Sequence[str]) -> str:
    records = f"record{'s' if len(report.good) > 1 else ''} {' and '.join(map(str, report.good))}"
    return (
        f"A probe creates {count(len(report.good), 'real task')} at {report.destination}: of {records} of "
        f"{', '.join(sources)}. {report.note} "
        "A later load does not know of them, and sends these records again."
    )


@_command()
def validate(
    *,
    sources: options.CheckedSources,
    config: options.ConfigFile,
    source_format: options.SourceFormat = None,
    processes: options.Processes = None,
    output_options: OutputOptions,
) -> Screen:
    """Check every record and send nothing.

    The configuration is checked, and records are read, mapped and checked, as `submit` would, so a load can be mended
    before it begins. No call is made. The first tasks are shown as they would go up. Where a service knows records by
    keys of the source, those that stand twice are named, and the exit code is 3.
    """
    from engine.cli.output.checks import validation_screen
    from engine.cli.signals import watch

    work = partial(engine.validate, sources, config, format=source_format, processes=processes)
    return validation_screen(watch(work, output_options))


@_command(shows_progress=False)
def preview(
    *,
    sources: options.CheckedSources,
    config: options.ConfigFile,
    records: options.PreviewedRecords = options.DEFAULT_PREVIEW,
    record: options.RecordToPreview = None,
    source_format: options.SourceFormat = None,
    output_options: OutputOptions,
) -> Screen:
    """Show row, task and request; send nothing.

    The dry run: records are read, mapped and cut into batches as `submit` would, and the requests that would carry them
    are shown with stars for the credentials. Nobody is called, and no variable with a secret needs to be set.
    """
    from engine.cli.output.preview import preview_screen
    from engine.cli.signals import ask

    work = partial(engine.preview, sources, config, records=records, record=record, format=source_format)
    return preview_screen(ask(work, output_options))


@_command()
def bench(
    *,
    sources: options.BenchSources = None,
    config: options.ConfigFile,
    records: options.MostRecords = options.DEFAULT_BENCH_RECORDS,
    rate: options.Rates = None,
    steps: options.BenchSteps = None,
    seconds: options.StepSeconds = options.DEFAULT_BENCH_SECONDS,
    output: options.BenchFolder = None,
    seed: options.Seed = None,
    yes: options.Yes = False,
    output_options: OutputOptions,
) -> Screen:
    """Measure how fast a service creates tasks.

    Real tasks are created, step by step with a heavier load, until throughput gains no more: the knee. Before anything
    is created on another machine, it asks. outcomes.ndjson lists all that was created.
    """
    from engine.bench.results import BenchOrder
    from engine.cli.output.bench import bench_screen
    from engine.cli.signals import ask, perform
    from engine.commands import bench as operation

    order = BenchOrder(config, sources or [], records, steps, rate or [], seconds, output, seed)
    plan = ask(partial(operation.bench_plan, order), output_options)
    if not plan.local and not yes:
        if not sys.stdin.isatty():
            said = "Nobody can be asked here: --yes says that they shall be created"
            raise engine.errors.ConfigError(f"{_bench_said(plan)} {said}")
        if not _answered(f"{_bench_said(plan)} Create them?"):
            raise engine.errors.BulkSubmitError("nothing was created")
    return bench_screen(perform(partial(operation.bench, order), output_options))


def _bench_said(plan: BenchPlan) -> str:
    project = f", project {plan.project}" if plan.project else ""
    return (
        f"A bench creates real tasks on {plan.host} ({plan.kind}{project}): {count(plan.most_tasks)} at most, in "
        f"{count(len(plan.loads), 'step')}. They stay until you delete them; outcomes.ndjson will list them."
    )


@_command()
def sandbox(
    *,
    host: options.Host = "127.0.0.1",
    port: options.Port = None,
    service: options.Served = None,
    behaviour: options.BehaviourFile = None,
    s3: options.S3 = False,
    journal: options.JournalFile = None,
    delay: options.Delay = None,
    allow_remote: options.AllowRemote = False,
    as_json: options.Json = False,
) -> None:
    """Serve a service's API on this machine.

    For trying things out: it takes tasks as the service would, and can be told to be slow or to fail. Ctrl-C ends it.
    """
    from engine.cli.signals import collecting
    from engine.sandbox import server

    with collecting():
        server.run(
            behaviour,
            service=service.value if service else None,
            host=host,
            port=port,
            s3=s3,
            allow_remote=allow_remote,
            json=as_json,
            journal=journal,
            delay_seconds=delay,
        )


@_command()
def dashboard(
    *,
    host: options.DashboardHost = "127.0.0.1",
    port: options.DashboardPort = None,
    allowed_host: options.AllowedHosts = None,
    allow_actions: options.AllowActions = False,
    open_: options.OpenBrowser = False,
    ledger: options.LedgerPath = DEFAULT_LEDGER,
    as_json: options.Json = False,
) -> None:
    """Show all jobs in a browser, live.

    Down to each batch and record, also when no run is alive. It reads the ledger and changes nothing. Whoever opens the
    link that it prints is signed in, once. Ctrl-C ends it.
    """
    from engine.cli.output.screen import say
    from engine.cli.output.status import cancel_said, next_of, resume_said, retry_said
    from engine.cli.signals import collecting
    from engine.commands.paths import command
    from engine.dashboard import server
    from engine.dashboard.words import Words

    words = Words(next_of, command, {"resume": resume_said, "cancel": cancel_said, "retry": retry_said})
    served = server.DashboardOptions(ledger, host, port, tuple(allowed_host or ()), allow_actions)
    with collecting():
        server.run(served, words, say, as_json=as_json, open_=open_)


@_command()
def demo(*, folder: options.DemoFolder = options.DEFAULT_DEMO, output_options: OutputOptions) -> Screen:
    """Load 28,000 airports into a sandbox.

    Starts a sandbox of its own, submits the airports of the world to it, audits the job and compares the result with
    the sandbox's journal.
    """
    from engine.cli.demo import demo_screen, run
    from engine.cli.signals import perform

    return demo_screen(perform(partial(run, folder), output_options), folder / "ledger.db")


@_command(shows_progress=False)
def init(
    *,
    kind: options.Kind,
    from_file: options.FromFile = None,
    source_format: options.SourceFormat = None,
    output: options.NewFile = None,
    overwrite: options.Overwrite = False,
    yes: options.TakeProposals = False,
    output_options: OutputOptions,  # noqa: ARG001 - as every command has them; what shows the screen takes them
    **given: str | bool | None,
) -> Screen:
    """Make a configuration by a few questions.

    Each question is an option, too: `bulksubmit init KIND --help` shows those of a service. With --from, the beginning
    of a file is looked at, and how its rows may become tasks is proposed. No secret is asked for, only the name of the
    variable that holds it.
    """
    from engine.cli.asking import ask_for_source, gather
    from engine.cli.output.init import init_screen
    from engine.commands import init as operation

    asked_for = operation.questions(kind)  # an unknown one is told before anything is asked
    file = output or Path(f"{kind}.toml")
    operation.check_free(file, overwrite=overwrite)
    said = {one.question.key: given.get(one.parameter) for one in asked_for}
    answers = gather(kind, {key: _answer(one) for key, one in said.items() if one is not None}, yes=yes)
    if from_file is None and not yes and sys.stdin.isatty():
        asked = ask_for_source()
        from_file = str(asked) if asked else None
    return init_screen(operation.make(kind, answers, file, source=from_file, format=source_format, overwrite=overwrite))


def _answer(given: str | bool) -> str:  # noqa: FBT001 - what an option was given
    return given if isinstance(given, str) else "yes" if given else "no"


def _questions(arguments: Sequence[str]) -> Sequence[inspect.Parameter]:
    """Return the questions of the service that the arguments of `init` name, as options; none, where none is named."""
    from engine.commands.wiring import service_kinds

    kind = next((word for word in arguments if word in service_kinds()), None)
    if kind is None:
        return ()
    from engine.commands.init import questions

    return [
        inspect.Parameter(
            asked.parameter, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=options.answer_option(asked)
        )
        for asked in questions(kind)
    ]


@_command(shows_progress=False)
def examples(*, name: options.ExampleName = None, output_options: OutputOptions) -> Screen | None:
    """List configurations, or print one.

    They are whole and commented: copy one to begin with, and change what is yours.
    """
    from engine.cli.output.examples import examples_screen
    from engine.commands import examples as shipped

    if name is None:
        return examples_screen(shipped.examples())
    _print({"name": name, "text": shipped.example_path(name).read_text(encoding="utf-8")}, "text", output_options)
    return None


@_command(shows_progress=False)
def completion(*, shell: options.ShellName, output_options: OutputOptions) -> None:
    """Print a script that completes what you type.

    Commands, options, files and the names of jobs. It is printed and nothing else; its first lines say where to keep
    it. Print it anew after an update.
    """
    from engine.cli.output.completion import script

    _print({"shell": shell.value, "script": script(shell.value, root().commands)}, "script", output_options)


def _print(data: dict[str, str], key: str, output_options: OutputOptions) -> None:
    """Write a text as it is; with --json, in the object that tells what it is."""
    if output_options.as_json:
        from engine.cli.output.screen import write_json

        write_json(data)
    else:
        typer.echo(data[key], nl=False)
