"""The projects, apps and files that exist, and every call about them.

Files follow from their rules, so any number fits. A rule whose name has slashes puts its files into folders, which are
made up as they are named; the files of a project that has folders are made once and kept.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from engine.sandbox.messages import Handler, SandboxAnswer, SandboxRequest, WrongInput, json_answer
from engine.sandbox.settings import App, FileRule, SandboxPlatform
from engine.sandbox.sevenbridges.answers import Fields, View, refusal

FOLDER: Final = "folder"
SHORT_FIELDS = ("href", "id", "name", "project")  # of a list without `fields`; from memory of the vendor's pages
_METADATA = "metadata."
_PROJECT = re.compile(r"[^/]+/[^/]+")
_APP = re.compile(r"([^/]+/[^/]+/[^/]+?)(?:/(\d+))?")


class File(Struct, frozen=True):
    """A file or a folder of a project; `parent` is the id of the folder that it is in, "" in the project's root."""

    id: str
    name: str
    project: str
    metadata: Mapping[str, str]
    type: str = "file"
    parent: str = ""


class FileFilter(Struct, frozen=True):
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
    """What exists besides tasks, and the handlers of every call about it."""

    def __init__(self, settings: SandboxPlatform) -> None:
        """Take the projects, apps and rules for files in the order of the file."""
        self._settings = settings
        self._projects = frozenset(settings.projects)
        self._apps = {app.id: app for app in settings.apps}
        self._rules = settings.files
        self._own_ids = {rule.id: number for number, rule in enumerate(self._rules) if rule.id}
        self._names: dict[str, dict[str, list[File]]] = {}
        self._inside: dict[tuple[str, str], list[File]] = {}  # project, id of a folder or "" → what is in it
        self._placed: dict[str, File] = {}
        with_folders = sorted({rule.project for rule in self._rules if "/" in rule.name})
        for number, project in enumerate(with_folders):
            self._place_files(project, number)
        self.checks_files = bool(self._rules)

    def routes(self) -> Iterator[tuple[str, str, str, Handler]]:
        """Yield method, path, kind of call, and who answers."""
        yield "GET", "/files", "files", self._list_files
        yield "GET", "/files/{file_id}", "file", self._get_file
        yield "POST", "/bulk/files/get", "bulk_files", self._get_files
        yield "GET", "/apps", "apps", self._list_apps
        yield "GET", "/apps/{app_id:[^/]+/[^/]+/[^/]+(?:/[0-9]+)?}", "app", self._get_app
        yield "GET", "/projects", "projects", self._list_projects
        yield "GET", "/projects/", "projects", self._list_projects  # how the vendor's client asks for it
        yield "GET", "/projects/{owner}", "projects", self._list_projects
        yield "GET", "/projects/{owner}/{name}", "project", self._get_project
        yield "GET", "/user", "user", self._me

    # What exists

    def has_project(self, project: str) -> bool:
        """Say whether a project exists; without a list every well-formed id does."""
        return project in self._projects if self._projects else is_project(project)

    def app(self, app_id: str) -> App | None:
        """Find an app by owner/project/app[/revision]; without a list every well-formed id exists, without inputs."""
        if (parts := _APP.fullmatch(app_id)) is None:
            return None
        app, revision = self._apps.get(parts[1]), parts[2]
        if not self._apps:
            return App(parts[1], int(revision or 0))
        return app if app is not None and revision in (None, str(app.revision)) else None

    def _files(self, wanted: FileFilter, page: slice) -> tuple[list[File], int]:
        """Return some of the files that are asked for, and how many there are."""
        if (wanted.project, "") in self._inside:
            inside = self._inside.get((wanted.project, wanted.folder), ())
            found = [file for file in inside if wanted.passes(file)]
        elif wanted.names:
            found = [file for file in self._named(wanted) if wanted.passes(file)]
        elif wanted.metadata:
            found = [file for file in self._of_project(wanted.project) if wanted.passes(file)]
        else:
            total = sum(rule.count for rule in self._rules if rule.project == wanted.project)
            return list(islice(self._of_project(wanted.project, skip=page.start), page.stop - page.start)), total
        return found[page], len(found)

    def file(self, file_id: str) -> File | None:
        """Find a file or a folder by its id."""
        if (placed := self._placed.get(file_id)) is not None:
            return placed
        if (own := self._own_ids.get(file_id)) is not None:
            return self._file(own, 0)
        try:
            rule, number = int(file_id[:8], 16) - 1, int(file_id[8:], 16)
        except ValueError:
            return None
        exists = 0 <= rule < len(self._rules) and number < self._rules[rule].count and not self._rules[rule].id
        return self._file(rule, number) if exists and _made_up_id(rule, number) == file_id else None

    def _place_files(self, project: str, number: int) -> None:
        """Put the files of a project into folders; the project's number tells their ids from another project's."""
        ids, self._inside[project, ""] = {"": ""}, []

        def put(file: File) -> None:
            self._placed[file.id] = file
            self._inside[project, file.parent].append(file)

        def folder_id(path: str) -> str:
            """Return the id of a folder, which is made if there is none yet, within another that is."""
            if path not in ids:
                above, _, name = path.rpartition("/")
                parent = folder_id(above)
                ids[path] = f"f{number:07x}{len(ids):016x}"
                self._inside[project, ids[path]] = []
                put(File(ids[path], name, project, {}, FOLDER, parent))
            return ids[path]

        for file in self._of_project(project):
            path, _, name = file.name.rpartition("/")
            put(replace(file, name=name, parent=folder_id(path)))

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

    # The calls

    def _list_files(self, request: SandboxRequest) -> SandboxAnswer:
        query, view = request.query, View(request, self._settings)
        project, folder = self._place(query.get("project", ""), query.get("parent", ""))
        metadata = tuple((key.removeprefix(_METADATA), query[key]) for key in query if key.startswith(_METADATA))
        asked, most = query.getall("name", []), self._settings.unwritten.most_names
        if most and len(asked) > most:
            raise refusal(0)
        files, total = self._files(FileFilter(project, folder, frozenset(asked), metadata), view.page)
        return view.listed(files, total, FILE_FIELDS, SHORT_FIELDS)

    def _place(self, project: str, folder_id: str) -> tuple[str, str]:
        """Return the project and the folder whose contents are asked for; either is given, not both.

        Raise SandboxRefusal.
        """
        if bool(project) == bool(folder_id):
            raise WrongInput("Give either the project or the parent whose files to list.")
        if folder_id:
            folder = self.file(folder_id)
            if folder is None or folder.type != FOLDER:
                raise refusal(5002)
            return folder.project, folder.id
        if not self.has_project(project):
            raise refusal(3002)
        return project, ""

    def _get_file(self, request: SandboxRequest) -> SandboxAnswer:
        return View(request, self._settings).one(self._found(request.params["file_id"]), FILE_FIELDS)

    def _get_files(self, request: SandboxRequest) -> SandboxAnswer:
        return View(request, self._settings).bulk("file_ids", self._found, FILE_FIELDS)

    def _found(self, file_id: str) -> File:
        file = self.file(file_id)
        if file is None:
            raise refusal(5002)
        return file

    def _list_apps(self, request: SandboxRequest) -> SandboxAnswer:
        view, project = View(request, self._settings), request.query.get("project")
        apps = [app for app in self._apps.values() if project in (None, app.id.rsplit("/", 1)[0])]
        return view.listed(apps[view.page], len(apps), APP_FIELDS, (*SHORT_FIELDS, "revision"))

    def _get_app(self, request: SandboxRequest) -> SandboxAnswer:
        app = self.app(request.params["app_id"])
        if app is None:
            raise refusal(6002)
        return View(request, self._settings).one(app, APP_FIELDS)

    def _list_projects(self, request: SandboxRequest) -> SandboxAnswer:
        """List the projects that have a name somewhere: those of apps and files too."""
        view, owner = View(request, self._settings), request.params.get("owner", "")
        of_apps = (app.rsplit("/", 1)[0] for app in self._apps)
        known = sorted({*self._projects, *of_apps, *(rule.project for rule in self._rules)})
        projects = [project for project in known if owner in ("", project.split("/")[0])]
        return view.listed(projects[view.page], len(projects), PROJECT_FIELDS, PROJECT_FIELDS)

    def _get_project(self, request: SandboxRequest) -> SandboxAnswer:
        project = f"{request.params['owner']}/{request.params['name']}"
        if not self.has_project(project):
            raise refusal(3002)
        return View(request, self._settings).one(project, PROJECT_FIELDS)

    def _me(self, request: SandboxRequest) -> SandboxAnswer:
        user = self._settings.user
        return json_answer({"href": f"{View(request, self._settings).base_url}/users/{user}", "username": user})


