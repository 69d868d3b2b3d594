"""For whoever writes a description of a service: checks of the file, without its server, and with a stand-in of it.

`DESCRIPTION_CHECKS` need nobody: what is sent can be made, what is answered can be read. They make answers of the
description's own paths, so they show what contradicts itself, and not whether the paths are those of the real service:
that shows `bulksubmit check --trace --probe`. Before a server that keeps a journal, `CHECKS` are made as for any
service.

    python -m engine.testing FILE.toml [--sandbox URL --journal FILE]

The module is a long one, since it has each check with what it holds.
"""

from __future__ import annotations

import csv
import io
import os
import random
import re
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace
from yarl import URL

from engine.model.batch import Batch
from engine.model.job import Job
from engine.model.payload import Payload
from engine.model.record import Position, Row
from engine.model.tables import table_of
from engine.services.base import Answer
from engine.services.described import service as described
from engine.services.described.body import TOKEN_BYTES, Framing
from engine.services.described.consistency import rules_on_success, steps_of
from engine.services.described.items import failures_table, fetch_table
from engine.services.described.paths import ANY, compiled, parts_of, text_of_value
from engine.services.described.preview import put
from engine.services.described.promise import promise_of
from engine.services.described.results import THERE_ALREADY, ListReader, RecordFates
from engine.services.described.rules import compiled_rules
from engine.services.described.settings import DescribedSettings, PagesTable, ResultsTable, RuleTable
from engine.services.described.shipped import whole
from engine.services.described.steps import PageWalk, Step, joined
from engine.services.described.texts import Unfilled, batch_names, clear, names_in
from engine.testing.trial import fates_in_words, hold

RECORDS = 3
_MANY = 1_000
_REFERENCE = re.compile(r"\$\{(env|file|given):([^}]*)\}")
_TASK = "task."
_WRONG = "nothing of the kind"
_HEADER = "header."
_FAILED = 400


class Description(Struct, frozen=True):
    """A description, checked as every command does, with records that it can send."""

    settings: DescribedSettings
    keys: Mapping[str, Any]
    """Of `[service]`, whole."""
    records: Sequence[Row]
    """RECORDS at least."""

    @property
    def job(self) -> Job:
        """A job that sends them."""
        return Job("conformance", "http", "", (), "", learnt="0" * TOKEN_BYTES)

    def payload(self, records: Sequence[Row], first: int = 0) -> Payload:
        """Return records as they would stand in a batch."""
        return Payload.of([orjson.dumps(record) for record in records], range(first, first + len(records)))

    def names(self, sequence: int = 0) -> Mapping[str, str]:
        """Return what texts may name of a batch; what steps take has its own name."""
        batch = Batch(sequence, Position(), Position(), 0, 0, sha256(b"").digest(), b"")
        return Unfilled({**self.settings.values, **batch_names(self.job, self.job.learnt or "", batch.sequence)})


DescriptionCheck = Callable[[Description], None]


def read_description(
    file: Path, records: Sequence[Row] = (), *, filled_in: Mapping[str, Any] | None = None
) -> Description:
    """Read a description, or a configuration with one; variables that are not set have a made-up value.

    Args:
        file: TOML with `[service]`, of the kind `http` or one that is shipped.
        records: that it can send; made up where there are none.
        filled_in: what a user writes beside it: laid over `[service]`, table by table.

    Raises:
        ValueError: it is no description, or cannot be followed; in the words of `bulksubmit check`.
    """
    service = tomllib.loads(file.read_text(encoding="utf-8")).get("service")
    if not isinstance(service, dict):
        raise ValueError(f"{file} has no [service]")  # noqa: TRY004 - of the file's content, as all else here
    return made_of(
        {**service, **{key: _over(service.get(key), one) for key, one in (filled_in or {}).items()}}, records
    )


def _over(below: Any, table: Any) -> Any:
    return {**below, **table} if isinstance(below, dict) and isinstance(table, dict) else table


def made_of(service: Mapping[str, Any], records: Sequence[Row] = ()) -> Description:
    """Return the description that `[service]` is. Raises: ValueError, as `read_description`."""
    keys = _expanded(whole(service))
    complaints: list[str] = []
    settings = table_of(DescribedSettings, keys, "service", complaints)
    if settings is None:
        raise ValueError("\n".join(complaints))
    return Description(settings, keys, records or made_up(settings, _MANY))


def _expanded(value: Any) -> Any:
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: os.environ.get(found[2]) or f"made-up-{len(found[2])}", value)
    if isinstance(value, dict):
        return {key: _expanded(one) for key, one in value.items()}
    return [_expanded(one) for one in value] if isinstance(value, list) else value


