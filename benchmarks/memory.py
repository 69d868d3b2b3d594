"""Peak memory of `submit` for inputs of very different size: it must not grow."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import MEBIBYTE, Contender, Row, Run, Section, Session, Target, run_once
from benchmarks.nginx import nginx
from benchmarks.ours import NAME, sama_config, submitting
from benchmarks.workload import MEGABYTE, count_for, write_ndjson

SPARE_BYTES = 5_000 * MEGABYTE
"""What a disk shall still have free while the largest input, its ledger and its reports lie on it."""

CONSTANT = Target(1.1, at_least=False)
"""Within 10 % of the smallest input's."""

MOST_SECONDS = 260.0
"""Longest run, by the speed of the one before: the whole of `make bench` is to end within 20 minutes."""

METHOD = """The same submission as end to end, of typical records to nginx, once for each size. The peak is \
that of both processes together, sampled ten times a second, or of the larger as the operating system says when it has \
ended (`ru_maxrss`), if that is more; reports included."""


def measure(session: Session) -> Section:
    """Measure each size once, as far as the disk has room and the time allows."""
    sizes = [10, 100, 200] if session.quick else [10, 1_000, 10_000]
    contenders: list[Contender] = []
    taken: dict[str, Run] = {}
    missing: list[str] = []
    with nginx(session.folder) as url:
        config = sama_config(session.folder / "memory.toml", url)
        for megabytes in sizes:
            count = count_for("typical", megabytes * MEGABYTE)
            if obstacle := _obstacle(session.folder, megabytes, count, list(taken.values())):
                missing.append(f"{megabytes:,} MB: {obstacle}")
                continue
            source = session.folder / "memory.ndjson"
            write_ndjson(source, "typical", count)
            contenders.append(submitting(source, config, count, f"{NAME}, {megabytes:,} MB"))
            taken[contenders[-1].name] = run_once(contenders[-1], session.folder)
            source.unlink()
    runs = {name: [run] for name, run in taken.items()}
    return Section("memory", "Memory", METHOD, _rows(taken), contenders, runs, {"megabytes": sizes}, missing)


def _obstacle(folder: Path, megabytes: int, count: int, before: Sequence[Run]) -> str | None:
    """Return why a size cannot be measured here."""
    if shutil.disk_usage(folder).free < 2 * megabytes * MEGABYTE + SPARE_BYTES:
        return "the disk has too little room"
    seconds = count / before[-1].speed if before else 0.0
    return f"it would take {seconds / 60:.0f} minutes on this machine" if seconds > MOST_SECONDS else None


def _rows(runs: dict[str, Run]) -> list[Row]:
    (smallest, least), *larger = runs.items()
    peaks = [one.peak_bytes / MEBIBYTE for one in runs.values()]
    growth = [
        Row(f"peak memory, {name.removeprefix(NAME + ', ')}", smallest, [one.peak_bytes / least.peak_bytes], CONSTANT)
        for name, one in larger
    ]
    return [*growth, Row("greatest peak of all sizes", "", [max(peaks)], Target(82, at_least=False), "MiB")]
