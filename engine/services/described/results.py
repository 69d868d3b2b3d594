"""What answers say of each record: lists of results in, the fate of every record of a batch out. Pure.

An item of a list tells of one record. Which one is known by the order of the list, by an index in the item or by the
record's key in it. What an item says is judged in this order: `ok` holds: created; `busy`; `exists`; an error, or `ok`
does not hold: failed. An item without any of them is created if the description names no `ok`.

What does not fit is never a success. A list of another length than the batch is not understood as a whole
(`UnexpectedAnswer`), nor are lists that name a place which the batch does not have: then the other places may be those
of neighbours. A record that no item names, that two items name differently, or whose task has no id of its own
is uncertain, with the reason. "No" needs evidence, too: an item that lacks the value which `ok` looks at, and has no
error, leaves its record uncertain.

The module is a long one: lists by order, index and key are put together in one place.
"""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, repeat
from typing import Any, BinaryIO

from engine.model.errors import UnexpectedAnswer
from engine.model.outcome import Settlement
from engine.services.base import Answer
from engine.services.decoding import decode, decode_if_right, words, words_of_all
from engine.services.described.items import NO_ID, ItemFate, JudgedItems, ResultReader, failures_table, words_of
from engine.services.described.paths import MISSING, compiled
from engine.services.described.settings import ResultsTable

THERE_ALREADY = "it is there already: its key stands twice in the source, or it is somebody else's"
_TWICE = "the results name it twice, and not alike"
_SAME_ID = "the service names task {} for another record, too"
PERHAPS_OURS = "it is there already, and it is not known any more whether an earlier attempt of ours has made it"
UNNAMED = ""
"""Id of a task that is there by an attempt of ours, where nobody says its name, and the record's key is none."""
NOT_NAMED = "the results do not name it"
_TWINS = "its key stands twice in the batch, and the results do not tell the two records apart"
_STRAY = "the results do not name it, but {} that no record has"
_MOST_SHOWN = 60
_READ_BYTES = 1 << 20
"""Of a file of lines, at once; and the rest of a line."""
_READ_ROWS = 1_000


class ListReader:
    """Reads the answers that bring the results of a batch, or the files; and the second list of those that failed."""

    def __init__(self, table: ResultsTable) -> None:
        self.table = table
        self._reader = ResultReader(table)
        failures = table.failures
        self._failures = ResultReader(failures_table(table, failures), only_failures=True) if failures else None
        self._number = compiled(table.items) if table.format == "count" else None

    def add(self, answer: Answer, fates: RecordFates, *, call: str = "") -> tuple[Any, int]:
        """Take in an answer; return the value of its body, and how many items it had.

        Raises:
            UnexpectedAnswer: it holds no results.
        """
        if self.table.format == "ndjson":
            items = json_lines(answer.body)
            return items, self._add_items(items, None, fates)
        if self.table.format == "csv":
            lines = io.StringIO(answer.body.decode("utf-8-sig", "replace"), newline="")
            return None, self._add_rows(lines, fates)
        if not answer.body.strip() and self.table.missing == "created":  # 204, say: it names nobody
            return MISSING, 0
        value = decode(answer, Any, call=call)
        return value, self.add_value(value, fates)

    def counts_none(self, value: Any) -> bool:
        """Return whether an answer that holds a number, and nothing else of the records, says that none was created."""
        return self._number is not None and self._number(value) in (MISSING, None, 0)

    def add_value(self, value: Any, fates: RecordFates, *, needed: bool = True) -> int:
        """Take in the decoded body of an answer; return how many items it had. `needed`: if not, it may have no list.

        Raises:
            UnexpectedAnswer: it holds no results.
        """
        if self._number is not None:
            fates.add_count(self._number(value))
            return 1
        number = 0
        if self._failures is not None:
            items, stands_at = self._failures.items(value)
            places = self._failures.places(items, stands_at)
            fates.add(self._failures.match, self._failures.judged(items), places, several=True)
            number = len(items)
        items, stands_at = self._reader.items(value, needed=needed and not number)
        return number + (self._add_items(items, stands_at, fates) if items or needed else 0)

    def first_place(self, file: BinaryIO) -> str:
        """Return the key that the first item of some results names, in a file from its beginning; "" if there is none.

        Raises:
            UnexpectedAnswer: they hold no results.
        """
        file.seek(0)
        if self.table.format == "ndjson":
            lines = (line for line in file if line.strip())
            items: Sequence[Any] = json_lines(next(lines, b""))
        elif self.table.format == "csv":
            text = io.TextIOWrapper(file, "utf-8-sig", "replace", newline="")
            try:
                items = list(islice(csv_items(text, self.table.delimiter), 1))
            finally:
                text.detach()
        else:
            items, _ = self._reader.items(decode(Answer(200, {}, file.read()), Any, call="results"), needed=False)
        places = self._reader.places(items[:1])
        return "" if not places or places[0] is MISSING else words_of(places[0])

    def add_file(self, file: BinaryIO, fates: RecordFates) -> int:
        """Take in a file of lines or rows, from its beginning; return how many items it had. Memory stays flat.

        Raises:
            UnexpectedAnswer: it is no such file.
        """
        file.seek(0)
        if self.table.format == "csv":
            text = io.TextIOWrapper(file, "utf-8-sig", "replace", newline="")
            try:
                return self._add_rows(text, fates)
            finally:
                text.detach()
        number = 0
        while lines := file.read(_READ_BYTES):
            number += self._add_items(json_lines(lines + file.readline()), None, fates)
        return number

    def _add_rows(self, lines: Iterable[str], fates: RecordFates) -> int:
        number, rows = 0, iter(csv_items(lines, self.table.delimiter, self._reader.column))
        while some := list(islice(rows, _READ_ROWS)):
            number += self._add_items(some, None, fates)
        return number

    def _add_items(self, items: Sequence[Any], stands_at: Sequence[Any] | None, fates: RecordFates) -> int:
        reader = self._reader
        if not items and self.table.missing == "created":  # nobody is named, which is not the same as a list too short
            return 0
        fates.add(
            reader.match, reader.judged(items), () if reader.match == "order" else reader.places(items, stands_at)
        )
        return len(items)


