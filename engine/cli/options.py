"""The options and arguments of the commands, for `app`: name, type and the sentence that `--help` shows.

The module is a long one, since it has a sentence for each option of all the commands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand

from engine.files import DEFAULT_LEDGER, LEDGER_VARIABLE

if TYPE_CHECKING:
    from engine.commands.init import AskedQuestion
    from engine.ledger.address import LedgerAddress

AGE = re.compile(r"([1-9]\d{0,5})([hdw])")
"""Hours, days or weeks."""
DEFAULT_BENCH_RECORDS = 10_000
DEFAULT_BENCH_SECONDS = 10.0
DEFAULT_PREVIEW = 5
DEFAULT_DEMO = Path(".bulksubmit/demo")
"""The sandbox's; the examples in README use it."""


class ServedService(StrEnum):
    """The services that the sandbox can be."""

    SAMA = "sama"
    SEVENBRIDGES = "sevenbridges"
    BULK = "bulk"
    ELASTICSEARCH = "elasticsearch"
    OPENAI_BATCH = "openai-batch"
    ANTHROPIC_BATCHES = "anthropic-batches"
    SALESFORCE_BULK2 = "salesforce-bulk2"
    HUBSPOT = "hubspot"


class LogLevel(StrEnum):
    """From when on a log line is worth writing."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a log line looks."""

    TEXT = "text"
    JSON = "json"


