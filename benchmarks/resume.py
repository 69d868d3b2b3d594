"""A ledger of a very large job in, the time and memory until `resume` sends its first request out.

The ledger is made by the real writer: batches of 1,000 records, all settled with ids as long as Sama's, but for the
last one, which is not frozen yet. The source of the settled ones is a hole in the file, which a file system keeps for
nothing: `resume` has no business to read there.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from benchmarks.harness import MEBIBYTE, ROOT, NotMeasured, Row, Run, Section, Session, Target
from benchmarks.ours import KEYS, NAME, sama_config
from benchmarks.workload import BLOCK_RECORDS, SIZES, records
from engine.clock import SystemClock
from engine.ledger.sqlite import SqliteLedger
from engine.model.batch import Batch, encode_spans
from engine.model.job import Job
from engine.model.outcome import Settlement
from engine.model.record import Format, Position, Source
from engine.model.submission import State, Submission

JOB = "bench"
AT_ONCE = 200
"""Batches written side by side, which the writer commits together."""

FIRST_REQUEST_SECONDS = 120.0

METHOD = """A ledger is written by the engine's own writer, with batches of 1,000 records that are settled, each with \
an id of 24 characters, as in Sama's examples. 1,000 records are left to be read. Timed is the whole process, from \
its start to the first byte of its first request; its peak memory is read at that moment (`VmHWM`), and then it is \
ended. The ledger is the file, its write-ahead log included."""


@dataclass(frozen=True, slots=True)
class First:
    """What it took to the first request."""

    seconds: float
    peak_bytes: int


def measure(session: Session) -> Section:
    """Make the ledger once and resume it several times."""
    total = session.size(10_000_000, 1_000_000)
    with _listening() as (server, url):
        place = session.folder / "resume"
        place.mkdir()
        job = _job(place, url, total)
        ledger = place / "ledger.db"
        asyncio.run(_write_ledger(ledger, job, total))
        size = sum(path.stat().st_size for path in place.glob("ledger.db*"))
        firsts = [_first_request(server, ledger, place) for _ in range(session.size(5, 2))]
    runs = {NAME: [Run(first.seconds, 0.0, first.peak_bytes, 1) for first in firsts]}
    measure = f"resume, {total:,} records in the ledger"
    rows = [
        Row(f"{measure}: to the first request", "", [one.seconds for one in firsts], Target(0.5, at_least=False), "s"),
        Row(
            f"{measure}: peak memory by then",
            "",
            [one.peak_bytes / MEBIBYTE for one in firsts],
            Target(150, at_least=False),
            "MiB",
        ),
        Row("ledger, a record", "", [size / total], Target(38.2, at_least=False), "bytes"),
    ]
    return Section("resume", "Resuming a very large job", METHOD, rows, (), runs, {"records": total, "bytes": size})


def _job(place: Path, url: str, total: int) -> Job:
    """Write the source, its settled part as a hole, and return the job."""
    path = place / "tasks.ndjson"
    hole = total * SIZES["typical"]
    with path.open("wb") as file:
        file.truncate(hole)
        file.seek(hole)
        file.writelines(record + b"\n" for record in islice(records("typical"), BLOCK_RECORDS))
        size = file.tell()
    source = Source(0, str(path), Format.NDJSON, size, path.stat().st_mtime_ns, 0)
    config = sama_config(place / "resume.toml", url, mode="presigned").read_text()
    return Job(JOB, "sama", config, (source,), str(place / "output"), created_at=time.time())


def write_job(place: Path, total: int, failed_every: int, reasons: Sequence[str]) -> None:
    """Write `ledger.db` and the source of a job, of which every so many-th record has failed for one of the reasons."""
    job = _job(place, "http://127.0.0.1:9", total)
    asyncio.run(_write_ledger(place / "ledger.db", job, total, failed_every, reasons))


async def _write_ledger(path: Path, job: Job, total: int, failed_every: int = 0, reasons: Sequence[str] = ()) -> None:
    async with SqliteLedger.open(path, SystemClock()) as ledger:
        await ledger.create_job(job)
        found = batches(total)
        while group := list(islice(found, AT_ONCE)):
            await ledger.freeze(JOB, group, (), last=False)
            failures = [_failures(batch, failed_every, reasons) for batch in group]
            await asyncio.gather(*(_settle(ledger, *one) for one in zip(group, failures, strict=True)))


def _failures(batch: Batch, every: int, reasons: Sequence[str]) -> Mapping[int, str]:
    """Return the reasons of the records of a batch that have failed, by position."""
    if not every:
        return {}
    first, last = batch.start.index, batch.end.index
    failed = range(-(-first // every) * every, last, every)
    return {index - first: reasons[index // every % len(reasons)] for index in failed}


def batches(total: int) -> Iterator[Batch]:
    """Yield batches of so many records in all."""
    size = SIZES["typical"]
    lengths = [size - 1] * BLOCK_RECORDS
    for sequence in range(total // BLOCK_RECORDS):
        first, last = (number * BLOCK_RECORDS for number in (sequence, sequence + 1))
        start, end = (Position(index * size, index, index + 1) for index in (first, last))
        spans = encode_spans(start.offset, range(start.offset, end.offset, size), lengths)
        yield Batch(sequence, start, end, BLOCK_RECORDS, end.offset - start.offset, bytes(32), spans)


async def _settle(ledger: SqliteLedger, batch: Batch, errors: Mapping[int, str]) -> None:
    submission = Submission(batch.sequence)
    remote_id = str(batch.sequence + 1)
    for state in (State.STAGING, State.STAGED, State.RELEASING, State.RELEASED):
        moved = replace(submission, state=state, remote_id=None if state is State.STAGING else remote_id)
        await ledger.move(JOB, moved, expected=submission.state)
        submission = moved
    ids = [None if position in errors else f"{batch.start.index + position:024x}" for position in range(batch.count)]
    settled = replace(submission, state=State.SETTLED)
    await ledger.settle(JOB, settled, Settlement(ids, errors), expected=State.RELEASED)


@contextmanager
def _listening() -> Iterator[tuple[socket.socket, str]]:
    """Listen on a free port; nobody answers there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(FIRST_REQUEST_SECONDS)
        yield server, f"http://127.0.0.1:{server.getsockname()[1]}"


def _first_request(server: socket.socket, ledger: Path, place: Path) -> First:
    command = [sys.executable, "-m", "engine", "resume", JOB, "--ledger", str(ledger), "--quiet"]
    environment = {**os.environ, **KEYS, "PYTHONPATH": str(ROOT)}
    with (place / "output.log").open("wb") as log:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)
        try:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                return First(time.monotonic() - started, _peak_bytes(process.pid))
        except TimeoutError:
            said = (place / "output.log").read_text(errors="replace")
            raise NotMeasured(f"resume sent no request within {FIRST_REQUEST_SECONDS:g} s: {said[-300:]}") from None
        finally:
            process.kill()
            process.wait()


def _peak_bytes(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kib) * 1024