def made_up(settings: DescribedSettings, number: int) -> Sequence[Row]:
    """Return made-up records that have what a description names of them, each with values of its own."""
    draw, once = random.Random(number), uuid.uuid4().hex[:8]
    texts = [settings.record.key, settings.record.template, settings.record.head, settings.record.add]
    steps = [[step.call, *map(clear, (step.query, step.headers))] for _, step in steps_of(settings)]
    paths = sorted({name[len(_TASK) :] for name, _ in names_in([texts, steps], "") if name.startswith(_TASK)})
    mark = settings.search.mark if settings.search is not None else ""
    records = []
    for at in range(number):
        task = {**described.sample(draw, f"{once}{at}")}
        if settings.body.columns and not settings.record.template:
            task = dict.fromkeys(settings.body.columns, f"{once}{at}")
        for path in paths:
            task = put(task, list(parts_of(path)), f"{once}{at}")
        for name in (*settings.record.add, mark):
            task.pop(name, None)
        if "." in mark:
            task[mark.partition(".")[0]] = {}
        records.append(task)
    return records


# --- what is sent -----------------------------------------------------------------------------------------------------


def each_record_can_be_sent(one: Description) -> None:
    """The records fit what the description names of them."""
    framing = Framing(one.settings)
    for record in one.records[:RECORDS]:
        flaw = framing.flaw(record)
        hold(flaw is None, f"a record cannot be sent: {flaw}. It is {orjson.dumps(record).decode()[:300]}")


def each_text_fills(one: Description) -> None:
    """Each call can be made: an absolute URL, headers on one line, a body."""
    names, framing = one.names(), Framing(one.settings)
    one.settings.exchange()
    for place, table in steps_of(one.settings):
        payload = one.payload(one.records[:1])
        values = framing.with_record(payload, names) if table.payload else names
        call = Step(place.partition("[")[0], table, one.settings).call(Unfilled(values))
        url = URL(call.url)
        hold(url.is_absolute() and "${" not in call.url, f"{place}.call leads to {call.url}")
        for name, value in {**call.headers, **call.query}.items():
            hold("${" not in value, f"{place}: {name} is {value!r}")
    page = joined(one.settings.base_url, one.settings.task_page or "/${id}").replace("${id}", "7")
    hold(URL(page).is_absolute(), f"task_page leads to {page}")


def bodies_are_the_same_twice(one: Description) -> None:
    """The body of a batch is the same bytes whenever it is made: a repeat must be one."""
    bodies = []
    for _ in range(2):
        records = one.records[: one.settings.limit.records or RECORDS][:RECORDS]
        records = records[:1] if one.settings.body.framing in {"single", "form"} else records
        bodies.append(b"".join(Framing(one.settings).body(one.payload(records), one.names())))
    hold(bodies[0], "the body of a batch is empty")
    hold(bodies[0] == bodies[1], "the body of a batch is another one when it is made again")


def keys_are_unique_and_stay(one: Description) -> None:
    """Each record has a key of its own, and the same one whatever batch it is in."""
    if not one.settings.record.key:
        return
    records, framing = one.records[:_MANY], Framing(one.settings)
    keys = framing.keys(one.payload(records), one.names())
    hold(len(set(keys)) == len(records), f"{len(records)} records have {len(set(keys))} keys, as {keys[0]!r}")
    half = framing.keys(one.payload(records[1:], first=1), one.names(sequence=7))
    hold(list(half) == list(keys[1:]), "a record has another key in another batch")


def the_promise_is_stated(one: Description) -> None:
    """What the description promises can be said in words."""
    promise = promise_of(one.settings)
    hold(promise.created and promise.lost, "it promises nothing")


# --- what is answered -------------------------------------------------------------------------------------------------


def each_value_is_taken(one: Description) -> None:
    """What steps take is found where their paths say, and so are the words of a status."""
    for place, table in steps_of(one.settings):
        body: Any = None
        headers = {"Content-Type": "application/json"}
        for name, path in table.take.items():
            bare = path.removesuffix("?").strip()
            if bare.startswith(_HEADER):
                headers[bare.removeprefix(_HEADER)] = name.upper()
            elif not bare.startswith("="):
                body = put(body, list(parts_of(bare)), name.upper())
        taken = Step(place, table, one.settings).taken(Answer(200, headers, orjson.dumps(body)))
        wrong = [name for name, path in table.take.items() if not path.startswith("=") and taken[name] != name.upper()]
        hold(not wrong, f"{place}.take: {', '.join(wrong)} stands where something else does")
    status = one.settings.status
    if status is not None:
        for word in (*status.waiting, *status.running, *status.finished, *status.failed):
            value = put(None, list(parts_of(status.state)), word)
            hold(compiled(status.state)(value) == word, f"status.state does not find {word!r}")


