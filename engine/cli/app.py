"""The commands as typer sees them: names, options and help. What they do is imported when one is called, not before.

`--help` and a wrong option are answered from this file and `options.py` alone, in a tenth of a second of CPU.
"""
# ruff: noqa: PLC0415, PLR0913 - imports wait until a command is called; a command has one argument for each option

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine import __version__
from engine.cli.options import (
    DEFAULT_BENCH_RECORDS,
    DEFAULT_BENCH_SECONDS,
    DEFAULT_DEMO,
    DEFAULT_LEDGER,
    S3,
    AllowRemote,
    BehaviourFile,
    BenchFolder,
    BenchSources,
    BenchSteps,
    CheckedSources,
    Config,
    DemoFolder,
    Host,
    JobArgument,
    JobIfAny,
    JobName,
    JournalFile,
    Json,
    LedgerPath,
    Level,
    LineFormat,
    LogFormat,
    LogLevel,
    MostRecords,
    NewConfig,
    Output,
    Port,
    Processes,
    Quiet,
    Rates,
    RecordIndex,
    Seed,
    Served,
    SourceFormat,
    Sources,
    StepSeconds,
    Strict,
    Tasks,
    Uncertain,
    Until,
    Voice,
    Yes,
)

CONTEXT: dict[str, Any] = {"help_option_names": ["--help", "-h"], "max_content_width": 100}
"""Of every command."""

app = typer.Typer(
    name="bulksubmit",
    help="Submit records in bulk to an HTTP API: each becomes a task once, and each is accounted for.",
    epilog="First steps: `bulksubmit demo`. Your own load: `validate`, then `submit`, then `audit`.",
    rich_markup_mode=None,  # rich would double the time that --help takes
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings=CONTEXT,
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"bulksubmit {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def submit(
    context: typer.Context,
    *,
    sources: Sources,
    config: Config,
    job: JobName = None,
    ledger: LedgerPath = DEFAULT_LEDGER,
    output: Output = None,
    source_format: SourceFormat = None,
    until: Until = "",
    strict: Strict = False,
    processes: Processes = None,
    as_json: Json = False,
    quiet: Quiet = False,
    log_level: Level = LogLevel.WARNING,
    log_format: LineFormat = LogFormat.TEXT,
) -> None:
    """Send records and follow each to its end."""
    from engine.cli import commands
    from engine.commands.api import Order

    order = Order(sources, config, job, output, source_format, until, strict, processes)
    voice = Voice(as_json, quiet, log_level, log_format)
    raise typer.Exit(commands.submit(order, ledger, voice, context.obj or commands.ENGINE))


@app.command()
def resume(
    context: typer.Context,
    *,
    job: JobArgument,
    config: NewConfig = None,
    processes: Processes = None,
    ledger: LedgerPath = DEFAULT_LEDGER,
    as_json: Json = False,
    quiet: Quiet = False,
    log_level: Level = LogLevel.WARNING,
    log_format: LineFormat = LogFormat.TEXT,
) -> None:
    """Go on with a job where it stopped.

    What is settled is left alone, what was under way is looked up first, and nothing is sent twice. Of a finished job,
    the service is asked again about what is uncertain, where it can be asked.
    """
    from engine.cli import commands

    voice = Voice(as_json, quiet, log_level, log_format)
    engine = context.obj or commands.ENGINE
    raise typer.Exit(commands.resume(job, ledger, config, voice, engine, processes=processes))


@app.command()
def status(
    context: typer.Context,
    *,
    job: JobIfAny = None,
    tasks: Tasks = False,
    ledger: LedgerPath = DEFAULT_LEDGER,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
    log_format: LineFormat = LogFormat.TEXT,
) -> None:
    """Show where a job stands, or list all jobs."""
    from engine.cli import commands

    voice = Voice(as_json, log_level=log_level, log_format=log_format)
    raise typer.Exit(commands.status(job, ledger, voice, context.obj or commands.ENGINE, tasks=tasks))


@app.command()
def report(
    context: typer.Context,
    *,
    job: JobArgument,
    record: RecordIndex = None,
    ledger: LedgerPath = DEFAULT_LEDGER,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
    log_format: LineFormat = LogFormat.TEXT,
) -> None:
    """Write the reports again, or find one record.

    The reports are outcomes.ndjson and rejects.ndjson in the job's output folder; `--record` tells what became of one
    record and writes nothing.
    """
    from engine.cli import commands

    voice = Voice(as_json, log_level=log_level, log_format=log_format)
    raise typer.Exit(commands.report(job, ledger, record, voice, context.obj or commands.ENGINE))


@app.command()
def audit(
    context: typer.Context,
    *,
    job: JobArgument,
    ledger: LedgerPath = DEFAULT_LEDGER,
    as_json: Json = False,
    log_level: Level = LogLevel.WARNING,
    log_format: LineFormat = LogFormat.TEXT,
) -> None:
    """Prove that each record has one outcome.

    Reads the ledger and every source again, from the first byte to the last; nothing is sent.
    """
    from engine.cli import commands

    voice = Voice(as_json, log_level=log_level, log_format=log_format)
    raise typer.Exit(commands.audit(job, ledger, voice, context.obj or commands.ENGINE))


