"""Reading and validating, without ledger and network: a file in, records that are fit to be sent out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import (
    MEBIBYTE,
    Contender,
    Row,
    Runs,
    Section,
    Session,
    Target,
    alternate,
    peer,
    python,
    speed_ratios,
)
from benchmarks.ours import KEYS, ceiling
from benchmarks.workload import KINDS, MEGABYTE, count_for, write_array, write_ndjson

EVERY_CORE, NDJSON, ARRAY = "engine, every core, NDJSON", "engine, one process, NDJSON", "engine, one process, array"
NOTHING = "engine, one batch"
CEILING, WITHOUT_GC = "orjson.loads, ready blocks", "orjson.loads, ready blocks, no cyclic collector"
WHOLE, IJSON = "orjson.loads, whole array", "ijson (yajl2_c)"

METHOD = """All that `validate` does, and a run before it sends: records are found, parsed, checked by Sama's rules, \
cut into batches, hashed, and their places are packed for the ledger, in as many processes as the engine takes by \
itself: from 128 MiB on one for each core. In one process, records are found, parsed, checked and handed on as \
columns with their offsets. The ceiling parses the same bytes in blocks of 1,000 records (of large ones 100, which is \
faster) that were cut before, in one thread; once more with Python's cyclic collector at rest. An array is one \
top-level JSON array of the same records. Each contender says how long it read; imports are not counted, processes \
that it starts are. Memory is the peak of the process less that of one that read a single batch."""

ARRAY_KIND = "typical"


def measure(session: Session) -> Section:
    """Measure NDJSON of every size, and an array of typical records."""
    megabytes, array_megabytes = session.size(400, 30), session.size(100, 30)
    contenders: list[Contender] = []
    rows: list[Row] = []
    runs: Runs = {}
    for kind in KINDS:
        taking_part = _contenders(session, kind, megabytes, array_megabytes)
        taken = alternate(taking_part, session.rounds(5, 55), session.folder)
        rows += _rows(kind, taken)
        contenders += taking_part
        runs |= taken
    settings = {"megabytes": megabytes, "megabytes of the array": array_megabytes}
    return Section("readers", "Reading and validating", METHOD, rows, contenders, runs, settings)


def _contenders(session: Session, kind: str, megabytes: int, array_megabytes: int) -> Sequence[Contender]:
    count = count_for(kind, megabytes * MEGABYTE)
    source = session.made(f"{kind}-{count}.ndjson", lambda path: write_ndjson(path, kind, count))
    lines = [
        _reading(f"{EVERY_CORE}, {kind}", "plan", source, count),
        _reading(f"{NDJSON}, {kind}", "read", source, count),
        ceiling(f"{CEILING}, {kind}", kind, source, count),
        ceiling(f"{WITHOUT_GC}, {kind}", kind, source, count, collector=False),
    ]
    if kind != ARRAY_KIND:
        return lines
    array_count = count_for(kind, array_megabytes * MEGABYTE)
    array = session.made(f"{kind}-{array_count}.json", lambda path: write_array(path, kind, array_count))
    single = session.made("single.json", lambda path: write_array(path, kind, 1000))
    return [
        *lines,
        _reading(f"{ARRAY}, {kind}", "read", array, array_count),
        Contender(
            IJSON, peer("benchmarks.contenders.array_parsers", "ijson", array), array_count, remark="parses only"
        ),
        Contender(
            WHOLE,
            python("benchmarks.contenders.array_parsers", "whole", array),
            array_count,
            remark="the whole file in memory",
        ),
        _reading(NOTHING, "read", single, 1000),
    ]


def _reading(name: str, way: str, source: Path, count: int) -> Contender:
    command = python("benchmarks.contenders.engine_read", way, source)
    remark = "finds, parses, checks" + (", cuts, hashes, packs" if way == "plan" else "")
    return Contender(name, command, count, environment=KEYS, remark=remark)


def _rows(kind: str, runs: Runs) -> Sequence[Row]:
    all_cores, ours, theirs = f"{EVERY_CORE}, {kind}", f"{NDJSON}, {kind}", f"{CEILING}, {kind}"
    measure, alone = f"read and validate NDJSON, {kind}", f"read and validate NDJSON in one process, {kind}"
    rows = [
        Row(measure, CEILING, speed_ratios(runs, all_cores, theirs), Target(1)),
        Row(alone, CEILING, speed_ratios(runs, ours, theirs)),
        Row(alone, WITHOUT_GC, speed_ratios(runs, ours, f"{WITHOUT_GC}, {kind}")),
    ]
    if kind != ARRAY_KIND:
        return rows
    measure, array = f"read and validate an array, {kind}", f"{ARRAY}, {kind}"
    least = min(run.peak_bytes for run in runs[NOTHING])
    above = [(run.peak_bytes - least) / MEBIBYTE for run in runs[array]]
    return [
        *rows,
        Row(measure, "our NDJSON reader", speed_ratios(runs, array, ours), Target(0.85)),
        Row(measure, IJSON, speed_ratios(runs, array, IJSON), Target(4, wish=5)),
        Row(measure, WHOLE, speed_ratios(runs, array, WHOLE)),
        Row("memory above the import, array", "", above, Target(64, at_least=False), "MiB"),
    ]
