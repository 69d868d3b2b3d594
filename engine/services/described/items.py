"""What one item of a list of results says: created, failed, there already, busy, or nothing clear. Pure.

Nearly all items of nearly all lists say that all went well. So a list is first looked at as a whole, one path after the
other, which takes a tenth of the time of looking at each item; only what is not plainly well is looked at by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from itertools import compress, repeat
from typing import Any, TypeAlias

import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.model.errors import UnexpectedAnswer
from engine.services.decoding import MOST_ID_CHARACTERS, are_names
from engine.services.described.paths import ANY, MISSING, compiled, parts_of, text_of_value
from engine.services.described.settings import FailuresTable, FetchTable, ResultsTable

NO_ID = "the service calls it done and does not name its task"
_NOTHING: tuple[Any, ...] = (MISSING, None, "", [], {})
"""What counts as no id. 0 is one."""
_NO_ERROR: tuple[Any, ...] = (*_NOTHING, False)
"""What counts as no error; `False` is 0, too."""
_NUMBER = re.compile(r"-?[0-9]+")
_MOST_WORDS = 10


class ItemFate(Enum):
    """What an item says of its record, where it is not plainly that it was created."""

    FAILED = auto()
    EXISTS = auto()
    """It is there already."""
    BUSY = auto()
    """Nothing was done; the same may succeed later."""
    UNCLEAR = auto()


class JudgedItems(Struct, frozen=True):
    """What a list of items says, by number in the list."""

    ids: Sequence[str | None]
    """The task that each one names."""
    fates: Mapping[int, tuple[ItemFate, str]] = {}
    """Of those that were not plainly created, with the words for people."""


Columns: TypeAlias = dict[tuple[str, ...], Sequence[Any]]
"""Parts of a path → the value of each item there."""


class PathValues:
    """The values at one path, of one item or of many. In a row of CSV a path is the name of a column, dots and all."""

    __slots__ = ("_begun", "_literal", "get", "path")

    def __init__(self, path: str, *, of_rows: bool = False) -> None:
        self.path = path
        self._literal = path.startswith("=")
        parts = parts_of(path)
        self.get = compiled(path)
        """Takes the value out of one item; MISSING where it is not there."""
        if of_rows and len(parts) > 1:
            parts, self.get = (path,), compiled(f'"{path}"')
        self._begun = [tuple(parts[: at + 1]) for at in range(len(parts))]

    def of(self, items: Sequence[Any], seen: Columns | None = None) -> Sequence[Any]:
        """Return the value of each item; `seen` has those at the beginnings of other paths of the same items."""
        if self._literal:
            return [self.path[1:]] * len(items)
        values, columns = items, {} if seen is None else seen
        for begun in self._begun:
            if begun in columns:
                values = columns[begun]
                continue
            part = begun[-1]
            # Objects alone: a text or a list could be asked for a part, too, and would answer something else.
            if _NUMBER.fullmatch(part) or set(map(type, values)) != {dict}:
                return list(map(self.get, items))
            if part != "*":
                values = [value.get(part, MISSING) for value in values]
            elif set(map(len, values)) == {1}:
                values = [value for (value,) in map(dict.values, values)]
            else:
                return list(map(self.get, items))
            columns[begun] = values
            if values.count(MISSING) == len(values):
                return values
        return values


_OF_WHOLE = [PathValues(path) for path in ("error.message", "error", "errors")]
"""Where an answer says that it is an error, whatever its status: one without a list is none that all went well."""

Condition: TypeAlias = tuple[PathValues, Callable[[Any], bool]]
"""Where a value stands, and whether it fits."""


class ResultReader:
    """Reads items in the form that a table describes; of the list of those that failed, see `failures_table`."""

    def __init__(self, table: ResultsTable, *, only_failures: bool = False) -> None:
        of_rows = table.format == "csv"
        self.format = table.format
        self.match = table.match
        self._only_failures = only_failures
        self._allows_none = table.missing == "created" or only_failures
        self._single = table.single
        self._items_path = table.items
        self._items = compiled(table.items)
        place = table.key if table.match == "key" else table.index if table.match == "index" else ""
        self._place = PathValues(place, of_rows=of_rows) if place else None
        self.column = _column_of(place) if of_rows and place and not place.startswith("=") else ""
        """Of a table: the column that says whose a row is."""
        self._ids = [PathValues(path, of_rows=of_rows) for path in table.id]
        self._errors = [PathValues(path, of_rows=of_rows) for path in table.error]
        self._ok = _conditions(table.ok, of_rows=of_rows)
        self._exists = _conditions(table.exists, of_rows=of_rows)
        self._busy = _conditions(table.busy, of_rows=of_rows)

    def items(self, body: Any, *, needed: bool = True) -> tuple[Sequence[Any], Sequence[Any] | None]:
        """Return the items in a decoded answer, and the places that they stand at where they are those of an object.

        `needed`: if not, the list may be left out, since another one may hold all.

        Raises:
            UnexpectedAnswer: there is no such list.
        """
        found = self._items(body)
        if isinstance(found, list):
            return found, None
        if isinstance(found, dict) and self._single:
            return [found], None
        if isinstance(found, dict) and self.match != "order" and self._place is None:
            return list(found.values()), list(found)
        if found in (MISSING, None) and (self._allows_none or not needed) and isinstance(body, dict | list):
            if not self._only_failures and (said := _first(_OF_WHOLE, body, _NO_ERROR)) is not None:
                raise UnexpectedAnswer(f"the answer has no list of results, and its error is: {words_of(said)}")
            return [], None
        if self._allows_none and not self._items_path and isinstance(body, dict):  # no list is looked for
            return [], None
        where = f"at {self._items_path!r}" if self._items_path else "in it"
        raise UnexpectedAnswer(f"the answer has no list of results {where}")

    def places(self, items: Sequence[Any], stands_at: Sequence[Any] | None = None) -> Sequence[Any]:
        """Return what each item says of its record's place: a key, or an index."""
        if stands_at is not None:
            return stands_at
        return self._place.of(items) if self._place else list(repeat(MISSING, len(items)))

    def judged(self, items: Sequence[Any]) -> JudgedItems:
        """Return what each item says."""
        if self.format == "ids":
            return _with_ids(items, has_id=True)
        seen: Columns = {}
        has_id, odd = bool(self._ids), self._not_plainly_created(items, seen)
        raw = _firsts(self._ids, items, seen) if has_id else items
        return _with_ids(raw, has_id=has_id, fates={number: self._fate(items[number]) for number in odd})

    def _not_plainly_created(self, items: Sequence[Any], seen: Columns) -> Sequence[int]:
        """Return the numbers of the items that are not plainly created at the first look."""
        if self._only_failures:
            return range(len(items))
        odd: set[int] = set()
        if self._ok:
            for values, fits in self._ok:
                odd.update(_misfits(values.of(items, seen), fits))
            return sorted(odd)
        for values in self._errors:
            said = values.of(items, seen)
            if said.count(MISSING) + said.count(None) < len(said):
                odd.update(number for number, one in enumerate(said) if one not in _NO_ERROR)
        for conditions in (self._busy, self._exists):
            if conditions:
                held = [_all_hold(conditions, item) for item in items]
                odd.update(compress(range(len(items)), held))
        return sorted(odd)

    def _fate(self, item: Any) -> tuple[ItemFate, str]:
        said = _first(self._errors, item, _NO_ERROR)
        text = "" if said is None else words_of(said)
        if self._busy and _all_hold(self._busy, item):
            return ItemFate.BUSY, text or f"the service was busy ({_shown(self._busy, item)})"
        if self._exists and _all_hold(self._exists, item):
            return ItemFate.EXISTS, text
        if text:
            return ItemFate.FAILED, text
        if self._only_failures:
            return ItemFate.FAILED, "the service lists it among those that failed"
        if any(values.get(item) is not MISSING for values, _ in self._ok):
            return ItemFate.FAILED, f"the service says {_shown(self._ok, item)}"
        return ItemFate.UNCLEAR, "its item in the results says neither yes nor no"


