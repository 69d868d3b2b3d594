"""A parent's draft enters, its children's drafts with their groups leave.

By ITEM each file is a child. By CRITERIA the files that share their values of all the metadata fields are one; groups
come in the order of their first file, and a value that a file lacks is null in `fields` and "undefined" in `value`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from engine.sandbox.sevenbridges.catalog import Catalog
from engine.sandbox.sevenbridges.tasks import BatchGroup, Batching, Draft

_UNDEFINED = "undefined"


@dataclass(frozen=True, slots=True)
class Child:
    """A child task to be."""

    draft: Draft
    group: BatchGroup


def children(draft: Draft, batching: Batching, catalog: Catalog) -> Iterator[Child]:
    """Divide a parent's inputs."""
    inputs = orjson.loads(draft.inputs)
    groups = _by_criteria if batching.criteria else _by_item
    for group, files in groups(inputs[batching.input], batching, catalog):
        own = orjson.dumps({**inputs, batching.input: files}).decode()
        yield Child(replace(draft, name=f"{draft.name} - {group.value}", inputs=own, batching=None), group)


def _by_item(items: list[Any], batching: Batching, catalog: Catalog) -> Iterator[tuple[BatchGroup, Any]]:  # noqa: ARG001 - one signature
    for item in items:
        yield BatchGroup(_name(item, catalog), {}), item


def _by_criteria(items: list[Any], batching: Batching, catalog: Catalog) -> Iterator[tuple[BatchGroup, Any]]:
    groups: dict[tuple[str | None, ...], list[Any]] = {}
    for item in items:
        groups.setdefault(_values(item, batching.criteria, catalog), []).append(item)
    for values, files in groups.items():
        value = ", ".join(_UNDEFINED if one is None else one for one in values)
        yield BatchGroup(value, dict(zip(batching.criteria, values, strict=True))), files


def _values(item: Any, criteria: tuple[str, ...], catalog: Catalog) -> tuple[str | None, ...]:
    file = catalog.file(_path(item))
    return tuple(file.metadata.get(one.removeprefix("metadata.")) if file else None for one in criteria)


def _name(item: Any, catalog: Catalog) -> str:
    if isinstance(item, dict) and isinstance(name := item.get("name"), str):
        return name
    file = catalog.file(_path(item))
    return file.name if file else _path(item)


def _path(item: Any) -> str:
    return str(item.get("path")) if isinstance(item, dict) else str(item)
