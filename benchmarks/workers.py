"""Many workers on one ledger: what PostgreSQL costs beside SQLite, what more workers bring, how they keep a limit."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import fleet
from benchmarks.fleet import Look
from benchmarks.harness import Contender, Row, Run, Runs, Section, Session, Target, run_once
from benchmarks.nginx import nginx
from benchmarks.ours import sama_config, submitting
from benchmarks.postgres import Database, postgres
from benchmarks.workload import BLOCK_RECORDS, MEGABYTE, count_for, write_ndjson
from engine.model.settings import MOST_IN_FLIGHT

SQLITE = "ledger in SQLite"
POSTGRES = "ledger in PostgreSQL"
DATABASE = "PostgreSQL's own processes"

_SIZE = "SELECT SUM(PG_TOTAL_RELATION_SIZE(relid)) FROM pg_stat_user_tables"

METHOD = """Typical records are sent to nginx in batches of 1,000 by one process, whose ledger is a file of SQLite in \
one turn and a database of PostgreSQL on this machine in the next. What counts is CPU: of the engine's processes, and \
apart from it what the processes of the database took meanwhile. In both a commit is on disk before it is answered."""


def measure(session: Session) -> Section:
    """Measure both ledgers in turn."""
    count = count_for("typical", session.size(200, 60) * MEGABYTE)
    source = session.made(f"typical-{count}.ndjson", lambda path: write_ndjson(path, "typical", count))
    runs: Runs = {SQLITE: [], POSTGRES: [], DATABASE: []}
    sizes: list[float] = []
    with nginx(session.folder) as url, postgres() as server:
        config = sama_config(session.folder / "workers.toml", url)
        sqlite = submitting(source, config, count, SQLITE)
        for _ in session.rounds(7, 150).counted():
            runs[SQLITE].append(run_once(sqlite, session.folder))
            ours, theirs, size = _on(server, source, config, count, session.folder)
            runs[POSTGRES].append(ours)
            runs[DATABASE].append(theirs)
            sizes.append(size / count)
    file = [run.cpu_seconds for run in runs[SQLITE]]
    ratios = {name: [run.cpu_seconds / one for run, one in zip(runs[name], file, strict=True)] for name in runs}
    rows = [
        Row("CPU a record, the engine's processes", SQLITE, ratios[POSTGRES], Target(1.5, at_least=False)),
        Row("CPU a record, the database's processes", f"the engine with its {SQLITE}", ratios[DATABASE]),
        Row("ledger in PostgreSQL, a record", "", sizes, unit="bytes"),
    ]
    settings = {"records": count, "records a batch": BLOCK_RECORDS}
    contenders = [sqlite, Contender(POSTGRES, (), count), Contender(DATABASE, (), count)]
    return Section("workers", "One ledger for many workers", METHOD, rows, contenders, runs, settings)


def _on(server: Database, source: Path, config: Path, count: int, folder: Path) -> tuple[Run, Run, int]:
    """Return what the engine took with a database, what the database took, and the bytes of its tables and indexes."""
    with server.database() as url:
        before = server.cpu_seconds()
        contender = submitting(source, config, count, POSTGRES, ledger=url, environment=server.environment)
        ours = run_once(contender, folder)
        theirs = Run(ours.seconds, server.cpu_seconds() - before, 0, count)
        ((size,),) = server.execute(_SIZE, url.rpartition("/")[2])
        return ours, theirs, int(str(size))


ANSWER_SECONDS = 2.0
"""That a call takes where workers wait for the service."""
PACED_ANSWER_SECONDS = 0.2
PER_SECOND, ALLOWED = 40, 50
"""Requests that the configuration allows, and the service: on a busy machine an even stream arrives in small heaps."""
FLEETS = (1, 2, 4)
BATCH_RECORDS = 10
STEADY = (0.25, 0.9)
"""Shares of a job's requests between which it is neither beginning nor ending."""
WHOLE = "whole job, its beginning and end included"

