"""Makes a task of each row: wrapped, picked, renamed, or put into a template, as `[mapping]` says.

`planning` maps whole blocks with it, and `payload` renders frozen records again: both get the same bytes.

What goes up is the text of the source wherever the mapping leaves it alone, because parsing and rendering is lossy:
integers over 64 bits become floats, `1.0E+2` becomes `100.0`. So there are three ways. A row that the mapping does not
touch stays as it is, or gets the same bytes put around it as every other row. A row that orjson renders as the source
has it, except for blanks, loses nothing by that and is rebuilt from its values. Any other row is rebuilt from the text
of its values, which takes three times as long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec
import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.model.errors import ConfigError
from engine.model.record import Block, Row, has_json_form, loads
from engine.model.settings import MappingSettings
from engine.services.decoding import Anything
from engine.source.json_text import BLANKS, members
from engine.source.splitter import RecordProof

_ROUTES = 1000
"""Sets of columns whose routes are remembered; a source where every row has others must not fill the memory."""

_PLACEHOLDER = re.compile(r"\$\{row\.([^}]+)\}")
_MISWRITTEN = re.compile(r"\$\{(?!row\.[^}]+\})\s*rows?\b[^}]*\}?")
"""Other `${…}` may be meant for the service."""


class _Route(Struct, frozen=True):
    """Where the values of rows with the same columns go: pairs of key and column."""

    inputs: Sequence[tuple[str, str]]
    picks: Sequence[tuple[str, str]]
    changes: bool
    """The task is not just the row with something put around it."""


class _Unmappable(ValueError):
    """No task can be made of a row; the message is the reject's reason."""


