"""Results in, a page in Markdown out that reads like a paper: what was measured, how, side by side, and what is missed.

`python -m benchmarks` writes it; `python -m benchmarks.page FOLDER` writes it once more, for the results in FOLDER. Why
a row misses its target stands in `causes.toml`, not in the results, so that it can be told when the figures are known.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.harness import MEBIBYTE, Spread, Target
from benchmarks.results import Document, load

FILE = "README.md"
CAUSES = tomllib.loads(Path(__file__).with_name("causes.toml").read_text(encoding="utf-8"))

INTRODUCTION = """# How fast bulksubmit is

Every figure on this page is a ratio of things that were measured in turn in one run (a speed: ours divided by the
other's, so more is better), or a quantity with a limit of its own. A figure stands as its median, with the least and
the greatest of the repetitions in brackets. A target is held against the median; a wish is what would be better still.
Machines are noisy and differ, so no test asserts any of this: `make bench` measures it again, in some 20 minutes, and
every repetition is in [results.json](results.json). All Python code is compiled before (`.pyc`), as it is where pip
installed it. The records are generated from a seed: small (150 bytes), typical (570 bytes: nested boxes, escaped
quotes, braces inside strings) and large (20 KB); within a batch no two are alike.
"""

QUICK = (
    "**This is a quick run**, with small inputs and few repetitions: start-up weighs more than it does in earnest.\n"
)


def page(document: Document, causes: Mapping[str, str] = CAUSES) -> str:
    """Return the page; `causes`: pattern of a row's name -> why it is missed."""
    sections = document["sections"]
    parts = [INTRODUCTION]
    if any(section["quick"] for section in sections.values()):
        parts.append(QUICK)
    parts += [_circumstances(sections), "## All rows\n", _rows(sections)]
    parts.append("![Each row against its target](overview.svg)\n")
    parts += [_section(name, section) for name, section in sections.items()]
    parts += [_missed(sections, causes), _not_measured(sections)]
    return "\n".join(parts)


def _circumstances(sections: Document) -> str:
    """Say on what it was measured; where measures come from several commits or machines, which from which."""
    seen: dict[str, list[Document]] = {}
    for section in sections.values():
        machine = section["machine"]
        where = (
            f"commit `{section['commit'] or 'unknown'}`, {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}"
        )
        seen.setdefault(where, []).append(section)
    lines = []
    for where, there in seen.items():
        titles = f": {', '.join(section['title'] for section in there)}" if len(seen) > 1 else ""
        minutes = sum(section["seconds"] for section in there) / 60
        lines.append(f"- {where}, {there[0]['when']}, {minutes:.1f} minutes{titles}")
    return "Measured on:\n\n" + "\n".join(lines) + "\n"


def _rows(sections: Document) -> str:
    lines = ["| measure | against | figure | target | | wish |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [
        f"| {row['measure']} | {row['against']} | {_figure(row)} | {_target(row)} | {_verdict(row)} | {_wish(row)} |"
        for section in sections.values()
        for row in section["rows"]
    ]
    return "\n".join(lines) + "\n"


def _figure(row: Document) -> str:
    spread = Spread(row["minimum"], row["median"], row["maximum"])
    return f"{_spread(spread)} {row['unit']}"


def _spread(spread: Spread) -> str:
    middle = _short(spread.median)
    if spread.minimum == spread.maximum:
        return middle
    return f"{middle} ({_short(spread.minimum)} – {_short(spread.maximum)})"  # noqa: RUF001 - a range in print


def _short(value: float) -> str:
    """Return three digits of a number."""
    if abs(value) >= 100:  # noqa: PLR2004 - whole numbers have three digits from here on
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _target(row: Document) -> str:
    return f"{Target(**row['target'])} {row['unit']}" if row["target"] else ""


def _wish(row: Document) -> str:
    """Return what would be better still, and whether it came true."""
    target = Target(**row["target"]) if row["target"] else Target(0)
    if target.wish is None:
        return ""
    wish = Target(target.wish, target.at_least)
    return f"{wish} {row['unit']}{', met' if wish.met(row['median']) else ''}"


def _verdict(row: Document) -> str:
    return {None: "", True: "met", False: "**missed**"}[row["met"]]


def _section(name: str, section: Document) -> str:
    parts = [f"## {section['title']}\n", section["method"] + "\n"]
    if section["settings"]:
        settings = "; ".join(f"{key}: {_setting(value)}" for key, value in section["settings"].items())
        parts.append(f"Settings: {settings}.\n")
    if section["series"]:
        parts.append(f"![{section['title']}: calls in flight over time]({name}.svg)\n")
    if section["runs"] and section["contenders"]:
        parts += [_contenders(section), f"![{section['title']}]({name}.svg)\n"]
    return "\n".join(parts)


def _setting(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_setting(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_setting, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _contenders(section: Document) -> str:
    lines = ["| contender | speed | CPU, s | peak, MiB | |", "| --- | --- | --- | --- | --- |"]
    for contender in section["contenders"]:
        runs = section["runs"][contender["name"]]
        speed = _spread(Spread.of([run["work"] / run["seconds"] for run in runs]))
        cpu = _spread(Spread.of([run["cpu_seconds"] for run in runs]))
        peak = _spread(Spread.of([run["peak_bytes"] / MEBIBYTE for run in runs]))
        cells = [contender["name"], f"{speed} {contender['unit']}/s", cpu, peak, contender["remark"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _missed(sections: Document, causes: Mapping[str, str]) -> str:
    rows = [row for section in sections.values() for row in section["rows"] if row["met"] is False]
    if not rows:
        return "## What is missed\n\nNothing: every row reaches its target.\n"
    lines = [
        f"- {_name(row)}: {_short(row['median'])} {row['unit']}, wanted {_target(row)}. {_cause(row, causes)}"
        for row in rows
    ]
    return "## What is missed\n\n" + "\n".join(lines) + "\n"


def _name(row: Document) -> str:
    return f"{row['measure']} against {row['against']}" if row["against"] else str(row["measure"])


def _cause(row: Document, causes: Mapping[str, str]) -> str:
    """Return the first text whose pattern fits, on one line."""
    found = (text for pattern, text in causes.items() if fnmatchcase(_name(row), pattern))
    return " ".join(next(found, "The cause is not known yet.").split())


def _not_measured(sections: Document) -> str:
    lines = [f"- {section['title']}: {one}" for section in sections.values() for one in section["not_measured"]]
    return "## What was not measured\n\n" + "\n".join(lines) + "\n" if lines else ""


def write(folder: Path) -> Path:
    """Write the page of the results in a folder."""
    path = folder / FILE
    path.write_text(page(load(folder)))
    return path


def table(rows: Sequence[Document]) -> str:
    """Return rows for a terminal."""
    return "\n".join(
        f"  {_figure(row):<34} {_target(row):<10} {_verdict(row).strip('*'):<7} {row['measure']}"
        + (f", against {row['against']}" if row["against"] else "")
        for row in rows
    )


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
