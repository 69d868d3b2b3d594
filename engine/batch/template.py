"""A template and rows in, tasks out: `${row.column}` stands for a value of the row, anywhere in the template.

A text that is only one placeholder becomes the value, with its type and as the source writes it; in any other text the
value is inserted as text. So a value is taken from the source's text, where rendering it anew would change it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engine.model.errors import ConfigError
from engine.model.record import Row

_PLACEHOLDER = re.compile(r"\$\{row\.([^}]+)\}")
_MISWRITTEN = re.compile(r"\$\{(?!row\.[^}]+\})\s*rows?\b[^}]*\}?")
"""Other `${…}` may be meant for the service."""


class LackingColumn(ValueError):
    """A row lacks what the template takes from it."""


@dataclass(frozen=True, slots=True)
class _Whole:
    """A text that is one placeholder."""

    column: str


@dataclass(frozen=True, slots=True)
class _Mixed:
    """A text with placeholders in it: literal, column, literal, …, literal."""

    parts: Sequence[str]


class Template:
    """Makes tasks of rows. Safe to share between threads.

    Raises:
        ConfigError: a placeholder is miswritten.
    """

    def __init__(self, template: Mapping[str, Any]) -> None:
        self._node = _compiled(dict(template), "mapping.template")

    def filled(self, row: Row, cells: Mapping[str, Any]) -> tuple[Row, Row]:
        """Return the task with values of the row, and with `cells`: the same values, or the text of each.

        Raises:
            LackingColumn: names the column, and where the template takes it.
        """

        def text(column: str) -> str:
            value = row[column]
            if value is None:
                raise LackingColumn(f"column {column!r} is null, and mapping.template puts it into a text")
            return value if isinstance(value, str) else orjson.dumps(cells[column]).decode()

        try:
            return _filled(self._node, row, text), _filled(self._node, cells, text)
        except KeyError as error:
            raise LackingColumn(f"has no column {error.args[0]!r}, which mapping.template takes from it") from None


def _compiled(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        for key in value:
            if "${row" in key:
                raise ConfigError(f"{place}: the key {key!r} is taken as it stands; only values hold placeholders")
        return {key: _compiled(one, f"{place}.{key}") for key, one in value.items()}
    if isinstance(value, list):
        return [_compiled(one, f"{place}[{number}]") for number, one in enumerate(value)]
    if not isinstance(value, str):
        return value
    if wrong := _MISWRITTEN.search(value):
        raise ConfigError(f"{place}: {wrong[0]!r} is no placeholder; write ${{row.column}}")
    if alone := _PLACEHOLDER.fullmatch(value):
        return _Whole(alone[1])
    parts = _PLACEHOLDER.split(value)
    return value if len(parts) == 1 else _Mixed(parts)


def _filled(node: Any, cells: Mapping[str, Any], text: Callable[[str], str]) -> Any:
    if isinstance(node, _Whole):
        return cells[node.column]
    if isinstance(node, _Mixed):
        return "".join(text(part) if number % 2 else part for number, part in enumerate(node.parts))
    if isinstance(node, dict):
        return {key: _filled(one, cells, text) for key, one in node.items()}
    return [_filled(one, cells, text) for one in node] if isinstance(node, list) else node
