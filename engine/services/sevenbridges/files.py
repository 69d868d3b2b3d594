"""Finds the files that inputs name, and puts their ids into the inputs.

A name is that of a file in the project's root; `folder/sub/name` is in folders, which are looked up one within the
other, since a list shows what is in one place only.

A cohort names thousands of files, two for each task, and a request for each task would cost a third of the rate limit.
So names are asked for together and remembered. And before every request for names one page of all that is in the same
place is read; once that list is at its end, names need no request. That is twice the cheaper of both ways at most,
whichever it is; a small folder costs one request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import quote

import anyio
from msgspec import Struct

from engine.model.errors import CallFailed, Refused, Unauthorized, Unavailable
from engine.services.sevenbridges.calls import ListedFile, ListShifted, Page, Place
from engine.services.sevenbridges.specs import FILE_CLASSES

MOST_NAMES = 50
MOST_CHARACTERS = 4000
"""Of one request: servers take addresses of 8,000 characters (RFC 9110 §4.1), and twice that is none's default."""

MOST_KNOWN = 50_000
"""Files that are remembered, some 10 MB. The list of a place that has more is not read."""

MOST_LISTS = 1000
"""Places whose lists are being read."""

FILE, DIRECTORY = FILE_CLASSES
_TYPES = {"file": FILE, "folder": DIRECTORY}
"""In lower case; the vendor's pages write them in either."""

_TOO_MUCH = frozenset(
    {HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_URI_TOO_LONG, HTTPStatus.SERVICE_UNAVAILABLE}
)
"""What may be said of many names and not of fewer; `settings.ruling` refuses a 503 that is for nothing else."""


class Name(Struct, frozen=True):
    """What a file is looked for by."""

    place: Place
    kind: str
    """File or Directory"""
    name: str


Ids = tuple[str, ...]
"""Of all that have a name; one is right."""


class _FileList:
    """All that is in a place, as far as it has been read."""

    def __init__(self, place: Place, pages: AsyncIterator[Page[ListedFile]]) -> None:
        self.ids: dict[Name, Ids] = {}
        self.whole = False
        self._place = place
        self._pages = pages
        self._read = 0
        self._worth_reading = True

    async def read_on(self) -> None:
        """Read one more page."""
        if self.whole or not self._worth_reading:
            return
        try:
            page = await anext(self._pages)
        except (Refused, Unauthorized):
            self._worth_reading = False
            return
        self._read += len(page.items)
        _sort_in(self.ids, self._place, page)
        self.whole = self._read >= page.total
        self._worth_reading = max(page.total, self._read) <= MOST_KNOWN


class Names:
    """Finds files by name; `find` yields what has one of some names in a place, or all that is there."""

    def __init__(self, find: Callable[[Place, Sequence[str]], AsyncIterator[Page[ListedFile]]]) -> None:
        self._find = find
        self._lists: dict[Place, _FileList] = {}
        self._lock = anyio.Lock()
        self._known: dict[Name, Ids] = {}
        self._pending: set[Name] = set()
        self._most_names = MOST_NAMES

    async def ids(self, names: Iterable[Name]) -> Mapping[Name, Ids]:
        """Look names up, maybe with others; while one request is under way, more names gather for the next."""
        wanted, found = dict.fromkeys(names), dict[Name, Ids]()
        self._pending.update(wanted)
        try:
            async with self._lock:
                while missing := [name for name in wanted if name not in found]:
                    found |= self._remembered(missing) or await self._ask(missing)
        finally:
            self._pending.difference_update(wanted)
        return found

    def _remembered(self, names: Sequence[Name]) -> Mapping[Name, Ids]:
        return {name: self._known[name] for name in names if name in self._known}

    async def _ask(self, missing: Sequence[Name]) -> Mapping[Name, Ids]:
        """Read on in the list of one place; if no name is known by that, ask for some."""
        place = missing[0].place
        await self._read_on(place)
        if listed := self._remembered(missing):
            return listed
        here = [name for name in (*missing, *self._pending) if name.place == place and name not in self._known]
        asked = _one_request(here, self._most_names)
        ids: dict[Name, Ids] = dict.fromkeys(asked, ())
        if not await self._asked(place, ids):
            return {}
        # Only what was found is remembered: a file that is missing may be uploaded and the record sent again.
        self._remember({name: found for name, found in ids.items() if len(found) == 1})
        return ids

    async def _asked(self, place: Place, ids: dict[Name, Ids]) -> bool:
        """Fill in the ids of names; if the service takes fewer at once, take note of that, and return False."""
        names = list(dict.fromkeys(name.name for name in ids))
        try:
            async for page in self._find(place, names):
                _sort_in(ids, place, page)
        except (Refused, Unavailable) as failure:
            if len(names) == 1 or not _too_much(failure):
                raise
            self._most_names = len(names) // 2
            return False
        if len(names) == self._most_names < MOST_NAMES:  # one more next time: the halving may have been for an outage
            self._most_names += 1
        return True

    async def _read_on(self, place: Place) -> None:
        """Read one more page of all that is in a place; remember it once there is no more."""
        if place not in self._lists:
            self._make_room()
            self._lists[place] = _FileList(place, self._find(place, ()))
        of_place = self._lists[place]
        try:
            await of_place.read_on()
        except ListShifted:
            del self._lists[place]
            return
        except BaseException:  # pages that were broken off do not go on
            del self._lists[place]
            raise
        if of_place.whole:
            self._remember(of_place.ids)
            of_place.ids = {}

    def _make_room(self) -> None:
        """Give up the oldest lists, before they fill the memory."""
        while len(self._lists) >= MOST_LISTS or sum(len(one.ids) for one in self._lists.values()) > MOST_KNOWN:
            del self._lists[next(iter(self._lists))]

    def _remember(self, ids: Mapping[Name, Ids]) -> None:
        self._known.update(ids)
        for oldest in list(self._known)[: max(0, len(self._known) - MOST_KNOWN)]:
            del self._known[oldest]


