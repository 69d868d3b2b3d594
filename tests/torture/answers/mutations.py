"""An answer in, the same answer spoilt in one way out; drawn from a seed.

What is made is odd, and never a lie that no reader could see through: a count is not made another count, a list not
shorter, a state not another state that the service has, and a text in which a mark is looked for stays one or is none.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import orjson
from msgspec.structs import replace

from engine.services.base import Answer

CANARY = "c4na7yc4na7yc4na7y"
KEY = "sandbox-key"
"""What proves to the sandbox who we are."""
SIGNED = f"https://bucket.s3.amazonaws.com/k?X-Amz-Credential={CANARY}&X-Amz-Signature={CANARY}"
LONG = 40_000

_ODD_TEXTS = [
    "zz z",
    "../../x",
    "a/b",
    "a?b=c#d",
    "..",
    "\x00\x1b[31m\n",
    "\u202e\u2028",
    "é" * 300,
    "x" * LONG,
    SIGNED,
]
_TELLTALES = [f"see {SIGNED}", f"access_key={KEY} is no good", f'{{"url":"{SIGNED}"}}', SIGNED]
_DEEP = b"[" * 3000 + b"]" * 3000
_RAW = [
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 400,
    b"-" + b"9" * 5000,
    b"1.5",
    b'"\\ud83d"',
    b'"\\udc00\\ud83d x"',
    _DEEP,
]
_VALUES = [-1, 2**63, True, False, 7.25, [1], [[]], {"a": 1}, {"id": {}}]
_NEEDED = frozenset({"description", "tasks", "items", "links", "errors", "client_batch_id"})
"""Keys whose value, where it is left out or nothing, says that there is nothing."""


def mutated(answer: Answer, draw: random.Random) -> Answer:
    """Return an answer spoilt in one way."""
    kind = draw.choice(_WAYS)
    body = kind(answer.body, draw)
    return replace(answer, body=body)


def _places(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """Yield the way to each value of a JSON value."""
    yield at
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _places(one, (*at, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _places(one, (*at, number))


def _put(value: Any, at: tuple, new: Any) -> Any:
    if not at:
        return new
    first, *rest = at
    if isinstance(value, dict):
        return {key: _put(one, tuple(rest), new) if key == first else one for key, one in value.items()}
    return [_put(one, tuple(rest), new) if number == first else one for number, one in enumerate(value)]


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _other_value(body: bytes, draw: random.Random) -> bytes:
    value = _parsed(body)
    if value is None:
        return draw.choice([b"null", b"5", b'"x"', b"[]", SIGNED.encode()])
    at = draw.choice(list(_places(value)))
    kind = draw.randrange(4)
    if kind == 0 and at and at[-1] not in _NEEDED:
        new: Any = draw.choice([None, "", [], {}])
    elif kind == 1:
        new = orjson.Fragment(draw.choice(_RAW))
    else:
        new = draw.choice(_ODD_TEXTS if kind == 2 else _VALUES)
    return orjson.dumps(_put(value, at, new))


def _telling(body: bytes, draw: random.Random) -> bytes:
    """Put a secret into a text, or beside what there is."""
    value = _parsed(body)
    said = draw.choice(_TELLTALES)
    if not isinstance(value, dict):
        return said.encode() + body
    texts = [at for at in _places(value) if at and isinstance(at[-1], str) and at[-1] not in _NEEDED]
    if texts and draw.random() < 0.7:
        return orjson.dumps(_put(value, draw.choice(texts), said))
    extra = {"messages": [said], "message": said, "errors": [{"type": "E", "message": said}], "detail": {"x": said}}
    return orjson.dumps({draw.choice(list(extra)): said, **extra, **value})


def _without(body: bytes, draw: random.Random) -> bytes:
    value = _parsed(body)
    if not isinstance(value, dict):
        return b""
    places = [at for at in _places(value) if at and isinstance(at[-1], str) and not _NEEDED.intersection(map(str, at))]
    if not places:
        return b"{}"
    *above, key = draw.choice(places)
    inner = value
    for part in above:
        inner = inner[part]
    return orjson.dumps(_put(value, tuple(above), {name: one for name, one in inner.items() if name != key}))


def _cut(body: bytes, draw: random.Random) -> bytes:
    return body[: draw.randrange(len(body))] if body else b"{"


def _encoded(body: bytes, draw: random.Random) -> bytes:
    text = body.decode("utf-8", "replace")
    ways = [
        lambda: b"\xef\xbb\xbf" + body,
        lambda: text.encode("utf-16"),
        lambda: text.encode("utf-32-be"),
        lambda: body.replace(b'"', b"'"),
        lambda: body + body,
        lambda: body + b"\n<!-- page -->",
        lambda: b")]}',\n" + body,
        lambda: b"[" + body + b"]",
        lambda: body.replace(b":", b": ", 1) + b" " * LONG,
    ]
    return draw.choice(ways)()


def _flipped(body: bytes, draw: random.Random) -> bytes:
    """Put bytes into it that are no letters of anything."""
    spoilt = bytearray(body or b"{}")
    for _ in range(draw.choice([1, 1, 3])):
        spoilt[draw.randrange(len(spoilt))] = draw.choice([0x00, 0x1F, 0x80, 0xC3, 0xED, 0xFF])
    return bytes(spoilt)


def _page(_: bytes, draw: random.Random) -> bytes:
    title = draw.choice(["Bad gateway", SIGNED, "x" * LONG])
    return f"<!DOCTYPE html><html><head><title>{title}</title></head><body>{SIGNED} {KEY}</body></html>".encode()


_WAYS = [_other_value] * 4 + [_telling] * 2 + [_without, _cut, _encoded, _flipped, _page]
