"""What a command prints: its last screen for people, one JSON object for programs, an error. `app` calls it.

Nothing is broken inside a word: what is longer than the terminal is wide stands on a line of its own.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from engine.cli.options import OutputOptions
from engine.model.errors import BulkSubmitError, Exit, cause_of
from engine.progress.redaction import redactor
from engine.progress.standard_error import write_line
from engine.progress.text import printable

if TYPE_CHECKING:
    from rich.table import Table as Grid

_logger = logging.getLogger(__name__)

_GAP = 2
"""Spaces before each column."""
_UNBOUND = 1_000_000
"""Width of what is no terminal: programs that read it want lines as they are."""


class Mood(StrEnum):
    """How good the news are; the value is their style on a terminal."""

    GOOD = "bold green"
    MIXED = "bold yellow"
    BAD = "bold red"
    NEUTRAL = "bold"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below a title. Columns are as wide as their longest cell; figures stand right."""

    rows: Sequence[Sequence[str]]
    title: str = ""
    header: Sequence[str] = ()
    figures: frozenset[int] = frozenset()
    """Columns that hold numbers."""
    whole: frozenset[int] = frozenset()
    """Columns whose cells are never folded: commands, which people copy, and paths."""


@dataclass(frozen=True, slots=True)
class Screen:
    """What a command says when it is done."""

    headline: str
    data: Mapping[str, Any]
    """The same for programs: the JSON object."""
    mood: Mood = Mood.NEUTRAL
    tables: Sequence[Table] = field(default_factory=list)
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
    from rich.console import Console  # noqa: PLC0415 - a program that wants JSON need not wait for it: 0.04 s
    from rich.text import Text  # noqa: PLC0415 - slow

    text = StringIO()
    system: Literal["standard"] | None = "standard" if colours else None
    # As wide as can be: rich would cut a word that is longer than the terminal is wide.
    console = Console(file=text, width=_UNBOUND, force_terminal=colours, color_system=system, highlight=False)

    def paragraph(words: str, style: str = "", indent: int = 0, most: int = width) -> None:
        for line in Text(words, style).wrap(console, max(most - indent, _longest_word(words))):
            line.rstrip()
            console.print(" " * indent, line, sep="")

    paragraph(printable(screen.headline), screen.mood)
    for table in screen.tables:
        if not table.rows:
            continue
        paragraph(f"\n{printable(table.title)}" if table.title else "", Mood.NEUTRAL)
        rows = [[printable(cell) for cell in row] for row in [table.header, *table.rows] if row]
        if widths := _widths(table, rows, width):
            console.print(_grid(rows, widths, table.figures))
            continue
        for first, *rest in rows:  # too wide: all but its first cell goes to a line below that
            paragraph(first, indent=_GAP)
            if rest:
                paragraph("  ".join(rest), indent=3 * _GAP, most=_UNBOUND if table.whole else width)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _widths(table: Table, rows: Sequence[Sequence[str]], width: int) -> Sequence[int]:
    """Return how wide each column is, the first ones as they would like to be; none if no word may be broken so."""
    columns = list(zip(*rows, strict=True))
    wanted = [max(map(_width, column)) for column in columns]
    widths = [
        most if place in table.whole else max(map(_longest_word, column))
        for place, (most, column) in enumerate(zip(wanted, columns, strict=True))
    ]
    spare = width - sum(widths) - _GAP * len(widths)
    for place, most in enumerate(wanted):
        more = min(most - widths[place], max(spare, 0))
        widths[place] += more
        spare -= more
    return widths if spare >= 0 else []


def _grid(rows: Sequence[Sequence[str]], widths: Sequence[int], figures: frozenset[int]) -> Grid:
    from rich.table import Table as RichTable  # noqa: PLC0415 - see above
    from rich.text import Text  # noqa: PLC0415 - slow

    grid = RichTable(box=None, padding=(0, 0, 0, _GAP), collapse_padding=False, show_header=False)
    for place, size in enumerate(widths):
        grid.add_column(justify="right" if place in figures else "left", width=size)
    for row in rows:
        grid.add_row(*map(Text, row))
    return grid


def _longest_word(text: str) -> int:
    return max(map(_width, text.split(" ")))


def _width(text: str) -> int:
    from rich.cells import cell_len  # noqa: PLC0415 - see above

    return cell_len(text)


def say(line: str) -> None:
    """Say something at once on standard error, beside the screen that comes at the end."""
    write_line(printable(line))


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
    write_line("bulksubmit: " + "\n".join(map(printable, message.split("\n"))))
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
