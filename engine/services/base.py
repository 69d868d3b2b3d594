"""What a service must do for the engine, and the calls and answers in which it does it.

`Service` is what every service has. What only some can do (`Staging`, `Polling` and so on) are abilities: a service
names the object that has one, mostly itself, and None where it lacks it. So nobody writes empty methods, and the
configuration may decide over an ability. `one_call.OneCall` is the base of a service that lacks them all.

The module is a long one, since it has each ability with what it promises.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, runtime_checkable

import msgspec

from engine.clock import Clock
from engine.model.batch import Batch, ClientReference, Limits
from engine.model.doubt import Again, RemoteStatus
from engine.model.error_hints import Carries
from engine.model.errors import SourceChanged
from engine.model.job import Job
from engine.model.outcome import Settlement
from engine.model.payload import Payload
from engine.model.record import Row
from engine.model.settings import BatchSettings, ServiceSettings
from engine.model.submission import Submission
from engine.progress.events import Listener, unheard
from engine.services.created import Refreshing, Undoing

if TYPE_CHECKING:
    from engine.services.checks import Checking

Intent: TypeAlias = Callable[[], Awaitable[None]]
"""Makes durable that a call goes out now; awaited each time before it is sent."""


async def no_intent() -> None:
    """Make nothing durable: a call that may be forgotten."""


class Call(msgspec.Struct, frozen=True):
    """One request to a service, without its credentials: those are added on the wire and never seen here."""

    kind: str
    """A word for events and rate rules: `create`, `put`, `continue`, `status`."""
    method: str
    url: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes | tuple[bytes, ...] | None = None
    """In pieces where a large one would have to be copied to stand among others."""
    repeatable: bool = True
    """Harmless if it happens twice. If not, a lost answer is raised at once as `PossiblyApplied`."""
    authenticated: bool = True
    """Carries the service's credentials; a presigned URL must not."""
    reconcilable: bool = False
    """Not repeatable, but after a lost answer the service can be asked: so one lost answer does not slow down
    others."""
    yielding: bool = False
    """Leaves most of a limited request budget to calls that are not: a poll, beside the creation of tasks."""
    intent: Intent | None = None
    """Awaited each time before the call is sent: a call may wait for long until it is its turn."""
    carries: Carries = Carries.NOTHING
    """What its refusal can be about."""
    few_tries: bool = False
    """Give up early and return the failure; the caller then tests whether the payload is the cause. Early is: after a
    few lost attempts, after a few answers of a proxy, or at an answer that may mean too much at once
    (`Pause.or_too_much`)."""
    lane: str = ""
    """Name of a separate limit for this kind of call. A 429 to it delays only calls of this lane."""
    lane_seconds: float = 0.0
    """Least time between two calls of the lane; 0: the service documents none."""
    into: BinaryIO | None = None
    """Of a repeatable call: where the body of a 2xx answer is written, each attempt anew from its start. It may be
    longer than memory; `Answer.body` is empty."""

    def __repr__(self) -> str:
        """Return what kind of call it is: its URL may be presigned, and its body is somebody's data."""
        return f"Call({self.kind!r}, {self.method!r})"

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """The body; () if there is none."""
        return self.body if isinstance(self.body, tuple) else (self.body,) if self.body else ()

    @property
    def size_bytes(self) -> int:
        """Length of the body."""
        return len(self.body) if isinstance(self.body, bytes) else sum(map(len, self.pieces))


class Answer(msgspec.Struct, frozen=True):
    """An answer, read to its end; services see only those with a 2xx status."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    earlier_lost: bool = False
    """An earlier attempt of the same call, which is repeatable, had no answer, and may have been applied."""

    def __repr__(self) -> str:
        """Return its status: its headers and its body may hold secrets, and somebody's data."""
        return f"Answer({self.status})"


JSON_HEADERS = {"Content-Type": "application/json"}


