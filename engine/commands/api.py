"""What a person asks for in, what came of it out: submit, resume, retry, cancel, status, report, audit and so on.

The command line is one caller of these; a program that embeds the engine is another. Each is imported when it is first
asked for: whoever submits loads neither the auditor nor the bench.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.bench.results import Bench, BenchOrder, BenchPlan
    from engine.commands.audit import audit
    from engine.commands.bench import bench, bench_plan
    from engine.commands.cancel import cancel
    from engine.commands.orders import JobStatus, Order, Result, UncertainRecords, Validation
    from engine.commands.query import find_record, report, status, uncertain, validate
    from engine.commands.submit import resume, retry, send_again, submit

__all__ = [
    "Bench",
    "BenchOrder",
    "BenchPlan",
    "JobStatus",
    "Order",
    "Result",
    "UncertainRecords",
    "Validation",
    "audit",
    "bench",
    "bench_plan",
    "cancel",
    "find_record",
    "report",
    "resume",
    "retry",
    "send_again",
    "status",
    "submit",
    "uncertain",
    "validate",
]

_HOMES = {
    "engine.bench.results": ("Bench", "BenchOrder", "BenchPlan"),
    "engine.commands.query": ("find_record", "report", "status", "uncertain", "validate"),
    "engine.commands.audit": ("audit",),
    "engine.commands.bench": ("bench", "bench_plan"),
    "engine.commands.cancel": ("cancel",),
    "engine.commands.orders": ("UncertainRecords", "JobStatus", "Order", "Result", "Validation"),
    "engine.commands.submit": ("resume", "retry", "send_again", "submit"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
