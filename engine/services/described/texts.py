"""Texts with `${name}` in them, compiled once and filled for each batch or each record; and JSON made of them.

`${name}` stands for a text that is known when it is filled. `${task}` is the task itself, as its own bytes, and
`${task.path}` a value in it, as its own text. In a value of JSON, a text that is one `${…}` and nothing else becomes
the value: `"${task.size}"` stays a number, `"${task}"` an object, `"${index}"` a number. In any other text values stand
as texts.

What is the same for a whole batch is put in once a batch. What is left costs less than 1 µs a record and name: records
are filled column by column, with one `%` for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeAlias
from urllib.parse import urlencode

import orjson

from engine.model.batch import batch_name
from engine.model.job import Job
from engine.model.record import has_json_form
from engine.model.settings import SecretStr, SecretTree
from engine.services.described.paths import parts_of, text_of_value

BATCH_NAMES = frozenset({"job", "token", "batch", "mark"})
"""Known of every batch before it is sent."""
RECORD_NAMES = frozenset({"index", "key", "task"})
"""Known of every record."""
GIVEN_NAMES = BATCH_NAMES | RECORD_NAMES
"""No step may take a value under one of these, and no one of `values` may be called so."""
TASK = "task"

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,59}")
"""How a value that a step takes may be called."""

Filled: TypeAlias = Sequence[str]
"""One text for each record."""
TextColumns: TypeAlias = Callable[[str], Sequence[str]]
"""Name → its text for each record of a batch."""
JsonColumns: TypeAlias = Callable[[str], Sequence[bytes]]
"""Name → its value for each record of a batch, as JSON."""

_SHOWN = re.compile(r"[\w. -]{1,60}")
_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")


def batch_names(job: Job, token: str, sequence: int) -> dict[str, str]:
    """Return what texts may name of a batch before it is sent.

    `mark` is the same words in every attempt, and nobody else's: `JOB-TOKEN-BATCH`.
    """
    name = batch_name(sequence)
    return {"job": job.name, "token": token, "batch": name, "mark": f"{job.name}-{token}-{name}"}


def split(text: str, place: str) -> Sequence[str]:
    """Return a text as literal, name, literal, …, literal.

    Raises:
        ValueError: a placeholder is miswritten; begins with `place`.
    """
    parts = _PLACEHOLDER.split(text)
    for literal in parts[::2]:
        if "${" in literal:
            raise ValueError(f"{place}: a '${{' has no end; write ${{name}}")
    for name in parts[1::2]:
        head, dot, path = name.partition(".")
        if not NAME.fullmatch(head) or (dot and head != TASK):
            shown = name if _SHOWN.fullmatch(name) else "…"  # it may come out of a secret
            raise ValueError(
                f"{place}: ${{{shown}}} is no name; write ${{name}}, or ${{task.path}} for a value of the task"
            )
        if dot:
            _task_path(path, place)
    return parts


def _task_path(path: str, place: str) -> None:
    try:
        parts = parts_of(path)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    if not parts or "*" in parts:
        raise ValueError(f"{place}: ${{task.{path}}} names no value; write ${{task.path}} with names and numbers only")


def names_in(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield each `${name}` in a text, or in the texts of a table or a list, and the place of the text.

    Raises:
        ValueError: a placeholder is miswritten, or stands in a key, or a value is none that JSON has; begins with the
            place.
    """
    match value:
        case str():
            yield from ((name, place) for name in split(value, place)[1::2])
        case dict():
            for key, one in value.items():
                if "${" in key:
                    raise ValueError(f"{place}: the key {key!r} is taken as it stands; only values hold placeholders")
                yield from names_in(one, f"{place}.{key}")
        case list() | tuple():
            for at, one in enumerate(value):
                yield from names_in(one, f"{place}[{at}]")
        case _:
            if not has_json_form(value):
                raise ValueError(f"{place}: {value!r} is no JSON value; put it into quotes")