class Shell(StrEnum):
    """The shells for which there is a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


class LedgerVerb(StrEnum):
    """What `ledger` does."""

    COPY = "copy"


class ListedState(StrEnum):
    """Which jobs `status` lists."""

    RUNNING = "running"
    OPEN = "open"
    FINISHED = "finished"
    CANCELED = "canceled"


def _argument(metavar: str, help_: str) -> Any:
    return typer.Argument(metavar=metavar, show_default=False, help=help_)


def _option(words: str, help_: str, *, default: bool = False, **more: Any) -> Any:
    """Return the option that `--help` is to show as these words: its names and, in capitals, what is to be put in."""
    names = [word.rstrip(",") for word in words.split()]
    metavar = names.pop() if names[-1].isupper() else None
    return typer.Option(*names, metavar=metavar, show_default=default, help=help_, **more)


def _format(name: str | None) -> str | None:
    """Check the name of a format; those of installed packages are known beside ours."""
    from engine.model.record import known_formats  # noqa: PLC0415 - msgspec: 5 ms, only where a format is named

    if name is not None and name not in (known := known_formats()):
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, known))}.")
    return name


def _ledger(context: typer.Context, value: str) -> Any:
    """Return the address of the ledger that was named, here or by the environment, or of the one to be found."""
    from engine.commands.paths import ledger_path  # noqa: PLC0415 - only where a command is called

    source = context.get_parameter_source("ledger")
    if source is not None and source.name != "DEFAULT":
        return ledger_path(value)
    config = context.params.get("config")  # options that were given are read before those that were not
    return ledger_path(DEFAULT_LEDGER, _configured_ledger(config) if config is not None else None)


def _configured_ledger(config: Path) -> LedgerAddress | None:
    from engine.commands import wiring  # noqa: PLC0415 - only where a configuration is read anyway
    from engine.model.errors import ConfigError  # noqa: PLC0415 - slow

    if not config.is_file():  # a pipe can be read once only
        return None
    try:
        return wiring.configured_ledger(config, wiring.read_config(config))
    except ConfigError:  # whoever uses it says why
        return None


def _since(text: str | None) -> str | None:
    """Check that it is a date, a time or a duration."""
    if text is not None:
        from engine.cli.output.status import moment_of  # noqa: PLC0415 - only where one is named

        try:
            moment_of(text, 0.0)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
    return text


def _age(text: str | None) -> str | None:
    """Check how an age is written."""
    if text is not None and not AGE.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no age; write it as 90d, 12w or 36h.")
    return text


def age_seconds(text: str | None) -> float | None:
    """Return the seconds of an age that was checked."""
    found = AGE.fullmatch(text or "")
    return int(found[1]) * {"h": 3600.0, "d": 86_400.0, "w": 604_800.0}[found[2]] if found else None


_SOURCES = "Files to read, as paths, quoted globs, https:// or s3:// URLs, packed or not; `-` reads standard input"

SourcePaths: TypeAlias = Annotated[
    list[str], _argument("SOURCE...", f"{_SOURCES}, which is kept so it can be resumed.")
]
NightSources: TypeAlias = Annotated[
    list[str], _argument("SOURCE...", "Files to read, as paths, quoted globs, https:// or s3:// URLs.")
]
LoadSources: TypeAlias = Annotated[
    list[str] | None,
    _argument("SOURCE...", "Files that the load would read, as paths or quoted globs; without them no record is read."),
]
CheckedSources: TypeAlias = Annotated[list[str], _argument("SOURCE...", f"{_SOURCES}.")]
BenchSources: TypeAlias = Annotated[
    list[str] | None,
    _argument("SOURCE...", "Files with tasks to send, each once; where none is named, tasks are made up."),
]
JobArgument: TypeAlias = Annotated[str, _argument("JOB", "Name of the job; `bulksubmit status` lists them.")]
JobIfAny: TypeAlias = Annotated[str | None, _argument("JOB", "Name of the job; every job where it is left out.")]
ConfigFile: TypeAlias = Annotated[
    Path, _option("-c, --config FILE", "TOML file that says which service, whose credentials and how to map records.")
]
NewConfig: TypeAlias = Annotated[
    Path | None,
    _option(
        "-c, --config FILE",
        "Use this configuration from now on: addresses, secrets and [send] may differ, and where tasks go while "
        "nothing was created; the rest must not.",
    ),
]
RetryConfig: TypeAlias = Annotated[
    Path | None,
    _option("-c, --config FILE", "Use this configuration for what is sent again; the job's own where it is left out."),
]
MendedFile: TypeAlias = Annotated[
    Path | None,
    _option(
        "--from FILE",
        "Send the records that this file has, as they stand there: lines as in rejects.ndjson, or a table as "
        "rejects.csv. The others are left alone.",
    ),
]
JobName: TypeAlias = Annotated[
    str | None,
    _option("--job NAME", "Name of the new job; the configuration file's name and the time where it is left out."),
]
if TYPE_CHECKING:
    _Ledger: TypeAlias = LedgerAddress
else:
    _Ledger = str  # as typer reads it; the callback makes the address of it
LedgerPath: TypeAlias = Annotated[
    _Ledger,
    _option(
        "--ledger PATH",
        "File that remembers all jobs and what became of every record, or the URL of a database of PostgreSQL that "
        "does, without a password: postgresql://user@host/database. Left out: what the configuration names, "
        ".bulksubmit/ledger.db if it is there, else bulksubmit/ledger.db in the user's folder for data.",
        envvar=LEDGER_VARIABLE,
        callback=_ledger,
    ),
]
BackupFile: TypeAlias = Annotated[Path, _argument("FILE", "File that gets the copy; it must not exist.")]
Output: TypeAlias = Annotated[
    Path | None,
    _option(
        "-o, --output DIR",
        "Folder for outcomes.ndjson and rejects.ndjson; JOB, beside the ledger, where it is left out.",
    ),
]
SourceFormat: TypeAlias = Annotated[
    str | None,
    _option(
        "--format FORMAT",
        "How the sources are written: ndjson, json, csv, parquet or a format that an installed package brings; told "
        "by their names where it is left out.",
        callback=_format,
    ),
]
Strict: TypeAlias = Annotated[
    bool,
    _option(
        "--strict",
        "Read everything first; send nothing if a record is not fit to be sent or a mapped column is missing.",
    ),
]
Delta: TypeAlias = Annotated[
    bool, _option("--delta", "Send only what no earlier job of the family has created; [delta] says how it is known.")
]
Family: TypeAlias = Annotated[
    str | None,
    _option(
        "--family NAME",
        "The load that comes back, which this job is one of; with --delta the configuration file's name where it is "
        "left out.",
    ),
]
AcceptNew: TypeAlias = Annotated[
    bool, _option("--accept-new", "Go on although more records are new to the family than [delta] allows.")
]
SubmitAgain: TypeAlias = Annotated[
    bool,
    _option("--again", "Send the records even if a job has taken them already: every task is created a second time."),
]
Processes: TypeAlias = Annotated[
    int | None,
    _option(
        "--processes N",
        "Processes that read beside this one. Left out, as many as pay for the size of the input.",
        min=0,
        max=64,
    ),
]
Stay: TypeAlias = Annotated[
    bool, _option("--stay", "Wait for further jobs, or for one of that name, until it is stopped.")
]
Parked: TypeAlias = Annotated[
    bool, _option("--parked", "Send the shards, too, that were parked since several workers were lost with them.")
]
Dask: TypeAlias = Annotated[
    str,
    _option(
        "--dask CLUSTER",
        "Read the sources on a Dask cluster: tcp://HOST:PORT of its scheduler, or local:N for one of N processes here. "
        "With a ledger in PostgreSQL, its workers send, too.",
    ),
]
MetricsTextfile: TypeAlias = Annotated[
    Path | None,
    _option(
        "--metrics-textfile FILE",
        "Write metrics for Prometheus' node_exporter there, whole each time: at the start, each minute and at the end.",
    ),
]
Until: TypeAlias = Annotated[
    str,
    _option(
        "--until STATE",
        "When a record counts as done: created, its task exists, or finished, it has ended. The service's own default "
        "if left out.",
    ),
]
Deadline: TypeAlias = Annotated[
    str,
    _option("--deadline WHEN", "Be done by then, a time as 05:30 or a duration as 2h30m; the rest is for later (5)."),
]
OpenWindow: TypeAlias = Annotated[
    str,
    _option(
        "--window FROM-TO",
        "Work only between these times of the day, as in 22:00-06:00, and be done when it closes (5).",
    ),
]
Zone: TypeAlias = Annotated[
    str,
    _option("--zone ZONE", "Whose clocks are meant, as in Europe/Berlin; those of this machine where it is left out."),
]
RecordLimit: TypeAlias = Annotated[
    int | None, _option("--max-records N", "Send no more records than that in this run (5).", min=1)
]
FailureLimit: TypeAlias = Annotated[
    str,
    _option(
        "--max-failed LIMIT",
        "Send nothing more once more of the job's records fail or are rejected (7): a number, or, from 1,000 records "
        "on, a share as 1%.",
    ),
]
FailIfEmpty: TypeAlias = Annotated[
    bool, _option("--fail-if-empty", "Exit with 8 if this command sent no record: there was none, or none that is new.")
]
UntilTheEnd: TypeAlias = Annotated[
    str,
    _option(
        "--until STATE",
        "Follow tasks further: finished, to their end, of a job that was submitted until they were created.",
    ),
]
Tasks: TypeAlias = Annotated[
    bool,
    _option("--tasks", "Ask the service as well how the created tasks stand: the work on them, or their runs."),
]
Failed: TypeAlias = Annotated[
    bool, _option("--failed", "With --tasks: name the tasks that have failed or were rejected, and why.")
]
WantedState: TypeAlias = Annotated[
    ListedState | None, _option("--state STATE", "List only jobs that are running, open, finished or canceled.")
]
Since: TypeAlias = Annotated[
    str | None,
    _option(
        "--since WHEN",
        "List only jobs of which something was heard since then: a date or a time, as 2026-11-01 or 2026-11-01T22:00, "
        "or so long ago, as 7d or 12h.",
        callback=_since,
    ),
]
MostJobs: TypeAlias = Annotated[
    int | None, _option("--limit N", "List no more jobs than that, the newest ones.", min=1)
]
RecordIndex: TypeAlias = Annotated[
    int | None,
    _option("--record N", "Tell only what became of this record, counted from 0; no file is written.", min=0),
]
RecordKey: TypeAlias = Annotated[
    str | None,
    _option(
        "--key VALUE",
        "Tell only what became of the record with this key: the value of the column that [delta] names as key, or "
        "COLUMN=VALUE.",
    ),
]
PreviewedRecords: TypeAlias = Annotated[
    int, _option("-n, --records N", "Show so many of the first records.", default=True, min=1, max=100)
]
RecordToPreview: TypeAlias = Annotated[
    int | None, _option("--record N", "Show only this record, counted from 0 over all sources.", min=0)
]
MissingKeys: TypeAlias = Annotated[
    bool,
    _option("--missing", "List what the job's family has created and its source no longer has, in missing.ndjson."),
]
HtmlFile: TypeAlias = Annotated[
    bool, _option("--html", "Write one HTML page of all that is known of the job: report.html there, or FILE.")
]
PageFile: TypeAlias = Annotated[Path | None, _argument("[FILE]", "With --html: the page to write.")]
AuditFirst: TypeAlias = Annotated[
    bool,
    _option("--audit", "With --html: audit the job first, which reads every source again."),
]
Uncertain: TypeAlias = Annotated[bool, _option("--uncertain", "Send those that may exist already again, after asking.")]
TaskFailed: TypeAlias = Annotated[
    bool,
    _option(
        "--task-failed", "Submit those again whose tasks were created and have failed at the service, after asking."
    ),
]
Probe: TypeAlias = Annotated[
    bool,
    _option(
        "--probe",
        "If all is well, create two tasks of the first two good records, after asking; say which guesses about the "
        "service hold, and offer to delete them.",
    ),
]
ShowTrace: TypeAlias = Annotated[
    bool,
    _option(
        "--trace",
        "Show each request, its answer, and what was taken from that by name; without --probe, also the requests that "
        "a load would make. Secrets are stars.",
    ),
]
KeepProbe: TypeAlias = Annotated[bool, _option("--keep", "With --probe: do not ask to delete the two tasks.")]
Yes: TypeAlias = Annotated[bool, _option("-y, --yes", "Do not ask first.")]
OlderThan: TypeAlias = Annotated[
    str | None,
    _option("--older-than AGE", "Only loads whose last step is so long ago, as in 90d, 12w or 36h.", callback=_age),
]
KeepLast: TypeAlias = Annotated[
    int | None,
    _option("--keep-last N", "Keep the N newest loads of each family, and of those without a family.", min=1),
]
DryRun: TypeAlias = Annotated[bool, _option("--dry-run", "Remove nothing; show what would be, and why.")]
Json: TypeAlias = Annotated[bool, _option("--json", "Write one JSON object to standard output and nothing else.")]
Quiet: TypeAlias = Annotated[
    bool, _option("-q, --quiet", "Show no progress; warnings are one line at the end, errors are shown as ever.")
]
Level: TypeAlias = Annotated[
    LogLevel,
    _option(
        "--log-level LEVEL",
        "Least important log lines that go to standard error: debug, info, warning or error.",
        default=True,
    ),
]
LineFormat: TypeAlias = Annotated[
    LogFormat, _option("--log-format FORMAT", "Form of the log lines on standard error: text or json.", default=True)
]
MostRecords: TypeAlias = Annotated[int, _option("--records N", "Most tasks that a step creates.", default=True, min=1)]
Rates: TypeAlias = Annotated[
    list[str] | None,
    _option(
        "--rate RATE",
        "Send so many records per second, on a schedule; named several times, or auto: rising up to the knee.",
    ),
]
BenchSteps: TypeAlias = Annotated[
    str | None,
    _option(
        "--steps STEPS",
        "Batches at once of each step, as fast as it goes, as in 1,2,4,auto; doubled up to the knee where left out.",
    ),
]
StepSeconds: TypeAlias = Annotated[
    float, _option("--seconds SECONDS", "Time for which tasks are sent in a step.", default=True, min=0.1)
]
BenchFolder: TypeAlias = Annotated[
    Path | None,
    _option(
        "-o, --output DIR",
        "Folder for bench.json, bench.html and outcomes.ndjson; .bulksubmit/bench-TIME where it is left out.",
    ),
]
Seed: TypeAlias = Annotated[
    int | None, _option("--seed N", "Of the tasks that are made up; drawn where left out.", min=0)
]
Host: TypeAlias = Annotated[
    str, _option("--host ADDRESS", "Address to serve on; other machines reach only a public one.", default=True)
]
Served: TypeAlias = Annotated[
    ServedService | None,
    _option(
        "--service SERVICE",
        "Whose API to serve: sama, sevenbridges, elasticsearch, openai-batch, anthropic-batches, salesforce-bulk2,"
        " hubspot, or bulk: six made-up ones, one for each way in which a repeated call can be made safe. The behaviour"
        " file's, or sama.",
    ),
]
Port: TypeAlias = Annotated[
    int | None,
    _option(
        "--port N",
        "Port to serve on: 8800 for sama, 8801 for sevenbridges, 8802 for bulk; 0 takes a free one.",
        min=0,
        max=65535,
    ),
]
AllowRemote: TypeAlias = Annotated[
    bool, _option("--allow-remote", "Serve on an address that other machines can reach; nobody is checked.")
]
DashboardHost: TypeAlias = Annotated[
    str,
    _option(
        "--host ADDRESS",
        "Address to serve on. Others than 127.0.0.1 are reached by plain HTTP from other machines.",
        default=True,
    ),
]
DashboardPort: TypeAlias = Annotated[
    int | None,
    _option("--port N", "Port to serve on; 8801, or the next free one, where it is left out.", min=0, max=65535),
]
AllowedHosts: TypeAlias = Annotated[
    list[str] | None,
    _option(
        "--allowed-host NAME", "Name by which a proxy that speaks TLS lets it be reached; may be named several times."
    ),
]
AllowActions: TypeAlias = Annotated[
    bool, _option("--allow-actions", "Let whoever is signed in resume, cancel and retry jobs; each asks first.")
]
OpenBrowser: TypeAlias = Annotated[bool, _option("--open", "Open the page in the browser of this machine.")]
BehaviourFile: TypeAlias = Annotated[
    Path | None,
    _option(
        "--behaviour FILE", "TOML file with latencies, limits and faults; everything goes well where it is left out."
    ),
]
S3: TypeAlias = Annotated[
    bool, _option("--s3", "Take presigned uploads with a real S3 server, started beside the sandbox.")
]
JournalFile: TypeAlias = Annotated[
    Path | None, _option("--journal PATH", "File that gets a line for every task created, and for every run of one.")
]
Delay: TypeAlias = Annotated[
    float | None,
    _option(
        "--delay SECONDS",
        "Begin with what was accepted so much later; until then it can be canceled. Left out: what the behaviour file "
        "says, or 1 without one.",
        min=0,
    ),
]
Kind: TypeAlias = Annotated[
    str,
    _argument(
        "KIND",
        "Service to configure: sama, sevenbridges, one whose description is shipped (elasticsearch and others), one "
        "that an installed package brings, or http for an API that you describe yourself.",
    ),
]
FromFile: TypeAlias = Annotated[
    str | None,
    _option("--from SOURCE", "File, URL or S3 object whose records shall become tasks; its beginning is looked at."),
]
NewFile: TypeAlias = Annotated[
    Path | None, _option("-o, --output FILE", "File to write; KIND.toml in this folder where it is left out.")
]
Overwrite: TypeAlias = Annotated[bool, _option("--overwrite", "Write over a file that is there.")]
TakeProposals: TypeAlias = Annotated[bool, _option("-y, --yes", "Take what is proposed; ask only for what is not.")]
ExampleName: TypeAlias = Annotated[
    str | None, _argument("NAME", "Configuration to print; the names of all are listed where it is left out.")
]
LedgerWork: TypeAlias = Annotated[LedgerVerb, _argument("ACTION", "What to do with it: copy.")]
CopiedLedger: TypeAlias = Annotated[str, _argument("FROM", "Ledger to copy: a file, or the URL of a database.")]
NewLedger: TypeAlias = Annotated[str, _argument("TO", "Ledger that gets all of it: likewise; empty, or not there.")]
ShellName: TypeAlias = Annotated[Shell, _argument("SHELL", "Whose script to print: bash, zsh or fish.")]
DemoFolder: TypeAlias = Annotated[
    Path, _option("--folder DIR", "Folder for the demo's ledger, reports and journal.", default=True)
]


def answer_option(asked: AskedQuestion) -> Any:
    """Return the option that answers a question of `init`."""
    help_ = f"{asked.question.text}."
    if asked.yes_no:
        return Annotated[bool | None, _option(f"{asked.option}/--no-{asked.option[2:]}", help_)]
    return Annotated[str | None, _option(f"{asked.option} {'VARIABLE' if asked.secret else 'VALUE'}", help_)]


# No Structs, for `--help` needs these and not msgspec; what dataclasses do besides would take 1 ms each to make.
@dataclass(eq=False, repr=False)
class LoadOptions:
    """What goes up, as `submit` and `nightly` take it; each field is an option."""

    config: ConfigFile
    source_format: SourceFormat = None
    until: Until = ""
    processes: Processes = None
    family: Family = None
    accept_new: AcceptNew = False
    metrics_textfile: MetricsTextfile = None


@dataclass(eq=False, repr=False)
class LimitOptions:
    """When a run ends before its job; each field is an option."""

    deadline: Deadline = ""
    window: OpenWindow = ""
    zone: Zone = ""
    max_records: RecordLimit = None
    max_failed: FailureLimit = ""
    fail_if_empty: FailIfEmpty = False


@dataclass(eq=False, repr=False)
class OutputOptions:
    """How a command speaks while it works and when it is done; each field is an option."""

    as_json: Json = False
    quiet: Quiet = False
    log_level: Level = LogLevel.WARNING
    log_format: LineFormat = LogFormat.TEXT

    @property
    def detailed(self) -> bool:
        """Somebody wants to read a log."""
        return self.log_format is LogFormat.JSON or self.log_level in {LogLevel.DEBUG, LogLevel.INFO}


def _taken(parameter: Any, context: Any, value: Any) -> Any:
    """Return what a parameter was given, as its type wants it; what is a text or a default needs no reading.

    Typer would load pydantic for it, and have it build a reader of each parameter: a fifth of what a short load costs.
    What is to be read or to be complained about is still typer's.
    """
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)  # None: typer before 0.29
    if parameter.required and not value:
        kind = None
    if kind is not None and value is None:
        value = () if parameter.nargs == -1 or parameter.multiple else None
    elif kind == list[str]:
        value = list(value)
    elif kind in {str, Path} and isinstance(value, str):
        value = kind(value)
    elif not (isinstance(kind, type) and isinstance(value, kind)):
        return type(parameter).process_value(parameter, context, value)
    return parameter.callback(context, parameter, value) if parameter.callback else value


class Command(TyperCommand):
    """A command whose arguments are called by their metavars alone; typer would say `{SOURCE}...` and `<list[str]>`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, `--help` among them; each takes its value by `_taken`."""
        parameters: list[Any] = super().get_params(ctx)
        for parameter in parameters:
            parameter.process_value = partial(_taken, parameter)
        return parameters

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """Return what follows the name of the command in its usage line."""
        arguments: list[Any] = [one for one in self.params if one.param_type_name == "argument"]
        return ["[OPTIONS]", *(one.metavar if one.required else f"[{one.metavar}]" for one in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options with their sentences."""
        parameters: list[Any] = self.get_params(ctx)
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            records = [
                (one.metavar if kind == "argument" else names, help_)
                for one in parameters
                if one.param_type_name == kind
                for names, help_ in [one.get_help_record(ctx)]
            ]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
