"""Reading alone, measured: no ledger, no network. Records enter, ratios of two things done in turn leave.

The ceiling is `orjson.loads` over the same records in blocks of 1,000 that were cut before, in one thread, with
Python's cyclic collector as everybody has it. Every function takes records as bytes and returns plain numbers.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TypeAlias

import orjson

from engine import assembly
from engine.configuration import hide_secret
from engine.model.jobs import Job
from engine.model.records import Format, Position, Source
from engine.model.settings import SourceSettings
from engine.reading.reader import read_blocks

Work: TypeAlias = Callable[[], object]

BLOCK_RECORDS = 1000
ROUNDS = 7
CONFIG = """
[service]
kind = "sama"
base_url = "http://127.0.0.1:8800/v2"
project_id = 1
access_key = "${env:SAMA_ACCESS_KEY}"
"""

ARRAYS: Mapping[str, Callable[[Sequence[bytes]], bytes]] = {
    "compact": lambda records: b"[" + b",".join(records) + b"]",
    "spaced": lambda records: b"[\n  " + b",\n  ".join(records) + b"\n]\n",
    "pretty": lambda records: orjson.dumps([orjson.loads(one) for one in records], option=orjson.OPT_INDENT_2),
    "varied": lambda records: (
        b"[" + b",".join(b'{"priority":1,' + one[1:] if at % 3 else one for at, one in enumerate(records)) + b"]"
    ),
}
"""How the same records may be written as an array; `varied` begins them with one key or another."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A ratio over all rounds."""

    least: float
    median: float
    most: float


def ndjson_to_ceiling(records: Sequence[bytes], folder: Path, rounds: int = ROUNDS) -> Mapping[str, Spread]:
    """Return the speed of reading NDJSON as multiples of the ceiling: 1 is as fast.

    `read` finds, parses and hands on records; `plan` also maps, checks, cuts, hashes and packs them, as a run does: in
    this process (`plan 0`), or in one or two others.
    """
    source = _written(folder / "tasks.ndjson", b"\n".join(records) + b"\n", Format.NDJSON)
    work: dict[str, Work] = {
        "ceiling": _ceiling(records),
        "ceiling, collector off": _without_collector(_ceiling(records)),
        "read": lambda: _read(source),
    }
    return _ratios(work | {f"plan {children}": _planning(source, children) for children in (0, 1, 2)}, rounds)


def arrays_to_ndjson(records: Sequence[bytes], folder: Path, rounds: int = ROUNDS) -> Mapping[str, Spread]:
    """Return records a second of each spelling of an array as multiples of our NDJSON reader's."""
    source = _written(folder / "tasks.ndjson", b"\n".join(records) + b"\n", Format.NDJSON)
    work: dict[str, Work] = {"ndjson": lambda: _read(source)}
    return _ratios(work | _readings(records, folder), rounds)


def arrays_to_others(records: Sequence[bytes], folder: Path, rounds: int = ROUNDS) -> Mapping[str, Spread]:
    """Return the speed of reading a compact array as multiples of others' parsing it: ijson's where it is installed."""
    source = _written(folder / "compact.json", ARRAYS["compact"](records), Format.JSON)
    path = Path(source.path)
    work: dict[str, Work] = {"ours": lambda: _read(source)}
    work["orjson.loads, whole file"] = lambda: orjson.loads(path.read_bytes())
    if find_spec("ijson"):  # a peer, not a dependency
        yajl = import_module("ijson.backends.yajl2_c")
        work["ijson, yajl2_c"] = lambda: _exhaust(yajl.items(path.open("rb"), "item"))
    ratios = _ratios(work, rounds)
    return {name: Spread(1 / ratio.most, 1 / ratio.median, 1 / ratio.least) for name, ratio in ratios.items()}


def array_memory_mebibytes(path: Path) -> float:
    """Return by how much reading an array raises the peak of a process above what it had after its imports."""
    command = [sys.executable, "-m", "benchmarks.reading", str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _readings(records: Sequence[bytes], folder: Path) -> dict[str, Work]:
    def reading(name: str) -> Work:
        source = _written(folder / f"{name}.json", ARRAYS[name](records), Format.JSON)
        return lambda: _read(source)

    return {name: reading(name) for name in ARRAYS}


def _written(path: Path, content: bytes, kind: Format) -> Source:
    path.write_bytes(content)
    return Source(0, str(path), kind, len(content), 0, 0)


def _ceiling(records: Sequence[bytes]) -> Work:
    blocks = [records[first : first + BLOCK_RECORDS] for first in range(0, len(records), BLOCK_RECORDS)]

    def parse() -> None:
        for block in blocks:
            list(map(orjson.loads, block))

    return parse


def _without_collector(work: Work) -> Work:
    def quietly() -> None:
        with _collector_off():
            work()

    return quietly


@contextmanager
def _collector_off() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _read(source: Source) -> None:
    _exhaust(read_blocks([source], Position(), SourceSettings()))


def _planning(source: Source, children: int) -> Work:
    setup = assembly.load(CONFIG, hide_secret, processes=children)
    job = replace(Job("bench", "sama", CONFIG, (), ""), sources=(source,))
    parts = assembly.offline(setup, job)
    return lambda: _exhaust(parts.plans(job, None))


def _exhaust(items: Iterator[object]) -> None:
    for _ in items:
        pass


def _ratios(work: Mapping[str, Work], rounds: int) -> Mapping[str, Spread]:
    """Do all in turn, some rounds; return for each how often it is done while the first of them is done once."""
    gc.freeze()  # what is imported here is not in the way of the ceiling, which needs none of it
    first, *others = work
    found: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(rounds):
        seconds = {name: _seconds(one) for name, one in work.items()}
        for name in others:
            found[name].append(seconds[first] / seconds[name])
    return {name: Spread(min(ratios), median(ratios), max(ratios)) for name, ratios in found.items()}


def _seconds(work: Work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _peak_mebibytes() -> float:
    """Not `ru_maxrss`, which begins with what the parent took."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def _tell_memory(path: Path) -> None:
    before = _peak_mebibytes()
    _read(Source(0, str(path), Format.JSON, path.stat().st_size, 0, 0))
    print(_peak_mebibytes() - before)


if __name__ == "__main__":
    _tell_memory(Path(sys.argv[1]))
