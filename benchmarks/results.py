"""Measured sections in, one JSON document out: every repetition, with the machine, the commit and the settings.

`python -m benchmarks` writes it; the page and the plots are made from it. One section stands on one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.harness import Row, Section

Document: TypeAlias = dict[str, Any]
"""`{"sections": {name: …}}`; what the page and the plots are made from."""

FILE = "results.json"


def load(folder: Path) -> Document:
    """Return the results that a folder holds; none if it holds none."""
    path = folder / FILE
    return dict(json.loads(path.read_text())) if path.exists() else {"sections": {}}


def save(folder: Path, document: Document) -> Path:
    """Write the results and return their file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    sections = ",\n".join(f"{_compact(name)}:{_compact(section)}" for name, section in document["sections"].items())
    path.write_text(f'{{"sections":{{\n{sections}\n}}}}\n')
    return path


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def as_json(section: Section, where: Mapping[str, object]) -> Document:
    """Return a section as JSON; `where` says on what it was measured."""
    contenders = [
        {"name": one.name, "unit": one.unit, "remark": one.remark}
        for one in section.contenders
        if one.name in section.runs
    ]
    return {
        **where,
        "title": section.title,
        "method": section.method,
        "settings": dict(section.settings),
        "rows": [_row(row) for row in section.rows],
        "contenders": contenders,
        "runs": {name: [asdict(run) for run in runs] for name, runs in section.runs.items()},
        "not_measured": list(section.not_measured),
        "series": list(section.series),
    }


def _row(row: Row) -> Document:
    return {
        "measure": row.measure,
        "against": row.against,
        "unit": row.unit,
        "target": asdict(row.target) if row.target else None,
        "figures": list(row.figures),
        **asdict(row.spread),
        "met": row.met,
    }
