"""What a command costs before it does anything."""

from __future__ import annotations

import sys

from benchmarks.harness import Contender, Row, Section, Session, Target, alternate

METHOD = """The CPU time of the whole process, its own and the kernel's for it. Python that does nothing is measured \
beside it: less is not to be had."""

COMMANDS = ("--version", "--help")
NOTHING = "python -c pass"
LIMIT = Target(0.15, at_least=False)


def measure(session: Session) -> Section:
    """Measure each command many times."""
    contenders = [
        Contender(f"bulksubmit {option}", [sys.executable, "-m", "engine", option], 1, "starts") for option in COMMANDS
    ]
    contenders.append(Contender(NOTHING, [sys.executable, "-c", "pass"], 1, "starts"))
    runs = alternate(contenders, session.rounds(20, 30), session.folder)
    rows = [
        Row(f"bulksubmit {option}", "", [run.cpu_seconds for run in runs[f"bulksubmit {option}"]], LIMIT, "s CPU")
        for option in COMMANDS
    ]
    return Section("start", "Start", METHOD, rows, contenders, runs)
