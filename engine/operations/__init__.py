"""What a person asks for in, what came of it out: submit, resume, retry, cancel, status, report, audit, validate.

The command line is one caller of these; a program that embeds the engine is another.
"""

from engine.operations.asking import audit, find_record, report, status, uncertain, validate
from engine.operations.canceling import cancel
from engine.operations.values import Doubt, JobStatus, Order, Result, Validation
from engine.operations.working import resume, retry, send_again, submit

__all__ = [
    "Doubt",
    "JobStatus",
    "Order",
    "Result",
    "Validation",
    "audit",
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