def _sort_in(ids: dict[Name, Ids], place: Place, page: Page[ListedFile]) -> None:
    for item in page.items:
        for kind in _kinds(item):
            name = Name(place, kind, item.name)
            ids[name] = (*ids.get(name, ()), item.id)


def _kinds(item: ListedFile) -> Sequence[str]:
    kind = _TYPES.get(item.type.lower())
    return [kind] if kind else FILE_CLASSES


def _one_request(names: Sequence[Name], most: int) -> Sequence[Name]:
    """Return the first names, at least one, that fit into one request."""
    chosen: dict[Name, None] = {}
    characters = 0
    for name in names:
        characters += len(quote(name.name)) + len("&name=")
        if chosen and (len(chosen) == most or characters > MOST_CHARACTERS):
            break
        chosen[name] = None
    return list(chosen)


def _too_much(failure: CallFailed) -> bool:
    return failure.timed_out or failure.by_proxy or (isinstance(failure, Refused) and failure.status in _TOO_MUCH)


Path = tuple[str, ...]
"""Of folders, and the name itself."""


class _Wanted(Struct, frozen=True):
    """A file that an input names."""

    kind: str
    """File or Directory"""
    path: Path


class _File(Struct, frozen=True):
    """One that has a name."""

    id: str
    place: Place


Found: TypeAlias = Mapping[_Wanted, Sequence[_File]]
"""Of each all that have its name; one is right."""


class FileIds:
    """Finds the files that inputs name; `find` yields what has one of some names in a place, or all that is there."""

    def __init__(self, find: Callable[[Place, Sequence[str]], AsyncIterator[Page[ListedFile]]]) -> None:
        self._names = Names(find)

    async def filled(self, project: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the inputs with a path for each file that has only a name.

        Raises:
            Refused: no file has that name, or several have; names the input.
        """
        wanted = {place: _Wanted(kind, _path(name)) for place, kind, name in _nameless(inputs, "inputs")}
        if not wanted:
            return inputs
        found = await self._found(project, list(wanted.values()))
        for place, one in wanted.items():
            if len(found[one]) != 1:
                raise Refused(f"{place}: {_complaint(project, one, found)}")
        filled: Mapping[str, Any] = _with_paths(inputs, {one: found[one][0].id for one in wanted.values()})
        return filled

    async def _found(self, project: str, wanted: Sequence[_Wanted]) -> Found:
        """Look up some files and the folders on the way to them, level by level: those of one level together."""
        found: dict[_Wanted, Sequence[_File]] = {}
        for level in range(1, 1 + max(len(one.path) for one in wanted)):
            folders = [_Wanted(DIRECTORY, one.path[:level]) for one in wanted if len(one.path) > level]
            here = dict.fromkeys([*folders, *(one for one in wanted if len(one.path) == level)])
            names = {one: [Name(at, one.kind, one.path[-1]) for at in _places(project, one, found)] for one in here}
            ids = await self._names.ids(name for each in names.values() for name in each)
            for one, each in names.items():
                found[one] = [_File(file, name.place) for name in each for file in ids[name]]
        return found


def _places(project: str, one: _Wanted, found: Found) -> Sequence[Place]:
    """Return where something is: in the root, or in all the folders that have the name which is before its own."""
    if len(one.path) == 1:
        return [Place(project)]
    return [Place(project, folder.id) for folder in found[_Wanted(DIRECTORY, one.path[:-1])]]


def _path(name: str) -> Path:
    return tuple(name.split("/"))


def _nameless(value: Any, place: str) -> Iterator[tuple[str, str, str]]:
    """Yield place, class and name of each file without a path."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _nameless(one, f"{place}[{number}]")
    elif isinstance(value, dict):
        if _is_nameless(value):
            yield place, value["class"], value["name"]
        for key, one in value.items():
            if isinstance(one, dict | list):
                yield from _nameless(one, f"{place}.{key}")


def _is_nameless(value: Mapping[str, Any]) -> bool:
    return value.get("class") in FILE_CLASSES and not value.get("path")


def _with_paths(value: Any, ids: Mapping[_Wanted, str]) -> Any:
    """Return a value in which each file without a path has its id, and of its name the last part."""
    if isinstance(value, list):
        return [_with_paths(one, ids) for one in value]
    if not isinstance(value, dict):
        return value
    whole = {key: _with_paths(one, ids) for key, one in value.items()}
    if not _is_nameless(value):
        return whole
    path = _path(value["name"])
    return {**whole, "name": path[-1], "path": ids[_Wanted(value["class"], path)]}


def _complaint(project: str, one: _Wanted, found: Found) -> str:
    kind, (*folders, name) = one.kind.lower(), one.path
    if files := found[one]:
        which = ", ".join(_described(file, folders) for file in files[:3])
        return f"project {project} has {len(files)} of the name {'/'.join(one.path)!r} ({which}); give the id as path"
    for level in range(1, len(one.path)):
        if not found[_Wanted(DIRECTORY, one.path[:level])]:
            return f"project {project} has no folder {'/'.join(one.path[:level])!r} for the {kind} {name!r}"
    if folders:
        where, hint = f"in the folder {'/'.join(folders)!r}", ""
    else:
        where, hint = "outside its folders", " write folder/name,"
    return f"project {project} has no {kind} named {name!r} {where}; upload it,{hint} or give its id as path"


def _described(file: _File, folders: Sequence[str]) -> str:
    return f"{file.id} in {'/'.join(folders)} {file.place.folder}" if folders else file.id