class Caller(Protocol):
    """Makes calls: paced, retried while that is safe, classified."""

    async def call(self, call: Call) -> Answer:
        """Return the 2xx answer.

        Raises:
            Unauthorized, Refused: the service said no; nothing was done.
            Unavailable: retries are spent; nothing was done, or the call is repeatable: see `earlier_lost`.
            WrongAddress: what answers is not the service; as for Unavailable.
            PossiblyApplied: the answer to a call that is not repeatable was lost.
            UnexpectedAnswer: the answer is too large, or not HTTP, and the call is not repeatable.
            AnswerNotKept: `into` cannot be written.
        """


class Staged(msgspec.Struct, frozen=True):
    """A harmless beginning at the service."""

    remote_id: str
    upload_url: str | None = None
    """Presigned: a secret while it lives, so it is kept in memory only."""
    expires_at: float = float("inf")
    """Clock.monotonic() seconds."""
    settlement: Settlement | None = None
    """The fate of the records, where staging was all there is to do."""

    def __repr__(self) -> str:
        """Return its name at the service, which is no secret."""
        return f"Staged({self.remote_id!r})"


class Released(msgspec.Struct, frozen=True):
    """What the service said when it was told to start."""

    remote_id: str | None
    """Its name from now on, which may be another one than it was staged by. None: batches have no names there; then
    there is a settlement."""
    settlement: Settlement | None = None
    """The fate of the records, where there is nothing to wait for."""


class Located(msgspec.Struct, frozen=True):
    """What a search for a batch has found."""

    names: Sequence[str] = ()
    """Of batches there whose tasks have its client reference."""
    settlement: Settlement | None = None
    """What became of its records, where batches have no names: those that were not found are uncertain in it. It holds
    only what has a mark of this batch, for the same records may stand in a source twice."""
    unclear: frozenset[int] = frozenset()
    """Positions that are uncertain in it for another reason: something was found that is, or may be, their record. They
    count as neither missing nor created."""


async def _no_payload() -> Payload:
    raise SourceChanged("the records of this batch cannot be read here")


class Asked(msgspec.Struct, frozen=True):
    """One open batch that a poll is about."""

    sequence: int
    remote_id: str | None
    count: int
    """Records that went up."""
    unmoved: bool = False
    """Nothing of it has moved for the whole settle time."""
    payload: Callable[[], Awaitable[Payload]] = _no_payload
    """Reads its payload again, for a service that tells tasks by their content. Raises: SourceChanged."""


class BatchProgress(msgspec.Struct, frozen=True):
    """What one poll says of one batch."""

    sequence: int
    created: int
    finished: bool
    """Nothing more will happen, as far as a poll can tell: its settlement can be fetched, unless it is here already."""
    settlement: Settlement | None = None
    waiting: bool = False
    """It was released and has not been begun yet, as far as the service shows."""
    said: str = ""
    """The service's own word for where it stands."""
    understood: bool = True
    """It is a word that we know."""


BatchLookup: TypeAlias = Callable[[int], Awaitable[tuple[Batch, Submission] | None]]
"""Sequence → the batch and where it stands; None if there is none."""


SampleTask: TypeAlias = Callable[[random.Random, str], Row]
"""(what draws, name of the task) → a made-up task that the service would take."""


class Column(msgspec.Struct, frozen=True):
    """A column of a source, as its first records show it."""

    name: str
    type: str
    """Of its values, in the words of `source.types`: string, integer, number, boolean or json."""
    values: Sequence[Any]
    """The first few that are not empty: texts of a table, else values of JSON."""
    textual: bool
    """It is of a table: its values are strings unless `source.types` says otherwise."""


class MappingProposal(msgspec.Struct, frozen=True):
    """How rows may become tasks, as far as that can be told without the service; a person looks at it."""

    mapping: Mapping[str, Any] = {}
    """`[mapping]`; {}: the rows are tasks already."""
    types: Mapping[str, str] = {}
    """`[source.types]`."""
    notes: Sequence[str] = ()
    """What the person should know of it, a line of comment each."""


ProposeMapping: TypeAlias = Callable[[Sequence[Column], Any], MappingProposal]
"""(columns of a source, settings of the service) → how its rows may become tasks."""


AnswerPreview: TypeAlias = Callable[[Call, Any], Answer | None]
"""(call, settings of the service) → what it would answer if all went well; None if only the service can know."""

