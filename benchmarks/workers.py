"""Many workers on one ledger: what PostgreSQL costs beside SQLite."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import Contender, Row, Run, Runs, Section, Session, Target, run_once
from benchmarks.nginx import nginx
from benchmarks.ours import sama_config, submitting
from benchmarks.postgres import Database, postgres
from benchmarks.workload import BLOCK_RECORDS, MEGABYTE, count_for, write_ndjson

SQLITE = "ledger in SQLite"
POSTGRES = "ledger in PostgreSQL"
DATABASE = "PostgreSQL's own processes"

METHOD = """Typical records are sent to nginx in batches of 1,000 by one process, whose ledger is a file of SQLite in \
one turn and a database of PostgreSQL on this machine in the next. What counts is CPU: of the engine's processes, and \
apart from it what the processes of the database took meanwhile. In both a commit is on disk before it is answered."""


def measure(session: Session) -> Section:
    """Measure both ledgers in turn."""
    count = count_for("typical", session.size(200, 60) * MEGABYTE)
    source = session.made(f"typical-{count}.ndjson", lambda path: write_ndjson(path, "typical", count))
    runs: Runs = {SQLITE: [], POSTGRES: [], DATABASE: []}
    with nginx(session.folder) as url, postgres() as server:
        config = sama_config(session.folder / "workers.toml", url)
        sqlite = submitting(source, config, count, SQLITE)
        for _ in session.rounds(7, 150).counted():
            runs[SQLITE].append(run_once(sqlite, session.folder))
            ours, theirs = _on(server, source, config, count, session.folder)
            runs[POSTGRES].append(ours)
            runs[DATABASE].append(theirs)
    file = [run.cpu_seconds for run in runs[SQLITE]]
    ratios = {name: [run.cpu_seconds / one for run, one in zip(runs[name], file, strict=True)] for name in runs}
    rows = [
        Row("CPU a record, the engine's processes", SQLITE, ratios[POSTGRES], Target(1.5, at_least=False)),
        Row("CPU a record, the database's processes", f"the engine with its {SQLITE}", ratios[DATABASE]),
    ]
    settings = {"records": count, "records a batch": BLOCK_RECORDS}
    contenders = [sqlite, Contender(POSTGRES, (), count), Contender(DATABASE, (), count)]
    return Section("workers", "One ledger for many workers", METHOD, rows, contenders, runs, settings)


def _on(server: Database, source: Path, config: Path, count: int, folder: Path) -> tuple[Run, Run]:
    """Return what the engine took with a database, and what the database took."""
    with server.database() as url:
        before = server.cpu_seconds()
        contender = submitting(source, config, count, POSTGRES, ledger=url, environment=server.environment)
        ours = run_once(contender, folder)
        return ours, Run(ours.seconds, server.cpu_seconds() - before, 0, count)
