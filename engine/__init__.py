"""bulksubmit: bulk submission of tasks to HTTP APIs, each exactly once, each accounted for.

This is the API for programs; the command line calls the same operations. Each is a coroutine function, and
`engine.sync` has each for a program without an event loop: `engine.sync.submit("tasks.ndjson", config="sama.toml")`.
`docs/python.md` shows how they are used. Nothing here touches signals, logging or standard streams, or ends the
process. A name is loaded when it is first used, so `import engine` costs nothing, and whoever submits loads no auditor.
"""

from importlib import import_module

TYPE_CHECKING = False  # type checkers know the name; to import `typing` would take longer than the rest

if TYPE_CHECKING:
    from engine import sync
    from engine.commands.again import FailedTasks, find_failed_tasks, retry_tasks
    from engine.commands.cancel import cancel
    from engine.commands.check import CheckReport, check
    from engine.commands.copying import LedgerCopy, copy_ledger
    from engine.commands.later import refresh
    from engine.commands.lineage import Attempt, Story
    from engine.commands.nightly import nightly
    from engine.commands.overview import overview, write_page
    from engine.commands.preview import Preview, preview
    from engine.commands.probe import Probed, probe
    from engine.commands.prune import Pruned, prune
    from engine.commands.query import audit, backup, find_record, missing, report, status, tell_story, validate
    from engine.commands.result import JobStatus, Result, UncertainRecords, Validation
    from engine.commands.retry import find_uncertain, retry
    from engine.commands.start import RunHandle, start
    from engine.commands.submit import resume, submit
    from engine.commands.trace import Trace, TracedExchange
    from engine.commands.undo import Undoable, find_undoable, undo
    from engine.commands.work import WorkDone, work
    from engine.model import errors
    from engine.model.job import Job
    from engine.model.outcome import Outcome
    from engine.model.record import Format
    from engine.model.settings import RunLimits, SecretStr
    from engine.progress import events
    from engine.reports.audit import Audit
    from engine.reports.missing import Missing
    from engine.reports.overview import Overview
    from engine.run.context import Stop

__version__ = "0.1.0"

__all__ = [
    "Attempt",
    "Audit",
    "CheckReport",
    "FailedTasks",
    "Format",
    "Job",
    "JobStatus",
    "LedgerCopy",
    "Missing",
    "Outcome",
    "Overview",
    "Preview",
    "Probed",
    "Pruned",
    "Result",
    "RunHandle",
    "RunLimits",
    "SecretStr",
    "Stop",
    "Story",
    "Trace",
    "TracedExchange",
    "UncertainRecords",
    "Undoable",
    "Validation",
    "WorkDone",
    "audit",
    "backup",
    "cancel",
    "check",
    "copy_ledger",
    "errors",
    "events",
    "find_failed_tasks",
    "find_record",
    "find_uncertain",
    "find_undoable",
    "missing",
    "nightly",
    "overview",
    "preview",
    "probe",
    "prune",
    "refresh",
    "report",
    "resume",
    "retry",
    "retry_tasks",
    "start",
    "status",
    "submit",
    "sync",
    "tell_story",
    "undo",
    "validate",
    "work",
    "write_page",
]

_HOMES = {
    "engine.commands.again": ("FailedTasks", "find_failed_tasks", "retry_tasks"),
    "engine.commands.cancel": ("cancel",),
    "engine.commands.check": ("CheckReport", "check"),
    "engine.commands.copying": ("LedgerCopy", "copy_ledger"),
    "engine.commands.later": ("refresh",),
    "engine.commands.lineage": ("Attempt", "Story"),
    "engine.commands.nightly": ("nightly",),
    "engine.commands.overview": ("overview", "write_page"),
    "engine.commands.preview": ("Preview", "preview"),
    "engine.commands.probe": ("Probed", "probe"),
    "engine.commands.prune": ("Pruned", "prune"),
    "engine.commands.query": (
        "audit",
        "backup",
        "find_record",
        "missing",
        "report",
        "status",
        "tell_story",
        "validate",
    ),
    "engine.commands.result": ("JobStatus", "Result", "UncertainRecords", "Validation"),
    "engine.commands.retry": ("find_uncertain", "retry"),
    "engine.commands.start": ("RunHandle", "start"),
    "engine.commands.submit": ("resume", "submit"),
    "engine.commands.trace": ("Trace", "TracedExchange"),
    "engine.commands.undo": ("Undoable", "find_undoable", "undo"),
    "engine.commands.work": ("WorkDone", "work"),
    "engine.model.job": ("Job",),
    "engine.model.outcome": ("Outcome",),
    "engine.model.record": ("Format",),
    "engine.model.settings": ("RunLimits", "SecretStr"),
    "engine.reports.audit": ("Audit",),
    "engine.reports.missing": ("Missing",),
    "engine.reports.overview": ("Overview",),
    "engine.run.context": ("Stop",),
}
"""Module → the names that stand there, as the imports above have them."""
_MODULES = {"errors": "engine.model.errors", "events": "engine.progress.events", "sync": "engine.sync"}
"""Name → the whole module that it stands for."""


if not TYPE_CHECKING:

    def __getattr__(name):  # noqa: ANN001, ANN202 - or a type checker would take any name for one of ours
        if name in _MODULES:
            return import_module(_MODULES[name])
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(home), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
