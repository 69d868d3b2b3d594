"""What a command prints: its last screen for people, one JSON object for programs, an error. `app` calls it.

Nothing is broken inside a word, nor inside a command between backticks, which people copy: what is longer than the
terminal is wide stands on a line of its own.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import zip_longest
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.cli.options import OutputOptions
from engine.model.errors import BulkSubmitError, Exit, cause_of
from engine.progress.redaction import redactor
from engine.progress.standard_error import write_line
from engine.progress.text import printable

_logger = logging.getLogger(__name__)

_GAP = 2
"""Spaces before each column."""
_ATOM = re.compile(r"\s*(?:`[^`]*`\S*|[^\s`]+`?\S*|`\S*)|\s+$")
"""What is never broken, with the blanks before it: a word, or a command between backticks."""
_UNBOUND = 1_000_000
"""Width of what is no terminal: programs that read it want lines as they are."""


class Mood(StrEnum):
    """How good the news are; the value is their style on a terminal."""

    GOOD = "bold green"
    MIXED = "bold yellow"
    BAD = "bold red"
    NEUTRAL = "bold"


_STYLES = {Mood.GOOD: "1;32", Mood.MIXED: "1;33", Mood.BAD: "1;31", Mood.NEUTRAL: "1"}


class Table(Struct, frozen=True):
    """Rows below a title. Columns are as wide as their longest cell; figures stand right."""

    rows: Sequence[Sequence[str]]
    title: str = ""
    header: Sequence[str] = ()
    figures: frozenset[int] = frozenset()
    """Columns that hold numbers."""
    whole: frozenset[int] = frozenset()
    """Columns whose cells are never folded: commands, which people copy, and paths."""


class Screen(Struct, frozen=True):
    """What a command says when it is done."""

    headline: str
    data: Mapping[str, Any]
    """The same for programs: the JSON object."""
    mood: Mood = Mood.NEUTRAL
    tables: Sequence[Table] = ()
    exit_code: int = 0


def show(screen: Screen, output_options: OutputOptions) -> int:
    """Write a last screen to standard output; return the exit code."""
    if output_options.as_json:
        written = write_json(screen.data)
    else:
        # https://no-color.org: present and not empty
        terminal = sys.stdout.isatty()
        colours = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        width = shutil.get_terminal_size().columns if terminal else _UNBOUND
        written = _write(text_of(screen, colours=colours, width=width))
    return screen.exit_code if written else screen.exit_code or Exit.ERROR


def text_of(screen: Screen, *, colours: bool, width: int = _UNBOUND) -> str:
    """Return a screen as text for so many columns; tables without rows are left out."""

    def styled(lines: Sequence[str], mood: Mood) -> list[str]:
        return [f"\x1b[{_STYLES[mood]}m{line}\x1b[0m" for line in lines] if colours else list(lines)

    text = styled(_wrapped(printable(screen.headline), width), screen.mood)
    for table in screen.tables:
        if not table.rows:
            continue
        text.append("")
        text += styled(_wrapped(printable(table.title), width), Mood.NEUTRAL) if table.title else []
        text += _table_lines(table, width)
    return "".join(f"{line.rstrip()}\n" for line in text)


def _table_lines(table: Table, width: int) -> Iterator[str]:
    """Yield the lines of a table. With a header, all rows are in columns or none is; else each that fits."""
    rows = [[printable(cell) for cell in row] for row in [table.header, *table.rows] if row]
    if table.header:
        if widths := _widths(table, rows, width):
            for row in rows:
                yield from _in_columns(row, widths, table.figures)
        elif widths := _widths(_without_first(table), [row[1:] for row in rows], width - 2 * _GAP):
            for first, *rest in rows:  # the first cell, a name, above the others
                yield " " * _GAP + first
                yield from (" " * 2 * _GAP + line for line in _in_columns(rest, widths, _without_first(table).figures))
        else:
            for row in rows[1:]:
                yield from _below_each_other(row, rows[0], width)
        return
    fitting = [row for row in rows if _widths(table, [row], width)]
    while fitting and not (widths := _widths(table, fitting, width)):
        fitting.remove(max(fitting, key=lambda row: max(map(_longest_atom, row))))
    for row in rows:
        if row in fitting:
            yield from _in_columns(row, widths, table.figures)
        else:
            yield from _below(row, width, whole=bool(table.whole))


def _without_first(table: Table) -> Table:
    figures, whole = (frozenset(place - 1 for place in places) for places in (table.figures, table.whole))
    return replace(table, figures=figures, whole=whole)


def _in_columns(row: Sequence[str], widths: Sequence[int], figures: frozenset[int]) -> Iterator[str]:
    cells = [_wrapped(cell, size) for cell, size in zip(row, widths, strict=True)]
    for parts in zip_longest(*cells, fillvalue=""):
        line = ""
        for place, (part, size) in enumerate(zip(parts, widths, strict=True)):
            gap = " " * (size - _width(part))
            line += " " * _GAP + (gap + part if place in figures else part + gap)
        yield line


def _below(row: Sequence[str], width: int, *, whole: bool) -> Iterator[str]:
    """Yield a row that is too wide: all but its first cell goes to lines below that."""
    first, *rest = row
    for line in _wrapped(first, width - _GAP) if first else ():
        yield " " * _GAP + line
    if rest:
        indent = 3 * _GAP
        for line in _wrapped("  ".join(filter(None, rest)), _UNBOUND if whole else width - indent):
            yield " " * indent + line


def _below_each_other(row: Sequence[str], header: Sequence[str], width: int) -> Iterator[str]:
    """Yield a row that is too wide for its columns: its first cell, and below that the others with their names."""
    first, *rest = row
    for line in _wrapped(first, width - _GAP):
        yield " " * _GAP + line
    named = [[name, cell] for name, cell in zip(header[1:], rest, strict=True) if cell]
    size = max((_width(name) for name, _ in named), default=0)
    for name, cell in named:
        indent = 3 * _GAP
        for number, line in enumerate(_wrapped(cell, max(width - indent - size - _GAP, 1))):
            label = "" if number else name
            yield " " * indent + label + " " * (size - _width(label) + _GAP) + line


def _widths(table: Table, rows: Sequence[Sequence[str]], width: int) -> Sequence[int]:
    """Return how wide each column is: room is shared out so that none is starved; none if an atom would be broken."""
    columns = list(zip(*rows, strict=True))
    wanted = [max(map(_width, column)) for column in columns]
    widths = [
        most if place in table.whole else max(map(_longest_atom, column))
        for place, (most, column) in enumerate(zip(wanted, columns, strict=True))
    ]
    spare = width - sum(widths) - _GAP * len(widths)
    if spare < 0:
        return []
    narrow = sorted(range(len(widths)), key=lambda place: wanted[place] - widths[place])
    for done, place in enumerate(narrow):
        more = min(wanted[place] - widths[place], spare // (len(narrow) - done))
        widths[place] += more
        spare -= more
    return widths


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text; an atom that is longer than the width has a line of its own."""
    if _width(text) <= width:
        return [text]
    lines, line = [], ""
    for atom in _ATOM.findall(text):
        if line and _width(line) + _width(atom) > width:
            lines.append(line.rstrip())
            line = atom.lstrip()
        else:
            line += atom
    return [*lines, line.rstrip()]


