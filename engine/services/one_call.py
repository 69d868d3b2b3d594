"""The base of the simplest service: one call creates the tasks of a batch, and its answer says what became of each.

A service in a package of its own begins here; it has no ability of `services.base`. A record is created only if the
answer names its task.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from engine.adaptive.settle_time import SETTLE_SECONDS
from engine.clock import Clock
from engine.model.batch import Batch, Limits
from engine.model.doubt import REPEATABLE, Again
from engine.model.error_hints import Carries
from engine.model.errors import UnexpectedAnswer
from engine.model.job import Job
from engine.model.outcome import Settlement
from engine.model.payload import NO_TASKS, Payload
from engine.model.record import Row
from engine.model.settings import BatchSettings
from engine.progress.events import Listener, unheard
from engine.services.base import Answer, Call, Caller, Intent, Released, no_intent
from engine.services.decoding import MOST_ID_CHARACTERS, words


class OneCall:
    """A service that lacks all abilities. A subclass has `request` and `settle`; `build = Subclass` makes it known.

    A call whose answer is lost leaves its records uncertain: nothing makes it safe to send them again. Where something
    does, a subclass says so: `again` is SAFE, or KEY (with `key_seconds`, and a key that `request` makes of the batch).
    With EXISTS it has a `release` of its own, since what is there already counts as created only with `sent_before`.
    """

    again = Again.NEVER
    settle_seconds = SETTLE_SECONDS
    key_seconds = float("inf")
    staging = drafting = referencing = polling = canceling = counting = None
    refreshing = undoing = checking = plain_task = None

    def __init__(
        self,
        settings: Any,
        batch: BatchSettings,
        job: Job,
        caller: Caller,
        clock: Clock,
        emit: Listener = unheard,
    ) -> None:
        """Take the parts; `settings` is the service's own section of the configuration."""
        self.kind: str = settings.kind
        self.limits = Limits(batch.max_records, batch.max_bytes)
        self.settings = settings
        self.job = job
        self.caller = caller
        self.clock = clock
        self.emit = emit

    def request(self, batch: Batch, payload: bytes) -> Call:
        """Return the call that creates the tasks of a batch; `payload` is the array of them, as JSON.

        Whoever needs each task by itself, or its index, has a `release` of its own: that gets the `Payload`.
        """
        raise NotImplementedError

    def settle(self, payload: bytes, answer: Answer) -> Settlement:
        """Return the fate of each record of the payload by the answer; what it does not name is no success.

        Raises:
            UnexpectedAnswer: it cannot be understood.
        """
        raise NotImplementedError

    def check(self, task: Row) -> str | None:
        """Return why the service would not take this task, naming the field: it takes everything."""
        del task
        return None

    def task_url(self, task_id: str) -> str:
        """Return where a task is, below the service's address."""
        return f"{self.settings.base_url.rstrip('/')}/{task_id}"

    async def look(self) -> str:
        """Call the service's address."""
        await self.caller.call(Call("look", "GET", self.settings.base_url))
        return "the service itself answers"

    async def release(
        self,
        batch: Batch,
        remote_id: str | None,
        payload: Payload | None,
        intent: Intent = no_intent,
        *,
        sent_before: bool = False,
    ) -> Released:
        """Make the one call."""
        del remote_id, sent_before
        array = (payload or NO_TASKS).array
        call = replace(self.request(batch, array), repeatable=False, intent=intent, carries=Carries.RECORDS)
        if self.again in REPEATABLE:  # one lost answer is repeated, and slows down nobody
            call = replace(call, reconcilable=True)
        settlement = self.settle(array, await self.caller.call(call))
        ids = [task_id for task_id in settlement.task_ids if task_id is not None]
        if len(settlement.task_ids) != batch.count or settlement.unclear():
            raise UnexpectedAnswer("the answer does not say of each record what became of it", call=call.kind)
        if len(set(ids)) != len(ids) or not all(map(_is_id, ids)):
            raise UnexpectedAnswer("the answer does not give each task an id of its own", call=call.kind)
        errors = {position: words(str(error)) for position, error in settlement.errors.items()}
        return Released(None, replace(settlement, errors=errors))


def _is_id(found: Any) -> bool:
    return isinstance(found, str) and 0 < len(found) <= MOST_ID_CHARACTERS and found.isprintable()