def fetch_table(table: ResultsTable, own: FetchTable) -> ResultsTable:
    """Return how the results of one fetch are read: as the table says, but for what the fetch itself says."""
    said = {name: value for name in _OF_FETCH if (value := getattr(own, name)) is not None}
    return replace(table, **said) if said else table


def failures_table(table: ResultsTable, failures: FailuresTable) -> ResultsTable:
    """Return how the second list is read: whatever is in it was not created."""
    match = "key" if failures.key else "index" if failures.index else table.match
    own = {name: getattr(failures, name) for name in ("items", "key", "index", "id", "error", "exists", "busy")}
    return replace(table, **own, match=match, ok={}, failures=None)


_OF_FETCH = "format", "items", "match", "key", "index", "id", "ok", "error", "exists", "busy", "pages"


def _first(paths: Sequence[PathValues], item: Any, nothing: tuple[Any, ...]) -> Any:
    """Return the first value of an item, of those at some paths, that says something; None if none does."""
    for values in paths:
        if (found := values.get(item)) not in nothing:
            return found
    return None


def _firsts(paths: Sequence[PathValues], items: Sequence[Any], seen: Columns) -> Sequence[Any]:
    """Return the first id of each item: as a rule, the first path has it of all of them."""
    found = paths[0].of(items, seen)
    if len(paths) == 1 or not any(one in _NOTHING for one in found):
        return found
    return [_first(paths, item, _NOTHING) for item in items]


