"""A family that knows millions of records in; bytes a record, time a lookup and the memory of who looks them up out.

    python -m benchmarks --only known
    python -m benchmarks.known make LEDGER 100000000     # by hand: 100 million, and then
    python -m benchmarks.known look LEDGER 100000000     # what a process that plans sees of them

The ledger has the engine's own tables and statements, but is filled in one transaction, which is quicker than the
engine may be: hashes come in no order, as in life, so the pages are as full as in life.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw

from benchmarks.harness import MEBIBYTE, ROOT, NotMeasured, Row, Run, Section, Session, Target
from benchmarks.ours import NAME
from benchmarks.resume import batches
from engine.clock import SystemClock
from engine.ledger.known import KnownRecords
from engine.ledger.rows import batch_row, known_row
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.statements import QUERIES
from engine.model.job import Job
from engine.model.outcome import Fate
from engine.model.record import SHARED, Mark, Taken

JOB = "bench"
BLOCK_RECORDS = 250
"""As the reader brings them, of 500 bytes each."""
BLOCKS = 4_000

METHOD = """A ledger in which one settled job of batches of 1,000 knows so many records by their content. A process \
of its own looks up a million of them, in blocks of 250 records that stand side by side in the job, and asks what \
became of each, as planning does; hashing is not timed. Bytes are those of the table `known`. Memory is what the \
process has for itself (`RssAnon`): pages of the ledger are mapped, and belong to the system."""


def measure(session: Session) -> Section:
    """Fill a ledger and look records up, in a few processes."""
    total = session.size(10_000_000, 200_000)
    ledger = session.folder / "known.db"
    bytes_each = make(ledger, total) / total
    command = [sys.executable, "-m", "benchmarks.known", "look", str(ledger), str(total)]
    looks = [json.loads(subprocess.check_output(command, cwd=ROOT)) for _ in range(session.size(5, 2))]
    seconds = [look["seconds"] for look in looks]
    memory = [look["own_bytes"] for look in looks]
    known = f"{total:,} known records"
    rows = [
        Row(f"{known}: a lookup", "", [1e6 * one for one in seconds], Target(3, at_least=False), "µs"),
        Row(f"{known}: a record in the ledger", "", [bytes_each], Target(40, at_least=False), "bytes"),
        Row(f"{known}: memory", "", [one / MEBIBYTE for one in memory], Target(64, at_least=False), "MiB"),
    ]
    runs = {NAME: [Run(one, 0.0, own, 1) for one, own in zip(seconds, memory, strict=True)]}
    return Section("known", "Records that a family knows", METHOD, rows, (), runs, {"records": total})


def make(path: Path, total: int) -> int:
    """Write a ledger that knows so many records; return the bytes that they take."""
    asyncio.run(_with_job(path))
    with closing(apsw.Connection(str(path))) as connection:
        for pragma in ("cache_size = -4000000", "synchronous = OFF", "journal_mode = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(QUERIES["begin"])
        for batch in batches(total):
            connection.execute(QUERIES["add_batch"], batch_row(1, batch, 0))
            connection.execute(QUERIES["add_spans"], (1, batch.sequence, batch.spans, batch.lines))
        connection.execute("UPDATE batches SET created = count, state = 'settled'")
        before = connection.pragma("page_count")
        connection.executemany(
            QUERIES["add_known"], (known_row(1, Taken(*mark(index), index)) for index in range(total))
        )
        after = connection.pragma("page_count")
        connection.execute(QUERIES["commit"])
        return int((after - before) * connection.pragma("page_size"))


async def _with_job(path: Path) -> None:
    async with SqliteLedger.open(path, SystemClock()) as ledger:
        await ledger.create_job(Job(JOB, "sama", "", (), "", family=JOB, created_at=1.0))


def mark(index: int) -> Mark:
    """Return the mark of a made-up record."""
    digest = hashlib.sha256(index.to_bytes(8)).digest()
    return int.from_bytes(digest[:8]) >> 1, digest[8 : 8 + SHARED]


def look(path: Path, total: int) -> dict[str, float]:
    """Look records up; return the seconds a lookup, and what memory the process has for itself."""
    seconds = 0.0
    with KnownRecords(path) as records:
        for first in _blocks(total):
            hashes = [mark(index)[0] for index in range(first, first + BLOCK_RECORDS)]
            began = time.perf_counter()
            found = records.find(hashes)
            fates = [records.fate(found[one][1:]) for one in hashes]
            seconds += time.perf_counter() - began
            if set(fates) != {Fate.CREATED}:
                raise NotMeasured("a record is not known as created")
    return {"seconds": seconds / (BLOCKS * BLOCK_RECORDS), "own_bytes": _own_bytes()}


def _blocks(total: int) -> Iterator[int]:
    draw = random.Random(15)
    return (draw.randrange(total - BLOCK_RECORDS) for _ in range(BLOCKS))


def _own_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) * 1024


if __name__ == "__main__":
    work = {"make": make, "look": look}[sys.argv[1]]
    print(json.dumps(work(Path(sys.argv[2]), int(sys.argv[3]))))
