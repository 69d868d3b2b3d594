"""Task specs in; whole ones, the reasons why the service would not take them, and the bodies that create them out.

What goes up is the spec's own JSON: its numbers as they are written there, since integers over 64 bits and the zeros of
`1.50` must survive, and its texts by value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import orjson

from engine.model.errors import Refused
from engine.model.record import Row
from engine.services.sevenbridges.settings import SPEC_KEYS

FILE_CLASSES = ("File", "Directory")

MOST_LEVELS = 200
"""Of nesting: orjson renders 254 levels (its README), and Python's own parser takes some hundreds."""

SAME_WORD = 0.75
"""Of difflib's measure: a column `sample` is no misspelt `name` (0.6), `input` is a misspelt `inputs` (0.9)."""

_PROJECT = re.compile(r"[^/\s]+/[^/\s]+")
_APP = re.compile(r"[^/\s]+/[^/\s]+/[^/\s]+(/\d+)?")
_METADATA = re.compile(r"metadata\.\S.*")
_TYPES: Mapping[str, tuple[type, str]] = {
    **dict.fromkeys(("name", "description", "project", "app", "batch_input"), (str, "a text")),
    **dict.fromkeys(("batch", "use_interruptible_instances"), (bool, "true or false")),
    **dict.fromkeys(("inputs", "batch_by", "execution_settings", "output_location"), (dict, "an object")),
}
_BATCHING = ("batch_input", "batch_by")


_EXACT = json.JSONDecoder(parse_int=orjson.Fragment, parse_float=orjson.Fragment)


def exact(array: bytes) -> Row:
    """Return the one spec of an array of tasks; numbers are the text that stands there."""
    try:
        (spec,), _end = _EXACT.raw_decode(array.decode())
    except RecursionError as error:  # behind a key that stands there twice, where `spec_flaw` does not see it
        raise Refused("the task is nested too deep to be sent") from error
    whole: Row = spec
    return whole


def merged(spec: Row, defaults: Row) -> Row:
    """Return a whole spec: its own keys, and the defaults of those that it lacks. Null is as good as lacking."""
    own = {key: value for key, value in spec.items() if value is not None}
    unbatched = own.get("batch") is False
    whole = {key: value for key, value in defaults.items() if not (unbatched and key in _BATCHING)} | own
    if isinstance(own.get("inputs"), dict):
        whole["inputs"] = {**defaults.get("inputs", {}), **own["inputs"]}
    return whole


def body_of(whole: Row, reference: str) -> bytes:
    """Return the body that creates a draft; its description is the spec's own, to the last blank, and the reference."""
    own = whole.get("description")
    body = {**whole, "description": f"{own} {reference}" if own else reference}
    if "batch_by" in whole:
        body["batch_by"] = {**whole["batch_by"], "type": whole["batch_by"]["type"].upper()}
    return orjson.dumps(body)


def spec_flaw(whole: Row) -> str | None:
    """Return why the service would not take a whole spec, naming the field."""
    return part_flaw(whole) or _missing(whole) or _batching_flaw(whole)


def part_flaw(spec: Row) -> str | None:
    """Return what is wrong with the keys that a spec has; it may lack any."""
    for key, value in spec.items():
        if flaw := _key_flaw(key, value) or _value_flaw(value, key, 0):
            return flaw
    return _batch_by_flaw(spec["batch_by"]) if "batch_by" in spec else None


def _key_flaw(key: str, value: Any) -> str | None:
    if key not in _TYPES:
        return _unknown_key(key)
    kind, words = _TYPES[key]
    if not isinstance(value, kind):
        return f"{key}: must be {words}, not {_short(value)}"
    if key == "project" and not _PROJECT.fullmatch(str(value)):
        return f"project: {_short(value)} is not owner/project"
    if key == "app" and not _APP.fullmatch(str(value)):
        return f"app: {_short(value)} is not owner/project/app, with or without /revision"
    return "batch_input: is empty; it names an input of the app" if key == "batch_input" and not value else None


