"""From the file to the server: records in a file in, created tasks at an nginx out, inline, with the durable ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import (
    Contender,
    Row,
    Runs,
    Section,
    Session,
    Target,
    alternate,
    needs,
    python,
    speed_ratios,
)
from benchmarks.nginx import nginx
from benchmarks.ours import IN_FLIGHT, KEYS, NAME, ceiling, sama_config, submitting
from benchmarks.workload import BATCH_RECORDS, KINDS, MEGABYTE, count_for, write_bodies, write_ndjson

CEILING = "orjson.loads"
NO_LEDGER = "bulksubmit without ledger and reports"
WRK = "wrk"
AIOHTTP = "bare aiohttp loop"

SPEED = {"small": Target(0.1, wish=0.2), "typical": Target(0.8, wish=1.5), "large": Target(1.6, wish=3)}
PRICE = Target(12, at_least=False, wish=5)

METHOD = """Each record is read from an NDJSON file, validated, frozen in the ledger, sent by inline POST in a batch, \
followed to its creation and written to the report. The server is nginx: it reads each body whole and answers with \
what was written before, but for the name of the batch. The ceiling is the time of `orjson.loads` alone over the same \
bytes in blocks that were cut before, of 1,000 records (of large ones 100): no boundary is found, nothing checked, \
kept or sent. `wrk` and the bare loop of aiohttp replay bodies that are ready: no parsing, no ledger, no following. \
The price of the ledger is the share of time by which `submit` is slower than the same engine whose ledger writes \
nothing and which writes no report. Whole processes are timed, from start to exit; of the ceiling and of wrk what \
they say themselves."""


def measure(session: Session) -> Section:
    """Measure each size of record."""
    needs("wrk")
    rows: list[Row] = []
    runs: Runs = {}
    contenders: list[Contender] = []
    for kind in KINDS:
        with nginx(session.folder, kind) as url:
            taking_part = _contenders(session, url, kind)
            taken = alternate(taking_part, session.rounds(5, 90), session.folder)
        rows += _rows(kind, taken)
        contenders += taking_part
        runs |= taken
    size = session.size(200, 60)
    settings = {"megabytes": size, "requests at once": IN_FLIGHT, "records a batch": BATCH_RECORDS}
    return Section("end_to_end", "End to end, from the file to nginx", METHOD, rows, contenders, runs, settings)


def _contenders(session: Session, url: str, kind: str) -> Sequence[Contender]:
    batch = BATCH_RECORDS[kind]
    count = count_for(kind, session.size(200, 60) * MEGABYTE)
    source = session.made(f"{kind}-{count}.ndjson", lambda path: write_ndjson(path, kind, count))
    bodies = session.made(f"{kind}-{count}.bodies", lambda path: write_bodies(path, kind, count, batch_records=batch))
    config = sama_config(session.folder / f"{kind}.toml", url, batch_records=batch)
    address = f"{url}/v2/projects/{batch}/batches.json"
    seconds = str(session.size(4, 2))
    script = str(Path(__file__).parent / "contenders" / "replay.lua")
    wrk = ["wrk", "-t1", f"-c{IN_FLIGHT}", f"-d{seconds}s", "-s", script, address, "--", str(bodies)]
    forgetful = python("benchmarks.contenders.no_ledger", source, config)
    replay = python("benchmarks.contenders.replay", address, bodies, IN_FLIGHT)
    return [
        submitting(source, config, count, f"{NAME}, {kind}"),
        Contender(f"{NO_LEDGER}, {kind}", forgetful, count, environment=KEYS, remark="forgets everything"),
        ceiling(f"{CEILING}, {kind}", kind, source, count),
        Contender(
            f"{WRK}, {kind}", wrk, count, environment={"RECORDS_A_BODY": str(batch)}, remark="ready bodies, from memory"
        ),
        Contender(f"{AIOHTTP}, {kind}", replay, count, remark="ready bodies, from the file"),
    ]


def _rows(kind: str, runs: Runs) -> Sequence[Row]:
    ours = f"{NAME}, {kind}"
    measure = f"end to end, {kind} records"
    forgetful = runs[f"{NO_LEDGER}, {kind}"]
    price = [100 * (1 - other.seconds / one.seconds) for one, other in zip(runs[ours], forgetful, strict=True)]
    return [
        Row(measure, f"{CEILING} over ready blocks", speed_ratios(runs, ours, f"{CEILING}, {kind}"), SPEED[kind]),
        Row(measure, "wrk, ready bodies", speed_ratios(runs, ours, f"{WRK}, {kind}")),
        Row(measure, "bare aiohttp loop, ready bodies", speed_ratios(runs, ours, f"{AIOHTTP}, {kind}")),
        Row(f"price of ledger and reports, {kind} records", NO_LEDGER, price, PRICE, "%"),
    ]