class Mapper:
    """Makes tasks of rows. Safe to share between threads.

    `check` says why the service would not take a task, or None. A task that `plain_task` takes passes it unseen.
    `task_bytes`: longest task that the service takes, as it goes up; None: of any length.

    Raises:
        ConfigError: the mapping contradicts itself, or a default is no JSON.
    """

    def __init__(
        self,
        settings: MappingSettings,
        check: Callable[[Row], str | None],
        plain_task: type[msgspec.Struct] | None = None,
        *,
        task_bytes: int | None = None,
    ) -> None:
        _refuse_contradictions(settings)
        _refuse_unfit_values(settings)
        self._settings = settings
        self._template = _Template(settings.template) if settings.template else None
        self._touched = frozenset([*settings.fields.values(), *settings.drop, *settings.rename])
        self._dropped = frozenset([*settings.fields.values(), *settings.drop])
        plainly_wrapped = not self._touched and (settings.wrap is not None or not settings.defaults)
        self._reshapes = self._template is not None or not plainly_wrapped
        self._prefix, self._suffix = _surroundings(settings)
        self._check = check
        self._task_bytes = task_bytes
        self.proof = None if self._reshapes or plain_task is None else self._proof(plain_task)
        """Takes records that become tasks without a look at their values: `apply` needs no rows of them."""
        self._route = lru_cache(_ROUTES)(self._new_route)

    def apply(self, block: Block) -> Block:
        """Return the tasks of a block; rows that cannot be mapped or do not pass the check become rejects."""
        if block.rows is None:
            tasks = self._surrounded(block.raws)
            return replace(block, raws=tasks).without(self._too_long(tasks))
        flaws: dict[int, str] = {}
        make = self._reshaped if self._reshapes else self._wrapped
        values, tasks = make(block.raws, block.rows, flaws)
        reasons = list(map(self._check, values))
        if reasons.count(None) < len(reasons):
            for position, reason in enumerate(reasons):
                if reason is not None:
                    flaws.setdefault(position, reason)
        return replace(block, raws=tasks, rows=values).without(self._too_long(tasks) | flaws)

    def _too_long(self, tasks: Sequence[bytes]) -> dict[int, str]:
        """Return by position why tasks are too long for the service."""
        most = self._task_bytes
        if most is None or max(map(len, tasks), default=0) <= most:
            return {}
        why = "its task has {:,} bytes, and the service takes {:,} at once (service.limit.bytes)"
        return {at: why.format(len(task), most) for at, task in enumerate(tasks) if len(task) > most}

    def render(self, raws: Sequence[bytes]) -> Sequence[bytes]:
        """Return the tasks of records that were good before: the same bytes that `apply` made of them."""
        if self._reshapes:
            return self._reshaped(raws, list(map(loads, raws)), {})[1]
        return self._surrounded(raws)

    def _proof(self, plain_task: type[msgspec.Struct]) -> RecordProof | None:
        """Return what takes a record if `plain_task` takes the task that is made by putting something around it."""
        if self._settings.wrap is None:
            return msgspec.json.Decoder(plain_task)
        wanted = msgspec.structs.fields(plain_task)
        if not wanted and not plain_task.__struct_config__.forbid_unknown_fields:  # any object will do
            return msgspec.json.Decoder(Anything)
        kinds = {field.encode_name: field.type for field in wanted}
        try:
            msgspec.json.decode(self._prefix + b"{}" + self._suffix, type=plain_task)
        except msgspec.DecodeError:
            return None
        return msgspec.json.Decoder(Anything) if kinds.get(self._settings.wrap) is Anything else None

    def _wrapped(
        self, raws: Sequence[bytes], rows: Sequence[Row], _flaws: dict[int, str]
    ) -> tuple[Sequence[Row], Sequence[bytes]]:
        wrap, defaults = self._settings.wrap, self._settings.defaults
        values = rows if wrap is None else [{wrap: row, **defaults} for row in rows]
        return values, self._surrounded(raws)

    def _surrounded(self, raws: Sequence[bytes]) -> Sequence[bytes]:
        prefix, suffix = self._prefix, self._suffix
        return [prefix + raw + suffix for raw in raws] if prefix else raws

    def _reshaped(
        self, raws: Sequence[bytes], rows: Sequence[Row], flaws: dict[int, str]
    ) -> tuple[Sequence[Row], Sequence[bytes]]:
        """Return tasks as values and as bytes; both are empty for a row that cannot be mapped."""
        values: list[Row] = [{}] * len(rows)
        tasks = [b""] * len(rows)
        for position, (raw, row) in enumerate(zip(raws, rows, strict=True)):
            try:
                values[position], tasks[position] = self._task(raw, row)
            except _Unmappable as flaw:
                flaws[position] = str(flaw)
        return values, tasks

    def _task(self, raw: bytes, row: Row) -> tuple[Row, bytes]:
        if self._template is not None:
            value, exact = self._template.filled(row, row if _renders_as(row, raw) else _texts(raw))
            return value, orjson.dumps(exact)
        route = self._route(tuple(row))
        value = self._built(route, row, row)
        if not route.changes:
            return value, self._prefix + raw + self._suffix
        if _renders_as(row, raw):
            return value, orjson.dumps(value)
        return value, orjson.dumps(self._built(route, row, _texts(raw)))

    def _new_route(self, columns: Sequence[str]) -> _Route:
        inputs: dict[str, str] = {}
        for column in columns:
            if column not in self._dropped:
                _place(inputs, self._settings.rename.get(column, column), column)
        picks: dict[str, str] = {}
        taken = {} if self._prefix else dict(inputs)
        for key, column in self._settings.fields.items():
            if column in columns:
                _place(taken, key, column)
                picks[key] = column
        lacking = not self._prefix and not self._settings.defaults.keys() <= taken.keys()
        changes = lacking or not self._touched.isdisjoint(columns)
        return _Route(tuple(inputs.items()), tuple(picks.items()), changes)

    def _built(self, route: _Route, row: Row, cells: Mapping[str, Any]) -> Row:
        """Return a task with its values taken from `cells`: the row, or the text of its values."""
        task = {key: cells[column] for key, column in route.inputs}
        if self._settings.wrap is not None:
            task = {self._settings.wrap: task}
        for key, column in route.picks:
            if row[column] is not None:  # an empty CSV field is null: as good as not there
                task[key] = cells[column]
        for key, default in self._settings.defaults.items():
            task.setdefault(key, default)
        return task


def _renders_as(row: Row, raw: bytes) -> bool:
    """Return whether orjson writes a row as it is, except for blanks: rendering its values then loses nothing."""
    try:
        return orjson.dumps(row).translate(None, BLANKS) == raw.translate(None, BLANKS)
    except TypeError:  # it reads 1024 levels and writes 254
        return False


def _texts(raw: bytes) -> Mapping[str, orjson.Fragment]:
    """Return the values of a row as they are written."""
    return {name: orjson.Fragment(text) for name, text in members(raw).items()}


def _place(placed: dict[str, str], key: str, column: str) -> None:
    if key in placed:
        raise _Unmappable(f"columns {placed[key]!r} and {column!r} both become {key!r}: drop one, or name it otherwise")
    placed[key] = column


def _surroundings(settings: MappingSettings) -> tuple[bytes, bytes]:
    """Return what stands before and after each row that is only wrapped."""
    if settings.wrap is None:
        return b"", b""
    defaults = orjson.dumps(settings.defaults)[1:]
    return b"{" + orjson.dumps(settings.wrap) + b":", (b"," if settings.defaults else b"") + defaults