@app.command()
def retry(
    context: typer.Context,
    *,
    job: JobArgument,
    uncertain: Uncertain = False,
    yes: Yes = False,
    ledger: LedgerPath = DEFAULT_LEDGER,
    as_json: Json = False,
    quiet: Quiet = False,
    log_level: Level = LogLevel.WARNING,
    log_format: LineFormat = LogFormat.TEXT,
) -> None:
    """Send failed and rejected records again.

    They are taken from the rejects.ndjson of a finished or canceled job, where they may be mended first, and become
    a job of their own. Uncertain ones are left alone, for sent again they could become second tasks; --uncertain sends
    those, and nothing else, after it has said which and asked: uncertain batches in their place, then, called once
    more, the uncertain records of other batches as a job of their own. Of a job that is not finished, those are the
    batches that the service has accepted and does not begin with.
    """
    from engine.cli import commands

    voice = Voice(as_json, quiet, log_level, log_format)
    engine = context.obj or commands.ENGINE
    raise typer.Exit(commands.retry(job, ledger, voice, engine, uncertain=uncertain, sure=yes))


@app.command()
def cancel(
    context: typer.Context,
    *,
    job: JobArgument,
    yes: Yes = False,
    ledger: LedgerPath = DEFAULT_LEDGER,
    as_json: Json = False,
    quiet: Quiet = False,
    log_level: Level = LogLevel.WARNING,
    log_format: LineFormat = LogFormat.TEXT,
) -> None:
    """Send nothing more of a job.

    The service is asked to create nothing more of what it has; what is created stays.
    """
    from engine.cli import commands

    voice = Voice(as_json, quiet, log_level, log_format)
    raise typer.Exit(commands.cancel(job, ledger, voice, context.obj or commands.ENGINE, sure=yes))


@app.command()
def validate(
    context: typer.Context,
    *,
    sources: CheckedSources,
    config: Config,
    source_format: SourceFormat = None,
    processes: Processes = None,
    as_json: Json = False,
    quiet: Quiet = False,
    log_level: Level = LogLevel.WARNING,
    log_format: LineFormat = LogFormat.TEXT,
) -> None:
    """Check every record and send nothing.

    Records are read, mapped and checked as `submit` would, so a load can be mended before it begins.
    """
    from engine.cli import commands

    voice = Voice(as_json, quiet, log_level, log_format)
    engine = context.obj or commands.ENGINE
    raise typer.Exit(commands.validate(sources, config, source_format, voice, engine, processes=processes))


@app.command()
def bench(
    context: typer.Context,
    *,
    sources: BenchSources = None,
    config: Config,
    records: MostRecords = DEFAULT_BENCH_RECORDS,
    rate: Rates = None,
    steps: BenchSteps = None,
    seconds: StepSeconds = DEFAULT_BENCH_SECONDS,
    output: BenchFolder = None,
    seed: Seed = None,
    yes: Yes = False,
    as_json: Json = False,
    quiet: Quiet = False,
    log_level: Level = LogLevel.WARNING,
    log_format: LineFormat = LogFormat.TEXT,
) -> None:
    """Measure how fast a service creates tasks.

    Real tasks are created, step by step with a heavier load, until throughput gains no more: the knee. Before anything
    is created on another machine, it asks. outcomes.ndjson lists all that was created.
    """
    from engine.cli import commands
    from engine.commands.api import BenchOrder

    order = BenchOrder(config, sources or [], records, steps, rate or [], seconds, output, seed)
    voice = Voice(as_json, quiet, log_level, log_format)
    raise typer.Exit(commands.bench(order, voice, context.obj or commands.ENGINE, sure=yes))


@app.command()
def sandbox(
    *,
    host: Host = "127.0.0.1",
    port: Port = None,
    service: Served = None,
    behaviour: BehaviourFile = None,
    s3: S3 = False,
    journal: JournalFile = None,
    allow_remote: AllowRemote = False,
    as_json: Json = False,
) -> None:
    """Serve a service's API on this machine.

    For trying things out: it takes tasks as the service would, and can be told to be slow or to fail. Ctrl-C ends it.
    """
    from engine.cli import serving

    raise typer.Exit(
        serving.sandbox(
            behaviour,
            journal,
            service=service.value if service else None,
            host=host,
            port=port,
            s3=s3,
            allow_remote=allow_remote,
            as_json=as_json,
        )
    )


@app.command()
def demo(
    *,
    folder: DemoFolder = DEFAULT_DEMO,
    as_json: Json = False,
    quiet: Quiet = False,
    log_level: Level = LogLevel.WARNING,
    log_format: LineFormat = LogFormat.TEXT,
) -> None:
    """Load 28,000 airports into a sandbox.

    Starts a sandbox of its own, submits the airports of the world to it, audits the job and compares the result with
    the sandbox's journal.
    """
    from engine.cli import serving

    raise typer.Exit(serving.demo(folder, Voice(as_json, quiet, log_level, log_format)))
