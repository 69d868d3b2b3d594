"""Drafts and tasks as plain state, and how the vendor shows them, now and at an earlier time.

A draft is what may be edited and copied; a task is a draft with an id and a life. `Status` has the vendor's words.
`life.py` alone changes a task's status.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from engine.sandbox.sevenbridges.answers import Fields, View, time_text


class Status(StrEnum):
    """Where a task stands."""

    DRAFT = "DRAFT"
    CREATING = "CREATING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    ABORTING = "ABORTING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.ABORTED})
ABORTABLE = frozenset({Status.CREATING, Status.QUEUED, Status.RUNNING})


class Batching(Struct, frozen=True):
    """How a parent's inputs are divided: by ITEM, or by the `criteria`, metadata fields as `metadata.<field>`."""

    input: str
    criteria: tuple[str, ...] = ()

    def by(self) -> dict[str, object]:
        """Return `batch_by` as it is sent."""
        return {"type": "CRITERIA", "criteria": list(self.criteria)} if self.criteria else {"type": "ITEM"}


class BatchGroup(Struct, frozen=True):
    """Which part of its parent's inputs a child has."""

    value: str
    fields: Mapping[str, str | None]


class InputError(Struct, frozen=True):
    """Why a draft cannot be run."""

    type: str
    message: str
    input_id: str


