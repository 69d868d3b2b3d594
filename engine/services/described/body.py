"""Tasks in, the body of the call that carries them out; and the key of each record.

What is frozen of a batch is its array of tasks, `[task,task,…]`, and its sha256 is over that. What is added here, keys,
templates, lines and framing, depends on nothing but that array, the records' indexes, and what is the same for the life
of a job or of a batch: so each attempt sends the same bytes.

A task is never rendered anew where it goes up whole: `${task}` is its own bytes. Of others only the values that a
text names are read, by `tasks`.

The module is a long one: each framing, and what it adds in bytes, stands side by side.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

import msgspec
import orjson

from engine.model.batch import Limits
from engine.model.job import Job
from engine.model.payload import Payload
from engine.model.record import Row
from engine.model.settings import BatchSettings
from engine.services.described.consistency import payload_step
from engine.services.described.paths import parts_of, text_of_value
from engine.services.described.settings import DescribedSettings
from engine.services.described.tasks import (
    IN_TEXT,
    NULL,
    OF_KEY,
    Addition,
    PlainFields,
    TaskValues,
    as_text,
    cell_of,
    decoder_of,
    escaped,
    is_empty,
    json_texts,
    lacks,
    members_of,
)
from engine.services.described.texts import RECORD_NAMES, TASK, JsonText, Text, clear, form_of

TOKEN_BYTES = 16
"""Length of a token: hexadecimal digits."""
_BATCH_BYTES = 80
"""Length of a batch's name at most: ten digits, and `.1` or `.2` for each time that it was halved."""
_INDEX_BYTES = 12
_ID_BYTES = 200
"""Length of what a step takes, as far as it is foreseen."""
_VALUE_BYTES = 64
"""Likewise, of a value of the task that stands in a text besides the task itself."""
_BOUNDARY_LETTERS = 40

_TYPES = {
    "array": "application/json",
    "single": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "form": "application/x-www-form-urlencoded",
}
_ENDINGS = {"array": "json", "single": "json", "ndjson": "ndjson", "csv": "csv", "form": "txt"}

_NO_LINES = bytes.maketrans(b"\n\r", b"  ")
"""A line feed in JSON stands between values, never in one: there it is escaped."""


