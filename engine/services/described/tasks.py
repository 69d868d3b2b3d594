"""What a description takes of tasks and puts into them: values by their paths, members beside theirs, flaws. Pure.

A value is taken as its own text, and nothing else of the task is read. `body` makes bodies of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
import orjson

from engine.model.record import Row
from engine.services.decoding import Anything
from engine.services.described.paths import MISSING, compiled, parts_of
from engine.services.described.texts import JsonText

NULL = b"null"


class PlainFields:
    """Gathers what a struct must say of a task so that what it takes has no flaw."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        """Name → its type, or the fields of an object."""
        self._optional: set[str] = set()
        self._closed = False
        self._possible = True

    def need(self, parts: Sequence[str], kind: Any) -> None:
        """Have a value be there, of a type."""
        fields: Any = self._fields
        for part in parts[:-1]:
            fields = fields.setdefault(part, {}) if isinstance(fields, dict) else None
        if not isinstance(fields, dict) or any(map(_is_place, parts)):
            self._possible = False
            return
        before = fields.get(parts[-1], msgspec.Raw)
        if before is msgspec.Raw or before == kind:
            fields[parts[-1]] = kind
        elif kind is not msgspec.Raw:
            self._possible = False

    def lack(self, under: str, names: Collection[str]) -> None:
        """Have members not be there; `under`: of an object in the task, which must be."""
        fields = self._fields.setdefault(under, {}) if under else self._fields
        if not isinstance(fields, dict) or not fields.keys().isdisjoint(names):
            self._possible = False
            return
        fields.update(dict.fromkeys(names, _ABSENT))

    def close(self, names: Sequence[str]) -> None:
        """Have no other members be there than these."""
        self._closed = True
        self._optional = {name for name in names if name not in self._fields}

    def struct(self) -> type[msgspec.Struct] | None:
        """Return the struct; None if none can say it."""
        if not self._possible:
            return None
        if not self._fields and not self._closed:
            return Anything
        optional = [(name, msgspec.Raw, msgspec.Raw(b"")) for name in sorted(self._optional)]
        return _struct(self._fields, optional, closed=self._closed)


IN_TEXT = str | int | float | bool
OF_KEY = Annotated[str, msgspec.Meta(min_length=1)] | int | float | bool
_ABSENT = Literal["\x00"]
"""A field of it is not there: no text is this one."""


def _struct(
    fields: Mapping[str, Any], optional: Sequence[tuple[str, Any, Any]] = (), *, closed: bool = False
) -> type[msgspec.Struct]:
    names = [*fields, *(name for name, _, _ in optional)]
    typed: list[Any] = []
    for at, kind in enumerate(fields.values()):
        inner = _struct(kind) if isinstance(kind, dict) else kind
        typed.append((f"f{at}", inner, "\x00") if kind is _ABSENT else (f"f{at}", inner))
    typed += [(f"f{len(fields) + at}", kind, default) for at, (_, kind, default) in enumerate(optional)]
    rename = {f"f{at}": name for at, name in enumerate(names)}
    return msgspec.defstruct("PlainRecord", typed, rename=rename, kw_only=True, forbid_unknown_fields=closed)


def _is_place(part: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,9}", part) is not None


class TaskValues:
    """Finds the text of some values in JSON objects, by their paths, and reads nothing else of them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [parts_of(path) for path in paths]
        names = list(dict.fromkeys(parts[0] for parts in self._paths))
        fields = [(f"f{at}", msgspec.Raw, msgspec.Raw(b"")) for at in range(len(names))]
        kind = msgspec.defstruct("RawValues", fields, rename={f"f{at}": name for at, name in enumerate(names)})
        self._decode = msgspec.json.Decoder(kind).decode
        self._places = [(attrgetter(f"f{names.index(parts[0])}"), parts[1:]) for parts in self._paths]

    def of(self, task: bytes) -> Sequence[bytes]:
        """Return the text of each value in one task."""
        return [column[0] for column in self.columns([task])]

    def columns(self, tasks: Sequence[bytes]) -> Sequence[Sequence[bytes]]:
        """Return, for each path, the text of its value in each task; b"" of one that is not there."""
        try:
            found = list(map(self._decode, tasks))
            return [
                [_raw_below(bytes(get(one)), rest) for one in found] if rest else list(map(bytes, map(get, found)))
                for get, rest in self._places
            ]
        except RecursionError:  # msgspec goes less deep than orjson
            values = list(map(orjson.loads, tasks))
            return [[_rendered(value, parts) for value in values] for parts in self._paths]


_member_texts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_item_texts = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _raw_below(raw: bytes, parts: Sequence[str]) -> bytes:
    for part in parts:
        begin = raw.lstrip()[:1]
        if begin == b"{":
            raw = bytes(_member_texts(raw).get(part, b""))
        elif begin == b"[" and re.fullmatch(r"-?[0-9]{1,9}", part):
            items, place = _item_texts(raw), int(part)
            raw = bytes(items[place]) if -len(items) <= place < len(items) else b""
        else:
            return b""
    return raw


def _rendered(value: Any, parts: Sequence[str]) -> bytes:
    found = compiled(".".join(f'"{escaped(part)}"' for part in parts))(value)
    return b"" if found is MISSING else orjson.dumps(found)


