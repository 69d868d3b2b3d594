"""Inputs that name files in, the same inputs with the files' ids out.

A name is that of a file in the project's root; `folder/sub/name` is in folders, which are looked up one within the
other, since a list shows what is in one place only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from engine.model.errors import Refused
from engine.services.sevenbridges.answers import Page
from engine.services.sevenbridges.calls import Place
from engine.services.sevenbridges.names import DIRECTORY, Name, Names
from engine.services.sevenbridges.specs import FILE_CLASSES

Path = tuple[str, ...]
"""Of folders, and the name itself."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file that an input names."""

    kind: str
    """File or Directory"""
    path: Path


@dataclass(frozen=True, slots=True)
class _File:
    """One that has a name."""

    id: str
    place: Place


Found: TypeAlias = Mapping[_Wanted, Sequence[_File]]
"""Of each all that have its name; one is right."""


class FileIds:
    """Finds the files that inputs name; `find` yields what has one of some names in a place, or all that is there."""

    def __init__(self, find: Callable[[Place, Sequence[str]], AsyncIterator[Page]]) -> None:
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