TakenFrom: TypeAlias = Callable[[Call, Answer, Any], Sequence[tuple[str, str]]]
"""(call, answer of any status, settings of the service) → what is taken from it, by name, in words for people."""

LaterCalls: TypeAlias = Callable[[Any], Sequence[Call]]
"""Settings of the service → the calls that follow when a batch is up, with names in place of values."""

SourceKeys: TypeAlias = Callable[[Any], Callable[[Payload], Sequence[str]] | None]
"""Settings of the service → what returns the key of each task; None where keys cannot stand twice in a source."""


@runtime_checkable
class ServiceModule(Protocol):
    """A service as the configuration finds it: a module mostly, or an object with the same two names.

    `SERVICES` in `commands.wiring` or an entry point names it. It may have a function `sample`, a `SampleTask`: a bench
    without files makes its tasks by it. And a function `read_callback`, a `http.receiver.ReadCallback`, if the service
    calls back when it has created tasks. And a function `answer_preview`, an `AnswerPreview`: `preview` shows a call
    that depends on the answer to another one only by it. And functions `taken_from`, a `TakenFrom`, and `later_calls`,
    a `LaterCalls`: `check --trace` shows what they return. And a function `propose_mapping`, a `ProposeMapping`: `init`
    writes what it returns. And a function `source_keys`, a `SourceKeys`: `validate` finds keys that stand twice by it.
    """

    SETTINGS: type[ServiceSettings]

    def build(
        self,
        settings: Any,
        batch: BatchSettings,
        job: Job,
        caller: Caller,
        clock: Clock,
        emit: Listener = unheard,
    ) -> Service:
        """Return the service. `settings`: `[service]`, checked by SETTINGS. `emit` is told what was `Noticed`."""


class Service(Protocol):
    """A remote API that accepts tasks: what each must have. What it can besides stands in abilities of their own.

    `release` is the whole of a service that creates tasks by one call. One whose `Released` brings no settlement has
    `polling`.
    """

    kind: str
    limits: Limits
    settle_seconds: float
    """Longest time from a call until reads show its effect, where the configuration does not say; see
    `adaptive.settle_time`.
    """
    key_seconds: float
    """Where `again` is KEY, for so long after the first attempt the service knows its key; else inf."""

    @property
    def again(self) -> Again:
        """What makes it safe to release a batch again whose release was lost."""

    @property
    def staging(self) -> Staging | None:
        """A harmless first step. None: `release` carries the payload and is never repeated on its own."""

    @property
    def drafting(self) -> Drafting | None:
        """Finds what a lost call to stage made; wherever `stage_again` is SEARCH."""

    @property
    def referencing(self) -> Referencing | None:
        """Finds tasks by a client reference; wherever `again` may be SEARCH."""

    @property
    def polling(self) -> Polling | None:
        """Asks about batches by their names; wherever `again` is ASK or REFUSED, or a batch is not settled at once."""

    @property
    def canceling(self) -> Canceling | None:
        """Stops what is not created yet."""

    @property
    def counting(self) -> Counting | None:
        """Counts how created tasks stand."""

    @property
    def refreshing(self) -> Refreshing | None:
        """Tells how each created task stands; wherever `undoing` is."""
        ...

    @property
    def undoing(self) -> Undoing | None:
        """Takes created tasks back that have not begun."""
        ...

    @property
    def checking(self) -> Checking | None:
        """Can be asked whether a load would go well, before there is any."""
        ...

    @property
    def plain_task(self) -> type[msgspec.Struct] | None:
        """What is known to pass `check` by its fields alone, each by itself; None: each task must be looked at.

        It is decoded in C, so a record costs a quarter. It may leave out tasks that `check` takes.
        """

    def check(self, task: Row) -> str | None:
        """Return why the service would not take this task, naming the field; None if it would. No I/O."""

    def task_url(self, task_id: str) -> str:
        """Return the page on which people see a task; of two tasks, the ids alone differ."""

    async def look(self) -> str:
        """Make a cheap call that carries no record; return what it shows of the place where tasks go, in words.

        It is made to explain a refusal, and to learn whether what was refused gets through without its records.
        """

    async def release(
        self,
        batch: Batch,
        remote_id: str | None,
        payload: Payload | None,
        intent: Intent = no_intent,
        *,
        sent_before: bool = False,
    ) -> Released:
        """Start the creation of tasks; `intent` is awaited before the call goes out, each time that it does.

        With `staging`, `remote_id` says what was staged; without it, there is the `payload`. `sent_before`: an earlier
        attempt of this batch, or of one whose half it is, may have arrived. Only then may what is there already be the
        work of this job.

        Raises:
            Refused: `again` is KEY, and `released_before`: an earlier attempt with the same key is still at work.
        """