def escaped(name: str) -> str:
    """Return a name as it stands between quotes in a path."""
    return name.replace("\\", "\\\\").replace('"', '\\"')


def members_of(record: bytes) -> Mapping[str, bytes]:
    """Return the text of each member of an object."""
    try:
        return {name: bytes(text) for name, text in _member_texts(record).items()}
    except RecursionError:
        return {name: orjson.dumps(value) for name, value in orjson.loads(record).items()}


class Addition:
    """Puts members into a task, behind its opening bracket or that of an object in it."""

    def __init__(self, members: Mapping[str, Any], place: str, under: str = "") -> None:
        self.member = JsonText(dict(members), place)
        self.place = place
        self.names = frozenset(members)
        self.under = under
        self._first = re.compile(rb"\s*\{\s*%b\s*:\s*\{" % re.escape(orjson.dumps(under)))

    def put(self, tasks: Sequence[bytes], members: Sequence[bytes]) -> Sequence[bytes]:
        """Return tasks with members, which are the text of an object for each.

        Raises:
            ValueError: one has no object to put them into.
        """
        if self.under:
            return list(map(self._put_below, tasks, members))
        # Nearly every task begins so; and a closing bracket off a text costs less than a call.
        return [
            mine[:-1] + b"," + task[1:] if task[:2] == b'{"' else _joined(mine, task, task.index(b"{") + 1)
            for task, mine in zip(tasks, members, strict=True)
        ]

    def _put_below(self, task: bytes, members: bytes) -> bytes:
        found = self._first.match(task)
        if found is not None and task.count(orjson.dumps(self.under)) == 1:  # of two the last one counts
            return task[: found.end() - 1] + _joined(members, task, found.end())
        texts = dict(members_of(task))
        inner = texts.get(self.under, b"").lstrip()
        if inner[:1] != b"{":
            raise ValueError(f"a task has no object {self.under!r}, which the mark stands in")
        texts[self.under] = _joined(members, inner, 1)
        return b"{%b}" % b",".join(orjson.dumps(name) + b":" + text for name, text in texts.items())

    def flaw(self, task: Row) -> str | None:
        """Return why they cannot be put into a task; None if they can."""
        inside: Any = task.get(self.under, MISSING) if self.under else task
        if not isinstance(inside, dict):
            return f"has no object {self.under!r}, into which {self.place} puts what it is found by"
        for name in self.names:
            if name in inside:
                where = f"{self.under}.{name}" if self.under else name
                return f"has {where!r} already, which {self.place} puts there"
        return None


def _joined(members: bytes, text: bytes, inside: int) -> bytes:
    """Return an object with members before its own; these begin at `inside` in its text."""
    rest = text[inside:]
    ends = rest[:1] != b'"' and rest.lstrip()[:1] == b"}"
    return members[:-1] + (b"" if ends else b",") + rest


def lacks(path: str, place: str, *, in_text: bool) -> Callable[[Row], str | None]:
    """Return what says why a task lacks the value that a text takes from it."""
    get = compiled(path)

    def test(task: Row) -> str | None:
        found = get(task)
        if found is MISSING:
            return f"has no {path!r}, which {place} takes from it"
        if in_text and (found is None or isinstance(found, dict | list)):
            kind = "null" if found is None else "no text and no number"
            return f"{path!r} is {kind}, and {place} puts it into a text"
        return None

    return test


def is_empty(path: str) -> Callable[[Row], str | None]:
    """Return what says that the value at a path is the empty text.

    That is no key: many services make one of their own for it, at each attempt another one.
    """
    get = compiled(path)
    return lambda task: f"{path!r} is empty, and it is the record's key" if get(task) == "" else None


def json_texts(texts: Sequence[str]) -> Sequence[bytes]:
    """Return texts as JSON writes them.

    Where nothing in them needs an escape they are only put into quotes: orjson takes a kilobyte for each and gives most
    of it back, which leaves the memory in pieces and costs up to 3 µs a text.
    """
    line = "".join(texts)
    if line.isascii() and line.isprintable() and '"' not in line and "\\" not in line:
        return [b'"%b"' % text.encode() for text in texts]
    return list(map(orjson.dumps, texts))


def as_text(raw: bytes, name: str) -> str:
    """Return a value as it stands in a text: a text as it is, anything else as JSON.

    Raises:
        ValueError: it is null, or not there; names what would stand for it.
    """
    if raw[:1] == b'"':
        found: str = orjson.loads(raw)
        return found
    if not raw or raw == NULL:
        raise ValueError(f"a task has no value for ${{{name}}}")
    return raw.decode()


def decoder_of(names: Sequence[str], kind: Any, *default: Any) -> Callable[[bytes], Any]:
    """Return what reads some members of an object, each of a kind; the first is called `value`."""
    fields = [("value" if not at else f"value{at}", kind, *default) for at in range(len(names))]
    rename = {field[0]: name for field, name in zip(fields, names, strict=True)}
    return msgspec.json.Decoder(msgspec.defstruct("PlainValues", fields, rename=rename)).decode


def cell_of(raw: bytes) -> str:
    """Return a value as a field of CSV has it: texts as they are, null as nothing, anything else as JSON."""
    if raw[:1] == b'"':
        found: str = orjson.loads(raw)
        return found
    return "" if raw in {NULL, b""} else raw.decode()