class Framing:
    """What a description says of records and of the body; safe to share.

    `names` of its methods are the names that are the same for a batch: `texts.batch_names`, and what steps took.
    """

    def __init__(self, settings: DescribedSettings) -> None:
        self._settings = settings
        self._body = settings.body
        record = settings.record
        self._key = Text(record.key, "record.key") if record.key else None
        self._template = JsonText(record.template, "record.template") if record.template else None
        self._head = JsonText(record.head, "record.head") if record.head else None
        self._with = JsonText(clear(self._body.with_), "body.with")
        self._fields = {
            name: Text(text_of_value(text), f"body.fields.{name}") for name, text in clear(self._body.fields).items()
        }
        self._additions = list(_additions(settings))
        users: dict[str, Text | JsonText | None] = {
            "record.key": self._key,
            "record.template": self._template,
            "record.head": self._head,
        }
        users |= {one.place: one.member for one in self._additions}
        carrier, step = payload_step(settings)
        users[f"{carrier}.call"] = Text(step.call, f"{carrier}.call")
        for key in ("query", "headers"):
            texts = {f"{carrier}.{key}.{name}": text_of_value(text) for name, text in clear(getattr(step, key)).items()}
            users |= {place: Text(text, place) for place, text in texts.items()}
        self._users = {place: user for place, user in users.items() if user is not None}
        """What is made for each record, by its dotted key."""
        named = {name for place, user in self._users.items() if place.startswith(f"{carrier}.") for name in user.names}
        self._of_call = sorted(name for name in named if name.partition(".")[0] in RECORD_NAMES)
        """What the call that carries one record names of it."""
        self._needed = sorted({f"{TASK}.{path}" for path, _ in self._needs()})
        self._values = TaskValues([name.partition(".")[2] for name in self._needed])
        self._tests = list(self._flaw_tests())
        self._columns = tuple(self._body.columns or record.template)
        self._cells = TaskValues([f'"{escaped(name)}"' for name in self._columns])
        self._plain_row = decoder_of(self._columns, str | int | None, None)
        self._decoders = {
            name: decoder_of(parts, str | int)
            for name in self._needed
            if len(parts := parts_of(name.partition(".")[2])) == 1
        }
        """Name of a value at the top of a task → what reads it, if it is a text or an integer."""

    def with_record(self, payload: Payload, names: Mapping[str, str]) -> Mapping[str, str]:
        """Return names with those of the one record that a call carries: its key, its index, and values of its task.

        Where a call may carry more than one record, its texts name none of them: then `names` are returned.

        Raises:
            ValueError: the task lacks a value that the call names.
        """
        if not self._of_call or len(payload.lengths) != 1:
            return names
        columns = _Columns(self, payload, names)
        return {**names, **{name: columns.text(name)[0] for name in self._of_call}}

    @property
    def plain_task(self) -> type[msgspec.Struct] | None:
        """What has no flaw by its fields alone; None: each task must be looked at. See `Service.plain_task`."""
        fields = PlainFields()
        if self._bare_key:
            fields.need(parts_of(self._bare_key), OF_KEY)
        for path, in_text in self._needs():
            if path != self._bare_key:
                fields.need(parts_of(path), IN_TEXT if in_text else msgspec.Raw)
        for one in self._additions:
            fields.lack(one.under, one.names)
        if self._closed:
            fields.close([*self._body.columns])
        return fields.struct()

    def flaw(self, task: Row) -> str | None:
        """Return why a record of this task could not be sent, naming the field; None if it can."""
        for test in self._tests:
            if why := test(task):
                return why
        return None

    def keys(self, payload: Payload, names: Mapping[str, str]) -> Sequence[str]:
        """Return the key of each record; () where records have none.

        Raises:
            ValueError: a task lacks what its key is made of.
        """
        return _Columns(self, payload, names).keys

    def content_type(self, payload: Payload) -> str:
        """Return the Content-Type of the body."""
        if self._body.part:
            return f"multipart/form-data; boundary={_boundary(payload)}"
        return self._part_type

    @property
    def _part_type(self) -> str:
        return self._body.type or _TYPES[self._body.framing]

    def body(self, payload: Payload, names: Mapping[str, str]) -> tuple[bytes, ...]:
        """Return the body, in pieces that stand one behind the other.

        Raises:
            ValueError: a task lacks what a text names; `flaw` says so beforehand.
            KeyError: `names` lacks what a text names.
        """
        names = {**self._settings.values, **names}
        columns = _Columns(self, payload, names)
        match self._body.framing:
            case "array":
                prefix, suffix = self._around(names)
                if self.plain:
                    pieces: tuple[bytes, ...] = (prefix, payload.array, suffix)
                else:
                    pieces = (prefix + b"[", b",".join(columns.records), b"]" + suffix)
            case "ndjson":
                pieces = (self._lines(columns),)
            case "csv":
                pieces = (self._table(columns.records),)
            case "single":
                prefix, suffix = self._around(names)
                pieces = (prefix, _only(columns.records), suffix)
            case _:
                pieces = (form_of(_as_texts(_only(columns.records))),)
        pieces = tuple(piece for piece in pieces if piece)
        return self._parts(payload, pieces, names) if self._body.part else pieces

    @property
    def plain(self) -> bool:
        """Whether tasks go up as they are."""
        return not self._additions and (self._template is None)

    def limits(self, batch: BatchSettings, job: Job) -> Limits:
        """Return what a batch may hold: the service's limits and the user's, with what framing adds at most.

        What a value of a task adds to a text besides the task itself is foreseen only roughly. So a body may come out
        too long all the same; whoever sends it must look.
        """
        limit = self._settings.limit
        records = min(batch.max_records, limit.records or batch.max_records)
        if self._body.framing in {"single", "form"}:
            records = 1
        most_bytes = min(batch.max_bytes, limit.bytes or batch.max_bytes)
        lengths = self._lengths(job)
        return Limits(
            records,
            most_bytes,
            fixed_bytes=self._fixed_bytes(lengths),
            record_bytes=self._record_bytes(lengths),
            task_bytes=limit.bytes if self._has_whole_tasks else None,
        )

    @property
    def _has_whole_tasks(self) -> bool:
        """Whether each task stands in the body as it is, so that no body is shorter than one of its tasks."""
        is_json = self._body.framing in {"array", "ndjson", "single"}
        return is_json and (self._template is None or TASK in self._template.names)

    def _lengths(self, job: Job) -> dict[str, int]:
        """Return how long the value of each name is at most, by what is foreseen."""
        lengths = {"job": len(job.name), "token": TOKEN_BYTES, "batch": _BATCH_BYTES, "index": _INDEX_BYTES, TASK: 0}
        lengths["mark"] = len(job.name) + TOKEN_BYTES + _BATCH_BYTES + 2
        lengths |= {name: len(orjson.dumps(value)) for name, value in self._settings.values.items()}
        if self._key is not None:
            literals = len(re.sub(r"\$\{[^}]*\}", "", self._key.text).encode())
            lengths["key"] = literals + sum(_length(name, lengths) for name in self._key.names)
        return lengths

    def _fixed_bytes(self, lengths: Mapping[str, int]) -> int:
        total = 0
        if self._body.under:
            total += _json_bytes(self._with, lengths) + 2 * len(self._body.under) + 16
        if self._body.framing == "csv":
            total += sum(len(name.encode()) + 3 for name in self._columns)
        if self._body.part:
            total += 2 * _BOUNDARY_LETTERS + 200 + len(self._body.part.encode()) + len(self._part_type)
            for name, text in self._fields.items():
                filled = sum(_length(one, lengths) for one in text.names)
                total += _BOUNDARY_LETTERS + 64 + len(name.encode()) + len(text.text.encode()) + filled
        return total

    def _record_bytes(self, lengths: Mapping[str, int]) -> int:
        total = sum(_json_bytes(one.member, lengths) for one in self._additions)
        if self._template is not None:
            total += _json_bytes(self._template, lengths)
        if self._head is not None:
            total += _json_bytes(self._head, lengths) + 1
        if self._body.framing == "csv":
            total += 2 * len(self._columns) + 2
        return total

    def _around(self, names: Mapping[str, str]) -> tuple[bytes, bytes]:
        """Return what stands before and behind the records."""
        if not self._body.under:
            return b"", b""
        return _around(self._with.fill(names), self._body.under.split("."))

    def _lines(self, columns: _Columns) -> bytes:
        lines = columns.records
        if self._head is not None:
            heads = columns.json(self._head)
            lines = [head + b"\n" + line for head, line in zip(heads, lines, strict=True)]
        return b"\n".join([*lines, b""])

    def _table(self, records: Sequence[bytes]) -> bytes:
        rows = StringIO()
        ending = "\n" if self._body.line_ending == "lf" else "\r\n"
        writer = csv.writer(rows, delimiter=self._body.delimiter, lineterminator=ending)
        if self._columns:
            writer.writerow(self._columns)
            writer.writerows(self._rows(records))
            return rows.getvalue().encode()
        members = list(map(members_of, records))
        names = list(dict.fromkeys(name for one in members for name in one))
        writer.writerow(names)
        writer.writerows([cell_of(one.get(name, NULL)) for name in names] for one in members)
        return rows.getvalue().encode()

    def _rows(self, records: Sequence[bytes]) -> Iterable[Sequence[Any]]:
        """Return the fields of rows. Mostly they are texts and integers, which the writer takes as they are."""
        try:
            self._plain_row(records[0]) if records else None
        except (msgspec.DecodeError, RecursionError):  # so are the others, most likely
            return zip(*(map(cell_of, column) for column in self._cells.columns(records)), strict=True)
        return map(self._row, records)

    def _row(self, record: bytes) -> Sequence[Any]:
        try:
            return msgspec.structs.astuple(self._plain_row(record))
        except (msgspec.DecodeError, RecursionError):
            return list(map(cell_of, self._cells.of(record)))

    def _plain_texts(self, name: str, tasks: Sequence[bytes]) -> Sequence[str] | None:
        """Return a value of each task as a text, if each is a text or an integer at the top; None if not."""
        decode = self._decoders.get(name)
        try:
            return None if decode is None else [str(decode(task).value) for task in tasks]
        except (msgspec.DecodeError, RecursionError):
            return None

    def _parts(self, payload: Payload, pieces: tuple[bytes, ...], names: Mapping[str, str]) -> tuple[bytes, ...]:
        """Return a body of multipart/form-data (RFC 7578), with the records in its last part."""
        begin = f"--{_boundary(payload)}\r\nContent-Disposition: form-data; name="
        head = "".join(f'{begin}"{_quoted(name)}"\r\n\r\n{text.fill(names)}\r\n' for name, text in self._fields.items())
        file = self._body.file or f"batch.{_ENDINGS[self._body.framing]}"
        head += f'{begin}"{_quoted(self._body.part)}"; filename="{_quoted(file)}"\r\n'
        head += f"Content-Type: {self._part_type}\r\n\r\n"
        return (head.encode(), *pieces, f"\r\n--{_boundary(payload)}--\r\n".encode())

    def _needs(self) -> Iterator[tuple[str, bool]]:
        """Yield each path of a task from which a text takes its value, and whether it is put into a text."""
        for user in self._users.values():
            for name in user.names:
                if name.startswith(f"{TASK}."):
                    yield name.partition(".")[2], not isinstance(user, JsonText) or user.has_in_text(name)

    def _flaw_tests(self) -> Iterator[Callable[[Row], str | None]]:
        for one in self._additions:
            yield one.flaw
        if self._bare_key:
            yield is_empty(self._bare_key)
        for place, user in self._users.items():
            for name in sorted(user.names):
                if name.startswith(f"{TASK}."):
                    in_text = not isinstance(user, JsonText) or user.has_in_text(name)
                    yield lacks(name.partition(".")[2], place, in_text=in_text)
        if self._closed:
            columns = frozenset(self._body.columns)
            yield lambda task: next(
                (f"has {name!r}, which is none of body.columns" for name in task if name not in columns), None
            )

    @property
    def _bare_key(self) -> str:
        """The path of the value of a task that is its whole key; "" if the key is more than that, or something else."""
        found = re.fullmatch(r"\$\{task\.([^{}]+)\}", self._settings.record.key)
        return found[1] if found else ""

    @property
    def _closed(self) -> bool:
        """Whether a task may have no other members than `body.columns`: they would not be sent."""
        return bool(self._body.columns) and self._template is None


