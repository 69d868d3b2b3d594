"""A seed in, records for a service out: the same bytes for the same seed, each with an id of its own."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import orjson

from engine.model.errors import ConfigError
from engine.model.record import Row
from engine.model.settings import MappingSettings

_COLUMN = re.compile(r"\$\{row\.([^}]+)\}")


def generated(kind: str, mapping: MappingSettings, seed: int) -> Iterator[bytes]:
    """Yield records without end, as the mapping of the configuration takes them: for a template, its columns.

    Raises:
        ConfigError: nobody here knows what the tasks of this service must hold.
    """
    if mapping.template:
        columns = sorted(set(_columns(mapping.template)))
        return (_dumps({column: f"{column}-{seed}-{number}" for column in columns}) for number in count())
    if kind != "sama":
        raise ConfigError(
            f"service.kind {kind!r}: its tasks depend on your app and cannot be made up: name a SOURCE with tasks, "
            "or write a [mapping.template] that makes them of generated columns"
        )
    draw = random.Random(seed)
    tasks = (_labelling_task(draw, f"bench-{seed}-{number}") for number in count())
    return (_dumps(task if mapping.wrap == "data" else {"data": task}) for task in tasks)


def _dumps(row: Row) -> bytes:
    return orjson.dumps(row)


def _columns(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _COLUMN.findall(value)
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _columns(one)


def _labelling_task(draw: random.Random, name: str) -> Row:
    """Return the inputs of a task of some 570 bytes: a link, a note and the boxes on an image."""
    return {
        "id": name,
        "image": f"https://images.example.com/{draw.getrandbits(64):016x}/frame.jpg",
        "note": 'beside the "stop" sign, {occluded} ' + "x" * draw.randrange(160, 220),
        "boxes": [
            {"label": draw.choice(["car", "person", "{sign}"]), "box": [draw.randrange(1000, 4000) for _ in range(4)]}
            for _ in range(5)
        ],
    }
