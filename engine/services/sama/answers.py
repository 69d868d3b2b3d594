"""Reads what Sama answers, and what its words mean. Names that nobody could see are read tolerantly, here only.

Those are the keys of a creation status (`state`, `total`, `created`), ids as `id` or `task_id`, and where the answer to
a batch that was sent inline names its tasks.

The states of a task are the vendor's: `queued`, `preprocessing` and `ready` (waiting to be created) are under way,
`created`, `failed` and `canceled` are final. Of a batch's states only *waiting* is public. So no word settles a batch:
its tasks do. A word only says when looking at them pays, and a word that nobody has heard of says nothing.

Raises:
    UnexpectedAnswer: an answer cannot be understood; so for all functions here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

from engine.model.doubt import Standing
from engine.model.errors import UnexpectedAnswer
from engine.model.record import Row
from engine.services.base import Answer

_STATES = ("state", "status", "job_status", "job_state")
_IDS = ("id", "task_id")
_BATCH_IDS = ("batch_id", "id")
_DATA = ("data", "request_data")
"""The second one is how the vendor's creation callback calls it."""
_TOLD_IDS = ("task_ids", "tasks", "ids", "created_tasks")


class Phase(Enum):
    """How far the creation of a batch is, by its own word."""

    WAITING = auto()
    """For `continue`."""
    UNDER_WAY = auto()
    COMPLETED = auto()
    FAILED = auto()
    CANCELED = auto()
    UNKNOWN = auto()
    """It says nothing, or a word that is none of ours."""


class Creation(Enum):
    """How far the creation of one task is."""

    CREATED = auto()
    FAILED = auto()
    CANCELED = auto()
    OPEN = auto()
    """Not ended, also where the word is none that the vendor names."""


ENDS = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELED})

_PHASES = {
    "waiting": Phase.WAITING,
    **dict.fromkeys(("queued", "preprocessing", "processing", "in progress", "ready"), Phase.UNDER_WAY),
    **dict.fromkeys(("completed", "complete", "created", "done", "finished"), Phase.COMPLETED),
    "failed": Phase.FAILED,
    **dict.fromkeys(("canceled", "cancelled"), Phase.CANCELED),
}

_CREATIONS = {
    "created": Creation.CREATED,
    "failed": Creation.FAILED,
    **dict.fromkeys(("canceled", "cancelled"), Creation.CANCELED),
}


def phase_of(word: str) -> Phase:
    """Return what a batch's word means."""
    return _PHASES.get(word) or _PHASES.get(_plain(word), Phase.UNKNOWN)


def creation_of(word: str) -> Creation:
    """Return what a task's word means."""
    return _CREATIONS.get(word) or _CREATIONS.get(_plain(word), Creation.OPEN)


def _plain(word: str) -> str:
    """Return a word without what differs between spellings: case, and what stands between its parts."""
    return " ".join(word.casefold().replace("_", " ").replace("-", " ").split())


def _id_in(body: Row, names: Sequence[str]) -> str:
    """Return the first id under one of some names; "" if there is none. 0 is an id."""
    for name in names:
        found = body.get(name)
        if found not in (None, ""):
            return str(found) if isinstance(found, int | str) and not isinstance(found, bool) else ""
    return ""


def batch_id_in(body: Row) -> str:
    """Return the name of the batch that an answer is about."""
    found = _id_in(body, _BATCH_IDS)
    if not found:
        raise UnexpectedAnswer("the answer has no batch_id")
    return found


def state_of(body: Row) -> str:
    """Return the state of a batch or of a task in the service's own word; "" if it does not say."""
    for key in _STATES:
        if body.get(key) not in (None, ""):
            return str(body[key])
    return ""


def standing_of(status: Row) -> Standing:
    """Return whether a batch was continued, by its creation status."""
    state = state_of(status)
    if not state:
        raise UnexpectedAnswer("status: the answer names no state", call="status")
    phase = phase_of(state)
    if phase is Phase.WAITING:
        return Standing.WAITING
    ended = phase in {Phase.FAILED, Phase.CANCELED} and created_of(status) == 0
    return Standing.ENDED if ended else Standing.STARTED