class _Columns:
    """What texts name of each record of a batch, found when it is first asked for."""

    def __init__(self, framing: Framing, payload: Payload, names: Mapping[str, str]) -> None:
        self._framing = framing
        self._payload = payload
        self._names = {**framing._settings.values, **names}  # noqa: SLF001 - two halves of one thing
        self._keys: Sequence[str] | None = None
        self._raws: dict[str, Sequence[bytes]] | None = None
        self._tasks: Sequence[bytes] | None = None

    @property
    def count(self) -> int:
        return len(self._payload.lengths)

    @property
    def keys(self) -> Sequence[str]:
        if self._keys is None:
            key = self._framing._key  # noqa: SLF001 - as above
            self._keys = key.each(self.count, self._names, self.text) if key is not None else ()
        return self._keys

    @property
    def tasks(self) -> Sequence[bytes]:
        """The tasks as `${task}` has them: with what is added, and as one line each."""
        if self._tasks is None:
            tasks: Sequence[bytes] = self._payload.tasks
            if self._framing._body.framing == "ndjson" and _has_lines(self._payload.array):  # noqa: SLF001 - as above
                tasks = [task.translate(_NO_LINES) for task in tasks]
            for one in self._framing._additions:  # noqa: SLF001 - as above
                tasks = one.put(tasks, self.json(one.member))
            self._tasks = tasks
        return self._tasks

    @property
    def records(self) -> Sequence[bytes]:
        """What goes up for each record."""
        template = self._framing._template  # noqa: SLF001 - as above
        return self.tasks if template is None else self.json(template)

    def json(self, value: JsonText) -> Sequence[bytes]:
        """Return a value of JSON for each record."""
        return value.each(self.count, self._names, self.text, self._jsons)

    def text(self, name: str) -> Sequence[str]:
        """Return what a name stands for in a text, for each record."""
        match name:
            case "index":
                return list(map(str, self._payload.indexes))
            case "key":
                return self.keys
            case "task":
                return [task.decode() for task in self.tasks]
        texts = self._framing._plain_texts(name, self._payload.tasks)  # noqa: SLF001 - as above
        return [as_text(raw, name) for raw in self._raw(name)] if texts is None else texts

    def _jsons(self, name: str) -> Sequence[bytes]:
        match name:
            case "index":
                return [b"%d" % index for index in self._payload.indexes]
            case "key":
                return json_texts(self.keys)
            case "task":
                return self.tasks
        raws = self._raw(name)
        if b"" in raws:
            raise ValueError(f"a task has no value for ${{{name}}}")
        if self._framing._body.framing == "ndjson":  # noqa: SLF001 - as above
            return [raw.translate(_NO_LINES) for raw in raws]
        return raws

    def _raw(self, name: str) -> Sequence[bytes]:
        if self._raws is None:
            framing = self._framing
            columns = framing._values.columns(self._payload.tasks)  # noqa: SLF001 - as above
            self._raws = dict(zip(framing._needed, columns, strict=True))  # noqa: SLF001 - as above
        if name not in self._raws:  # a name of a step that has not been made, or was not taken
            raise KeyError(name)
        return self._raws[name]