def _column_of(path: str) -> str:
    """Return the name of the column that a path means: in a table, dots belong to it."""
    parts = parts_of(path)
    return parts[0] if len(parts) == 1 else path


def _conditions(table: Mapping[str, Any], *, of_rows: bool) -> Sequence[Condition]:
    return [(PathValues(path, of_rows=of_rows), _fitting(wanted)) for path, wanted in table.items()]


def _misfits(values: Sequence[Any], fits: Callable[[Any], bool]) -> Sequence[int]:
    """Return the places of the values that do not fit: mostly they are all the same one, and it does."""
    is_simple = len(set(map(type, values))) == 1 and isinstance(values[0], str | int)  # of one: True is not taken for 1
    if is_simple and all(map(fits, set(values))):
        return ()
    return [number for number, value in enumerate(values) if not fits(value)]


def _fitting(wanted: Any) -> Callable[[Any], bool]:
    """Return whether a value is one of those wanted, compared as texts: a table without types holds nothing else."""
    texts = frozenset(map(text_of_value, wanted if isinstance(wanted, list | tuple) else [wanted]))
    if ANY in texts:
        return _is_there

    def fits(value: Any) -> bool:
        if type(value) is str:
            return value in texts
        if type(value) is int:
            return str(value) in texts
        return _is_there(value) and text_of_value(value) in texts

    return fits


def _is_there(value: Any) -> bool:
    return value is not None and value is not MISSING


def _all_hold(conditions: Sequence[Condition], item: Any) -> bool:
    return all(fits(values.get(item)) for values, fits in conditions)


def _shown(conditions: Sequence[Condition], item: Any) -> str:
    found = [(values.path, values.get(item)) for values, _ in conditions]
    return ", ".join(f"{path} is {words_of(value)}" for path, value in found if value is not MISSING)


def words_of(value: Any) -> str:
    """Return a value of an answer as words: a list of texts joined, an object by its message or as JSON."""
    if isinstance(value, str):
        return value
    if value is MISSING:
        return ""
    if isinstance(value, list):
        return "; ".join(words_of(one) for one in value[:_MOST_WORDS])
    if isinstance(value, Mapping) and isinstance(value.get("message"), str):
        return str(value["message"])
    try:
        return orjson.dumps(value).decode()
    except (TypeError, orjson.JSONEncodeError):
        return str(value)


def _with_ids(raw: Sequence[Any], *, has_id: bool, fates: dict[int, tuple[ItemFate, str]] | None = None) -> JudgedItems:
    """Return the ids of items as texts; a created one whose id is none is unclear, if ids are expected."""
    fates = {} if fates is None else fates
    if not has_id:
        return JudgedItems([None] * len(raw), fates)
    ids: Sequence[Any] = raw
    if set(map(type, raw)) != {str}:
        ids = [one if isinstance(one, str) else str(one) if type(one) is int else None for one in raw]
    if None not in ids and are_names(ids):
        return JudgedItems(ids, fates)
    ids = [one if one is not None and is_id(one) else None for one in ids]
    for number, task_id in enumerate(ids):
        if task_id is None and number not in fates:
            fates[number] = ItemFate.UNCLEAR, NO_ID
    return JudgedItems(ids, fates)


def is_id(found: str) -> bool:
    """Return whether a text can be the id of a task: it stands in reports, and quoted in URLs."""
    return 0 < len(found) <= MOST_ID_CHARACTERS and found.isprintable()
