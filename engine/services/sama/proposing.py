"""Proposes how the rows of a source become Sama's tasks: for `init`, from their columns and the project's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from engine.model.record import Row
from engine.services.base import Column, MappingProposal
from engine.services.sama.schema import read_schema
from engine.services.sama.settings import SamaSettings
from engine.services.sama.tasks import TASK_KEYS

_WRAP = "data"
_FIELD_TYPES = {"priority": ("integer",), "reserve_for": ("string", "integer"), "submit": ("boolean",)}
"""Keys of a task besides its data, and the types of a column that may be one."""
_ALSO_CALLED = {"prio": "priority", "urgency": "priority"}
_TYPES = {"integer": "integer", "number": "number", "boolean": "boolean", "object": "json", "array": "json"}
"""Type of JSON Schema → type of a column; all others are strings."""
_SAME_WORD = 0.8
"""Of difflib's measure: `img_url` is no misspelt `image` (0.5), `Image_URL` is a misspelt `imageUrl` (0.9)."""


def propose_mapping(columns: Sequence[Column], settings: SamaSettings) -> MappingProposal:
    """Return how rows with these columns may become tasks.

    Raises:
        ConfigError: the project's schema is named and cannot be read.
    """
    names = {column.name for column in columns}
    if _WRAP in names and names <= set(TASK_KEYS):
        types = {column.name: column.type for column in columns if column.textual and column.type != "string"}
        return MappingProposal(types=types, notes=["The rows are tasks already: nothing needs to be mapped."])
    fields = _fields(columns)
    inputs = [column for column in columns if column.name not in fields.values()]
    known = _inputs_of(read_schema(settings.task_schema)) if settings.task_schema else {}
    rename = _renamed(inputs, known)
    types = {column.name: column.type for column in columns if column.textual and column.type != "string"}
    for column in inputs:
        if column.textual and (wanted := known.get(rename.get(column.name, column.name))) is not None:
            types.pop(column.name, None)
            types |= {column.name: _TYPES[wanted]} if wanted in _TYPES else {}
    mapping: Row = {"wrap": _WRAP}
    mapping |= {"fields": fields} if fields else {}
    mapping |= {"rename": rename} if rename else {}
    return MappingProposal(mapping, types, _notes(inputs, known, rename))


def _fields(columns: Sequence[Column]) -> dict[str, str]:
    """Return the keys of a task beside its data that a column can be → the column."""
    found: dict[str, str] = {}
    for column in columns:
        key = column.name.lower()
        key = _ALSO_CALLED.get(key, key)
        if column.type in _FIELD_TYPES.get(key, ()):
            found.setdefault(key, column.name)
    return found


def _inputs_of(schema: Any) -> Mapping[str, str]:
    """Return the project's inputs, as far as its schema names them plainly → type of each, "" if it has several."""
    data = _at(_at(schema, "properties"), _WRAP)
    return {
        name: kind if isinstance(kind := one.get("type"), str) else ""
        for name, one in _at(data, "properties").items()
        if isinstance(one, dict)
    }


def _at(value: Any, key: str) -> Row:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _renamed(columns: Sequence[Column], known: Mapping[str, str]) -> dict[str, str]:
    """Return the columns that are an input by another spelling → the input."""
    free = [name for name in known if name not in {column.name for column in columns}]
    found: dict[str, str] = {}
    for column in columns:
        if column.name in known:
            continue
        plain = {_plain(name): name for name in free}
        near = get_close_matches(_plain(column.name), plain, 1, _SAME_WORD)
        if near:
            found[column.name] = plain[near[0]]
            free.remove(plain[near[0]])
    return found


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _notes(columns: Sequence[Column], known: Mapping[str, str], rename: Mapping[str, str]) -> list[str]:
    notes = ['A row goes under "data": its columns are the inputs of the project, by their names.']
    if not known:
        return [*notes, 'Where an input is called otherwise: rename = { column = "input" }.']
    sent = {rename.get(column.name, column.name) for column in columns}
    strangers = [column.name for column in columns if rename.get(column.name, column.name) not in known]
    if strangers:
        notes.append(f'No input of the project\'s schema: {", ".join(strangers)}. Leave out with drop = ["column"].')
    if lacking := [name for name in known if name not in sent]:
        notes.append(f"Inputs that no column is: {', '.join(lacking)}.")
    return notes