class Draft(Struct, frozen=True):
    """What a user asked for. `inputs` is a JSON object, kept as text: a hundred thousand of them must fit.

    A text and not orjson's bytes, each of which keeps hold of the larger buffer that it was written into.
    """

    project: str
    app: str
    name: str
    description: str = ""
    inputs: str = "{}"
    batching: Batching | None = None
    interruptible: bool = False
    execution_settings: Mapping[str, Any] | None = None
    output_location: Mapping[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """Return the body that would create this draft: the journal and the failure rules look into it."""
        document: dict[str, Any] = {
            "project": self.project,
            "app": self.app,
            "name": self.name,
            "description": self.description,
            "inputs": orjson.loads(self.inputs),
        }
        if self.batching:
            document |= {"batch_input": self.batching.input, "batch_by": self.batching.by()}
        return document


class SevenBridgesTask(Struct, eq=False):
    """One task: `number` counts all tasks of the server from 0; times are epoch seconds.

    `since` holds the statuses after DRAFT in the order in which it came into them, each with the time of that.
    A parent's children are the tasks with the numbers `children`, and `counts` says how many of them have which status.
    `told` is True from the moment a run is accepted, even if the task begins to run later.
    """

    number: int
    id: str
    draft: Draft
    created_at: float
    errors: tuple[InputError, ...] = ()
    parent: "SevenBridgesTask | None" = None
    group: BatchGroup | None = None
    since: dict[Status, float] = {}
    message: str = ""
    removed_at: float | None = None
    children: range = range(0)
    counts: Counter[Status] | None = None
    aborted: bool = False
    told: bool = False

    @property
    def status(self) -> Status:
        """Where it stands."""
        return next(reversed(self.since), Status.DRAFT)

    @property
    def run_at(self) -> float | None:
        """When it was run."""
        return self.since.get(Status.CREATING)

    @property
    def running_at(self) -> float | None:
        """When it began to run."""
        return self.since.get(Status.RUNNING)

    @property
    def ended_at(self) -> float | None:
        """When it ended."""
        return self.since[self.status] if self.status in TERMINAL else None

    def existed(self, at: float) -> bool:
        """Say whether it was there at a time."""
        return self.created_at <= at and (self.removed_at is None or self.removed_at > at)

    def as_of(self, at: float, children: Iterable["SevenBridgesTask"]) -> "SevenBridgesTask":
        """Return how it stood at an earlier time; before its creation it is a draft."""
        then = replace(self, since={status: since for status, since in self.since.items() if since <= at})
        if Status.QUEUED not in then.since:
            then.children, then.counts = range(0), None
        elif self.counts is not None:
            then.counts = Counter(child.as_of(at, ()).status for child in children)
        then.message = self.message if then.status in TERMINAL else ""
        return then


_MESSAGES = {Status.DRAFT: "", Status.COMPLETED: "Done", Status.FAILED: "Task failed", Status.ABORTED: "Task aborted"}
_DOLLARS_AN_HOUR = 0.4  # of one instance, about; a parent costs what it does itself
_COUNTED = {
    "queued": (Status.DRAFT, Status.CREATING, Status.QUEUED),
    "running": (Status.RUNNING, Status.ABORTING),
    "completed": (Status.COMPLETED,),
    "failed": (Status.FAILED,),
    "aborted": (Status.ABORTED,),
}


def execution_details(task: SevenBridgesTask, view: View) -> dict[str, object]:
    """Show how a task was executed: as one job."""
    job: Mapping[str, object] = {
        "name": task.draft.app.rsplit("/", 2)[-2],
        "status": {Status.COMPLETED: "DONE", Status.RUNNING: "RUNNING"}.get(task.status, "FAILED"),
        "start_time": time_text(task.running_at),
        "end_time": time_text(task.ended_at),
        "command_line": "true",
        "retried": False,
        "instance": {"id": "sandbox", "type": "c4.2xlarge", "provider": "AWS"},
        "docker": {"checksum": ""},
        "logs": {},
    }
    return {
        "href": f"{view.base_url}/tasks/{task.id}/execution_details",
        "start_time": time_text(task.run_at),
        "end_time": time_text(task.ended_at),
        "status": _status_word(task, view),
        "message": _message(task),
        "jobs": [] if task.running_at is None or task.children else [job],
    }


def _status_word(task: SevenBridgesTask, view: View) -> str:
    return view.settings.unwritten.status_words.get(task.status, task.status)


def _execution_status(task: SevenBridgesTask, view: View) -> dict[str, object]:
    if task.counts is not None:
        children = {word: sum(task.counts[status] for status in counted) for word, counted in _COUNTED.items()}
        return {"message": _message(task), **children}
    if task.run_at is None:
        return {}
    end = view.now if task.ended_at is None else task.ended_at
    queued = (end if task.running_at is None else task.running_at) - task.run_at
    running = 0.0 if task.running_at is None else end - task.running_at
    return {
        "steps_completed": int(task.status is Status.COMPLETED),
        "steps_total": 1,
        "message": _message(task),
        "message_code": f"task_{task.status.lower()}",
        "system_limit": False,
        "account_limit": False,
        "instance_init": False,
        "queued_duration": _milliseconds(queued),
        "running_duration": _milliseconds(running),
        "execution_duration": _milliseconds(running),
        "duration": _milliseconds(queued + running),
    }


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _message(task: SevenBridgesTask) -> str:
    return task.message or _MESSAGES.get(task.status, task.status.capitalize())


def _price(task: SevenBridgesTask, _: View) -> dict[str, object] | None:
    if task.status not in TERMINAL:
        return None
    ran = 0.0 if task.running_at is None or task.ended_at is None else task.ended_at - task.running_at
    return {"amount": round(ran / 3600 * _DOLLARS_AN_HOUR, 6), "currency": "USD"}


TASK_FIELDS: Fields = {
    "href": lambda task, view: f"{view.base_url}/tasks/{task.id}",
    "id": lambda task, _: task.id,
    "name": lambda task, _: task.draft.name,
    "status": _status_word,
    "description": lambda task, _: task.draft.description,
    "project": lambda task, _: task.draft.project,
    "app": lambda task, _: task.draft.app,
    "type": lambda *_: "v2",
    "created_by": lambda _, view: view.settings.user,
    "executed_by": lambda task, view: view.settings.user if task.run_at is not None else None,
    "created_time": lambda task, _: time_text(task.created_at),
    "start_time": lambda task, _: time_text(task.run_at),
    "end_time": lambda task, _: time_text(task.ended_at),
    "batch": lambda task, _: task.draft.batching is not None,
    "batch_by": lambda task, _: task.draft.batching.by() if task.draft.batching else None,
    "batch_input": lambda task, _: task.draft.batching.input if task.draft.batching else None,
    "batch_group": lambda task, _: task.group,
    "parent": lambda task, _: task.parent.id if task.parent else None,
    "execution_status": _execution_status,
    "errors": lambda task, _: task.errors,
    "warnings": lambda *_: [],
    "price": _price,
    "inputs": lambda task, _: orjson.Fragment(task.draft.inputs),
    "outputs": lambda *_: {},
    "execution_settings": lambda task, _: task.draft.execution_settings or {},
    "output_location": lambda task, _: task.draft.output_location,
    "use_interruptible_instances": lambda task, _: task.draft.interruptible,
    "origin_id": lambda *_: None,
}