def _additions(settings: DescribedSettings) -> Iterator[Addition]:
    if settings.record.add:
        yield Addition(settings.record.add, "record.add")
    if settings.search is not None and settings.search.mark:
        under, _, name = settings.search.mark.rpartition(".")
        yield Addition({name: "${mark}"}, "search.mark", under)


def _as_texts(raw: bytes) -> Any:
    """Return an object for a form: its numbers as they are written, for 1.10 is no 1.1, and a double has 17 digits."""
    return json.loads(raw, parse_int=str, parse_float=str)


def _has_lines(array: bytes) -> bool:
    return b"\n" in array or b"\r" in array


def _only(records: Sequence[bytes]) -> bytes:
    if len(records) != 1:
        raise ValueError(f"a batch of {len(records)} records cannot be sent as a single one")
    return records[0]


def _around(beside: Mapping[str, Any], parts: Sequence[str]) -> tuple[bytes, bytes]:
    """Return what stands before and behind the member at a path, in an object with other members."""
    name, *rest = parts
    others = {key: value for key, value in beside.items() if key != name}
    prefix = orjson.dumps(others)[:-1] + (b"," if others else b"") + orjson.dumps(name) + b":"
    if not rest:
        return prefix, b"}"
    before, behind = _around(beside.get(name, {}), rest)
    return prefix + before, behind + b"}"


def _boundary(payload: Payload) -> str:
    """Return what parts a body of multipart: the same in each attempt, and nothing that stands in it."""
    return hashlib.sha256(payload.array).hexdigest()[:_BOUNDARY_LETTERS]


def _quoted(name: str) -> str:
    """Return a name as RFC 7578 and browsers write it in a header."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _length(name: str, lengths: Mapping[str, int]) -> int:
    return lengths.get(name, _VALUE_BYTES if name.startswith(f"{TASK}.") else _ID_BYTES)


def _json_bytes(value: JsonText, lengths: Mapping[str, int]) -> int:
    return value.literal_bytes() + sum(_length(name, lengths) + 2 for name in value.uses())
