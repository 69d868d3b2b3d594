"""The files of a project's rules enter, the same by the folder they are in leave, with the folders themselves.

A rule whose name has slashes puts its files into folders, which are made up as they are named. Read once: what is
listed from here are all the files of a project at a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

FOLDER: Final = "folder"


@dataclass(frozen=True, slots=True)
class File:
    """A file or a folder of a project; `parent` is the id of the folder that it is in, "" in the project's root."""

    id: str
    name: str
    project: str
    metadata: Mapping[str, str]
    type: str = "file"
    parent: str = ""


class Folders:
    """Files and folders of one project by the id of the folder that they are in."""

    def __init__(self, number: int, project: str, files: Iterable[File]) -> None:
        """Sort files in whose names are paths; `number` tells the ids of this project's folders from another's."""
        self._number, self._project = number, project
        self._ids: dict[str, str] = {"": ""}
        self._inside: dict[str, list[File]] = {"": []}
        self._files: dict[str, File] = {}
        for file in files:
            path, _, name = file.name.rpartition("/")
            self._put(replace(file, name=name, parent=self._id(path)))

    def listed(self, folder: str) -> Sequence[File]:
        """Return what is in a folder, or with "" in the project's root; of folders in it not what is in them."""
        return self._inside.get(folder, ())

    def find(self, file_id: str) -> File | None:
        """Return a file or a folder."""
        return self._files.get(file_id)

    def _put(self, file: File) -> None:
        self._files[file.id] = file
        self._inside[file.parent].append(file)

    def _id(self, path: str) -> str:
        """Return the id of a folder, which is made if there is none yet, within another that is."""
        if path not in self._ids:
            above, _, name = path.rpartition("/")
            parent = self._id(above)
            folder = File(f"f{self._number:07x}{len(self._ids):016x}", name, self._project, {}, FOLDER, parent)
            self._ids[path] = folder.id
            self._inside[folder.id] = []
            self._put(folder)
        return self._ids[path]
