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
from datetime import UTC, datetime
from enum import Enum, IntEnum, auto
from typing import Annotated, Literal, TypeAlias

import msgspec
import orjson

from engine.model.doubt import RemoteStatus
from engine.model.errors import UnexpectedAnswer
from engine.model.outcome import Later
from engine.model.record import Row, loads
from engine.services.base import Answer
from engine.services.created import TaskState
from engine.services.decoding import (
    Count,
    Extra,
    Id,
    Number,
    Word,
    are_names,
    decode,
    decode_if_right,
    is_page,
    words,
    words_of_all,
)

_Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]{1,8000}\Z")]
_NO_DATA = msgspec.Raw()

SKEW_SECONDS = 900.0
"""A task made so long before its batch was sent is none of ours: the longest call, and clocks that differ."""


class _Stated(msgspec.Struct, gc=False):
    """What has a state, under whichever name."""

    state: Extra[Word] = ""
    status: Extra[Word] = ""
    job_status: Extra[Word] = ""
    job_state: Extra[Word] = ""

    @property
    def word(self) -> str:
        """The state in the service's own word; "" if it does not say."""
        return self.state or self.status or self.job_status or self.job_state


class _Named(msgspec.Struct):
    """A task, as the answer to a batch may name it."""

    id: Extra[Id | None] = None
    task_id: Extra[Id | None] = None


_Ids = Extra[list[str | Number | _Named]]


class ToldBatch(msgspec.Struct):
    """The answer to a call that made, released or canceled a batch."""

    batch_id: Id | None = None
    id: Id | None = None
    tasks_put_url: Extra[_Url] = ""
    task_ids: _Ids = []
    tasks: _Ids = []
    ids: _Ids = []
    created_tasks: _Ids = []

    @property
    def name(self) -> str:
        """What the batch is called from now on."""
        found = self.id if self.batch_id is None else self.batch_id
        if found is None:
            raise UnexpectedAnswer("the answer has no batch_id")
        return str(found)

    @property
    def told_ids(self) -> Sequence[str]:
        """The ids of the tasks to be created; () if it names none.

        The vendor's page says that they are there, and not under which name: a list of ids, or of objects that have
        one.
        """
        for found in (self.task_ids, self.tasks, self.ids, self.created_tasks):
            ids = [id_of(one) if isinstance(one, _Named) else str(one) for one in found]
            if found and are_names(ids) and len(set(ids)) == len(ids):
                return ids
        return ()


class Problem(msgspec.Struct, gc=False):
    """Why a task was not created."""

    type: Extra[str | int] = "error"
    message: Extra[str] = ""


class CreationTask(_Stated):
    """One task of a creation status."""

    id: Extra[Id | None] = None
    task_id: Extra[Id | None] = None
    errors: Extra[list[Problem]] = []
    data: Extra[msgspec.Raw] = _NO_DATA
    request_data: Extra[msgspec.Raw] = _NO_DATA
    """This is how the vendor's creation callback calls it."""


class CreatedTask(msgspec.Struct, gc=False):
    """One that was created, as nearly all are. Nothing else of it is looked at."""

    id: str
    state: Literal["created"]


class _Status(_Stated):
    """What each page of the creation status of a batch says of the batch."""

    created: Extra[Count | None] = None
    """How many of its tasks exist; None if the service does not say."""
    total: Extra[Count | None] = None
    messages: Extra[list[str]] = []

    @property
    def summary(self) -> str:
        """What a batch that ended says for all of its tasks."""
        return words("; ".join(self.messages)) or f"the batch ended as {self.word!r}"


class MixedPage(_Status):
    """A page of tasks of any kind, or the answer without them."""

    tasks: list[CreationTask] | None = None


class CreatedPage(_Status, kw_only=True):
    """A page of nothing but created tasks, as nearly all are: a sixth of the time of a mixed one."""

    tasks: list[CreatedTask]


CreationStatus: TypeAlias = MixedPage | CreatedPage


def creation_status(answer: Answer) -> CreationStatus:
    """Read one page of a creation status: as a page of created tasks if it is exactly that."""
    page = decode_if_right(answer.body, CreatedPage)
    if page is not None and are_names([task.id for task in page.tasks]):
        return page
    return decode(answer, MixedPage, call="status")


