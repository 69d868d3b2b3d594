"""Calls about created tasks, schemas and projects enter, Sama's answers leave."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime

from aiohttp import web

from engine.sandbox.behaviour import Behaviour
from engine.sandbox.sama.answers import SamaError, flag_parameter, int_parameter, json_answer, json_body, text_parameter
from engine.sandbox.sama.creation import Creator
from engine.sandbox.sama.rules import INT32_MAX, INT32_MIN
from engine.sandbox.sama.tasks import STATES, SamaTask, SamaTaskBook, SamaTaskFilter

MAX_LIST_PAGE = 100  # the vendor's limit
MAX_DELIVERED_PAGE = 1000  # what the vendor's client asks for
_DELIVERED = ("delivered", "acknowledged")
_DELIVERY_SCHEMA: Mapping[str, object] = {
    "type": "object",
    "required": ["id", "state"],
    "properties": {"id": {"type": "string"}, "state": {"enum": list(STATES)}, "data": {"type": "object"}},
}
Call = Callable[[web.Request, int], Awaitable[web.Response]]


class SamaTaskCalls:
    """Answers every call that is not about a batch."""

    def __init__(self, creator: Creator, behaviour: Behaviour) -> None:
        """See the creator's tasks."""
        self._creator = creator
        self._book = SamaTaskBook(creator, behaviour.work)
        self._keeps_data, self._reads = behaviour.keep_task_data, behaviour.reads
        self._unwritten = behaviour.sama.unwritten

    def routes(self) -> Iterator[tuple[str, str, str, Call]]:
        """Yield method, path below the project, kind of call, and who answers; fixed paths before `{task_id}`."""
        yield "GET", "/tasks.json", "tasks", self._list
        yield "GET", "/tasks/delivered.json", "delivered", self._delivered
        yield "POST", "/tasks/delivered.json", "delivered", self._delivered_since_last
        yield "POST", "/tasks/delete_tasks.json", "delete", self._delete
        yield "POST", "/tasks/bulk_update.json", "update", self._update
        yield "PUT", "/tasks/{task_id}/reject.json", "reject", self._reject
        yield "GET", "/tasks/{task_id}.json", "task", self._get
        yield "GET", "/schemas/create_task.json", "schema", self._creation_schema
        yield "GET", "/schemas/deliver_task.json", "schema", self._delivery_schema
        yield "GET", ".json", "project", self._project
        yield "GET", "/stats.json", "project", self._project_stats

    async def _list(self, request: web.Request, project_id: int) -> web.Response:
        query = request.query
        wanted = self._filter(query)
        page = int_parameter(query, "page", 1, 1, 10**9)
        size = int_parameter(query, "page_size", MAX_LIST_PAGE, 1, MAX_LIST_PAGE)
        answers = not flag_parameter(query, "omit_answers")
        tasks = self._book.page(project_id, wanted, (page - 1) * size, size, self._listed_at())
        if wanted.client_batch_id is not None and not self._unwritten.searches:
            tasks = []
        zones = self._unwritten.zones
        return json_answer({"tasks": [task.as_sent(answers=answers, zones=zones) for task in tasks]})

    async def _get(self, request: web.Request, project_id: int) -> web.Response:
        task_id, at = request.match_info["task_id"], self._creator.clock() - self._reads.single_seconds
        task = self._task(project_id, task_id, at)
        if self._reads.new_are_unknown and not task.existed(at):
            raise _no_task(project_id, task_id)
        return json_answer({"task": task.as_sent()})

    async def _delivered(self, request: web.Request, project_id: int) -> web.Response:
        page = int_parameter(request.query, "page", 1, 1, 10**9)
        size = int_parameter(request.query, "page_size", MAX_DELIVERED_PAGE, 1, MAX_DELIVERED_PAGE)
        wanted = self._filter(request.query, _DELIVERED)
        tasks = self._book.page(project_id, wanted, (page - 1) * size, size, self._listed_at())
        return json_answer({"tasks": [task.as_sent() for task in tasks]})

    async def _delivered_since_last(self, request: web.Request, project_id: int) -> web.Response:
        body = await json_body(request)
        size = int_parameter(body, "limit", MAX_DELIVERED_PAGE, 1, MAX_DELIVERED_PAGE)
        consumer = text_parameter(body, "consumer") or ""
        wanted = self._filter(body, _DELIVERED)
        tasks = self._book.delivered_since_last(project_id, consumer, wanted, size, self._listed_at())
        return json_answer({"tasks": [task.as_sent() for task in tasks]})

    async def _reject(self, request: web.Request, project_id: int) -> web.Response:
        reasons = (await json_body(request)).get("reasons")
        if not isinstance(reasons, list) or not reasons:
            raise SamaError(400, "reasons must be an array of reasons.", "InvalidParameter")
        task = self._task(project_id, request.match_info["task_id"])
        if task.state == "new":
            raise SamaError(400, f"Task {task.id} is new: nobody has worked on it.", "InvalidTaskState")
        self._book.reject(task)
        return json_answer({"task": self._task(project_id, task.id).as_sent()})

    async def _delete(self, request: web.Request, project_id: int) -> web.Response:
        tasks = self._named_tasks(project_id, await json_body(request))
        if started := [task.id for task in tasks if task.state != "new"]:
            raise SamaError(400, f"Only new tasks can be deleted, not {', '.join(started)}.", "InvalidTaskState")
        for task in tasks:
            self._book.delete(task)
        return json_answer({"task_ids": [task.id for task in tasks]})

    async def _update(self, request: web.Request, project_id: int) -> web.Response:
        body = await json_body(request)
        tasks = self._named_tasks(project_id, body)
        priority = int_parameter(body, "priority", 0, INT32_MIN, INT32_MAX)
        for task in tasks:
            self._book.set_priority(task, priority)
        return json_answer({"task_ids": [task.id for task in tasks]})

    async def _creation_schema(self, _request: web.Request, project_id: int) -> web.Response:
        rules = self._creator.rules(project_id)
        return json_answer(rules.schema if rules else {})

    async def _delivery_schema(self, _request: web.Request, _project_id: int) -> web.Response:
        return json_answer(_DELIVERY_SCHEMA)

    async def _project(self, _request: web.Request, project_id: int) -> web.Response:
        return json_answer({"project": {"id": project_id, "name": f"Sandbox project {project_id}", "state": "active"}})

    async def _project_stats(self, _request: web.Request, project_id: int) -> web.Response:
        return json_answer({"project_id": project_id, "tasks": self._book.count_states(project_id)})

    def _filter(self, values: Mapping[str, object], states: tuple[str, ...] = STATES) -> SamaTaskFilter:
        wanted = _parse_filter(values, states)
        if wanted.client_batch_id is not None and not self._keeps_data:
            raise SamaError(400, "This sandbox keeps no task data to find a client_batch_id in.", "InvalidParameter")
        return wanted

    def _listed_at(self) -> float:
        return self._creator.clock() - self._reads.list_seconds

    def _task(self, project_id: int, task_id: str, at: float | None = None) -> SamaTask:
        """Find a task, as it is or as it was at a time."""
        task = self._book.find(project_id, task_id, self._creator.clock() if at is None else at)
        if task is None:
            raise _no_task(project_id, task_id)
        return task

    def _named_tasks(self, project_id: int, body: Mapping[str, object]) -> list[SamaTask]:
        ids = body.get("task_ids")
        if not isinstance(ids, list) or not ids:
            raise SamaError(400, "task_ids must be an array of task ids.", "InvalidParameter")
        return [self._task(project_id, str(task_id)) for task_id in ids]


