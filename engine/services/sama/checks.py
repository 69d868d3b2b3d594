"""What Sama can be asked before a load, and what is believed of it; see `engine.services.checks`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from engine.clock import Clock
from engine.model.batch import ClientReference
from engine.model.errors import BulkSubmitError, Refused, Unauthorized
from engine.model.record import Row
from engine.services.base import Call, Caller
from engine.services.checks import (
    GENERAL_GUESSES,
    UNSEEN,
    CheckVerdict,
    Finding,
    Guess,
    ProbeEvidence,
    ServiceCheck,
    Sight,
    held,
    json_body,
)
from engine.services.decoding import Extra, decode, path_part, words
from engine.services.sama.answers import (
    ENDS,
    SKEW_SECONDS,
    Creation,
    Listed,
    Phase,
    ToldBatch,
    creation_of,
    creation_status,
    listed,
    phase_of,
)
from engine.services.sama.fates import PAGE_SIZE, TASKS_SECONDS, TaskList
from engine.services.sama.schema import REFERENCE_INPUT, UncheckableSchema, inputs_of, schema_check, takes_references
from engine.services.sama.settings import SamaSettings

_UPLOAD_URL_SECONDS = 4 * 3600
"""The vendor's page."""
_SHOWN_INPUTS = 6


class _Project(msgspec.Struct):
    name: Extra[str] = ""


class SamaChecks:
    """The ability `checking` of Sama: one project, which is asked for once."""

    clock_seconds = SKEW_SECONDS

    def __init__(
        self,
        settings: SamaSettings,
        project: str,
        caller: Caller,
        clock: Clock,
        reference: ClientReference | None = None,
    ) -> None:
        """Take the project's address, and the client reference of the batch that a probe has sent, if it has one."""
        self._settings = settings
        self._project = project
        self._caller = caller
        self._clock = clock
        self._reference = reference.value if reference else ""
        self._asked: msgspec.Struct | BulkSubmitError | None = None
        self._schema: Any = None

    @property
    def guesses(self) -> Sequence[Guess]:
        """Return what is believed of it."""
        return (*GENERAL_GUESSES, *GUESSES)

    def checks(self) -> Sequence[ServiceCheck]:
        """Return the questions about key, project, schema and limits."""
        number = self._settings.project_id
        return [
            ServiceCheck(
                "key", self._key, "put a valid key into what service.access_key names, and look whether it ends there"
            ),
            ServiceCheck(
                "project", self._is_there, f"set service.project_id: {number} is no project of this key", ("key",)
            ),
            ServiceCheck("schema", self._has_schema, "records cannot be checked against the project", ("project",)),
            ServiceCheck("limits", self._limits),
        ]

    def probe_note(self) -> str:
        """Return what the tasks are to the people who work on them."""
        return "People who work on the project see them until they are deleted."

    async def _asked_project(self) -> _Project:
        """Ask for the project, once: the answer is about the key and about the project."""
        if self._asked is None:
            try:
                answer = await self._caller.call(Call("project", "GET", f"{self._project}.json", few_tries=True))
                self._asked = decode(answer, _Project, call="project")
            except BulkSubmitError as error:
                self._asked = error
        if isinstance(self._asked, BulkSubmitError):
            raise self._asked
        assert isinstance(self._asked, _Project)  # noqa: S101 - for type checkers
        return self._asked

    async def _key(self) -> Finding:
        try:
            await self._asked_project()
        except Refused as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND:
                raise
        return Finding("the service takes service.access_key")

    async def _is_there(self) -> Finding:
        project = await self._asked_project()
        called = f" is called {words(project.name)!r}" if project.name else " is there"
        return Finding(f"{self._settings.project_id}{called}")

    async def _has_schema(self) -> Finding:
        try:
            schema = await self._read_schema()
            takes = takes_references(schema)
            schema_check(schema, None)
        except Unauthorized:
            raise
        except (Refused, UncheckableSchema) as error:
            return Finding(f"the project shows no schema that can be used: {error}", CheckVerdict.WARNING, _NO_SCHEMA)
        names = inputs_of(schema)
        shown = ", ".join(names[:_SHOWN_INPUTS]) + (
            f" and {len(names) - _SHOWN_INPUTS} more" if len(names) > _SHOWN_INPUTS else ""
        )
        mark = "" if takes or self._settings.mode != "inline" else f"; no {REFERENCE_INPUT} to find a lost batch by"
        return Finding(f"{len(names)} inputs: {shown}{mark}" if names else f"it names no inputs{mark}")

    async def _read_schema(self) -> Any:
        if self._schema is None:
            url = f"{self._project}/schemas/create_task.json"
            answer = await self._caller.call(Call("schema", "GET", url, few_tries=True))
            self._schema = decode(answer, dict[str, Any], call="schema")
        return self._schema

    async def _limits(self) -> Finding:
        most = self._settings.max_tasks_per_batch
        said = f"Sama tells none; kept are {most:,} tasks a batch and one list of tasks a second"
        return Finding(said, CheckVerdict.UNCHECKED)

    async def flaws(self, tasks: Sequence[Row]) -> Sequence[str | None]:
        """Return of each task why it does not fit the project's schema."""
        try:
            look = schema_check(await self._read_schema(), None)
        except UncheckableSchema:  # `schema` has said so
            return [None] * len(tasks)
        return [flaw and flaw.replace("service.task_schema", "the project's schema") for flaw in map(look, tasks)]

    async def look_closer(self, remote_ids: Sequence[str], task_ids: Sequence[str]) -> None:
        """Read each batch's status and its list of tasks, and search for the tasks by their mark."""
        del task_ids
        tasks = TaskList(self._project, self._caller)
        for name in remote_ids:
            query = {"page_size": str(PAGE_SIZE), "page": "1"}
            await self._caller.call(
                Call("status", "GET", f"{self._project}/batches/{path_part(name)}.json", query=query)
            )
            await tasks.page({"batch_id": name})
        if self._reference:
            await tasks.page({REFERENCE_INPUT: self._reference, f"{REFERENCE_INPUT}_match_type": "exact"})
        await self._clock.sleep(TASKS_SECONDS)  # whoever lists tasks next does so by another caller, and knows of none


