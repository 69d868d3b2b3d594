"""What a command costs before it does anything, and what a short job costs in all."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from benchmarks.harness import Contender, NotMeasured, Row, Section, Session, Target, alternate
from benchmarks.nginx import nginx
from benchmarks.ours import sama_config, submitting
from benchmarks.workload import write_ndjson

METHOD = """The CPU time of the whole process and of those that it starts, their own and the kernel's for them. The \
job is one batch of 1,000 typical records, sent inline to nginx and followed to its end, with ledger, proof of the \
order and reports. Beside it: Python that does nothing, and Python that imports aiohttp and no more."""

COMMANDS = ("--version", "--help")
JOB, RECORDS = "bulksubmit submit, 1,000 records", 1000
AIOHTTP, NOTHING = "python -c 'import aiohttp'", "python -c pass"
START = Target(0.15, at_least=False)
SUBMIT = Target(0.3, at_least=False, wish=0.25)


def measure(session: Session) -> Section:
    """Measure each command many times; the job only where there is an nginx."""
    targets = {f"bulksubmit {option}": START for option in COMMANDS}
    ours = [Contender(name, [sys.executable, "-m", "engine", name.split()[1]], 1, "starts") for name in targets]
    theirs = [
        Contender(AIOHTTP, [sys.executable, "-c", "import aiohttp"], 1, "starts"),
        Contender(NOTHING, [sys.executable, "-c", "pass"], 1, "starts"),
    ]
    missing = []
    with ExitStack() as running:
        try:
            url = running.enter_context(nginx(session.folder))
        except NotMeasured as obstacle:
            missing.append(f"{JOB}: {obstacle}")
        else:
            ours.append(_job(session, url))
            targets[JOB] = SUBMIT
        contenders = [*ours, *theirs]
        runs = alternate(contenders, session.rounds(20, 50), session.folder)
    rows = [Row(name, "", [run.cpu_seconds for run in runs[name]], target, "s CPU") for name, target in targets.items()]
    return Section("start", "Start", METHOD, rows, contenders, runs, not_measured=missing)


def _job(session: Session, url: str) -> Contender:
    source = session.made("job.ndjson", lambda path: write_ndjson(path, "typical", RECORDS))
    return submitting(source, sama_config(session.folder / "job.toml", url), 1, JOB, unit="starts")