def each_fate_is_read(one: Description) -> None:
    """A list of results made of the description's own paths says created, failed, there already and busy."""
    results = one.settings.results
    if results.of == "fetch":
        for at, fetch in enumerate(results.fetch):
            _read_fates(one, fetch_table(results, fetch), f"results.fetch[{at}]")
    else:
        _read_fates(one, results, "results")


def _read_fates(one: Description, table: ResultsTable, place: str) -> None:
    if table.format == "count":
        fates = _fates(one, 1)
        ListReader(table).add(Answer(200, {}, orjson.dumps(put(None, list(parts_of(table.items)), 1))), fates)
        settled = fates.settlement("error", earlier=False)
        hold(
            settled.created == 1,
            f"{place}: a count of 1 does not say that one record was created: {fates_in_words(settled)}",
        )
        return
    number = 1 if table.single or one.settings.limit.records == 1 else 2
    only_errors = any(path.startswith("=") for path in table.error)
    items = [_item(one, table, at) for at in range(number)]
    settled = _settled(one, table, items)
    if only_errors:
        hold(len(settled.errors) == number, f"{place}: an item is not said to have failed: {fates_in_words(settled)}")
        return
    hold(
        settled.created == number, f"{place}: items that are fine are not said to be created: {fates_in_words(settled)}"
    )
    if table.format == "ids":
        return
    error = next((path for path in table.error if path not in {table.key, *table.id, *table.ok}), "")
    if error:
        failed = _with(table, _item(one, table, 0, good=False), error, _WRONG)
        settled = _settled(one, table, [failed, *items[1:]])
        hold(
            settled.errors == {0: _WRONG},
            f"{place}: an item with an error at {error!r} is not failed: {fates_in_words(settled)}",
        )
    for name, conditions in (("exists", table.exists), ("busy", table.busy)):
        if conditions:
            said = _meeting(table, _item(one, table, 0, good=False), conditions)
            fates = _fates(one, number)
            settled = _settled(one, table, [said, *items[1:]], fates)
            seen = list(fates.busy) == [0] if name == "busy" else settled.errors.get(0, "").startswith(THERE_ALREADY)
            hold(seen, f"{place}: an item for which {name} holds is not seen so: {fates_in_words(settled)}")
    if table.failures is not None:
        _read_failures(one, table, place)


def _read_failures(one: Description, table: ResultsTable, place: str) -> None:
    assert table.failures is not None  # noqa: S101 - whoever calls has looked
    listed = failures_table(table, table.failures)
    error = next(iter(listed.error), "")
    failed = _item(one, listed, 0, good=False)
    failed = _with(listed, failed, error, _WRONG) if error else failed
    body = _listed(table, [_item(one, table, 1)], first=1)
    by_place = listed.match == "index" and not listed.index
    there = {str(one.settings.results.first_index): failed} if by_place else [failed]
    body = put(body, list(parts_of(listed.items)), there)
    fates = _fates(one, 2)
    ListReader(table).add(Answer(200, {}, orjson.dumps(body)), fates)
    settled = fates.settlement("error", earlier=False)
    hold(0 in settled.errors, f"{place}.failures: an item of it is not said to have failed: {fates_in_words(settled)}")


def _fates(one: Description, number: int) -> RecordFates:
    framing, payload = Framing(one.settings), one.payload(one.records[:number])
    return RecordFates(number, lambda: framing.keys(payload, one.names()), first_index=one.settings.results.first_index)


def _settled(one: Description, table: ResultsTable, items: Sequence[Any], fates: RecordFates | None = None) -> Any:
    fates = fates or _fates(one, len(items))
    ListReader(replace(table, failures=None)).add(Answer(200, {}, _written(table, items)), fates, call="results")
    return fates.settlement("error", earlier=False, call="results")


def _item(one: Description, table: ResultsTable, at: int, *, good: bool = True) -> Any:
    """Return an item about a record: that it was created, or nothing about that."""
    if table.format == "ids":
        return f"id-{at}"
    item: Any = {}
    if good:
        item = _meeting(table, item, table.ok)
        for path in table.id[:1]:
            item = item if table.ok.get(path, ANY) != ANY else _with(table, item, path, f"id-{at}")
    if table.match == "key":
        item = _with(table, item, table.key, one_key(one, at))
    if table.match == "index" and table.index:
        item = _with(table, item, table.index, at + one.settings.results.first_index)
    return item


def one_key(one: Description, at: int) -> str:
    """Return the key of a record."""
    return Framing(one.settings).keys(one.payload(one.records[: at + 1]), one.names())[at]


def _meeting(table: ResultsTable, item: Any, conditions: Mapping[str, Any]) -> Any:
    for path, wanted in conditions.items():
        value = wanted[0] if isinstance(wanted, list | tuple) else wanted
        item = _with(table, item, path, "any" if value == ANY else value)
    return item


