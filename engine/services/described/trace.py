"""What a description makes of an answer, in words: `check --trace` shows it to whoever writes one. Pure.

A load reads answers by other code, for all records at once. This reads a few items by the same parts (`steps`,
`items`, `rules`), and instead of failing it says what it does not find.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from itertools import islice
from typing import Any

from engine.model.errors import UnexpectedAnswer
from engine.services.base import Answer, Call
from engine.services.decoding import decode
from engine.services.described.items import ItemFate, ResultReader, failures_table, fetch_table, words_of
from engine.services.described.paths import MISSING, compiled, text_of_value
from engine.services.described.results import csv_items, json_lines
from engine.services.described.rules import compiled_rules
from engine.services.described.search import Search
from engine.services.described.settings import DescribedSettings, ResultsTable, StatusTable, StepTable
from engine.services.described.steps import Step
from engine.services.described.texts import Unfilled

SHOWN_ITEMS = 3
"""Items of a list that are shown."""

_SHOWN_ROWS = 1000
"""Rows of a CSV that are looked at."""
_SENT_STEPS = ("stage", "upload", "release")
_LATER_STEPS = ("status", "cancel", "search")
_FATES = {
    ItemFate.FAILED: "failed",
    ItemFate.EXISTS: "is there already",
    ItemFate.BUSY: "busy, goes again",
    ItemFate.UNCLEAR: "unclear",
}
_PLACEHOLDER = re.compile(r"\$\{[^{}]*\}")

Row = tuple[str, str]
"""What was taken: its name, its value."""


def taken_from(call: Call, answer: Answer, settings: DescribedSettings) -> Sequence[Row]:
    """Return what is taken from an answer of any status, by name; where something is missing, it is said."""
    is_success = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
    if rule := _rule(settings, answer):
        return [rule]
    if not is_success:
        return [("rule", "none of [[service.rules]] fits: the status alone counts")]
    return [*_steps_words(call, answer, settings), *_results_words(call, answer, settings)]


def later_calls(settings: DescribedSettings) -> Sequence[Call]:
    """Return the calls that follow when a batch is up, in their order; names stand in place of values."""
    tables: list[tuple[str, StepTable | None]] = [("status", settings.status)]
    tables += [("results", one) for one in settings.results.fetch]
    tables += [("search", settings.search), ("cancel", settings.cancel)]
    names = Unfilled(settings.values)
    return [Step(kind, table, settings).call(names) for kind, table in tables if table is not None]


def _rule(settings: DescribedSettings, answer: Answer) -> Row | None:
    """Return the rule that fits, and what it makes of the answer."""
    for number, rule in enumerate(settings.rules, 1):
        hint = compiled_rules((rule,))(answer.status, answer.body)
        if hint is not None:
            flaws = getattr(hint, "flaws", {})
            more = f" for {rule.seconds:g} s" if rule.means == "pause" else ""
            said = "".join(f"; record {at}: {why}" for at, why in islice(flaws.items(), SHOWN_ITEMS))
            return f"rule {number}", f"{rule.means}{more} ({hint.reason}){said}"
    return None


def _steps_words(call: Call, answer: Answer, settings: DescribedSettings) -> Iterator[Row]:
    """Yield what the step of a call takes, and what it says of where a batch stands."""
    if call.kind not in {*_SENT_STEPS, *_LATER_STEPS}:
        return
    table: StepTable | None = getattr(settings, call.kind)
    if table is None:
        return
    for name, path in table.take.items():
        one = Step(call.kind, StepTable(call=table.call, take={name: path}), settings)
        try:
            yield name, one.taken(answer).get(name, "not there, which it need not be")
        except UnexpectedAnswer as error:
            yield name, f"NOT TAKEN: {error}"
    if isinstance(table, StatusTable):
        yield from _status_words(table, answer)
    if call.kind == "search" and settings.search is not None:
        yield from _search_words(answer, settings)


def _status_words(table: StatusTable, answer: Answer) -> Iterator[Row]:
    try:
        value = decode(answer, Any, call="status")
    except UnexpectedAnswer as error:
        yield "state", f"NOT TAKEN: {error}"
        return
    found = compiled(table.state)(value)
    if found in (MISSING, None):
        yield "state", f"NOT TAKEN: the answer has nothing at {table.state!r}"
        return
    word = text_of_value(found)
    lists = ("waiting", "running", "finished", "failed")
    meant = next((name for name in lists if word in map(text_of_value, getattr(table, name))), "")
    yield "state", f"{word!r}: {meant or 'in no list of [service.status], so it counts as running'}"
    if table.created:
        created = compiled(table.created)(value)
        yield "created", f"NOT TAKEN: nothing at {table.created!r}" if created is MISSING else text_of_value(created)


def _search_words(answer: Answer, settings: DescribedSettings) -> Iterator[Row]:
    search = settings.search
    if search is None:
        return
    try:
        items = Search(search, settings, finds_records=True).items_in(answer)
    except UnexpectedAnswer as error:
        yield "items", f"NOT TAKEN: {error}"
        return
    yield "items", f"{len(items)} at {search.items or 'the top'}"


def _results_words(call: Call, answer: Answer, settings: DescribedSettings) -> Iterator[Row]:
    """Yield what the first items of a list of results say."""
    results = settings.results
    if call.kind == "results":
        yield from _items_words(_table_of(call, settings), answer)
    elif call.kind == results.of and (call.kind == "release" or _has_ended(settings, answer)):
        yield from _items_words(results, answer)


def _has_ended(settings: DescribedSettings, answer: Answer) -> bool:
    status = settings.status
    if status is None:
        return False
    word = text_of_value(compiled(status.state)(decode(answer, Any, call="status")))
    return word in {text_of_value(one) for one in (*status.finished, *status.failed)}


def _table_of(call: Call, settings: DescribedSettings) -> ResultsTable:
    """Return how the answer to one of the calls that fetch results is read: the one whose path looks like the URL."""
    fetches = settings.results.fetch
    for one in fetches:
        path = one.call.partition(" ")[2].partition("?")[0]
        pattern = "[^/?]+".join(map(re.escape, _PLACEHOLDER.split(path)))
        if re.search(pattern + r"(\?|$)", call.url):
            return fetch_table(settings.results, one)
    return fetch_table(settings.results, fetches[0]) if fetches else settings.results


def _items_words(table: ResultsTable, answer: Answer) -> Iterator[Row]:
    """Yield how many items there are, where, and what the first ones say."""
    where = table.items or "the top"
    try:
        if table.format == "count":
            found = compiled(table.items)(decode(answer, Any, call="results"))
            yield "count", f"NOT TAKEN: nothing at {where!r}" if found is MISSING else text_of_value(found)
            return
        found = _items_of(table, answer)
        if not found[0] and table.missing == "created":
            yield "results", 'none is listed, and missing = "created": all are created'
            return
        yield from _list_words(ResultReader(table), "result", found)
        if table.failures is not None:
            reader = ResultReader(failures_table(table, table.failures), only_failures=True)
            items, stands_at = reader.items(decode(answer, Any, call="results"))
            yield from _list_words(reader, "failure", (items, stands_at))
    except UnexpectedAnswer as error:
        yield "results", f"NOT TAKEN: {error}"


def _items_of(table: ResultsTable, answer: Answer) -> tuple[Sequence[Any], Sequence[Any] | None]:
    if not answer.body.strip() and table.missing == "created":
        return [], None
    if table.format == "ndjson":
        return json_lines(answer.body), None
    if table.format == "csv":
        lines = io.StringIO(answer.body.decode("utf-8-sig", "replace"), newline="")
        return list(islice(csv_items(lines, table.delimiter), _SHOWN_ROWS)), None
    return ResultReader(table).items(decode(answer, Any, call="results"), needed=table.failures is None)


def _list_words(reader: ResultReader, name: str, found: tuple[Sequence[Any], Sequence[Any] | None]) -> Iterator[Row]:
    items, stands_at = found
    yield f"{name}s", f"{len(items)}, matched by {reader.match}"
    first = items[:SHOWN_ITEMS]
    if not first:
        return
    judged = reader.judged(first)
    places = reader.places(first, stands_at[:SHOWN_ITEMS] if stands_at is not None else None)
    for number, place in enumerate(places):
        of = "" if reader.match == "order" else f"{reader.match} {_shown_place(place)}: "
        fate = judged.fates.get(number)
        if fate is None:
            task_id = judged.ids[number]
            said = "created" + (f", id {task_id}" if task_id is not None else ", its key is its id")
        else:
            said = _FATES[fate[0]] + (f": {fate[1]}" if fate[1] else "")
        yield f"{name} {number}", of + said


def _shown_place(place: Any) -> str:
    return "NOT TAKEN, nothing stands there" if place is MISSING else words_of(place)
