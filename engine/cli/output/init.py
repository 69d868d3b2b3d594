"""The screen of `init`: what was seen, what was written, and the commands that come next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.cli.output.screen import Mood, Screen, Table
from engine.commands.init import Made
from engine.commands.inspection import Inspected
from engine.commands.paths import program
from engine.progress.redaction import redactor
from engine.progress.text import count
from engine.services.base import MappingProposal

_SHOWN = 40
"""Characters of an example."""
_MOST_COLUMNS = 40


def init_screen(made: Made) -> Screen:
    """Return the columns of the source, and what to type next."""
    inspected = made.inspected
    commands = next_commands(made)
    return Screen(
        f"Wrote {made.file}{_fit(made, inspected)}.",
        {
            "file": str(made.file),
            "service": made.kind,
            "variables": [*made.variables],
            "source": inspected and _source(inspected),
            "mapping": made.proposal.mapping,
            "types": made.proposal.types,
            "fit": made.fit,
            "flaw": made.flaw,
            "gitignore": str(made.ignoring) if made.ignoring else None,
            "next": [command for _, command in commands],
        },
        mood=Mood.MIXED if made.flaw else Mood.GOOD,
        tables=[
            Table([["the first that cannot be sent", made.flaw]] if made.flaw else []),
            *([_columns(inspected, made.proposal)] if inspected else []),
            Table([["git ignores .bulksubmit/ now", str(made.ignoring)]] if made.ignoring else []),
            Table([[what, command] for what, command in commands], "What to do next", whole=frozenset({1})),
        ],
    )


def _fit(made: Made, inspected: Inspected | None) -> str:
    if inspected is None:
        return ""
    if not inspected.records:
        return "; the source holds no record that can be read"
    which = "" if inspected.whole else "first "
    return f": {count(made.fit)} of the {which}{count(inspected.records, 'record')} can be sent with it"


def next_commands(made: Made) -> Sequence[tuple[str, str]]:
    """Return (what for, command) of what comes next; all can be pasted but for the secrets."""
    config = shlex.quote(str(made.file))
    source = shlex.quote(_near(made.inspected.source.shown)) if made.inspected else "SOURCE"
    call = program()
    unset = [name for name in made.variables if not os.environ.get(name)]
    return [
        *(("put the secret in", f"export {name}=…") for name in unset),
        ("see that all is in place", f"{call} check --config {config} {source}"),
        ("see what would be sent", f"{call} preview {source} --config {config}"),
        ("send it", f"{call} submit {source} --config {config}"),
    ]


def _near(name: str) -> str:
    """Return the path of a source as it is written from here; a URL as it is."""
    path, here = Path(name), Path.cwd()
    if "://" in name:
        return name
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _columns(inspected: Inspected, proposal: MappingProposal) -> Table:
    redact = redactor(os.environ)
    rows = [
        [
            one.name,
            proposal.types.get(one.name, "string" if one.textual else one.type),
            _place(proposal.mapping, one.name),
            _cut(redact(_example(one.values))),
        ]
        for one in inspected.columns[:_MOST_COLUMNS]
    ]
    more = len(inspected.columns) - len(rows)
    rows += [[f"and {count(more)} more", "", "", ""]] if more else []
    title = f"{_near(inspected.source.shown)}, {inspected.source.format}"
    return Table(rows, title, header=["column", "goes up as", "in the task", "for example"])


def _place(mapping: Mapping[str, Any], column: str) -> str:
    """Return where in a task the value of a column stands, as `inputs.threads`; "" if the mapping leaves it out."""
    if "template" in mapping:
        return ", ".join(dict.fromkeys(_places(mapping["template"], "", f"${{row.{column}}}")))
    for key, taken in mapping.get("fields", {}).items():
        if taken == column:
            return str(key)
    wrap, name = mapping.get("wrap"), mapping.get("rename", {}).get(column, column)
    return "" if column in mapping.get("drop", ()) else f"{wrap}.{name}" if wrap else str(name)


def _places(part: Any, place: str, placeholder: str) -> Iterator[str]:
    """Yield each key of a template whose value has a placeholder; a list, and what a file is made of, has no more."""
    if isinstance(part, str) and placeholder in part:
        yield place
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield from _places(value, place if "class" in part else f"{place}.{key}".lstrip("."), placeholder)
    elif isinstance(part, list):
        for value in part:
            yield from _places(value, place, placeholder)


def _example(values: Sequence[Any]) -> str:
    return str(values[0]) if values else ""


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _source(inspected: Inspected) -> dict[str, Any]:
    redact = redactor(os.environ)
    return {
        "path": inspected.source.shown,
        "format": inspected.source.format,
        "delimiter": inspected.settings.delimiter,
        "encoding": inspected.settings.encoding,
        "records": inspected.records,
        "whole": inspected.whole,
        "columns": [
            {"name": one.name, "type": one.type, "examples": [redact(str(value)) for value in one.values]}
            for one in inspected.columns
        ],
    }