def check_names(value: Any, known: Mapping[str, str], place: str) -> None:
    """Check that every `${name}` in a value is known.

    Args:
        value: a text, or a table or a list with texts in it.
        known: each name that may stand there; of one that may not, although it is known elsewhere, why: else "".
        place: where the value stands, for errors.

    Raises:
        ValueError: one is not; begins with its place.
    """
    for name, where in names_in(value, place):
        head = name.partition(".")[0]
        if why := known.get(head, "nothing fills it"):
            allowed = [one for one, reason in known.items() if not reason]
            near = get_close_matches(head, allowed, 1)
            hint = f"did you mean ${{{near[0]}}}?" if near else f"known here: {', '.join(sorted(allowed))}"
            raise ValueError(f"{where}: ${{{name}}}: {why}; {hint}")


class Text:
    """A text with `${name}` in it. Compiled; safe to share.

    Raises:
        ValueError: a placeholder is miswritten; begins with `place`.
    """

    __slots__ = ("_parts", "names", "text")

    def __init__(self, text: str, place: str = "text") -> None:
        self.text = text
        self._parts = split(text, place)
        self.names = frozenset(self._parts[1::2])
        """Those that stand in it, as they are written: `task.id`, too."""

    def __repr__(self) -> str:
        return f"Text({self.text!r})"

    def fill(self, values: Mapping[str, str], quote: Callable[[str], str] | None = None) -> str:
        """Return the text with the values of its names; each is made fit by `quote`, for a part of a URL say.

        Raises:
            KeyError: one is not among them.
        """
        if not self.names:
            return self.text
        parts = [*self._parts]
        filled = [values[name] for name in parts[1::2]]
        parts[1::2] = map(quote, filled) if quote else filled
        return "".join(parts)

    def each(self, count: int, values: Mapping[str, str], column: TextColumns) -> Filled:
        """Return the text for each of `count` records: `values` are those of the batch, `column` has the others."""
        pattern, names = _folded(self._parts, values)
        if not names:
            return [pattern[0]] * count
        if len(names) == 1:
            head, tail = pattern
            return [f"{head}{one}{tail}" for one in column(names[0])] if head or tail else column(names[0])
        form = "%s".join(part.replace("%", "%%") for part in pattern)
        return [form % row for row in zip(*map(column, names), strict=True)]


