"""Drafts and tasks as plain state: what a user asked for, and what has become of it, now and at an earlier time.

A draft is what may be edited and copied; a task is a draft with an id and a life. `Status` has the vendor's words.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import orjson


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


@dataclass(frozen=True, slots=True)
class Batching:
    """How a parent's inputs are divided: by ITEM, or by the `criteria`, metadata fields as `metadata.<field>`."""

    input: str
    criteria: tuple[str, ...] = ()

    def by(self) -> dict[str, object]:
        """Return `batch_by` as it is sent."""
        return {"type": "CRITERIA", "criteria": list(self.criteria)} if self.criteria else {"type": "ITEM"}


@dataclass(frozen=True, slots=True)
class BatchGroup:
    """Which part of its parent's inputs a child has."""

    value: str
    fields: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class InputError:
    """Why a draft cannot be run."""

    type: str
    message: str
    input_id: str


@dataclass(frozen=True, slots=True)
class Draft:
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


@dataclass(slots=True, eq=False)
class SevenBridgesTask:
    """One task: `number` counts all tasks of the server from 0; times are epoch seconds.

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
    status: Status = Status.DRAFT
    message: str = ""
    run_at: float | None = None
    queued_at: float | None = None
    running_at: float | None = None
    aborting_at: float | None = None
    ended_at: float | None = None
    removed_at: float | None = None
    children: range = range(0)
    counts: Counter[Status] | None = None
    aborted: bool = False
    told: bool = False

    def existed(self, at: float) -> bool:
        """Say whether it was there at a time."""
        return self.created_at <= at and (self.removed_at is None or self.removed_at > at)

    def as_of(self, at: float, children: Iterable["SevenBridgesTask"]) -> "SevenBridgesTask":
        """Return how it stood at an earlier time; before its creation it is a draft."""
        status = self.status_at(at)
        queued = _until(self.queued_at, at) is not None
        counts = Counter(child.status_at(at) for child in children) if queued and self.counts is not None else None
        return replace(
            self,
            status=status,
            message=self.message if status in TERMINAL else "",
            run_at=_until(self.run_at, at),
            running_at=_until(self.running_at, at),
            ended_at=_until(self.ended_at, at),
            children=self.children if queued else range(0),
            counts=counts,
        )

    def status_at(self, at: float) -> Status:
        """Return its state at an earlier time."""
        if _until(self.ended_at, at) is not None:
            return self.status
        reached = (
            (self.aborting_at, Status.ABORTING),
            (self.running_at, Status.RUNNING),
            (self.queued_at, Status.QUEUED),
            (self.run_at, Status.CREATING),
        )
        return next((status for since, status in reached if _until(since, at) is not None), Status.DRAFT)


def _until(when: float | None, at: float) -> float | None:
    """Return a time unless it came later than another."""
    return None if when is None or when > at else when
