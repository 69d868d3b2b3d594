"""What a person asks for in, what came of it out: submit, resume, retry, cancel, status, report, audit and so on.

The command line is one caller of these; a program that embeds the engine is another.
"""

from engine.benching.values import Bench, BenchOrder, BenchPlan
from engine.operations.asking import audit, find_record, report, status, uncertain, validate
from engine.operations.benching import bench, bench_plan
from engine.operations.canceling import cancel
from engine.operations.values import Doubt, JobStatus, Order, Result, Validation
from engine.operations.working import resume, retry, send_again, submit

__all__ = [
    "Bench",
    "BenchOrder",
    "BenchPlan",
    "Doubt",
    "JobStatus",
    "Order",
    "Result",
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