def _folded(parts: Sequence[str], values: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the literals between names, and the names, with those that have a value made part of the literals."""
    literals, names = [parts[0]], []
    for name, literal in zip(parts[1::2], parts[2::2], strict=True):
        if name in values:
            literals[-1] += values[name] + literal
        else:
            names.append(name)
            literals.append(literal)
    return literals, names


class JsonText:
    """A value of JSON with `${name}` in its texts. Compiled; safe to share.

    Raises:
        ValueError: a placeholder is miswritten, or stands in a key, or a value is none that JSON has; begins with
            `place`.
    """

    __slots__ = ("_pieces", "_value", "names")

    def __init__(self, value: Any, place: str = "json") -> None:
        self.names = frozenset(name for name, _ in names_in(value, place))
        """Those that stand in it, as they are written: `task.id`, too."""
        self._value = value
        self._pieces = _merged(_pieces(value))

    def fill(self, values: Mapping[str, str]) -> Any:
        """Return the value with texts in place of its names; none of them is one of a record.

        Raises:
            KeyError: a name is not among `values`.
        """
        return _filled(self._value, values) if self.names else self._value

    def literal_bytes(self) -> int:
        """Return how long it is without what its names stand for."""
        return sum(len(one) for one in self._pieces if isinstance(one, bytes))

    def uses(self) -> Sequence[str]:
        """Return each name as often as it stands there."""
        return [one[0] for one in self._pieces if not isinstance(one, bytes)]

    def has_in_text(self, name: str) -> bool:
        """Return whether a name stands in a text with others: then its value is put there as a text."""
        return (name, False) in self._pieces

    def each(
        self, count: int, values: Mapping[str, str], column: TextColumns, json_column: JsonColumns
    ) -> Sequence[bytes]:
        """Return the JSON text for each of `count` records.

        Args:
            count: of records.
            values: names that are the same for all of them.
            column: has the others as texts.
            json_column: has them as values, for texts that are one name and nothing else.
        """
        literals: list[bytes] = [b""]
        columns: list[Sequence[bytes]] = []
        for piece in self._pieces:
            if isinstance(piece, bytes):
                literals[-1] += piece
                continue
            name, alone = piece
            if name in values:
                text = orjson.dumps(values[name])
                literals[-1] += text if alone else text[1:-1]
                continue
            columns.append(json_column(name) if alone else [orjson.dumps(one)[1:-1] for one in column(name)])
            literals.append(b"")
        if not columns:
            return literals * count
        if len(columns) == 1:
            head, tail = literals
            return [head + one + tail for one in columns[0]] if head or tail else columns[0]
        form = b"%b".join(part.replace(b"%", b"%%") for part in literals)
        return [form % row for row in zip(*columns, strict=True)]


_Piece: TypeAlias = bytes | tuple[str, bool]
"""Literal JSON, or a name and whether it stands alone in its text: then it is a value, with its quotes."""


def _pieces(value: Any) -> Iterator[_Piece]:
    match value:
        case str():
            parts = split(value, "")
            if len(parts) == 3 and not parts[0] and not parts[2]:  # noqa: PLR2004 - literal, name, literal
                yield parts[1], True
                return
            yield b'"'
            for at, part in enumerate(parts):
                yield (part, False) if at % 2 else orjson.dumps(part)[1:-1]
            yield b'"'
        case dict():
            yield b"{"
            for at, (key, one) in enumerate(value.items()):
                yield (b"," if at else b"") + orjson.dumps(key) + b":"
                yield from _pieces(one)
            yield b"}"
        case list() | tuple():
            yield b"["
            for at, one in enumerate(value):
                yield b"," if at else b""
                yield from _pieces(one)
            yield b"]"
        case _:
            yield orjson.dumps(value)


def _merged(pieces: Iterator[_Piece]) -> list[_Piece]:
    merged: list[_Piece] = []
    for piece in pieces:
        before = merged[-1] if merged else None
        if isinstance(piece, bytes) and isinstance(before, bytes):
            merged[-1] = before + piece
        elif piece:
            merged.append(piece)
    return merged


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    match value:
        case str():
            parts = [*split(value, "")]
            parts[1::2] = [values[name] for name in parts[1::2]]
            return "".join(parts)
        case dict():
            return {key: _filled(one, values) for key, one in value.items()}
        case list() | tuple():
            return [_filled(one, values) for one in value]
        case _:
            return value


def clear(tree: Any) -> Any:
    """Return a free-form table in the clear, for a call or a check; {} for one that is left out, any other as it is."""
    if tree is None:
        return {}
    return tree.get_secret_value() if isinstance(tree, SecretTree | SecretStr) else tree


def form_of(fields: Mapping[str, Any]) -> bytes:
    """Return a table as the body of a form (`application/x-www-form-urlencoded`).

    What is nested is named as in `address[city]` and `items[0]`; what is null is left out.
    """
    return urlencode(list(_form_fields(dict(fields)))).encode()


def _form_fields(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for key, one in value.items():
                yield from _form_fields(one, f"{name}[{key}]" if name else key)
        case list():
            for at, one in enumerate(value):
                yield from _form_fields(one, f"{name}[{at}]")
        case None:
            return
        case _:
            yield name, text_of_value(value)


class Unfilled(dict[str, str]):
    """Values of names, to show a text before a step has taken its values: a name that has none stands for itself."""

    def __missing__(self, name: str) -> str:
        return name.upper()
