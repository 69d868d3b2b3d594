"""Calls about files, apps, projects and the user enter, Seven Bridges' answers leave."""

from collections.abc import Callable, Iterator, Sequence

from aiohttp import web

from engine.sandbox.sevenbridges.answers import (
    Bulk,
    SandboxPage,
    SevenBridgesError,
    base_url,
    json_answer,
    json_ids,
    list_answer,
    page_of,
    wanted_fields,
)
from engine.sandbox.sevenbridges.catalog import Catalog, FileFilter
from engine.sandbox.sevenbridges.folders import File
from engine.sandbox.sevenbridges.settings import SandboxPlatform
from engine.sandbox.sevenbridges.task_calls import Call
from engine.sandbox.sevenbridges.views import APP_FIELDS, FILE_FIELDS, SHORT_APP, SHORT_FILE, View

_FILE_FIELDS, _APP_FIELDS = tuple(FILE_FIELDS), tuple(APP_FIELDS)
_METADATA = "metadata."


class CatalogCalls:
    """Answers every call about what exists besides tasks."""

    def __init__(self, catalog: Catalog, clock: Callable[[], float], settings: SandboxPlatform) -> None:
        """Look into this catalog."""
        self._catalog, self._clock, self._settings = catalog, clock, settings

    def routes(self) -> Iterator[tuple[str, str, str, Call]]:
        """Yield method, path, kind of call, and who answers."""
        yield "GET", "/files", "files", self._files
        yield "GET", "/files/{file_id}", "file", self._file
        yield "POST", "/bulk/files/get", "bulk_files", self._bulk_files
        yield "GET", "/apps", "apps", self._apps
        yield "GET", "/apps/{app_id:[^/]+/[^/]+/[^/]+(?:/[0-9]+)?}", "app", self._app
        yield "GET", "/projects", "projects", self._projects
        yield "GET", "/projects/", "projects", self._projects  # how the vendor's client asks for it
        yield "GET", "/projects/{owner}", "projects", self._projects
        yield "GET", "/projects/{owner}/{name}", "project", self._project
        yield "GET", "/user", "user", self._me

    async def _files(self, request: web.Request) -> web.Response:
        query, page = request.query, page_of(request.query)
        project, folder = self._place(query.get("project", ""), query.get("parent", ""))
        metadata = tuple((key.removeprefix(_METADATA), query[key]) for key in query if key.startswith(_METADATA))
        asked, most = query.getall("name", []), self._settings.unwritten.most_names
        if most and len(asked) > most:
            raise SevenBridgesError(0)
        wanted = FileFilter(project, folder, frozenset(asked), metadata)
        files, total = self._catalog.files(wanted, page.offset, page.limit)
        names, view = wanted_fields(query, _FILE_FIELDS, SHORT_FILE), self._view(request)
        return self._listed(request, [view.file(file, names) for file in files], page, total)

    def _place(self, project: str, folder_id: str) -> tuple[str, str]:
        """Return the project and the folder whose contents are asked for; either is given, not both. Raise ApiError."""
        if bool(project) == bool(folder_id):
            raise SevenBridgesError(90000, "Give either the project or the parent whose files to list.")
        if folder_id:
            if (folder := self._catalog.folder(folder_id)) is None:
                raise SevenBridgesError(5002)
            return folder.project, folder.id
        if not self._catalog.has_project(project):
            raise SevenBridgesError(3002)
        return project, ""

    async def _file(self, request: web.Request) -> web.Response:
        names = wanted_fields(request.query, _FILE_FIELDS, _FILE_FIELDS)
        return json_answer(self._view(request).file(self._found(request.match_info["file_id"]), names))

    async def _bulk_files(self, request: web.Request) -> web.Response:
        ids = await json_ids(request, "file_ids")
        bulk, view = Bulk(request.query, ids, _FILE_FIELDS, self._settings.unwritten), self._view(request)
        return bulk.answer(lambda file_id, names: view.file(self._found(file_id), names))

    async def _apps(self, request: web.Request) -> web.Response:
        page, apps = page_of(request.query), self._catalog.apps(request.query.get("project"))
        names, view = wanted_fields(request.query, _APP_FIELDS, SHORT_APP), self._view(request)
        shown = [view.app(app, names) for app in apps[page.offset : page.offset + page.limit]]
        return self._listed(request, shown, page, len(apps))

    async def _app(self, request: web.Request) -> web.Response:
        app = self._catalog.app(request.match_info["app_id"])
        if app is None:
            raise SevenBridgesError(6002)
        return json_answer(self._view(request).app(app, wanted_fields(request.query, _APP_FIELDS, _APP_FIELDS)))

    async def _projects(self, request: web.Request) -> web.Response:
        page, owner = page_of(request.query), request.match_info.get("owner", "")
        projects = [project for project in self._catalog.projects() if owner in ("", project.split("/")[0])]
        view = self._view(request)
        shown = [view.project(project) for project in projects[page.offset : page.offset + page.limit]]
        return self._listed(request, shown, page, len(projects))

    async def _project(self, request: web.Request) -> web.Response:
        project = f"{request.match_info['owner']}/{request.match_info['name']}"
        if not self._catalog.has_project(project):
            raise SevenBridgesError(3002)
        return json_answer(self._view(request).project(project))

    async def _me(self, request: web.Request) -> web.Response:
        user = self._settings.user
        return json_answer({"href": f"{base_url(request)}/users/{user}", "username": user})

    def _listed(self, request: web.Request, items: Sequence[object], page: SandboxPage, total: int) -> web.Response:
        return list_answer(request, items, page, total, says_total=self._settings.unwritten.total_header)

    def _found(self, file_id: str) -> File:
        file = self._catalog.file(file_id)
        if file is None:
            raise SevenBridgesError(5002)
        return file

    def _view(self, request: web.Request) -> View:
        return View(base_url(request), self._settings, self._clock())