def _unknown_key(key: str) -> str:
    if key == "bath":
        return "bath: not a key of a task, but a misprint of the vendor's page; did you mean 'batch'?"
    if key == "run":
        return "run: not a key of a task; it stands in the configuration (service.run) and holds for the whole job"
    near = get_close_matches(key, SPEC_KEYS, 1, SAME_WORD)
    hint = (
        f"did you mean {near[0]!r}?" if near else 'the app\'s inputs belong under "inputs" (mapping.template puts them)'
    )
    return f"{key}: not a key of a task; {hint}"


def _missing(whole: Row) -> str | None:
    for key in ("project", "app"):
        if key not in whole:
            return f"{key}: missing; write it into the record, or as service.{key} for all of them"
    return None


def _batching_flaw(whole: Row) -> str | None:
    given = [key for key in _BATCHING if key in whole]
    if given and whole.get("batch") is False:
        return f"{given[0]}: does not go with batch = false, which disables batching"
    if len(given) == 1:  # the service's code 7023
        return f"{given[0]}: batch_input and batch_by go together; leave both out for the app's own batching"
    if given and not isinstance(whole.get("inputs", {}).get(whole["batch_input"], []), list):
        return f"inputs.{whole['batch_input']}: must be a list, because batch_input names it"
    return None


def _batch_by_flaw(batch_by: Row) -> str | None:
    kind = batch_by.get("type")
    for key in batch_by:
        if key not in ("type", "criteria"):
            return f"batch_by.{key}: not a key of batch_by; it has type and criteria"
    if not isinstance(kind, str) or kind.upper() not in ("ITEM", "CRITERIA"):  # 7020
        return f"batch_by.type: must be 'ITEM' or 'CRITERIA', not {_short(kind)}"
    criteria = batch_by.get("criteria")
    if kind.upper() == "ITEM":
        return None if not criteria else "batch_by.criteria: only goes with type 'CRITERIA'"
    if not isinstance(criteria, list) or not criteria:  # 7019
        return 'batch_by.criteria: must be a list such as ["metadata.sample_id"]'
    for one in criteria:
        if not isinstance(one, str) or not _METADATA.fullmatch(one):
            hint = f"; did you mean 'metadata.{one}'?" if isinstance(one, str) and one else ""
            return f"batch_by.criteria: {_short(one)} is not metadata.<field>{hint}"
    return None


def _value_flaw(value: Any, place: str, level: int) -> str | None:
    if level > MOST_LEVELS:
        return f"{place[:100]}: nested deeper than {MOST_LEVELS} levels"
    if isinstance(value, dict):
        return _file_flaw(value, place) or _first(
            _value_flaw(one, f"{place}.{key}", level + 1) for key, one in value.items()
        )
    if isinstance(value, list):
        return _first(_value_flaw(one, f"{place}[{number}]", level + 1) for number, one in enumerate(value))
    return None


def _first(flaws: Iterator[str | None]) -> str | None:
    return next(filter(None, flaws), None)


def _file_flaw(value: Row, place: str) -> str | None:
    kind, path, name = value.get("class"), value.get("path"), value.get("name")
    if not isinstance(kind, str) or kind.capitalize() not in FILE_CLASSES:
        return None
    if kind not in FILE_CLASSES:
        return f"{place}.class: {kind!r} must be written {kind.capitalize()!r}"
    if path and not isinstance(path, str):
        return f"{place}.path: must be a file's id, in quotes, not {_short(path)}"
    return None if path else _name_flaw(name, kind, place)


def _name_flaw(name: Any, kind: str, place: str) -> str | None:
    if not isinstance(name, str) or not name:
        return f"{place}: needs path, the id of a {kind.lower()}, or a name to find it by"
    if not all(name.split("/")):
        return f"{place}.name: {_short(name)} is neither a name nor folder/name: a part between its slashes is empty"
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"  # noqa: PLR2004 - enough to know it again
