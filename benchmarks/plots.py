"""Results in, the plots of the page out, as SVG: all rows, the contenders of a section, or its simulated servers.

    python -m benchmarks.plots FOLDER

`python -m benchmarks` starts it with the peers' packages, where matplotlib is.
"""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import io
import json
import re
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
RULES = (OURS, MISSED, "#9467bd")
"""Colours of our rule and its rivals."""
COLUMNS = 5
"""Simulated servers side by side."""
STYLE = {
    "svg.hashsalt": "bulksubmit",
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "font.size": 9,
    "axes.axisbelow": True,
}


def main() -> None:
    """Draw everything."""
    folder = Path(sys.argv[1])
    sections = json.loads((folder / "results.json").read_text())["sections"]
    mpl.rcParams.update(STYLE)
    overview(sections, folder)
    for name, section in sections.items():
        if section["runs"] and section["contenders"]:
            contenders(section, folder / name)
        if section["series"]:
            over_time(section["series"], folder / name)


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


def over_time(servers: list[dict[str, Any]], path: Path) -> None:
    """Draw a small plot of each simulated server: the limit of each rule over time, beside the best fixed one."""
    rows = -(-len(servers) // COLUMNS)
    figure, grid = plt.subplots(rows, COLUMNS, figsize=(11, 1.6 * rows + 0.4), sharey=True, squeeze=False)
    lines: dict[str, Any] = {}
    for one, axes in zip(servers, grid.flat, strict=False):
        lines["best fixed"] = axes.axhline(one["best_limit"], color="black", linewidth=0.7, linestyle=":")
        for (name, rule), colour in zip(one["rules"].items(), RULES, strict=True):
            width = rule["seconds"] / len(rule["limit"])
            times = [(step + 0.5) * width for step in range(len(rule["limit"]))]
            (lines[name],) = axes.plot(times, rule["limit"], color=colour, linewidth=0.9)
        axes.set_title(one["server"], fontsize=8)
        axes.set_yscale("log")
        axes.set_yticks([1, 10, 100], ["1", "10", "100"])
        axes.locator_params(axis="x", nbins=3)
        axes.tick_params(labelsize=6)
        axes.minorticks_off()
    for axes in grid.flat[len(servers) :]:
        axes.set_axis_off()
    figure.legend(list(lines.values()), list(lines), loc="lower right", ncols=len(lines), fontsize=8)
    figure.supylabel("calls in flight", fontsize=8)
    figure.supxlabel("made-up seconds", fontsize=8)
    save(figure, path)


def points(axes: Any, values: list[list[float]], colours: list[str]) -> None:
    """Draw the median of each as a point, least and greatest as its whisker."""
    for place, (some, colour) in enumerate(zip(values, colours, strict=True)):
        axes.plot([min(some), max(some)], [place, place], color=colour, linewidth=1.5)
        axes.plot([median(some)], [place], "o", color=colour, markersize=7)
    axes.grid(alpha=0.3)


def save(figure: Any, path: Path) -> None:
    """Write a figure; two decimals of a point are enough for the eye and halve the file."""
    figure.tight_layout()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = re.sub(r" d=\"[^\"]*\"", lambda points: re.sub(r"(\.\d\d)\d+", r"\1", points[0]), drawn.getvalue())
    path.with_suffix(".svg").write_text(text)


if __name__ == "__main__":
    main()
