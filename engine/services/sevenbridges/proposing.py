"""Proposes how the rows of a manifest become task specs: for `init`, from their columns. The app is not asked here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from engine.model.record import Row
from engine.services.base import Column, MappingProposal
from engine.services.sevenbridges.settings import SPEC_KEYS, SevenBridgesSettings

_ID = re.compile(r"[0-9a-f]{24}")
"""How the ids of files look on the vendor's pages."""
_FILE = re.compile(r"[^\s/:@][^\s:@]*\.[A-Za-z][A-Za-z0-9]{0,9}(\.(?:gz|bz2|zip|xz|bai|tbi))?")
"""A name with an extension, in folders or not; no URL, no address of mail, no number."""
_NAMES = ("sample", "sample_id", "sampleid", "id", "name")
"""Columns by which people call a task, the likeliest first."""
_TEXTS = ("name", "description", "project", "app")
"""Keys of a spec that a column of the same name is."""
_PAIRED = re.compile(r"(.*?)[_.-]?([12])")


def propose_mapping(columns: Sequence[Column], settings: SevenBridgesSettings) -> MappingProposal:
    """Return how rows with these columns may become task specs."""
    names = {column.name for column in columns}
    types = {column.name: column.type for column in columns if column.textual and column.type != "string"}
    if "inputs" in names and names <= set(SPEC_KEYS):
        return MappingProposal(types=types, notes=["The rows are tasks already: nothing needs to be mapped."])
    unnamed = [column.name for column in columns if "}" in column.name]  # a placeholder ends there
    columns = [column for column in columns if column.name not in unnamed]
    notes = [
        "A row becomes one task. The names under inputs must be those of the app: see them on its page.",
        "A file is looked up by its name in the project, or by folder/name; path = its id saves the request.",
    ]
    if unnamed:
        notes.append(f"Left out, because no placeholder can name them: {', '.join(unnamed)}.")
    texts = {key: _taken(column) for key in _TEXTS for column in columns if column.name == key}
    calling = _calling(columns)
    if "name" not in texts and calling is not None:
        texts = {"name": _called(calling, settings), **texts}
    types = {name: kind for name, kind in types.items() if name not in texts and not (calling and name == calling.name)}
    inputs = _inputs([column for column in columns if column.name not in _TEXTS])
    return MappingProposal({"template": {**texts, "inputs": inputs}}, types, notes)


def _calling(columns: Sequence[Column]) -> Column | None:
    """Return the column by which a task is called: the likeliest by its name, else the first text, or the first."""
    by_name = {column.name.lower(): column for column in columns}
    likely = [by_name[name] for name in _NAMES if name in by_name]
    return next(iter([*likely, *(column for column in columns if column.type == "string"), *columns]), None)


def _called(column: Column, settings: SevenBridgesSettings) -> str:
    app = (settings.app or "").split("/")
    return f"{app[2]} {_taken(column)}" if len(app) > 2 else _taken(column)  # noqa: PLR2004 - owner/project/app


def _inputs(columns: Sequence[Column]) -> Row:
    """Return the inputs that columns fill. Two files of a pair, as r1 and r2, are one list."""
    inputs: Row = {}
    pairs = _pairs(columns)
    for column in columns:
        if column.name in pairs:
            inputs.setdefault(pairs[column.name], []).append(_value(column))
        else:
            inputs[column.name] = _value(column)
    return inputs


def _pairs(columns: Sequence[Column]) -> dict[str, str]:
    """Return the columns that are one of two files → the input that is both."""
    stems: dict[str, list[str]] = {}
    for column in columns:
        if (found := _PAIRED.fullmatch(column.name)) and isinstance(_value(column), dict):
            stems.setdefault(found[1].lower(), []).append(column.name)
    taken = {column.name for column in columns}
    named = {stem: "reads" if stem in {"", "r", "read", "reads"} else stem for stem in stems}
    return {
        name: named[stem]
        for stem, names in stems.items()
        if len(names) == 2 and named[stem] not in taken  # noqa: PLR2004 - a pair
        for name in names
    }


def _value(column: Column) -> Any:
    """Return what a column is in the inputs: a file by its id or its name, or its value."""
    texts = [value for value in column.values if isinstance(value, str)]
    if texts and all(_ID.fullmatch(text) for text in texts):
        return {"class": "File", "path": _taken(column)}
    if texts and all(_FILE.fullmatch(text) for text in texts):
        return {"class": "File", "name": _taken(column)}
    return _taken(column)


def _taken(column: Column) -> str:
    return f"${{row.{column.name}}}"
