"""Results in, plots out, each as PNG and SVG: an overview of all rows, and speed and memory of each contender.

    python -m benchmarks.plots FOLDER

Runs with the peers' packages, where matplotlib is.
"""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

MEBIBYTE = 1024 * 1024
FARTHEST = 1000.0
"""How far the overview reaches on either side of the targets."""

OURS, THEIRS, MET, MISSED = "#1f77b4", "#707070", "#2ca02c", "#d62728"
RULES = (THEIRS, OURS, MISSED, "#9467bd")
"""Colours of the best fixed setting, ours, and the rivals."""
STYLE = {"svg.hashsalt": "bulksubmit", "svg.fonttype": "none", "font.size": 9, "axes.axisbelow": True}


def main() -> None:
    """Draw everything."""
    folder = Path(sys.argv[1])
    sections = json.loads((folder / "results.json").read_text())["sections"]
    mpl.rcParams.update(STYLE)
    overview(sections, folder)
    for name, section in sections.items():
        if section["runs"] and section["contenders"]:
            contenders(section, folder / name)
        for one in section.get("series", ()):
            over_time(one, folder / f"{name}-{one['server']['name']}")


def overview(sections: dict[str, Any], folder: Path) -> None:
    """Draw each row that has a target as how far it is beyond it: 1 is the target, more is better."""
    rows = [row for section in sections.values() for row in section["rows"] if row["target"]]
    figure, axes = plt.subplots(figsize=(9, 0.28 * len(rows) + 1.2))
    for place, row in enumerate(rows):
        least, middle, most = (beyond(row, row[key]) for key in ("minimum", "median", "maximum"))
        colour = MET if row["met"] else MISSED
        axes.plot([least, most], [place, place], color=colour, linewidth=1)
        axes.plot([middle], [place], "o", color=colour, markersize=5)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [label(row) for row in rows])
    axes.grid(axis="x", alpha=0.3)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("share of the target reached")
    save(figure, folder / "overview")


def beyond(row: dict[str, Any], value: float) -> float:
    """Return how many times as good as its target a figure is, as far as the plot reaches."""
    value = max(value, 1e-9)
    bound = row["target"]["bound"]
    share = value / bound if row["target"]["at_least"] else bound / value
    return float(min(FARTHEST, max(1 / FARTHEST, share)))


def label(row: dict[str, Any]) -> str:
    """Return what a row is called."""
    return str(row["measure"]) + (f" / {row['against']}" if row["against"] else "")


def contenders(section: dict[str, Any], path: Path) -> None:
    """Draw speed and peak memory of each contender."""
    names = [contender["name"] for contender in section["contenders"]]
    colours = [OURS if name.startswith(("bulksubmit", "engine")) else THEIRS for name in names]
    speeds = [[run["work"] / run["seconds"] for run in section["runs"][name]] for name in names]
    peaks = [[run["peak_bytes"] / MEBIBYTE for run in section["runs"][name]] for name in names]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.34 * len(names) + 1.2), sharey=True)
    points(left, speeds, colours)
    points(right, peaks, colours)
    left.set_xscale("log")
    left.set_xlabel(f"{section['contenders'][0]['unit']}/s")
    right.set_xlabel("peak memory, MiB")
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.4, -0.6)
    right.set_xlim(left=0)
    save(figure, path)


def over_time(one: dict[str, Any], path: Path) -> None:
    """Draw limit, RTT and throughput of the rules on one simulated server."""
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(8, 5.5))
    fields = {"limit": "calls in flight", "rtt_seconds": "RTT, s", "mebibytes_per_second": "MiB/s"}
    for axis, (field, words) in zip(axes, fields.items(), strict=True):
        for (name, run), colour in zip(one["runs"].items(), RULES, strict=True):
            times, values = run["series"]["at_seconds"], run["series"][field]
            axis.plot(times, values, label=f"{name}: {run['share']:.0%}", color=colour, linewidth=1)
        axis.set_ylabel(words)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_title(f"{one['server']['name']}; the best fixed limit is {one['best_limit']}")
    axes[0].legend(fontsize=7)
    axes[-1].set_xlabel("made-up seconds")
    save(figure, path)


def points(axes: Any, values: list[list[float]], colours: list[str]) -> None:
    """Draw the median of each as a point, least and greatest as its whisker."""
    for place, (some, colour) in enumerate(zip(values, colours, strict=True)):
        axes.plot([min(some), max(some)], [place, place], color=colour, linewidth=1.5)
        axes.plot([median(some)], [place], "o", color=colour, markersize=7)
    axes.grid(alpha=0.3)


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG and SVG."""
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=130, metadata={"Software": None})
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