def named_columns(settings: MappingSettings) -> Mapping[str, str]:
    """Return the columns that `[mapping]` takes from rows → the key that names each."""
    named = dict.fromkeys(settings.drop, "mapping.drop") | dict.fromkeys(settings.rename, "mapping.rename")
    named |= {column: f"mapping.fields.{key}" for key, column in settings.fields.items()}
    return named | dict.fromkeys(_placeholders(settings.template), "mapping.template")


def _placeholders(value: Any) -> Iterator[str]:
    """Yield the columns that a part of the template takes."""
    if isinstance(value, str):
        yield from _PLACEHOLDER.findall(value)
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _placeholders(one)


def _refuse_unfit_values(settings: MappingSettings) -> None:
    """Refuse what TOML can say and JSON cannot."""
    for name, table in (("defaults", settings.defaults), ("template", settings.template)):
        for key, value in table.items():
            if not has_json_form(value):
                raise ConfigError(f"mapping.{name}.{key}: {value!r} is no JSON value; put it into quotes")


def _refuse_contradictions(settings: MappingSettings) -> None:
    """Refuse keys that contradict each other."""
    for other in ("wrap", "fields", "defaults", "rename", "drop"):
        if settings.template and getattr(settings, other):
            raise ConfigError(
                f"mapping.template and mapping.{other} do not go together: the template says all that a task holds"
            )
    for name, keys in (("fields", settings.fields), ("defaults", settings.defaults)):
        if settings.wrap is not None and settings.wrap in keys:
            raise ConfigError(
                f"mapping.{name}.{settings.wrap}: the key {settings.wrap!r} is made by mapping.wrap; take another one"
            )
    users: dict[str, str] = {}
    for name, columns in (("fields", settings.fields.values()), ("rename", settings.rename), ("drop", settings.drop)):
        for column in columns:
            if users.setdefault(column, name) != name:
                raise ConfigError(
                    f"mapping.{users[column]} and mapping.{name} both take column {column!r}: remove it from one"
                )


class _Template:
    """Makes tasks of rows: `${row.column}` stands for a value of the row, anywhere in the template.

    A text that is only one placeholder becomes the value, with its type and as the source writes it; in any other text
    the value is inserted as text. So a value is taken from the source's text, where rendering it anew would change it.

    Raises:
        ConfigError: a placeholder is miswritten.
    """

    def __init__(self, template: Mapping[str, Any]) -> None:
        self._fill = _compiled(dict(template), "mapping.template")

    def filled(self, row: Row, cells: Mapping[str, Any]) -> tuple[Row, Row]:
        """Return the task with values of the row, and with `cells`: the same values, or the text of each.

        Raises:
            _Unmappable: names the column, and where the template takes it.
        """

        def text(column: str) -> str:
            value = row[column]
            if value is None:
                raise _Unmappable(f"column {column!r} is null, and mapping.template puts it into a text")
            return value if isinstance(value, str) else orjson.dumps(cells[column]).decode()

        try:
            return self._fill(row, text), self._fill(cells, text)
        except KeyError as error:
            raise _Unmappable(f"has no column {error.args[0]!r}, which mapping.template takes from it") from None


_Fill: TypeAlias = Callable[[Mapping[str, Any], Callable[[str], str]], Any]
"""(value of each column, what gives the text of one) → a part of the task."""


def _compiled(value: Any, place: str) -> _Fill:
    """Return what fills a part of the template."""
    if isinstance(value, dict):
        for key in value:
            if "${row" in key:
                raise ConfigError(f"{place}: the key {key!r} is taken as it stands; only values hold placeholders")
        table = {key: _compiled(one, f"{place}.{key}") for key, one in value.items()}
        return lambda cells, text: {key: fill(cells, text) for key, fill in table.items()}
    if isinstance(value, list):
        items = [_compiled(one, f"{place}[{number}]") for number, one in enumerate(value)]
        return lambda cells, text: [fill(cells, text) for fill in items]
    if not isinstance(value, str):
        return lambda _cells, _text: value
    if wrong := _MISWRITTEN.search(value):
        raise ConfigError(f"{place}: {wrong[0]!r} is no placeholder; write ${{row.column}}")
    if alone := _PLACEHOLDER.fullmatch(value):
        column = alone[1]
        return lambda cells, _text: cells[column]
    parts = _PLACEHOLDER.split(value)  # literal, column, literal, …, literal
    return lambda _cells, text: "".join(text(part) if number % 2 else part for number, part in enumerate(parts))