_NO_SCHEMA = "name a file of it in service.task_schema, or go on: bad records fail one by one"


def _statuses(evidence: ProbeEvidence) -> Iterator[tuple[str, Sequence[Listed], Mapping[str, Any]]]:
    """Yield word, tasks and body of each creation status that was heard."""
    for answer in evidence.answers("status"):
        status = creation_status(answer)
        yield status.word, listed(status), json_body(answer)


def _last_page(evidence: ProbeEvidence) -> Sequence[Listed]:
    return next((tasks for _, tasks, _ in reversed(list(_statuses(evidence))) if tasks), ())


def _contents(evidence: ProbeEvidence) -> Mapping[str, Row]:
    """Return the data of each task that a list has shown, by id."""
    found: dict[str, Row] = {}
    for answer in evidence.answers("tasks"):
        for task in json_body(answer).get("tasks", []):
            if isinstance(task.get("data"), dict):
                found[str(task.get("id", task.get("task_id")))] = task["data"]
    return found


def _holds(data: Row, sent: Row) -> bool:
    """Return whether a task holds what was sent: outputs beside it, and nulls left out, do no harm."""
    wanted = {key: value for key, value in sent["data"].items() if value is not None}
    return all(data.get(key) == value for key, value in wanted.items())


def _order(evidence: ProbeEvidence) -> Sight:
    contents, ids = _contents(evidence), [one.task_id for one in _last_page(evidence)]
    if len(ids) != len(evidence.sent) or not all(one in contents for one in ids):
        return UNSEEN
    if all(_holds(contents[ids[0]], sent) for sent in evidence.sent):
        return Sight(None, "the records are equal")
    holds = all(_holds(contents[task_id], sent) for task_id, sent in zip(ids, evidence.sent, strict=True))
    return Sight(holds, f"the status lists {', '.join(ids)}, compared with their data")


def _failed_data(evidence: ProbeEvidence) -> Sight:
    failed = [one for one in _last_page(evidence) if one.creation is Creation.FAILED]
    return Sight(all(one.data is not None for one in failed), f"{len(failed)} failed") if failed else UNSEEN


def _same_data(evidence: ProbeEvidence) -> Sight:
    contents = _contents(evidence)
    shown = [data for task_id in evidence.task_ids if (data := contents.get(task_id)) is not None]
    if not shown:
        return UNSEEN
    same = sum(any(_holds(data, sent) for sent in evidence.sent) for data in shown)
    return Sight(same == len(shown), f"{same} of {len(shown)} tasks show what was sent")


def _batch_words(evidence: ProbeEvidence) -> Sight:
    heard = list(dict.fromkeys(word for word, _, _ in _statuses(evidence) if word))
    unknown = [word for word in heard if phase_of(word) is Phase.UNKNOWN]
    return Sight(not unknown, f"heard: {', '.join(unknown or heard)}") if heard else UNSEEN


def _task_words(evidence: ProbeEvidence) -> Sight:
    heard = {
        str(task.get("state", task.get("status", "")))
        for _, _, body in _statuses(evidence)
        for task in body.get("tasks") or []
    }
    final = sorted(word for word in heard if creation_of(word) is not Creation.OPEN)
    last = _last_page(evidence)
    if not last:
        return UNSEEN
    holds = all(one.creation is not Creation.OPEN for one in last)
    return Sight(holds, f"heard: {words(', '.join(final if holds else sorted(heard)))}")


def _all_listed(evidence: ProbeEvidence) -> Sight:
    ends = [tasks for word, tasks, body in _statuses(evidence) if phase_of(word) in ENDS and "tasks" in body]
    if not ends:
        return UNSEEN
    return Sight(len(ends[-1]) == len(evidence.sent), f"{len(ends[-1])} of {len(evidence.sent)} tasks are listed")


def _counts(evidence: ProbeEvidence) -> Sight:
    bodies = [body for _, _, body in _statuses(evidence)]
    return Sight("created" in bodies[-1], f"keys: {words(', '.join(sorted(bodies[-1])))}") if bodies else UNSEEN


