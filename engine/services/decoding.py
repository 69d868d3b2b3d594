"""The body of an answer in, a value of the type that its call is to bring out; the services read answers no other way.

What is not as its type says is an `UnexpectedAnswer`, and no other error: it concerns the batch that was asked about.
A field that is `Extra` can be done without: where it is not as it should be, it counts as not there. A body that is no
right JSON is read once more, tolerantly. So one odd letter in a message costs no batch its fates.

What goes on from here into a URL, the ledger or a report is bounded here: `Name`, `Word`, `words`, `told`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin
from urllib.parse import quote

import msgspec

from engine.model.errors import UnexpectedAnswer
from engine.progress.redaction import all_foreign_words, foreign_words
from engine.services.base import Answer

T = TypeVar("T")

MOST_ID_CHARACTERS = 200
"""Sama's ids are numbers and 24 hexadecimal digits, Seven Bridges' have 24 or 36 characters."""
_LETTERS = rf"[A-Za-z0-9_~@:+=-][A-Za-z0-9._~@:+=-]{{0,{MOST_ID_CHARACTERS - 1}}}+"
"""No slash, blank or question mark, and no dot first: it becomes a part of a path."""
_ID, _IDS = rf"^{_LETTERS}\Z", re.compile(rf"(?:{_LETTERS}\n)*+\Z")

Name = Annotated[str, msgspec.Meta(pattern=_ID)]
"""How a service calls a batch, a task or a file."""
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Id = Name | Number
"""The same, where it may be a number."""

Word = Annotated[str, msgspec.Meta(pattern=r"^[\w .-]{1,60}\Z")]
"""A state, in the service's own word: it stands in events and reports, so it is no sentence and no address."""

Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]

Extra = Annotated[T, msgspec.Meta(extra={"extra": True})]
"""A field that can be done without."""

_MOST_ENTRIES = 100
_MOST_LEVELS = 8
"""Of what a service says of a task besides, as far as it is kept."""
_MOST_DIGITS = 400
"""Of a number; Python itself takes no integer of more than 4,300."""
_MOST_TOLERATED_BYTES = 8 * 1024 * 1024
"""The tolerant reading takes up to thirty times the memory of the body, and a page of 1,000 failed tasks a few MiB."""


class Anything(msgspec.Struct):
    """An object of which nothing is needed: that it is one shows who answered."""


def decode(answer: Answer, kind: type[T], *, call: str = "", mend: bool = True) -> T:
    """Return what an answer holds, as a value of a type: a `msgspec.Struct`, or one that msgspec knows.

    `call` says what was asked. Without `mend` the body must be right JSON: for a search, where what is not found counts
    as not there, and a mended text may have been what was looked for.

    Raises:
        UnexpectedAnswer: it holds something else.
    """
    if (right := decode_if_right(answer.body, kind)) is not None:
        return right
    try:
        read: T = _read_again(answer.body, kind, mend=mend)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        about = f"{call}: " if call else ""
        # A field is named by us; what stands in the answer is not shown, for it may be a secret.
        odd, _, pattern = str(error).partition(" matching regex")
        why = f" ({odd}{' of another form' if pattern else ''})" if isinstance(error, msgspec.ValidationError) else ""
        words = f"{about}the answer is not a JSON object as it should be{why}"
        raise UnexpectedAnswer(words, call=call, status=answer.status) from None
    return read


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def decode_if_right(body: bytes, kind: type[T]) -> T | None:
    """Return what a body holds if it is of a type, nothing of it odd; None if `decode` has to look closer."""
    wanted: Any = kind
    try:
        found: T = _decoder(wanted).decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return found


def are_names(texts: Sequence[str]) -> bool:
    """Return whether each is a `Name`: all by one call, since one for each takes ten times as long.

    The pattern never goes back: to be able to would take 100 bytes a name, and an answer may hold millions.
    """
    lines = "\n".join([*texts, ""])
    return lines.count("\n") == len(texts) and _IDS.match(lines) is not None


def _read_again(body: bytes, kind: Any, *, mend: bool) -> Any:
    try:
        return _without_odd_extras(body, kind)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        if not mend:
            raise
        return _without_odd_extras(_mended(body), kind)


