"""Every option and argument of the commands, declared once: its name, its type and the sentence that `--help` shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from engine.model.record import Format

DEFAULT_LEDGER = Path(".bulksubmit/ledger.db")
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


@dataclass(frozen=True, slots=True)
class Voice:
    """How a command speaks while it works and when it is done."""

    as_json: bool = False
    quiet: bool = False
    log_level: LogLevel = LogLevel.WARNING
    log_format: LogFormat = LogFormat.TEXT

    @property
    def detailed(self) -> bool:
        """Somebody wants to read a log."""
        return self.log_format is LogFormat.JSON or self.log_level in {LogLevel.DEBUG, LogLevel.INFO}


Sources: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="Files to read, as paths or quoted globs; `-` reads standard input, which is kept so it can be resumed.",
    ),
]
CheckedSources: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="Files to read, as paths or quoted globs; `-` reads standard input.",
    ),
]
BenchSources: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SOURCE]...",
        show_default=False,
        help="Files with tasks to send, each once; where none is named, tasks are made up.",
    ),
]
JobArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="JOB", show_default=False, help="Name of the job; `bulksubmit status` lists them.")
]
JobIfAny: TypeAlias = Annotated[
    str | None,
    typer.Argument(metavar="JOB", show_default=False, help="Name of the job; every job where it is left out."),
]
Config: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        show_default=False,
        help="TOML file that says which service, whose credentials and how to map records.",
    ),
]
NewConfig: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        show_default=False,
        help="Use this configuration from now on: addresses, secrets and [send] may differ, and where tasks go while "
        "nothing was created; the rest must not.",
    ),
]
JobName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--job",
        metavar="NAME",
        show_default=False,
        help="Name of the new job; the configuration file's name and the time where it is left out.",
    ),
]
LedgerPath: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--ledger",
        metavar="PATH",
        envvar=LEDGER_VARIABLE,
        help="File that remembers all jobs and what became of every record.",
    ),
]
Output: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        show_default=False,
        help="Folder for outcomes.ndjson and rejects.ndjson; .bulksubmit/JOB where it is left out.",
    ),
]
SourceFormat: TypeAlias = Annotated[
    Format | None,
    typer.Option(
        "--format", show_default=False, help="How the sources are written; told by their names where it is left out."
    ),
]
Strict: TypeAlias = Annotated[
    bool, typer.Option("--strict", help="Read everything first and send nothing if any record is not fit to be sent.")
]
Processes: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--processes",
        metavar="N",
        min=0,
        max=64,
        show_default=False,
        help="Processes that read beside this one. Left out, as many as pay for the size of the input.",
    ),
]
Until: TypeAlias = Annotated[
    str,
    typer.Option(
        "--until",
        metavar="created|finished",
        help="When a record counts as done: its task exists, or it has ended. The service's own default if left out.",
    ),
]
Tasks: TypeAlias = Annotated[
    bool, typer.Option("--tasks", help="Ask the service as well how people's work on the created tasks stands.")
]
RecordIndex: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--record",
        metavar="N",
        min=0,
        show_default=False,
        help="Tell only what became of this record, counted from 0; no file is written.",
    ),
]
Uncertain: TypeAlias = Annotated[
    bool, typer.Option("--uncertain", help="Send those that may exist already again, after asking.")
]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Write one JSON object to standard output and nothing else.")
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress; errors are shown all the same.")
]
Level: TypeAlias = Annotated[
    LogLevel, typer.Option("--log-level", help="Least important log lines that go to standard error.")
]
LineFormat: TypeAlias = Annotated[
    LogFormat, typer.Option("--log-format", help="Form of the log lines on standard error.")
]
MostRecords: TypeAlias = Annotated[
    int, typer.Option("--records", metavar="N", min=1, help="Most tasks that a step creates.")
]
Rates: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--rate",
        metavar="R|auto",
        show_default=False,
        help="Send so many records per second, on a schedule; named several times, or auto: rising up to the knee.",
    ),
]
BenchSteps: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--steps",
        metavar="1,2,4,auto",
        show_default=False,
        help="Batches at once of each step, as fast as it goes; doubled up to the knee where left out.",
    ),
]
StepSeconds: TypeAlias = Annotated[
    float, typer.Option("--seconds", metavar="S", min=0.1, help="Time for which tasks are sent in a step.")
]
BenchFolder: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        show_default=False,
        help="Folder for bench.json, bench.html and outcomes.ndjson; .bulksubmit/bench-TIME where it is left out.",
    ),
]
Seed: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", min=0, show_default=False, help="Of the tasks that are made up; drawn where left out."
    ),
]
Host: TypeAlias = Annotated[
    str, typer.Option("--host", metavar="ADDRESS", help="Address to serve on; other machines reach only a public one.")
]
Served: TypeAlias = Annotated[
    ServedService | None,
    typer.Option("--service", show_default=False, help="Whose API to serve; the behaviour file's, or sama."),
]
Port: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--port",
        metavar="N",
        min=0,
        max=65535,
        show_default=False,
        help="Port to serve on: 8800 for sama, 8801 for sevenbridges; 0 takes a free one.",
    ),
]
AllowRemote: TypeAlias = Annotated[
    bool, typer.Option("--allow-remote", help="Serve on an address that other machines can reach; nobody is checked.")
]
BehaviourFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--behaviour",
        metavar="FILE",
        show_default=False,
        help="TOML file with latencies, limits and faults; everything goes well where it is left out.",
    ),
]
S3: TypeAlias = Annotated[
    bool, typer.Option("--s3", help="Take presigned uploads with a real S3 server, started beside the sandbox.")
]
JournalFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--journal",
        metavar="PATH",
        show_default=False,
        help="File that gets a line for every task created, and for every run of one.",
    ),
]
DemoFolder: TypeAlias = Annotated[
    Path, typer.Option("--folder", metavar="DIR", help="Folder for the demo's ledger, reports and journal.")
]