def _own_ids(evidence: ProbeEvidence) -> Sight:
    ids = [one.task_id for one in _last_page(evidence) if one.creation is Creation.CREATED]
    holds = all(ids) and len(set(ids)) == len(ids)
    return Sight(holds, f"{len(set(filter(None, ids)))} ids for {len(ids)} tasks") if ids else UNSEEN


def _told_ids(evidence: ProbeEvidence) -> Sight:
    answers = evidence.answers("post")
    told = decode(answers[0], ToldBatch).told_ids if answers else ()
    return held(f"{len(told)} ids") if told else Sight(None, "it named none" if answers else "")


def _search(evidence: ProbeEvidence) -> Sight:
    searches = [one for one in evidence.exchanges if one.call.kind == "tasks" and REFERENCE_INPUT in one.call.query]
    if not searches or searches[-1].answer is None:
        return UNSEEN
    found = len(json_body(searches[-1].answer).get("tasks", []))
    return Sight(found == len(evidence.task_ids), f"it found {found} of {len(evidence.task_ids)} tasks")


def _zones(evidence: ProbeEvidence) -> Sight:
    times = [str(task.get("created_at", "")) for one in evidence.answers("tasks") for task in json_body(one)["tasks"]]
    times = [one for one in times if one]
    if not times:
        return UNSEEN
    return Sight(datetime.fromisoformat(times[0]).tzinfo is not None, f"created_at is {words(times[0])}")


def _etag(evidence: ProbeEvidence) -> Sight:
    answers = evidence.answers("put")
    holds = bool(answers) and any(key.lower() == "etag" for key in answers[-1].headers)
    return (
        Sight(holds, "the upload's answer has one" if holds else "the upload's answer has none") if answers else UNSEEN
    )


def _url_hours(evidence: ProbeEvidence) -> Sight:
    urls = [one.call.url for one in evidence.exchanges if one.call.kind == "put"]
    said = parse_qs(urlsplit(urls[-1]).query).get("X-Amz-Expires", [""])[0] if urls else ""
    if not said.isdecimal():
        return UNSEEN
    return Sight(int(said) >= _UPLOAD_URL_SECONDS, f"X-Amz-Expires is {int(said):,} s")


GUESSES: tuple[Guess, ...] = (
    Guess("sama.order", "tasks stand in a creation status in the order sent", _order),
    Guess("sama.failed-data", "a status shows the data of failed tasks [the vendor's page says so]", _failed_data),
    Guess("sama.same-data", "data comes back as it was sent", _same_data),
    Guess(
        "sama.batch-words",
        "a batch's states are `waiting` [documented], `queued`, `processing`, `completed`, `failed`, `canceled`",
        _batch_words,
    ),
    Guess("sama.task-words", "a task's final states are `created`, `failed`, `canceled` [documented]", _task_words),
    Guess("sama.all-listed", "a batch that has ended lists each of its tasks", _all_listed),
    Guess("sama.counts", "a status counts the tasks, under `created`", _counts),
    Guess("sama.own-ids", "each created task has an id, and its own", _own_ids),
    Guess("sama.new-name", "a new batch has a new name"),
    Guess("sama.told-ids", "an answer to inline tasks may name their ids, under a key that no page tells", _told_ids),
    Guess("sama.search", "a search by `client_batch_id` finds what is there", _search),
    Guess("sama.zones", "times have a zone", _zones),
    Guess("sama.etag", "the store answers an upload with an `ETag` (S3's habit)", _etag),
    Guess("sama.lists", "`tasks.json` takes one call a second [documented]"),
    Guess("sama.not-waiting", "`InvalidBatchState`, or 409, means that a batch is not waiting any more"),
    Guess(
        "sama.deletes",
        "`delete_tasks.json` [the vendor's client has the call] deletes tasks that are new, and refuses others",
    ),
    Guess("sama.rejected", "tasks that people have rejected are worked on again"),
    Guess(
        "sama.work-words",
        "a task's words are `new`, `in progress`, `completed`, `approved`, `delivered`, "
        "`rejected`, `acknowledged` [documented]; from `completed` on people have done their work",
    ),
    Guess("sama.work-ends", "nothing more happens to a task that is `delivered` or `acknowledged`"),
    Guess(
        "sama.callback-batch",
        "a callback names the batch of its tasks (`batch_id`, as a delivery does), at a failure it does not [as the "
        "vendor shows it]",
    ),
    Guess(
        "sama.callback-form",
        "a callback for created tasks has them under `tasks` or `task`; that for failed ones under `errors` "
        "[documented]",
    ),
    Guess(
        "sama.callback-signature",
        "a signed callback signs `X-wsm-date`, a line feed and the body, in base64 or hex [that it is HMAC-SHA-256 is "
        "documented]",
    ),
    Guess(
        "sama.callback-tries",
        "any 2xx takes a callback, anything else is tried again, five times in all [documented]",
    ),
    Guess("sama.url-hours", "an upload URL is good for four hours [documented]", _url_hours),
)
"""Of Sama; docs/guesses.md has a row of each. Those without a test need more than two new tasks."""