def _no_task(project_id: int, task_id: str) -> SamaError:
    return SamaError(404, f"There is no task {task_id} in project {project_id}.")


def _parse_filter(values: Mapping[str, object], states: tuple[str, ...]) -> SamaTaskFilter:
    batch_id, state = text_parameter(values, "batch_id"), text_parameter(values, "state")
    match = text_parameter(values, "client_batch_id_match_type") or "exact"
    if match not in ("exact", "contains"):
        raise SamaError(400, "client_batch_id_match_type must be exact or contains.", "InvalidParameter")
    if batch_id is not None and not batch_id.isdecimal():
        raise SamaError(400, "batch_id must be a whole number.", "InvalidParameter")
    if state is not None and state not in STATES:
        raise SamaError(400, f"state must be one of {', '.join(STATES)}.", "InvalidParameter")
    return SamaTaskFilter(
        batch_id=None if batch_id is None else int(batch_id),
        client_batch_id=text_parameter(values, "client_batch_id"),
        contains=match == "contains",
        task_id=text_parameter(values, "task_id"),
        states=states if state is None else (state,),
        created_from=_time(values, "from", float("-inf")),
        created_to=_time(values, "to", float("inf")),
    )


def _time(values: Mapping[str, object], name: str, default: float) -> float:
    text = text_parameter(values, name)
    if text is None:
        return default
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise SamaError(400, f"{name} must be an RFC 3339 time.", "InvalidParameter") from error
