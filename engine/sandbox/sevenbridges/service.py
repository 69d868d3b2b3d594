"""A behaviour enters, Seven Bridges' routes below /v2 leave, with its authorization and its rate limit."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from aiohttp import web

from engine.sandbox.behaviour import Behaviour, RateLimit
from engine.sandbox.faults import Handler, StreamHandler
from engine.sandbox.journal import Journal
from engine.sandbox.sevenbridges.answers import SevenBridgesError, json_answer
from engine.sandbox.sevenbridges.book import SevenBridgesTaskBook
from engine.sandbox.sevenbridges.catalog import Catalog
from engine.sandbox.sevenbridges.catalog_calls import CatalogCalls
from engine.sandbox.sevenbridges.life import TaskLife
from engine.sandbox.sevenbridges.task_calls import Call, SevenBridgesTaskCalls
from engine.sandbox.traffic import CallKinds, Traffic

TASK_CALLS = frozenset({"create", "list", "get", "update", "delete", "run", "abort", "clone", "details", "bulk"})
CALLS = CallKinds(
    TASK_CALLS | {"files", "file", "bulk_files", "apps", "app", "projects", "project", "user", "rate_limit"},
    outside=frozenset({"rate_limit"}),  # the vendor does not count it
    deferrable=frozenset({"create", "clone", "run"}),
)
_UNLIMITED = 10**9
_INSTANCES = 100  # how many tasks a user may run at once; unknown, a choice


class SevenBridgesService:
    """Serves Seven Bridges' API: `add_to` an application, then `run` beside it."""

    name = "Seven Bridges"

    def __init__(self, behaviour: Behaviour, journal: Journal, clock: Callable[[], float]) -> None:
        """Raise BehaviourError for what cannot be served."""
        settings = behaviour.sevenbridges
        self._behaviour, self._settings, self._clock = behaviour, settings, clock
        limited = settings.rate.requests > 0
        vendors = (RateLimit(settings.rate.requests, settings.rate.seconds),) if limited else ()
        behaviour = replace(behaviour, rate_limits=(*vendors, *behaviour.rate_limits))
        self.traffic = Traffic(behaviour, calls=CALLS, error=_error, clock=clock)
        self._window = self.traffic.limits.windows[0] if limited else None
        book = SevenBridgesTaskBook(lists_lag=behaviour.reads.list_seconds > 0)
        catalog, stats = Catalog(settings), self.traffic.stats
        self._life = TaskLife(settings.life, behaviour.failures, book, catalog, journal, stats)
        self._tasks = SevenBridgesTaskCalls(book, self._life, catalog, self.traffic, behaviour, clock)
        self._catalog = CatalogCalls(catalog, clock, settings)

    def add_to(self, app: web.Application) -> None:
        """Register the routes, and the headers that every answer has."""
        for method, path, kind, call in (*self._tasks.routes(), *self._catalog.routes()):
            self._add(app, method, path, kind, call)
        self._add(app, "GET", "/rate_limit", "rate_limit", self._rate_limit)
        app.on_response_prepare.append(self._put_rate_headers)

    @web.middleware
    async def unserved(self, request: web.Request, handler: StreamHandler) -> web.StreamResponse:
        """Answer what no route serves in the vendor's shape: a middleware."""
        try:
            return await handler(request)
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
            return SevenBridgesError(90000, f"{request.method} {request.path} is not served.", error.status).answer()

    async def run(self) -> None:
        """Do what was put off, until cancelled: a task's life is looked up when it is asked for."""
        await self.traffic.agenda.run()

    def _add(self, app: web.Application, method: str, path: str, kind: str, call: Call) -> None:
        handler: Handler = partial(self._answer, call)
        app.router.add_route(method, "/v2" + path, self.traffic.guard(kind, handler))

    async def _answer(self, call: Call, request: web.Request) -> web.Response:
        try:
            self._check_token(request)
            return await call(request)
        except SevenBridgesError as error:
            return error.answer()
        except web.HTTPRequestEntityTooLarge:
            return SevenBridgesError(
                90000, f"A body may have {self._behaviour.max_body_bytes} bytes at most.", 413
            ).answer()

    def _check_token(self, request: web.Request) -> None:
        token = request.headers.get("X-SBG-Auth-Token")
        if token is None:
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self._behaviour.access_keys:
            raise SevenBridgesError(90001)

    async def _put_rate_headers(self, _: web.Request, answer: web.StreamResponse) -> None:
        if self._window is not None:
            now = self._clock()
            answer.headers["X-RateLimit-Limit"] = str(self._window.limit.requests)
            answer.headers["X-RateLimit-Remaining"] = str(self._window.remaining(now))
            answer.headers["X-RateLimit-Reset"] = str(math.ceil(self._window.ends_at(now)))

    async def _rate_limit(self, _: web.Request) -> web.Response:
        now, instances = self._clock(), self._settings.life.parallel or _INSTANCES
        self._life.advance(now)
        window = self._window
        rate = {
            "limit": window.limit.requests if window else _UNLIMITED,
            "remaining": window.remaining(now) if window else _UNLIMITED,
            "reset": math.ceil(window.ends_at(now) if window else now),
        }
        left = max(0, instances - self._life.running)
        return json_answer({"rate": rate, "instance_limit": {"limit": instances, "remaining": left}})


def _error(_: str, status: int, message: str) -> web.Response:
    if status == 503:  # noqa: PLR2004 - maintenance is the 503 that the vendor's client knows
        return SevenBridgesError(0).answer()
    code = 1000 if status == 429 else 7000 if status >= 500 else 90000  # noqa: PLR2004 - HTTP codes
    return SevenBridgesError(code, message, status).answer()