def _longest_atom(text: str) -> int:
    return max((_width(atom.strip()) for atom in _ATOM.findall(text)), default=0)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - a program that wants JSON need not wait for it

    return cell_len(text)


def say(line: str) -> None:
    """Say something at once on standard error, beside the screen that comes at the end."""
    _write_fitted(printable(line))


def _write_fitted(line: str) -> None:
    """Write a line to standard error: on a terminal as lines that fit, for it would break words."""
    for part in _wrapped(line, _error_width()):
        write_line(part)


def _error_width() -> int:
    return shutil.get_terminal_size().columns if sys.stderr.isatty() else _UNBOUND


def tell_error(error: BaseException, *, as_json: bool) -> int:
    """Say what went wrong and return the exit code; the traceback is for the log, at its level DEBUG."""
    cause = cause_of(error)
    if isinstance(cause, BulkSubmitError):
        message, code = str(cause), cause.exit_status
    else:
        message = f"unexpected error: {type(cause).__name__}: {cause}. --log-level debug shows where"
        code = Exit.ERROR
    message = redactor(os.environ)(message)
    _logger.debug("the command failed", exc_info=error)
    if as_json:
        write_json({"error": message, "exit_code": code})
    for line in f"bulksubmit: {message}".split("\n"):
        _write_fitted(printable(line))
    return code


def write_json(data: Mapping[str, Any]) -> bool:
    """Write an object on a line of standard output; return whether whoever wanted it could have got it."""
    return _write(json.dumps(data) + "\n")  # not orjson: its text is not ASCII, and it refuses the names of odd files


def _write(text: str) -> bool:
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has seen enough
        return True
    except OSError as error:
        write_line(f"bulksubmit: standard output cannot be written ({error.strerror})")
        return False
    return True