def created_of(status: Row) -> int | None:
    """Return how many tasks of a batch exist; None if the service does not say."""
    created = status.get("created")
    return created if type(created) is int else None


def tasks_in(body: Row) -> Sequence[Row]:
    """Return the tasks that an answer lists."""
    tasks = body.get("tasks") or []
    if not isinstance(tasks, list) or not set(map(type, tasks)) <= {dict}:
        raise UnexpectedAnswer("the answer's tasks are not a list of objects")
    return tasks


@dataclass(frozen=True, slots=True)
class Listed:
    """One task as a creation status lists it."""

    creation: Creation
    task_id: str = ""
    error: str = ""
    """Why it was not created."""
    data: Row | None = None
    """Its inputs, where the service shows them: the vendor says that it does for failed ones."""


def listed(task: Row) -> Listed:
    """Read one task of a creation status."""
    word = state_of(task)
    creation, task_id = creation_of(word), _id_in(task, _IDS)
    if creation is Creation.CREATED:
        return Listed(creation, task_id)
    data = next((task[key] for key in _DATA if isinstance(task.get(key), dict)), None)
    return Listed(creation, task_id, _task_error(task) or f"the task's creation ended as {word!r}", data)


def _task_error(task: Row) -> str:
    said = task.get("errors")
    errors = [error for error in said if isinstance(error, dict)] if isinstance(said, list) else []
    return "; ".join(f"{error.get('type', 'error')}: {error.get('message', '')}" for error in errors)


def told_ids(body: Row) -> Sequence[str]:
    """Return the ids of the tasks to be created that an answer to a batch names; () if it names none.

    The vendor's page says that they are there, and not under which name: a list of ids, or of objects that have one.
    """
    for name in _TOLD_IDS:
        found = body.get(name)
        if not isinstance(found, list) or not found:
            continue
        ids = [_id_in(one if isinstance(one, dict) else {"id": one}, _IDS) for one in found]
        if all(ids) and len(set(ids)) == len(ids):
            return ids
    return ()


def summary_of(status: Row) -> str:
    """Return what a batch that ended says for all of its tasks."""
    messages = status.get("messages")
    words = "; ".join(map(str, messages)) if isinstance(messages, list) else ""
    return words or f"the batch ended as {state_of(status)!r}"


def task_id_of(task: Row) -> str:
    """Return the id of a task in the project's list; "" if it has none."""
    return _id_in(task, _IDS)


def made_at(task: Row) -> float:
    """Return when a task was created, in Unix seconds; a time without a zone is UTC."""
    try:
        at = datetime.fromisoformat(str(task["created_at"]))
    except (KeyError, ValueError) as error:
        raise UnexpectedAnswer("tasks: a task does not say when it was created") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def data_of(task: Row) -> Row:
    """Return the inputs of a task, and its outputs, if it has any."""
    data = task.get("data")
    if not isinstance(data, dict):
        raise UnexpectedAnswer("tasks: a task does not show its data")
    return data


def is_one_of(task: Row, candidates: Sequence[Row]) -> bool:
    """Tell whether a task holds what we sent; the service may have added outputs to it."""
    data = data_of(task)
    return any(all(key in data and data[key] == value for key, value in sent.items()) for sent in candidates)


def batch_of(task: Row) -> str:
    """Return the name of the batch that a task came with."""
    found = _id_in(task, ("batch_id",))
    if not found:
        raise UnexpectedAnswer("tasks: a task does not name its batch")
    return found


_PAGE = (b"<!doctype html", b"<html", b"<head", b"<body")


def is_the_stores(answer: Answer) -> bool:
    """Tell whether a 2xx answer to an upload is a store's: empty, or in a store's own form.

    S3 answers with an `ETag` and no body; other stores need not. A page, and JSON without an `ETag`, came from
    something in between.
    """
    body, kind = answer.body.strip(), ""
    for name, value in answer.headers.items():
        if name.casefold() == "content-type":
            kind = value.casefold()
    if (body and "html" in kind) or body[:20].lower().startswith(_PAGE):
        return False
    is_json = body[:1] in (b"{", b"[") or (bool(body) and "json" in kind)
    return not is_json or "ETag" in answer.headers
