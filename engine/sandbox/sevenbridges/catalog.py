"""Settings enter; the projects, apps and files that exist leave.

Files follow from their rules, so any number fits; those of a project that has folders are made once and kept.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from engine.sandbox.sevenbridges.folders import FOLDER, File, Folders
from engine.sandbox.sevenbridges.settings import App, FileRule, SandboxPlatform

_PROJECT = re.compile(r"[^/]+/[^/]+")
_APP = re.compile(r"([^/]+/[^/]+/[^/]+?)(?:/(\d+))?")


@dataclass(frozen=True, slots=True)
class FileFilter:
    """What a list call asks for: any of the names (empty: all), all of the metadata, within one folder or the root."""

    project: str
    folder: str = ""
    names: frozenset[str] = frozenset()
    metadata: tuple[tuple[str, str], ...] = ()

    def passes(self, file: File) -> bool:
        """Say whether a file of the project is asked for."""
        return (not self.names or file.name in self.names) and all(
            file.metadata.get(key) == value for key, value in self.metadata
        )


class Catalog:
    """What exists besides tasks."""

    def __init__(self, settings: SandboxPlatform) -> None:
        """Take the projects, apps and rules for files in the order of the file."""
        self._projects = frozenset(settings.projects)
        self._apps = {app.id: app for app in settings.apps}
        self._rules = settings.files
        self._own_ids = {rule.id: number for number, rule in enumerate(self._rules) if rule.id}
        self._names: dict[str, dict[str, list[File]]] = {}
        with_folders = sorted({rule.project for rule in self._rules if "/" in rule.name})
        self._folders = {
            project: Folders(number, project, self._of_project(project)) for number, project in enumerate(with_folders)
        }
        self.checks_files = bool(self._rules)

    def projects(self) -> list[str]:
        """Return the projects that can be listed: those of apps and files too."""
        of_apps = (app.rsplit("/", 1)[0] for app in self._apps)
        return sorted({*self._projects, *of_apps, *(rule.project for rule in self._rules)})

    def has_project(self, project: str) -> bool:
        """Say whether a project exists; without a list every well-formed id does."""
        return project in self._projects if self._projects else is_project(project)

    def apps(self, project: str | None) -> list[App]:
        """Return the apps of a project, or all."""
        return [app for app in self._apps.values() if project in (None, app.id.rsplit("/", 1)[0])]

    def app(self, app_id: str) -> App | None:
        """Find an app by owner/project/app[/revision]; without a list every well-formed id exists, without inputs."""
        if (parts := _APP.fullmatch(app_id)) is None:
            return None
        app, revision = self._apps.get(parts[1]), parts[2]
        if not self._apps:
            return App(parts[1], int(revision or 0))
        return app if app is not None and revision in (None, str(app.revision)) else None

    def files(self, wanted: FileFilter, offset: int, limit: int) -> tuple[list[File], int]:
        """Return some of the files that are asked for, and how many there are."""
        if (folders := self._folders.get(wanted.project)) is not None:
            found = [file for file in folders.listed(wanted.folder) if wanted.passes(file)]
        elif wanted.names:
            found = [file for file in self._named(wanted) if wanted.passes(file)]
        elif wanted.metadata:
            found = [file for file in self._of_project(wanted.project) if wanted.passes(file)]
        else:
            total = sum(rule.count for rule in self._rules if rule.project == wanted.project)
            return list(islice(self._of_project(wanted.project, skip=offset), limit)), total
        return found[offset : offset + limit], len(found)

    def file(self, file_id: str) -> File | None:
        """Find a file or a folder by its id."""
        placed = filter(None, (folders.find(file_id) for folders in self._folders.values()))
        if (found := next(placed, None)) is not None:
            return found
        if (own := self._own_ids.get(file_id)) is not None:
            return self._file(own, 0)
        try:
            rule, number = int(file_id[:8], 16) - 1, int(file_id[8:], 16)
        except ValueError:
            return None
        exists = 0 <= rule < len(self._rules) and number < self._rules[rule].count and not self._rules[rule].id
        return self._file(rule, number) if exists and _made_up_id(rule, number) == file_id else None

    def folder(self, folder_id: str) -> File | None:
        """Find a folder by its id."""
        found = self.file(folder_id)
        return found if found is not None and found.type == FOLDER else None

    def _named(self, wanted: FileFilter) -> Iterable[File]:
        if wanted.project not in self._names:
            names = self._names[wanted.project] = {}
            for file in self._of_project(wanted.project):
                names.setdefault(file.name, []).append(file)
        return (file for name in sorted(wanted.names) for file in self._names[wanted.project].get(name, ()))

    def _of_project(self, project: str, skip: int = 0) -> Iterator[File]:
        for index, rule in enumerate(self._rules):
            if rule.project == project:
                yield from (self._file(index, number) for number in range(min(skip, rule.count), rule.count))
                skip = max(0, skip - rule.count)

    def _file(self, index: int, number: int) -> File:
        rule = self._rules[index]
        metadata = {key: _filled(rule, value, number) for key, value in rule.metadata.items()}
        file_id = rule.id or _made_up_id(index, number)
        return File(file_id, _filled(rule, rule.name, number), rule.project, metadata)


def is_project(text: str) -> bool:
    """Say whether a text can be a project's id: owner/project."""
    return _PROJECT.fullmatch(text) is not None


def _filled(rule: FileRule, template: str, number: int) -> str:
    return template.format(n=number, group=number // rule.group_size)


def _made_up_id(rule: int, number: int) -> str:
    return f"{rule + 1:08x}{number:016x}"  # 24 hex digits, as the vendor's ids have