class MadeTask(_Stated):
    """One task of the project's list: it was created."""

    id: Extra[Id | None] = None
    task_id: Extra[Id | None] = None
    batch_id: Extra[Id | None] = None
    created_at: Extra[str] = ""
    data: Extra[msgspec.Raw] = _NO_DATA

    @property
    def inputs(self) -> Row:
        """Its inputs, and its outputs, if it has any."""
        data = self.shown
        if data is None:
            raise UnexpectedAnswer("tasks: a task does not show its data")
        return data

    @property
    def shown(self) -> Row | None:
        """Its inputs and outputs; None if they are not there."""
        return _object_in(self.data)

    @property
    def batch(self) -> str:
        """The name of the batch that it came with."""
        if self.batch_id is None:
            raise UnexpectedAnswer("tasks: a task does not name its batch")
        return str(self.batch_id)

    @property
    def made_at(self) -> float:
        """When it was created, in Unix seconds; a time without a zone is UTC."""
        try:
            at = datetime.fromisoformat(self.created_at)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError) as error:
            raise UnexpectedAnswer("tasks: a task does not say when it was created") from error

    def is_one_of(self, candidates: Sequence[Row]) -> bool:
        """Return whether it holds what we sent; the service may have added outputs to it."""
        data = self.inputs
        return any(all(key in data and data[key] == value for key, value in sent.items()) for sent in candidates)


_HANDED_OVER = frozenset({"delivered", "acknowledged"})
"""Words for a task that nobody at the vendor has in hand any more."""
_COMPLETED = _HANDED_OVER | {"completed", "approved"}
"""Words for a task on which people have done their work. Whoever looks at it may reject the work all the same."""


def work_state(task: MadeTask) -> TaskState:
    """Return how people's work on a task stands: the words are the vendor's, and those of a new one matter most."""
    word = _plain(task.word)
    rejected = word == "rejected"
    return TaskState(
        task.word or "unknown",
        untouched=word == "new",
        ended=word in _HANDED_OVER,
        later=Later.REJECTED if rejected else Later.COMPLETED if word in _COMPLETED else None,
        reason="people did not take the work on it; it goes through their hands once more" if rejected else "",
    )


class TaskPage(msgspec.Struct):
    """One page of the project's list."""

    tasks: list[MadeTask]


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


class Creation(IntEnum):  # whose hash is that of an int, and not made in Python
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


def id_of(task: CreationTask | MadeTask | _Named) -> str:
    """Return the id of a task; "" if it has none. 0 is an id."""
    found = task.task_id if task.id is None else task.id
    return "" if found is None else str(found)


def _object_in(raw: msgspec.Raw) -> Row | None:
    """Return the object that stands in an answer; None if it is another thing."""
    try:
        found = loads(bytes(raw))
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def remote_status_of(status: CreationStatus) -> RemoteStatus:
    """Return whether a batch was continued, by its creation status."""
    if not status.word:
        raise UnexpectedAnswer("status: the answer names no state", call="status")
    phase = phase_of(status.word)
    if phase is Phase.WAITING:
        return RemoteStatus.WAITING
    ended = phase in {Phase.FAILED, Phase.CANCELED} and status.created == 0
    return RemoteStatus.ENDED if ended else RemoteStatus.STARTED


class Listed(msgspec.Struct, frozen=True, gc=False):
    """One task as a creation status lists it."""

    creation: Creation
    task_id: str = ""
    error: str = ""
    """Why it was not created."""
    task: CreationTask | None = None
    """One that was not created."""

    @property
    def data(self) -> Row | None:
        """Its inputs, where the service shows them: the vendor says that it does for failed ones."""
        return (_object_in(self.task.data) or _object_in(self.task.request_data)) if self.task else None


def listed(page: CreationStatus) -> Sequence[Listed]:
    """Read the tasks of one page of a creation status."""
    if isinstance(page, CreatedPage):
        return [Listed(Creation.CREATED, task.id) for task in page.tasks]
    tasks = page.tasks or []
    reasons = words_of_all(["; ".join([f"{error.type}: {error.message}" for error in task.errors]) for task in tasks])
    return list(map(_listed, tasks, reasons))


def _listed(task: CreationTask, said: str) -> Listed:
    word, task_id = task.word, id_of(task)
    if (creation := creation_of(word)) is Creation.CREATED:
        return Listed(creation, task_id)
    return Listed(creation, task_id, said or f"the task's creation ended as {word!r}", task)


def is_the_stores(answer: Answer) -> bool:
    """Return whether a 2xx answer to an upload is a store's: empty, or in a store's own form.

    S3 answers with an `ETag` and no body; other stores need not. A page, and JSON without an `ETag`, came from
    something in between.
    """
    body, kind = answer.body.strip(), answer.headers.get("Content-Type", "").casefold()
    if (body and "html" in kind) or is_page(body):
        return False
    is_json = body[:1] in (b"{", b"[") or (bool(body) and "json" in kind)
    return not is_json or "ETag" in answer.headers
