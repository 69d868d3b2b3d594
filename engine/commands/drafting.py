"""The text of a new configuration, for `init`: what was answered and proposed, each key with a comment.

tomlkit writes it, so every name and value is quoted as TOML wants it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Array, InlineTable, Item, Table

from engine.commands.inspection import Inspected
from engine.model.record import Format
from engine.model.settings import Question, SourceSettings
from engine.progress.text import count, printable
from engine.services.base import MappingProposal

_WIDTH = 110
"""A list that is longer stands on several lines."""
_SHOWN = 30
"""Characters of an example."""

_AFTERWARDS = """\
[batch] max_records, [send] max_in_flight and requests_per_second: how fast. Left out, the engine finds out by itself.
[limits] max_failed = "1%": send nothing more once more records fail than that.
[delta] key = "id": of a load that comes back each night, the column whose value names a record.
"""


def draft(
    kind: str,
    answers: Sequence[tuple[Question, Any, bool]],
    inspected: Inspected | None,
    proposal: MappingProposal,
    notes: Sequence[str] = (),
) -> str:
    """Return the text of a configuration.

    Args:
        kind: of the service.
        answers: question, the value of its key, and whether it is a secret: then the name of its variable.
        inspected: what the source shows, if one was looked at.
        proposal: how its rows become tasks.
        notes: what else may stand in `[service]`, as lines of comment.
    """
    document = tomlkit.document()
    of = f" --from {shlex.quote(Path(inspected.source.path).name)}" if inspected is not None else ""
    keys = "every key" if not notes else "every key outside [service]"
    _say(document, f"Made by `bulksubmit init {kind}{of}`. Look it over; {keys}: docs/configuration.md.")
    document.add(tomlkit.nl())
    document.add("service", _service(kind, answers))
    if notes:
        _say(document, *notes)
        document.add(tomlkit.nl())
    if inspected is not None:
        if source := _source(inspected, proposal):
            document.add("source", source)
        _say(document, *proposal.notes)
        if proposal.mapping:
            document.add("mapping", _mapping(proposal.mapping))
    else:
        _say(
            document,
            "Records that are no tasks yet: [mapping] says how they become some; `init --from FILE` proposes it.",
        )
        document.add(tomlkit.nl())
    _say(document, "Besides, where it is wanted:", *_AFTERWARDS.splitlines())
    return tomlkit.dumps(document)


def _say(document: Any, *lines: str) -> None:
    for line in lines:
        document.add(tomlkit.comment(printable(line)))


def _service(kind: str, answers: Sequence[tuple[Question, Any, bool]]) -> Table:
    table = tomlkit.table()
    table.add("kind", kind)
    tables = {"": table}
    places = list(dict.fromkeys(["", *(question.key.rpartition(".")[0] for question, _, _ in answers)]))
    for question, value, secret in sorted(answers, key=lambda one: places.index(one[0].key.rpartition(".")[0])):
        item = tomlkit.item(f"${{env:{value}}}" if secret else value)
        about = "a secret: only where it is kept stands here" if secret else question.text
        place, _, key = question.key.rpartition(".")
        if place not in tables:
            _last_of(table).add(tomlkit.nl())
            tables[place] = tomlkit.table()
            table.add(place, tables[place])
        tables[place].add(key, item.comment(printable(about)) if about else item)
    _last_of(table).add(tomlkit.nl())
    return table


def _source(inspected: Inspected, proposal: MappingProposal) -> Table | None:
    """Return `[source]` with the types of columns; None if there is nothing to say."""
    table = tomlkit.table()
    settings, source = inspected.settings, inspected.source
    if settings.format is not None:
        table.add("format", settings.format)
    if settings.encoding != SourceSettings().encoding:
        item = tomlkit.item(settings.encoding)
        table.add("encoding", item.comment("a guess: the file is not UTF-8. Letters that look wrong tell another one"))
    tabbed = source.shown.lower().endswith(".tsv") and settings.delimiter == ","
    if source.format == Format.CSV and settings.delimiter != "," and not tabbed:
        table.add("delimiter", settings.delimiter)
    if proposal.types:
        table.add(tomlkit.nl()) if len(table) else None
        types = tomlkit.table()
        seen = "all" if inspected.whole else "the first"
        told = f"Told by {seen} {count(inspected.records, 'record')}."
        types.add(tomlkit.comment(f"{told} A value that does not fit its type makes its record a reject;"))
        types.add(tomlkit.comment("columns that are not named are strings."))
        columns = {column.name: column for column in inspected.columns}
        for name, kind in proposal.types.items():
            item = tomlkit.item(kind)  # a value of JSON may be long, and hold what belongs into no configuration
            types.add(name, item if kind == "json" else item.comment(_examples(columns[name].values)))
        table.add("types", types)
    if not len(table):
        return None
    if not proposal.types:
        table.add(tomlkit.nl())
    else:
        types.add(tomlkit.nl())
    return table


def _examples(values: Sequence[Any]) -> str:
    texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
    return printable(", ".join(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…" for text in texts))


def _mapping(mapping: Mapping[str, Any]) -> Table:
    table = tomlkit.table(is_super_table=set(mapping) == {"template"})
    for key, value in mapping.items():
        table.add(key, _table(value) if key == "template" else _item(value))
    _last_of(table).add(tomlkit.nl())
    return table


def _table(value: Mapping[str, Any]) -> Table:
    """Return a table in which tables stand below, under headers of their own."""
    table = tomlkit.table()
    for key, one in value.items():
        table.add(key, _table(one) if isinstance(one, Mapping) and "class" not in one else _item(one))
    return table


def _last_of(table: Table) -> Table:
    """Return the table that stands last in the text."""
    values = [value for value in table.values() if isinstance(value, Table)]
    return _last_of(values[-1]) if values else table


def _item(value: Any) -> Item:
    """Return a value within one line, but for a list that is too long for it."""
    if isinstance(value, Mapping):
        inline: InlineTable = tomlkit.inline_table()
        for key, one in value.items():
            inline.add(key, _item(one))
        return inline
    if isinstance(value, list):
        array: Array = tomlkit.array()
        array.extend(_item(one) for one in value)
        return array.multiline(len(array.as_string()) > _WIDTH)
    item: Item = tomlkit.item(value)
    return item
