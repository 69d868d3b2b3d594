"""Inputs that name files in, the same inputs with the files' ids out.

Ids are asked for together and remembered. A cohort names thousands of files, two for each task, and a request for each
task would cost a third of the rate limit. So with every request for names one page of all the project's files is read;
once the list is at its end, names need no request. That is twice the cheaper of both ways at most, whichever it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio

from engine.model.errors import Refused
from engine.services.sevenbridges.answers import Page
from engine.services.sevenbridges.calls import ListShifted
from engine.services.sevenbridges.specs import FILE_CLASSES

MOST_NAMES = 50
MOST_CHARACTERS = 4000
"""Of one request: servers take addresses of 8,000 characters (RFC 9110 §4.1), and twice that is none's default."""

MOST_KNOWN = 50_000
"""Files that are remembered, some 10 MB. The list of a project that has more is not read."""

_TYPES = {"file": "File", "folder": "Directory"}


@dataclass(frozen=True, slots=True)
class Name:
    """What a file is looked for by."""

    project: str
    kind: str
    """File or Directory"""
    name: str


Ids = tuple[str, ...]
"""Of all that have a name; one is right."""


class _FileList:
    """All the files of a project, as far as they have been read."""

    def __init__(self, project: str, pages: AsyncIterator[Page]) -> None:
        self.project = project
        self.ids: dict[Name, Ids] = {}
        self.whole = False
        self._pages = pages
        self._read = 0
        self._worth_reading = True

    async def read_on(self) -> None:
        """Read one more page."""
        if self.whole or not self._worth_reading:
            return
        try:
            page = await anext(self._pages)
        except Refused:
            self._worth_reading = False
            return
        self._read += len(page.items)
        _sort_in(self.ids, self.project, page)
        self.whole = self._read >= page.total
        self._worth_reading = page.total <= MOST_KNOWN


class FileIds:
    """Finds files by name; `find` yields the files of a project that have one of some names, or all."""

    def __init__(self, find: Callable[[str, Sequence[str]], AsyncIterator[Page]]) -> None:
        self._find = find
        self._list: _FileList | None = None
        """Of the project asked about last: those of thousands would fill the memory."""
        self._lock = anyio.Lock()
        self._known: dict[Name, Ids] = {}
        self._pending: set[Name] = set()

    async def filled(self, project: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the inputs with a path for each file that has only a name.

        Raises:
            Refused: no file has that name, or several have; names the input.
        """
        places = {place: Name(project, kind, name) for place, kind, name in _nameless(inputs, "inputs")}
        if not places:
            return inputs
        ids = await self._ids(dict.fromkeys(places.values()))
        for place, name in places.items():
            if len(ids[name]) != 1:
                raise Refused(f"{place}: {_complaint(name, ids[name])}")
        filled: Mapping[str, Any] = _with_paths(
            inputs, {(name.kind, name.name): ids[name][0] for name in places.values()}
        )
        return filled

    async def _ids(self, names: Mapping[Name, None]) -> Mapping[Name, Ids]:
        """Look names up, maybe with others; while one request is under way, more names gather for the next."""
        found: dict[Name, Ids] = {}
        self._pending.update(names)
        try:
            async with self._lock:
                while missing := [name for name in names if name not in found]:
                    known = {name: self._known[name] for name in missing if name in self._known}
                    found |= known or await self._ask(missing)
        finally:
            self._pending.difference_update(names)
        return found

    async def _ask(self, missing: Sequence[Name]) -> Mapping[Name, Ids]:
        project = missing[0].project
        asked = _one_request([*missing, *(name for name in self._pending if name.project == project)])
        ids: dict[Name, Ids] = dict.fromkeys(asked, ())
        async for page in self._find(project, list(dict.fromkeys(name.name for name in asked))):
            _sort_in(ids, project, page)
        # Only what was found is remembered: a file that is missing may be uploaded and the record sent again.
        self._remember({name: found for name, found in ids.items() if len(found) == 1})
        await self._read_on(project)
        return ids

    async def _read_on(self, project: str) -> None:
        """Read one more page of all the project's files; remember them once there is no more."""
        if self._list is None or self._list.project != project:
            self._list = _FileList(project, self._find(project, ()))
        try:
            await self._list.read_on()
        except ListShifted:
            self._list = None
            return
        if self._list.whole:
            self._remember(self._list.ids)
            self._list.ids = {}

    def _remember(self, ids: Mapping[Name, Ids]) -> None:
        self._known.update(ids)
        for oldest in list(self._known)[: max(0, len(self._known) - MOST_KNOWN)]:
            del self._known[oldest]


def _sort_in(ids: dict[Name, Ids], project: str, page: Page) -> None:
    for item in page.items:
        for kind in _kinds(item):
            name = Name(project, kind, str(item.get("name")))
            ids[name] = (*ids.get(name, ()), str(item.get("id")))


def _kinds(item: Mapping[str, Any]) -> Sequence[str]:
    kind = _TYPES.get(str(item.get("type")))
    return [kind] if kind else FILE_CLASSES


def _one_request(names: Sequence[Name]) -> Sequence[Name]:
    """Return the first names, at least one, that fit into one request."""
    chosen: dict[Name, None] = {}
    characters = 0
    for name in names:
        characters += len(quote(name.name)) + len("&name=")
        if chosen and (len(chosen) == MOST_NAMES or characters > MOST_CHARACTERS):
            break
        chosen[name] = None
    return list(chosen)


def _nameless(value: Any, place: str) -> Iterator[tuple[str, str, str]]:
    """Yield place, class and name of each file without a path."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _nameless(one, f"{place}[{number}]")
    elif isinstance(value, dict):
        if _is_nameless(value):
            yield place, value["class"], value["name"]
        for key, one in value.items():
            yield from _nameless(one, f"{place}.{key}")


def _is_nameless(value: Mapping[str, Any]) -> bool:
    return value.get("class") in FILE_CLASSES and not value.get("path")


def _with_paths(value: Any, ids: Mapping[tuple[str, str], str]) -> Any:
    if isinstance(value, list):
        return [_with_paths(one, ids) for one in value]
    if not isinstance(value, dict):
        return value
    whole = {key: _with_paths(one, ids) for key, one in value.items()}
    return {**whole, "path": ids[value["class"], value["name"]]} if _is_nameless(value) else whole


def _complaint(name: Name, ids: Ids) -> str:
    kind = name.kind.lower()
    if not ids:
        return f"project {name.project} has no {kind} named {name.name!r}; upload it, or give its id as path"
    return (
        f"project {name.project} has {len(ids)} of the name {name.name!r} ({', '.join(ids[:3])}); give the id as path"
    )