def is_project(text: str) -> bool:
    """Say whether a text can be a project's id: owner/project."""
    return _PROJECT.fullmatch(text) is not None


def _filled(rule: FileRule, template: str, number: int) -> str:
    return template.format(n=number, group=number // rule.group_size)


def _made_up_id(rule: int, number: int) -> str:
    return f"{rule + 1:08x}{number:016x}"  # 24 hex digits, as the vendor's ids have


def _type_word(file: File, view: View) -> str:
    return file.type.upper() if view.settings.unwritten.file_types == "upper" else file.type


def _app_inputs(app: App, _: View) -> dict[str, object]:
    inputs = [{"id": f"#{one.id}", "type": [one.type] if one.required else ["null", one.type]} for one in app.inputs]
    return {"class": "Workflow", "id": f"{app.id}/{app.revision}", "inputs": inputs, "outputs": []}


FILE_FIELDS: Fields = {
    "href": lambda file, view: f"{view.base_url}/files/{file.id}",
    "id": lambda file, _: file.id,
    "name": lambda file, _: file.name,
    "project": lambda file, _: file.project,
    "type": _type_word,
    "parent": lambda file, _: file.parent or None,
    "size": lambda *_: 0,
    "metadata": lambda file, _: dict(file.metadata),
    "tags": lambda *_: [],
}
APP_FIELDS: Fields = {
    "href": lambda app, view: f"{view.base_url}/apps/{app.id}/{app.revision}",
    "id": lambda app, _: f"{app.id}/{app.revision}",
    "name": lambda app, _: app.id.rsplit("/", 1)[1],
    "project": lambda app, _: app.id.rsplit("/", 1)[0],
    "revision": lambda app, _: app.revision,
    "raw": _app_inputs,
}
PROJECT_FIELDS: Fields = {
    "href": lambda project, view: f"{view.base_url}/projects/{project}",
    "id": lambda project, _: project,
    "name": lambda project, _: project.rsplit("/", 1)[1],
    "type": lambda *_: "v2",
    "tags": lambda *_: [],
}
