"""Comparisons -> a table to read and JSON to plot from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.simulation.server import FOLDER, servers
from benchmarks.simulation.simulator import Point, Run
from benchmarks.simulation.sweep import RIVALS, SETTINGS, Comparison, compare


def compared(
    seeds: Iterable[int] = (1,), folder: Path = FOLDER, settings: Sequence[int] = SETTINGS
) -> Sequence[Comparison]:
    """Compare the rules on every server of a folder, once per seed."""
    return [compare(server, seed, settings) for server in servers(folder) for seed in seeds]


def table(comparisons: Sequence[Comparison], before: Mapping[str, Sequence[float]] | None = None) -> str:
    """Render a line per server, in Markdown: medians over its seeds; `before` are shares of an earlier controller."""
    names = ["ours", *(["ours, before"] if before else []), *RIVALS]
    lines = [f"| server | best fixed | {' | '.join(names)} | pushed back: {' | '.join(['ours', *RIVALS])} |"]
    lines.append("| --- " * (3 + len(names) + len(RIVALS)) + "|")
    for name, group in groupby(comparisons, lambda one: one.server.name):
        runs = list(group)
        shares = [median(one.share for one in runs)]
        shares += [median(before[name])] if before else []
        shares += [median(one.share_of(one.rivals[rival]) for one in runs) for rival in RIVALS]
        pushed = [median(one.ours.pushed_back for one in runs)]
        pushed += [median(one.rivals[rival].pushed_back for one in runs) for rival in RIVALS]
        best = f"{median(one.best_limit for one in runs):g}"
        cells = [name, best, *(f"{share:.0%}" for share in shares), *(f"{count:,.0f}" for count in pushed)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def as_json(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return the comparisons with their time series and every change of the limit with its reason."""
    return [
        {
            "server": asdict(one.server),
            "seed": one.seed,
            "best_limit": one.best_limit,
            "runs": {
                "best fixed": _run(one, one.best),
                "found out": _run(one, one.ours),
                **{name: _run(one, run) for name, run in one.rivals.items()},
            },
        }
        for one in comparisons
    ]


def _run(one: Comparison, run: Run) -> dict[str, Any]:
    return {
        "share": one.share_of(run),
        "seconds": run.seconds,
        "bytes_per_second": run.bytes_per_second,
        "pushed_back": run.pushed_back,
        "lost": run.lost,
        "series": {field.name: _column(run, field.name) for field in fields(Point)},
        "changes": [{"at_seconds": when, **asdict(change)} for when, change in run.changes],
    }


def _column(run: Run, name: str) -> list[float]:
    """Return one field of each point, as exactly as a plot shows it."""
    return [float(f"{getattr(point, name):.4g}") for point in run.series]


def write(comparisons: Sequence[Comparison], folder: Path) -> Path:
    """Write `results.json` into `folder`; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps(as_json(comparisons), indent=1), encoding="utf-8")
    return path