def _without_odd_extras(text: Any, kind: Any) -> Any:
    """Read JSON field by field, and leave out the extra ones that are not as they should be.

    Raises:
        msgspec.ValidationError: so is one that is needed.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        kind = _whole_of(kind)
        if get_origin(kind) is list:
            (item,) = get_args(kind)
            return [_without_odd_extras(one, item) for one in msgspec.json.decode(text, type=list[msgspec.Raw])]
        struct = get_origin(kind) or kind
        if not isinstance(struct, type) or not issubclass(struct, msgspec.Struct):
            raise
        found = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        fields = {field.name: field for field in msgspec.structs.fields(kind) if field.encode_name in found}
        kept = {}
        for name, field in fields.items():
            try:
                kept[name] = _without_odd_extras(found[field.encode_name], field.type)
            except msgspec.ValidationError as error:
                if not _is_extra(field.type):
                    raise msgspec.ValidationError(f"{field.encode_name}: {error}") from error
        missing = [field.name for field in msgspec.structs.fields(kind) if field.required and field.name not in kept]
        if missing:
            raise
        return kind(**kept)


def _is_extra(kind: Any) -> bool:
    notes = getattr(kind, "__metadata__", ())
    return any(isinstance(note, msgspec.Meta) and (note.extra or {}).get("extra") for note in notes)


def _whole_of(kind: Any) -> Any:
    """Return a type without what is said of it besides, and of `… | None` the first part."""
    while hasattr(kind, "__metadata__"):
        kind = get_args(kind)[0]
    if get_origin(kind) in {Union, UnionType}:
        parts = [part for part in get_args(kind) if part is not NoneType]
        return _whole_of(parts[0]) if len(parts) == 1 else kind
    return kind


def _mended(body: bytes) -> bytes:
    """Return right JSON for what is nearly that: without a byte order mark, odd bytes and numbers replaced.

    Half a letter of two parts (a lone surrogate) becomes a question mark; NaN, Infinity and endless numbers null.

    Raises:
        ValueError, RecursionError: it cannot be read this way, either.
    """
    if len(body) > _MOST_TOLERATED_BYTES:
        raise ValueError("too long to be mended")
    reader = json.JSONDecoder(strict=False, parse_int=_bounded, parse_float=_bounded, parse_constant=lambda _: None)
    found = reader.decode(body.decode("utf-8-sig", "replace"))
    return json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")


def _bounded(digits: str) -> int | float | None:
    if len(digits) > _MOST_DIGITS:
        return None
    number = float(digits)
    return (int(digits) if digits.lstrip("-").isdecimal() else number) if math.isfinite(number) else None


_PAGES = (b"<!doctype", b"<html", b"<head", b"<body")


def is_page(body: bytes) -> bool:
    """Return whether a body is that of a page for people: something in between gives those, also with a 200."""
    return body[:200].lstrip()[:20].lower().startswith(_PAGES)


def path_part(name: str) -> str:
    """Return how a name stands in the path of a URL.

    Raises:
        UnexpectedAnswer: it is none that a service may give.
    """
    if re.match(_ID, name) is None:
        raise UnexpectedAnswer(f"{words(name)[:40]!r} is not the name of anything that can be asked about")
    return quote(name, safe="")


words = foreign_words
"""Returns what a service says, as it may be kept and shown: one line, not long, without what looks like a secret."""
words_of_all = all_foreign_words


def told(value: Any, level: int = 0) -> Any:
    """Return what a service says of a task besides, as it may be kept: few entries and levels, its texts as `words`."""
    if isinstance(value, str):
        return words(value)
    if isinstance(value, int | float):
        return value if -(2**63) <= value < 2**63 else None  # so NaN, too, is None
    if level == _MOST_LEVELS:
        return None
    if isinstance(value, Mapping):
        return {words(str(name)): told(one, level + 1) for name, one in list(value.items())[:_MOST_ENTRIES]}
    if isinstance(value, list | tuple):
        return [told(one, level + 1) for one in value[:_MOST_ENTRIES]]
    return None
