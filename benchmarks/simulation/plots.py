"""Comparisons -> one picture per server: limit, RTT and throughput over time. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.simulation.sweep import Comparison

_ROWS = (("limit", "calls in flight"), ("rtt_seconds", "RTT, s"), ("mebibytes_per_second", "MiB/s"))


def write(comparisons: Sequence[Comparison], folder: Path) -> None:
    """Write `SERVER-SEED.png` for each comparison into `folder`."""
    mpl.use("Agg")
    for one in comparisons:
        figure, axes = plt.subplots(len(_ROWS), 1, sharex=True, figsize=(8, 8), constrained_layout=True)
        runs = {
            f"adaptive, {one.share:.0%} of the best": one.ours,
            f"Vector's rule, {one.vector_share:.0%}": one.vector,
            f"best fixed, {one.best_limit}": one.best,
        }
        for axis, (field, label) in zip(axes, _ROWS, strict=True):
            for name, run in runs.items():
                axis.plot([p.at_seconds for p in run.series], [getattr(p, field) for p in run.series], label=name)
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        axes[0].set_title(f"{one.server.name}: {one.server.about}", fontsize=9, wrap=True)
        axes[0].legend(fontsize=8)
        axes[-1].set_xlabel("virtual seconds")
        figure.savefig(folder / f"{one.server.name}-{one.seed}.png", dpi=110)
        plt.close(figure)
