"""The options and arguments of the commands, for `app`: name, type and the sentence that `--help` shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from engine.model.record import Format

LEDGER_VARIABLE = "BULKSUBMIT_LEDGER"
DEFAULT_BENCH_RECORDS = 10_000
DEFAULT_BENCH_SECONDS = 10.0
DEFAULT_DEMO = Path(".bulksubmit/demo")
"""The sandbox's; the examples in README use it."""


class ServedService(StrEnum):
    """The services that the sandbox can be."""

    SAMA = "sama"
    SEVENBRIDGES = "sevenbridges"


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


def _argument(metavar: str, help_: str) -> Any:
    return typer.Argument(metavar=metavar, show_default=False, help=help_)


def _option(names: str, help_: str, *, metavar: str | None = None, default: bool = False, **more: Any) -> Any:
    """Return an option with these names, as they are typed; its default is shown on demand."""
    return typer.Option(*names.split(), metavar=metavar, show_default=default, help=help_, **more)


_SOURCES = "Files to read, as paths or quoted globs; `-` reads standard input"

Sources: TypeAlias = Annotated[list[str], _argument("SOURCE...", f"{_SOURCES}, which is kept so it can be resumed.")]
CheckedSources: TypeAlias = Annotated[list[str], _argument("SOURCE...", f"{_SOURCES}.")]
BenchSources: TypeAlias = Annotated[
    list[str] | None,
    _argument("SOURCE...", "Files with tasks to send, each once; where none is named, tasks are made up."),
]
JobArgument: TypeAlias = Annotated[str, _argument("JOB", "Name of the job; `bulksubmit status` lists them.")]
JobIfAny: TypeAlias = Annotated[str | None, _argument("JOB", "Name of the job; every job where it is left out.")]
Config: TypeAlias = Annotated[
    Path,
    _option(
        "--config -c", "TOML file that says which service, whose credentials and how to map records.", metavar="FILE"
    ),
]
NewConfig: TypeAlias = Annotated[
    Path | None,
    _option(
        "--config -c",
        "Use this configuration from now on: addresses, secrets and [send] may differ, and where tasks go while "
        "nothing was created; the rest must not.",
        metavar="FILE",
    ),
]
JobName: TypeAlias = Annotated[
    str | None,
    _option(
        "--job",
        "Name of the new job; the configuration file's name and the time where it is left out.",
        metavar="NAME",
    ),
]
LedgerPath: TypeAlias = Annotated[
    Path,
    _option(
        "--ledger",
        "File that remembers all jobs and what became of every record.",
        metavar="PATH",
        default=True,
        envvar=LEDGER_VARIABLE,
    ),
]
Output: TypeAlias = Annotated[
    Path | None,
    _option(
        "--output -o",
        "Folder for outcomes.ndjson and rejects.ndjson; .bulksubmit/JOB where it is left out.",
        metavar="DIR",
    ),
]
SourceFormat: TypeAlias = Annotated[
    Format | None,
    _option(
        "--format",
        "How the sources are written: ndjson, json or csv; told by their names where it is left out.",
        metavar="FORMAT",
    ),
]
Strict: TypeAlias = Annotated[
    bool, _option("--strict", "Read everything first and send nothing if any record is not fit to be sent.")
]
Processes: TypeAlias = Annotated[
    int | None,
    _option(
        "--processes",
        "Processes that read beside this one. Left out, as many as pay for the size of the input.",
        metavar="N",
        min=0,
        max=64,
    ),
]
Until: TypeAlias = Annotated[
    str,
    _option(
        "--until",
        "When a record counts as done: created, its task exists, or finished, it has ended. The service's own default "
        "if left out.",
        metavar="STATE",
    ),
]
Tasks: TypeAlias = Annotated[
    bool, _option("--tasks", "Ask the service as well how people's work on the created tasks stands.")
]
RecordIndex: TypeAlias = Annotated[
    int | None,
    _option(
        "--record",
        "Tell only what became of this record, counted from 0; no file is written.",
        metavar="N",
        min=0,
    ),
]
Uncertain: TypeAlias = Annotated[bool, _option("--uncertain", "Send those that may exist already again, after asking.")]
Yes: TypeAlias = Annotated[bool, _option("--yes -y", "Do not ask first.")]
Json: TypeAlias = Annotated[bool, _option("--json", "Write one JSON object to standard output and nothing else.")]
Quiet: TypeAlias = Annotated[bool, _option("--quiet -q", "Show no progress; errors are shown all the same.")]
Level: TypeAlias = Annotated[
    LogLevel,
    _option(
        "--log-level",
        "Least important log lines that go to standard error: debug, info, warning or error.",
        metavar="LEVEL",
        default=True,
    ),
]
LineFormat: TypeAlias = Annotated[
    LogFormat,
    _option("--log-format", "Form of the log lines on standard error: text or json.", metavar="FORMAT", default=True),
]
MostRecords: TypeAlias = Annotated[
    int, _option("--records", "Most tasks that a step creates.", metavar="N", default=True, min=1)
]
Rates: TypeAlias = Annotated[
    list[str] | None,
    _option(
        "--rate",
        "Send so many records per second, on a schedule; named several times, or auto: rising up to the knee.",
        metavar="RATE",
    ),
]
BenchSteps: TypeAlias = Annotated[
    str | None,
    _option(
        "--steps",
        "Batches at once of each step, as fast as it goes, as in 1,2,4,auto; doubled up to the knee where left out.",
        metavar="STEPS",
    ),
]
StepSeconds: TypeAlias = Annotated[
    float,
    _option("--seconds", "Time for which tasks are sent in a step.", metavar="SECONDS", default=True, min=0.1),
]
BenchFolder: TypeAlias = Annotated[
    Path | None,
    _option(
        "--output -o",
        "Folder for bench.json, bench.html and outcomes.ndjson; .bulksubmit/bench-TIME where it is left out.",
        metavar="DIR",
    ),
]
Seed: TypeAlias = Annotated[
    int | None, _option("--seed", "Of the tasks that are made up; drawn where left out.", metavar="N", min=0)
]
Host: TypeAlias = Annotated[
    str,
    _option("--host", "Address to serve on; other machines reach only a public one.", metavar="ADDRESS", default=True),
]
Served: TypeAlias = Annotated[
    ServedService | None,
    _option("--service", "Whose API to serve, sama or sevenbridges; the behaviour file's, or sama.", metavar="SERVICE"),
]
Port: TypeAlias = Annotated[
    int | None,
    _option(
        "--port",
        "Port to serve on: 8800 for sama, 8801 for sevenbridges; 0 takes a free one.",
        metavar="N",
        min=0,
        max=65535,
    ),
]
AllowRemote: TypeAlias = Annotated[
    bool, _option("--allow-remote", "Serve on an address that other machines can reach; nobody is checked.")
]
BehaviourFile: TypeAlias = Annotated[
    Path | None,
    _option(
        "--behaviour",
        "TOML file with latencies, limits and faults; everything goes well where it is left out.",
        metavar="FILE",
    ),
]
S3: TypeAlias = Annotated[
    bool, _option("--s3", "Take presigned uploads with a real S3 server, started beside the sandbox.")
]
JournalFile: TypeAlias = Annotated[
    Path | None,
    _option("--journal", "File that gets a line for every task created, and for every run of one.", metavar="PATH"),
]
DemoFolder: TypeAlias = Annotated[
    Path, _option("--folder", "Folder for the demo's ledger, reports and journal.", metavar="DIR", default=True)
]


@dataclass(frozen=True, slots=True)
class Voice:
    """How a command speaks while it works and when it is done; each field is an option."""

    as_json: Json = False
    quiet: Quiet = False
    log_level: Level = LogLevel.WARNING
    log_format: LineFormat = LogFormat.TEXT

    @property
    def detailed(self) -> bool:
        """Somebody wants to read a log."""
        return self.log_format is LogFormat.JSON or self.log_level in {LogLevel.DEBUG, LogLevel.INFO}
