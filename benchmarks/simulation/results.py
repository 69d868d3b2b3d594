"""Comparisons -> a table to read and JSON to plot from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.simulation.server import FOLDER, servers
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
    """Return what a plot of each comparison shows: the limit that each rule set, at even steps over its run.

    `{"server", "best_limit", "rules": {name: {"share", "seconds", "limit": [calls in flight, …]}}}`
    """
    return [
        {
            "server": one.server.name,
            "best_limit": one.best_limit,
            "rules": {
                name: {
                    "share": round(one.share_of(run), 4),
                    "seconds": round(run.seconds, 3),
                    "limit": [round(point.limit, 1) for point in run.series],
                }
                for name, run in {"found out": one.ours, **one.rivals}.items()
            },
        }
        for one in comparisons
    ]
