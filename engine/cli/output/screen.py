"""What a last screen consists of, and how it is written: a `Screen` in, text out, plain ASCII but for colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from engine.progress.text import printable

_RESET = "\x1b[0m"
_BOLD = "\x1b[1m"
_INDENT = "  "


class Mood(Enum):
    """How good the news are; the value is their colour on a terminal."""

    GOOD = "\x1b[1;32m"
    MIXED = "\x1b[1;33m"
    BAD = "\x1b[1;31m"
    NEUTRAL = _BOLD


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below a title. Columns are as wide as their longest cell; figures stand right."""

    rows: Sequence[Sequence[str]]
    title: str = ""
    header: Sequence[str] = ()
    figures: frozenset[int] = frozenset()
    """Columns that hold numbers."""


@dataclass(frozen=True, slots=True)
class Screen:
    """What a command says when it is done."""

    headline: str
    data: Mapping[str, Any]
    """The same for programs: the JSON object."""
    mood: Mood = Mood.NEUTRAL
    tables: Sequence[Table] = field(default_factory=list)
    exit_code: int = 0


def text_of(screen: Screen, *, colours: bool) -> str:
    """Return a screen as text; tables without rows are left out."""
    blocks = [_painted(printable(screen.headline), screen.mood.value, colours=colours)]
    blocks += [_table_text(table, colours=colours) for table in screen.tables if table.rows]
    return "\n\n".join(blocks) + "\n"


def _table_text(table: Table, *, colours: bool) -> str:
    rows = [[printable(cell) for cell in row] for row in ([table.header] if table.header else []) + list(table.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_INDENT + _row_text(row, widths, table.figures) for row in rows]
    if table.title:
        lines.insert(0, _painted(table.title, _BOLD, colours=colours))
    return "\n".join(lines)


def _row_text(row: Sequence[str], widths: Sequence[int], figures: frozenset[int]) -> str:
    cells = [
        cell.rjust(width) if column in figures else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return _INDENT.join(cells).rstrip()


def _painted(text: str, colour: str, *, colours: bool) -> str:
    return f"{colour}{text}{_RESET}" if colours else text
