"""The same records by other programs: a file in, POSTs at an nginx out."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from benchmarks.harness import (
    Contender,
    NotMeasured,
    Row,
    Runs,
    Section,
    Session,
    Target,
    alternate,
    memory_ratios,
    needs,
    peer,
    python,
    speed_ratios,
)
from benchmarks.nginx import nginx
from benchmarks.ours import IN_FLIGHT, NAME, sama_config, submitting
from benchmarks.workload import BLOCK_RECORDS, count_for, records, write_ndjson

SAMA, CURL, GATHER = "sama in a loop", "split, xargs, curl", "asyncio script"
STREAMING, PARALLEL = "elasticsearch async_streaming_bulk", "elasticsearch parallel_bulk"
DLT, DRT = "dlt custom destination", "drt rest_api"

SPEED = {
    SAMA: Target(2.2, wish=5),
    CURL: Target(0.6, wish=1),
    DLT: Target(10),
    **dict.fromkeys((GATHER, STREAMING, PARALLEL, DRT), Target(3)),
}
LOADING = frozenset({GATHER})
"""Those that hold the whole file in memory."""

LESS = Target(1, at_least=False)

METHOD = f"""Every contender takes the same file of typical records and brings them to the same nginx in requests of \
1,000, with {IN_FLIGHT} under way where it can have more than one; bulksubmit finds out by itself how many. It alone \
keeps a ledger, follows every task to its creation and writes a report; what the others leave out, or do besides, is \
said with each. Start-up is part of the time. Peak memory is that of all processes together, sampled ten times a \
second, or of the largest, if that is more."""


def measure(session: Session) -> Section:
    """Measure them all in turn; one that cannot run is named, and the others go on."""
    needs("curl")
    count = count_for("typical", session.size(57, 23) * 10**6)
    source = session.made(f"typical-{count}.ndjson", lambda path: write_ndjson(path, "typical", count))
    with nginx(session.folder) as url:
        contenders = _contenders(session, url, source, count)
        failures: dict[str, str] = {}
        runs = alternate(contenders, session.rounds(5, 200), session.folder, failures=failures)
    if NAME in failures:
        raise NotMeasured(failures[NAME])
    settings = {"records": count, "requests at once": IN_FLIGHT}
    return Section(
        "peers", "The same work by others", METHOD, _rows(runs), contenders, runs, settings, tuple(failures.values())
    )


def _contenders(session: Session, url: str, source: Path, count: int) -> Sequence[Contender]:
    here = Path(__file__).parent / "contenders"
    address = f"{url}/v2/projects/{BLOCK_RECORDS}/batches.json"
    config = sama_config(session.folder / "peers.toml", url)
    table = session.made(f"typical-{count}.sqlite", lambda path: _write_table(path, count))
    name = "benchmarks.contenders."
    streaming = peer(f"{name}elastic", "streaming", url, source, IN_FLIGHT)
    parallel = peer(f"{name}elastic", "parallel", url, source, IN_FLIGHT)
    remarks = {
        SAMA: "one batch at a time, three calls each, a new connection for each call; no ledger, no following",
        CURL: "no parsing, no ledger, no following; parts lie on disk",
        GATHER: "the whole file in memory; no ledger, no following",
        STREAMING: "one request at a time; parses and serialises; an outcome for each document",
        PARALLEL: "threads; parses and serialises; an outcome for each document",
        DLT: "extracts and normalises to files first; one request at a time, its state on disk",
        DRT: "reads a table of SQLite that is ready, one request at a time; its state on disk",
    }
    commands = {
        SAMA: peer(f"{name}sama_loop", url, source, BLOCK_RECORDS),
        CURL: ["sh", str(here / "curl_bodies.sh"), address, str(source), str(IN_FLIGHT)],
        GATHER: python(f"{name}gather", address, source, IN_FLIGHT),
        STREAMING: streaming,
        PARALLEL: parallel,
        DLT: peer(f"{name}dlt_sink", address, source),
        DRT: peer(f"{name}drt_sync", address, table),
    }
    others = [Contender(who, command, count, remark=remarks[who]) for who, command in commands.items()]
    return [submitting(source, config, count), *others]


def _write_table(path: Path, count: int) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE tasks (task TEXT)")
        rows = ((record.decode(),) for record in islice(records("typical"), count))
        database.executemany("INSERT INTO tasks VALUES (?)", rows)
    database.close()


def _rows(runs: Runs) -> Sequence[Row]:
    theirs = [name for name in runs if name != NAME]
    speeds = [Row("speed, typical records", name, speed_ratios(runs, NAME, name), SPEED[name]) for name in theirs]
    memory = [
        Row("peak memory, typical records", name, memory_ratios(runs, NAME, name), LESS if name in LOADING else None)
        for name in theirs
    ]
    return [*speeds, *memory]