def _with(table: ResultsTable, item: Any, path: str, value: Any) -> Any:
    return put(item, [path] if table.format == "csv" else list(parts_of(path)), value)


def _listed(table: ResultsTable, items: Sequence[Any], first: int = 0) -> Any:
    found: Any = items[0] if table.single else list(items)
    if table.match == "index" and not table.index and not table.single:
        found = {str(at): item for at, item in enumerate(items, table.first_index + first)}
    return put(None, list(parts_of(table.items)), found) if table.items else found


def _written(table: ResultsTable, items: Sequence[Any]) -> bytes:
    if table.format == "ndjson":
        return b"".join(orjson.dumps(item) + b"\n" for item in items)
    if table.format == "csv":
        columns = list(dict.fromkeys(name for item in items for name in item))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, delimiter=table.delimiter)
        writer.writeheader()
        writer.writerows({name: text_of_value(value) for name, value in item.items()} for item in items)
        return text.getvalue().encode()
    return orjson.dumps(_listed(table, items))


def pages_lead_on(one: Description) -> None:
    """From a page that has another one behind it, the next one is asked for."""
    results, search = one.settings.results, one.settings.search
    lists: list[tuple[str, PagesTable | None]] = [("search.pages", search.pages if search is not None else None)]
    lists += [(f"results.fetch[{at}].pages", fetch.pages or results.pages) for at, fetch in enumerate(results.fetch)]
    for place, pages in lists:
        if pages is None:
            continue
        body: Any = {}
        headers = {}
        for path, value in ((pages.next, "/next"), (pages.cursor, "7"), (pages.more, True)):
            body = put(body, list(parts_of(path)), value) if path else body
        if pages.next_header:
            headers[pages.next_header] = f'<{one.settings.base_url}/next>; rel="next"'
        if pages.cursor_header:
            headers[pages.cursor_header] = "7"
        call = Step("search", next(iter(steps_of(one.settings)))[1], one.settings).call(one.names())
        walk = PageWalk(pages, call, one.settings.base_url)
        hold(
            walk.next_call(Answer(200, headers, b""), body, pages.size or 1),
            f"{place}: from a page with another behind it nothing leads on",
        )


def each_rule_can_fit(one: Description) -> None:
    """A rule fits an answer as it describes one, and none before it takes all that it is about."""
    rules = one.settings.rules
    for number, rule in enumerate(rules, 1):
        status = rule.status[0] if rule.status else _FAILED
        body = orjson.dumps(_said(rule))
        hold(
            compiled_rules((rule,))(status, body) is not None,
            f"rules: rule {number} does not fit an answer as it describes one: {body.decode()}",
        )
        shadow = next((at for at, other in enumerate(rules[: number - 1], 1) if _takes_all_of(other, rule)), 0)
        hold(not shadow, f"rules: rule {number} never fits, since rule {shadow} takes every answer that it is about")


def _takes_all_of(other: RuleTable, rule: RuleTable) -> bool:
    """Return whether a rule fits every answer that another one is about."""
    if other.path or other.at or other.contains:
        return False
    if other.status:
        return bool(rule.status) and {*rule.status} <= {*other.status}
    return not rules_on_success(rule)


def _said(rule: RuleTable) -> Any:
    """Return the body of an answer as a rule describes it."""
    value: Any = rule.equals[0] if rule.equals else rule.contains[0] if rule.contains else "said"
    path = list(parts_of(rule.path))
    if not rule.at:
        return put({}, path, value) if path else value if rule.contains else {}
    at, error = list(parts_of(rule.at)), {"message": "no"}
    for one in rule.error:
        error = error if one.startswith("=") else put(error, list(parts_of(one)), "no")
    is_within = path[: len(at)] == at and len(path) > len(at) + 1
    if is_within:
        error = put(error, path[len(at) + 1 :], value)
    if rule.index:
        body = put(None, at, [put(error, list(parts_of(rule.index)), rule.first_index)])
    else:
        body = put(None, at, {str(rule.first_index): error})
    return put(body, path, value) if path and not is_within else body


DESCRIPTION_CHECKS: Sequence[DescriptionCheck] = (
    each_record_can_be_sent,
    each_text_fills,
    bodies_are_the_same_twice,
    keys_are_unique_and_stay,
    each_value_is_taken,
    each_fate_is_read,
    pages_lead_on,
    each_rule_can_fit,
    the_promise_is_stated,
)
"""Every check of a description that needs no server."""


def fresh_records(one: Description, records: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Yield RECORDS records again and again, none of them twice: made up, unless there are some."""
    if not records:
        while True:
            yield made_up(one.settings, RECORDS)
    for at in range(0, len(records) - RECORDS + 1, RECORDS):
        yield records[at : at + RECORDS]