class RecordFates:
    """Gathers what results say of the records of one batch; they may come in several lists.

    `keys` returns the key of each record, in order, or () where records have none; it is asked only if keys are needed.
    `keys_are_ids`: the service calls a record by its key.
    Kept are id and error of each record, and nothing of the items themselves.
    """

    def __init__(
        self,
        count: int,
        keys: Callable[[], Sequence[str]],
        *,
        unique_ids: bool = True,
        first_index: int = 0,
        keys_are_ids: bool = True,
    ) -> None:
        self._count = count
        self._first_index = first_index
        self._keys = keys
        self._unique_ids = unique_ids
        self._keys_are_ids = keys_are_ids
        self._ids: list[str | None] = [None] * count
        self._named = bytearray(count)
        self._fates: dict[int, tuple[ItemFate, str]] = {}
        self._in_order: list[JudgedItems] = []
        self._by_key: dict[str, int] | None = None
        self._twins: dict[str, list[int]] = {}
        self._of_twins: dict[str, list[tuple[str | None, tuple[ItemFate, str] | None]]] = {}
        self._strays: list[str] = []
        self._outside: list[int] = []
        """Places that the batch does not have, as the service counts."""
        self.busy: Sequence[int] = ()
        """Positions of which nothing was done yet, once they are settled."""

    def add(self, match: str, judged: JudgedItems, places: Sequence[Any] = (), *, several: bool = False) -> None:
        """Take in a list of items.

        `match`: how the place of each is meant: order, index or key. `several`: one may name a list of places.
        """
        if match == "order":
            self._in_order.append(judged)
        elif match == "index":
            for number, place in _each(places) if several else enumerate(places):
                self._put(self._position(place), place, judged, number)
        else:
            positions = self._positions()
            for number, place in _each(places) if several else enumerate(places):
                key = place if isinstance(place, str) else words_of(place)
                if key in self._twins:
                    self._of_twins.setdefault(key, []).append((judged.ids[number], judged.fates.get(number)))
                else:
                    self._put(positions.get(key), place, judged, number)

    @property
    def any_named(self) -> bool:
        """Whether an item was about a record of the batch."""
        return any(self._named) or bool(self._in_order) or bool(self._of_twins)

    @property
    def has_strays(self) -> bool:
        """Whether an item was about a record that the batch does not have."""
        return bool(self._strays or self._outside)

    def forget_strays(self) -> None:
        """Take such items for those of others, which say nothing of this batch."""
        self._strays.clear()
        self._outside.clear()

    def add_count(self, found: Any) -> None:
        """Take in how many were created, where the service says nothing else.

        Raises:
            UnexpectedAnswer: it is no number.
        """
        if not isinstance(found, int) or isinstance(found, bool):
            raise UnexpectedAnswer("the answer does not say how many were created")
        fates: dict[int, tuple[ItemFate, str]] = {}
        if found != self._count:
            said = f"the service counts {found} created of {self._count}, and does not say which"
            fates = dict.fromkeys(range(self._count), (ItemFate.UNCLEAR, said))
        self._in_order.append(JudgedItems([None] * self._count, fates))

    def settlement(self, missing: str, *, earlier: bool | None, call: str = "", unnamed: str = NOT_NAMED) -> Settlement:
        """Return the fate of every record; `busy` then has those that may be sent again, which count as failed here.

        Args:
            missing: of a record that no item names: "error" (uncertain), "created", or why it failed.
            earlier: an earlier attempt of ours may have made some: what is there already is ours. None: nobody knows.
            call: what was asked, for the errors.
            unnamed: why a record is uncertain that no item names.

        Raises:
            UnexpectedAnswer: a list in order has another length than the batch, an item names a place that the batch
                does not have, or no item is about a record of it.
        """
        self._check_places(call)
        self._place_ordered(call)
        self._place_twins()
        errors, uncertain, busy, by_key = {}, {}, [], []
        for place, (fate, said) in self._fates.items():
            if fate is ItemFate.EXISTS and earlier:
                if self._ids[place] is None and not self._keys_are_ids:
                    by_key.append(place)
                continue
            self._ids[place] = None
            if fate is ItemFate.UNCLEAR:
                uncertain[place] = said
            elif fate is ItemFate.EXISTS and earlier is None:
                uncertain[place] = PERHAPS_OURS
            else:
                errors[place] = (
                    said if fate is not ItemFate.EXISTS else f"{THERE_ALREADY} ({said})" if said else THERE_ALREADY
                )
            if fate is ItemFate.BUSY:
                busy.append(place)
        note = self._add_missing(missing, errors, uncertain, call, unnamed)
        self._name_the_rest(errors, uncertain)
        if self._unique_ids:
            doubt_same_ids(self._ids, uncertain)
        forget_ids(self._ids, by_key)
        self.busy = sorted(busy)
        return Settlement(self._ids, _told(errors), note=note, uncertain=_told(uncertain))

    def _position(self, place: Any) -> int | None:
        """Return an index as a position in the batch; None if it is none."""
        if isinstance(place, str) and place.isdecimal() and len(place) < _MOST_SHOWN:
            place = int(place)
        if not isinstance(place, int) or isinstance(place, bool):
            return None
        if 0 <= place - self._first_index < self._count:
            return place - self._first_index
        if place >= 0:  # nobody counts from below 0: such a place is nobody's, and says nothing of the others
            self._outside.append(place)
        return None

    def _check_places(self, call: str) -> None:
        if self._outside:
            first, last = self._first_index, self._first_index + self._count - 1
            raise UnexpectedAnswer(
                f"the results name the place {self._outside[0]}, and the places of this batch are {first} to {last}: "
                "from which number does the service count (results.first_index)?",
                call=call,
            )

    def _positions(self) -> Mapping[str, int]:
        if self._by_key is None:
            keys = self._keys()
            self._by_key = dict(zip(keys, range(len(keys)), strict=True))
            if len(self._by_key) < len(keys):
                often = {key for key, times in Counter(keys).items() if times > 1}
                for position, key in enumerate(keys):
                    if key in often:
                        self._twins.setdefault(key, []).append(position)
        return self._by_key

    def _put(self, position: int | None, place: Any, judged: JudgedItems, number: int) -> None:
        if position is None:
            self._strays.append(words_of(place) if place is not MISSING else "nothing")
            return
        self._set(position, judged.ids[number], judged.fates.get(number))

    def _set(self, position: int, task_id: str | None, fate: tuple[ItemFate, str] | None) -> None:
        if self._named[position]:
            before = self._fates.get(position)
            if before is None and fate is None and task_id is not None and task_id == self._ids[position]:
                return  # the same said twice
            if before is not None and fate is not None and before[0] is fate[0] is ItemFate.FAILED:
                return
            fate = ItemFate.UNCLEAR, _TWICE
        self._named[position] = 1
        self._ids[position] = task_id
        if fate is not None:
            self._fates[position] = fate

    def _place_ordered(self, call: str) -> None:
        """Give the items in order to the records that no other list has named, as they come."""
        if not self._in_order:
            return
        listed = sum(len(judged.ids) for judged in self._in_order)
        left = self._count - sum(self._named)
        if listed != left:
            others = f", beside {self._count - left} that are named otherwise" if left != self._count else ""
            raise UnexpectedAnswer(
                f"{self._count} records went up, and the answer has {listed} results{others}", call=call
            )
        first = self._in_order[0]
        if len(self._in_order) == 1 and left == self._count:
            self._ids, self._fates = list(first.ids), dict(first.fates)
            self._named = bytearray(b"\1" * self._count)
        else:
            free = (position for position, named in enumerate(bytes(self._named)) if not named)
            for judged in self._in_order:
                for number, task_id in enumerate(judged.ids):
                    self._set(next(free), task_id, judged.fates.get(number))
        self._in_order = []

    def _place_twins(self) -> None:
        """Settle records that share a key: only if there is an item for each of them, and all say the same."""
        for key, items in self._of_twins.items():
            positions = self._twins[key]
            kinds = {fate[0] if fate else None for _, fate in items}
            alike = len(items) == len(positions) and len(kinds) == 1
            for position, (task_id, fate) in zip(positions, items if alike else repeat((None, None)), strict=False):
                self._set(position, task_id, fate if alike else (ItemFate.UNCLEAR, _TWINS))
        self._of_twins = {}

    def _add_missing(
        self, missing: str, errors: dict[int, str], uncertain: dict[int, str], call: str, unnamed: str
    ) -> str:
        """Decide over records that nothing was said of; return what people should know of items without a record."""
        stray = f"{len(self._strays)} item(s), such as {self._strays[0][:_MOST_SHOWN]!r}," if self._strays else ""
        if sum(self._named) < self._count:
            if missing == "error" and not any(self._named):
                raise UnexpectedAnswer("no item of the results is about a record of the batch", call=call)
            for position, named in enumerate(bytes(self._named)):
                if named:
                    continue
                if stray:  # it may be one of them
                    uncertain[position] = _STRAY.format(stray)
                elif missing == "error":
                    uncertain[position] = unnamed
                elif missing != "created":
                    errors[position] = missing
        return words(f"the results hold {stray} that no record of the batch has") if stray else ""

    def _name_the_rest(self, errors: Mapping[int, str], uncertain: dict[int, str]) -> None:
        """Call created records by their keys where the service names no task."""
        if None not in self._ids:
            return
        keys: Sequence[str] | None = None
        for position, task_id in enumerate(self._ids):
            if task_id is None and position not in errors and position not in uncertain:
                keys = self._keys() if keys is None else keys
                if keys:
                    self._ids[position] = keys[position]
                else:
                    uncertain[position] = NO_ID


