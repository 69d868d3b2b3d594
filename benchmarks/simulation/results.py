"""Comparisons -> a table to read and JSON to plot from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.simulation.server import servers
from benchmarks.simulation.simulator import Run
from benchmarks.simulation.sweep import Comparison, compare


def compared(seeds: Iterable[int] = (1,)) -> Sequence[Comparison]:
    """Compare the rules on every server, once per seed."""
    return [compare(server, seed) for server in servers() for seed in seeds]


def table(comparisons: Sequence[Comparison]) -> str:
    """Render one line per comparison."""
    lines = ["server                    seed  best fixed    ours  Vector's   pushed back (ours, Vector's)"]
    lines += [
        f"{one.server.name:<25} {one.seed:>4} {one.best_limit:>11} {one.share:>7.0%} {one.vector_share:>9.0%}"
        f"   {one.ours.pushed_back}, {one.vector.pushed_back}"
        for one in comparisons
    ]
    return "\n".join(lines)


def as_json(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return the comparisons with their time series and every change of the limit with its reason."""
    return [
        {
            "server": asdict(one.server),
            "seed": one.seed,
            "best_limit": one.best_limit,
            "share": one.share,
            "vector_share": one.vector_share,
            "runs": {"best": _run(one.best), "ours": _run(one.ours), "vector": _run(one.vector)},
        }
        for one in comparisons
    ]


def _run(run: Run) -> dict[str, Any]:
    return {
        "seconds": run.seconds,
        "bytes_per_second": run.bytes_per_second,
        "pushed_back": run.pushed_back,
        "lost": run.lost,
        "series": [asdict(point) for point in run.series],
        "changes": [{"at_seconds": when, **asdict(change)} for when, change in run.changes],
    }


def write(comparisons: Sequence[Comparison], folder: Path) -> Path:
    """Write `results.json` into `folder`; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps(as_json(comparisons), indent=1), encoding="utf-8")
    return path