@runtime_checkable
class Staging(Protocol):
    """A harmless first step: it may happen twice, or be forgotten."""

    @property
    def stage_again(self) -> Again:
        """What makes it safe to stage a batch again: SAFE, or SEARCH where people see what was made."""

    async def stage(
        self, batch: Batch, payload: Payload, *, earlier_id: str | None = None, intent: Intent = no_intent
    ) -> Staged:
        """Begin a batch harmlessly, or go on with what an earlier attempt made: `earlier_id`, if that is still there.

        `intent` is awaited before a call goes out that makes what people see.

        Raises:
            PossiblyApplied: the answer was lost; `stage_again` says what makes it safe to call again.
        """

    async def upload(self, staged: Staged, payload: Payload, *, few_tries: bool = False) -> None:
        """Bring the payload to a staged batch; may be repeated. `few_tries`: as of the `Call` that it is."""


@runtime_checkable
class Drafting(Protocol):
    """What was staged is a draft: people see it, and it has a client reference, by which it is found again."""

    async def find(self, batch: Batch, payload: Payload) -> str | None:
        """Look once for what an attempt to stage made, if its answer was lost; return its name, None if not seen.

        None is no proof: it may still be on its way.
        """

    async def find_extras(self, lookup: BatchLookup) -> Sequence[str]:
        """Return the names of drafts that have a marker of this job and that the ledger does not know."""


@runtime_checkable
class Referencing(Protocol):
    """Tasks carry a client reference of their batch, so that a batch without a name is found again."""

    async def learn(self) -> str:
        """Ask what must be known before anything is frozen, and return it, never "".

        It is asked once and remembered as `Job.learnt`, so that every run makes the same payloads.
        """

    def reference(self, sequence: int) -> ClientReference | None:
        """Return the client reference of the tasks of a batch, by which `locate` finds them; None if it cannot."""

    async def locate(self, batch: Batch, payload: Payload, since: float) -> Located:
        """Search for a batch sent without a name of its own at `since` (Unix seconds); return what is there of it.

        Nothing found is no proof: it may still be on its way.
        """


@runtime_checkable
class Polling(Protocol):
    """Batches have names, by which the service can be asked about them."""

    polls_together: int
    """Batches that one `progress` call covers."""
    open_batches: int
    """Batches that may be open at once where the settings do not say; memory bounds it."""

    async def remote_status(self, remote_id: str) -> RemoteStatus:
        """Ask whether a batch was released.

        Raises:
            UnexpectedAnswer: the answer makes no sense.
        """

    async def progress(self, followed: Sequence[Asked]) -> Sequence[BatchProgress]:
        """Ask how far up to `polls_together` batches are."""

    async def settlement(self, asked: Asked) -> Settlement | None:
        """Fetch the fate of each record of a batch that the newest poll has called finished; it asked the same.

        None: a closer look shows that it is not finished; it is asked about again.
        """


@runtime_checkable
class Canceling(Protocol):
    """Creation can be stopped."""

    async def cancel(self, remote_id: str) -> None:
        """Ask the service to create nothing more of a batch."""


@runtime_checkable
class Counting(Protocol):
    """The work on created tasks can be counted."""

    polls_together: int
    """Batches that one `count_work` call covers; as in `Polling`."""

    async def count_work(self, remote_ids: Sequence[str]) -> Mapping[str, int]:
        """Count the created tasks of up to `polls_together` batches by how the work on them stands."""

    def counting_seconds(self, tasks: Sequence[int]) -> float:
        """Return how long it takes at least to count batches of so many created tasks: people are told beforehand."""