def doubt_same_ids(ids: list[str | None], uncertain: dict[int, str]) -> None:
    """Take the id from each record of which another one has the same, and call it uncertain."""
    known = [task_id for task_id in ids if task_id is not None]
    if len(set(known)) == len(known):
        return
    often = {task_id for task_id, times in Counter(known).items() if times > 1}
    for position, task_id in enumerate(ids):
        if task_id in often:
            ids[position] = None
            uncertain[position] = _SAME_ID.format(task_id)


def forget_ids(ids: list[str | None], by_key: Iterable[int]) -> None:
    """Take the keys from created records at some positions that stand there as ids, and are none of the service's."""
    for position in by_key:
        if ids[position] is not None:
            ids[position] = UNNAMED


def _each(places: Sequence[Any]) -> Iterable[tuple[int, Any]]:
    """Return the number of each item with the place that it names, or with each one of a list of them."""
    return [(number, one) for number, some in enumerate(places) for one in (some if type(some) is list else [some])]


def json_lines(text: bytes) -> Sequence[Any]:
    """Return the values of lines of JSON; blank lines are none.

    Raises:
        UnexpectedAnswer: one of them is no JSON.
    """
    text = text.strip()
    if not text:
        return []
    at_once = decode_if_right(b"[%b]" % text.replace(b"\n", b","), list[Any])
    if at_once is not None and len(at_once) == text.count(b"\n") + 1:
        return at_once
    return [decode(Answer(200, {}, line), Any, call="results") for line in text.split(b"\n") if line.strip()]


def csv_items(lines: Iterable[str], delimiter: str = ",", column: str = "") -> Iterable[Mapping[str, str]]:
    """Yield the rows of a table with a header, by column; fields that a row lacks are not there.

    `column`: one that the header must have: any page can be read as a table without rows, and would
    say of every record that no result is about it.

    Raises:
        UnexpectedAnswer: it is no table, or not one of these.
    """
    csv.field_size_limit(sys.maxsize)  # it would end a row within a long value; the file's size is bounded
    try:
        rows = csv.reader(lines, delimiter=delimiter)
        header = next(rows, [])
        if not header:  # nothing came, which is no list of nothing: it would say so of every record
            raise UnexpectedAnswer("the results have no header line", call="results")
        if column and column not in header:
            raise UnexpectedAnswer(f"the results have no column {column!r}", call="results")
        for row in rows:
            if row:
                yield dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise UnexpectedAnswer(f"the results are no CSV: {error}", call="results") from error


def _told(said: Mapping[int, str]) -> Mapping[int, str]:
    """Return words of others as they may be kept."""
    return dict(zip(said, words_of_all(list(said.values())), strict=True))