TOGETHER_METHOD = f"""Processes on this machine send one job by a ledger in PostgreSQL to the sandbox, in batches of \
{BATCH_RECORDS} records, each by one call that takes {ANSWER_SECONDS:g} s: so each worker waits, with as many calls \
under way as pay and {MOST_IN_FLIGHT} at most. Each worker brings the same number of records. A speed is that \
from the first quarter of the requests to the last tenth, by what the sandbox has counted; that of the whole job has \
the starts of the processes and the search for the number under way in it, too. For the limit, four workers may make \
{PER_SECOND} requests a second together, each of which takes {PACED_ANSWER_SECONDS:g} s; the sandbox refuses those \
beyond {ALLOWED} in a second."""


def measure_together(session: Session) -> Section:
    """Measure fleets of several sizes in turn, and a fleet with a limit."""
    calls = session.size(800, 200)
    runs: Runs = {_name(workers): [] for workers in FLEETS}
    steady: dict[int, list[float]] = {workers: [] for workers in FLEETS}
    used, refused = [], []
    with postgres() as server:
        for _ in session.rounds(3, 400).counted():
            for workers in FLEETS:
                latency = f"[latency.all]\nseconds = {ANSWER_SECONDS}\n"
                run, looks = _together(session, server, workers, workers * calls, latency)
                runs[_name(workers)].append(run)
                steady[workers].append(_speed(_steady(looks)))
            limited = f"[latency.all]\nseconds = {PACED_ANSWER_SECONDS}\n"
            limited += f'[[rate_limits]]\ncall = "all"\nrequests = {ALLOWED}\nseconds = 1\n'
            send = f"[send]\nrequests_per_second = {PER_SECOND}\n"
            run, looks = _together(session, server, FLEETS[-1], 2 * calls, limited, send)
            used.append(100 * _speed(_steady(looks)) / PER_SECOND)
            refused.append(float(looks[-1].refused))
    rows = []
    for workers, target in zip(FLEETS[1:], (None, Target(3.6)), strict=True):
        ratios = [many / one for many, one in zip(steady[workers], steady[1], strict=True)]
        whole = [many.speed / one.speed for many, one in zip(runs[_name(workers)], runs[_name(1)], strict=True)]
        rows += [
            Row(f"{workers} workers", _name(1), ratios, target),
            Row(f"{workers} workers, {WHOLE}", _name(1), whole),
        ]
    rows += [
        Row("4 workers with a limit: share of it that is used", "", used, Target(97), "%"),
        Row("4 workers with a limit: calls refused", "", refused, Target(0, at_least=False), "calls"),
    ]
    settings = {"calls of each worker": calls, "records a call": BATCH_RECORDS}
    contenders = [Contender(_name(workers), (), 0) for workers in FLEETS]
    return Section("together", "Several workers", TOGETHER_METHOD, rows, contenders, runs, settings)


def _name(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def _together(
    session: Session, server: Database, workers: int, calls: int, behaviour: str, send: str = ""
) -> tuple[Run, Sequence[Look]]:
    """Have a fleet send a job; return what it took, and what the service saw by when."""
    count = calls * BATCH_RECORDS
    source = session.made(f"numbers-{count}.ndjson", lambda path: _write_numbers(path, count))
    with tempfile.TemporaryDirectory(dir=session.folder, prefix="fleet-") as name, server.database() as ledger:
        folder = Path(name)
        with fleet.sandbox(folder, behaviour) as url:
            config = folder / "upserts.toml"
            config.write_text(fleet.UPSERTS.format(url=url, batch_records=BATCH_RECORDS) + send)
            before = _cpu_seconds()
            looks = fleet.send(folder, workers, source, config, ledger, url, server.environment)
            return Run(looks[-1].at - looks[0].at, _cpu_seconds() - before, 0, count), looks


def _write_numbers(path: Path, count: int) -> int:
    return path.write_text("".join(f'{{"number":{number}}}\n' for number in range(count)))


def _cpu_seconds() -> float:
    """Return the CPU of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _steady(looks: Sequence[Look]) -> Sequence[Look]:
    first, last = (share * looks[-1].requests for share in STEADY)
    return [look for look in looks if first <= look.requests <= last]


def _speed(looks: Sequence[Look]) -> float:
    """Return the requests a second."""
    return (looks[-1].requests - looks[0].requests) / (looks[-1].at - looks[0].at)
