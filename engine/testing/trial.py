"""What the checks of a service are made of: a `Subject`, and a `Trial` that carries its batches as the engine does.

`Between` stands between the service and its server, where it repeats calls, loses answers and spoils them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Any

import msgspec
import orjson
from msgspec.structs import replace

from engine.batch.chunker import with_reference
from engine.batch.planning import reference_of
from engine.clock import Clock, SystemClock
from engine.model.batch import Batch
from engine.model.error_hints import Carries
from engine.model.errors import PossiblyApplied
from engine.model.job import Job
from engine.model.outcome import Settlement
from engine.model.payload import Payload
from engine.model.record import Position, Row
from engine.model.settings import BatchSettings, ServiceSettings, of_text, secrets_in
from engine.progress.redaction import SHORTEST_SECRET
from engine.services.base import Answer, Asked, Call, Caller, Service, ServiceModule

MOST_POLLS = 200
"""Polls in which a batch must be settled."""


class PromiseBroken(AssertionError):
    """The service does not keep a promise."""


class SkippingClock:
    """A clock on which a sleep takes no time: it only moves the clock on. It begins now, as the server's does."""

    def __init__(self) -> None:
        self._start = SystemClock().now()
        self._passed = 0.0

    def now(self) -> float:
        """Return Unix seconds."""
        return self._start + self._passed

    def monotonic(self) -> float:
        """Return seconds since it was made."""
        return self._passed

    async def sleep(self, seconds: float) -> None:
        """Move on."""
        self._passed += max(0.0, seconds)


@dataclass
class Subject:
    """A service before a stand-in of its server, for one check."""

    module: ServiceModule
    """With SETTINGS and `build`."""
    keys: Mapping[str, Any]
    """Of `[service]`; secrets as texts."""
    caller: Caller
    """Makes one call to the stand-in, and repeats none."""
    good: Sequence[Row]
    """Tasks that are created, unlike each other; two at least."""
    bad: Mapping[str, Row]
    """Field → a task that `check` finds fault with, naming the field."""
    created: Callable[[], int]
    """Tasks that the stand-in has created, as its own account says."""
    refused: Sequence[Row] = ()
    """Tasks that `check` lets pass, and the server says no to, each by itself."""
    clock: Clock = field(default_factory=SkippingClock)

    @property
    def secrets(self) -> Sequence[str]:
        """The values of the keys that hold secrets; a short one would be found by chance where it is none."""
        return [one for one in secrets_in(self.settings()) if len(one) >= SHORTEST_SECRET]

    def settings(self) -> ServiceSettings:
        """Return the checked `[service]`."""
        return msgspec.convert(self.keys, self.module.SETTINGS, strict=False, dec_hook=of_text)


def never(call: Call) -> bool:
    """Lose no call."""
    del call
    return False


@dataclass
class Between:
    """The caller that a check puts between service and server: an honest network, unless told otherwise."""

    caller: Caller
    calls: list[Call] = field(default_factory=list)
    heard: list[Answer] = field(default_factory=list)
    twice: bool = False
    """Make each call twice that is said to be repeatable."""
    loses_call: Callable[[Call], bool] = never
    """Calls that do not get to the server."""
    loses_answer: Callable[[Call], bool] = never
    spoil: Callable[[Answer], Answer] | None = None
    """What becomes of the answers."""
    intents: int = 0
    """Times that the engine was told that a call goes out."""
    unannounced: list[Call] = field(default_factory=list)
    """Calls that must not be repeated, and went out without a durable intent."""

    async def call(self, call: Call) -> Answer:
        """Make a call, or let it get lost."""
        self.calls.append(call)
        known = self.intents
        if call.intent is not None:
            await call.intent()
        if not call.repeatable and self.intents == known:
            self.unannounced.append(call)
        if self.loses_call(call):
            raise PossiblyApplied(f"{call.kind}: it was lost on its way", call=call.kind)
        answer = await self.caller.call(call)
        if self.twice and call.repeatable and call.carries is not Carries.RELEASE:  # a second release may be refused
            answer = replace(await self.caller.call(call), earlier_lost=True)  # why a caller repeats a call
        if self.loses_answer(call):
            raise PossiblyApplied(f"{call.kind}: the answer was lost", call=call.kind)
        self.heard.append(answer)
        return self.spoil(answer) if self.spoil else answer


class Trial:
    """One job of a check: it takes batches along the way that the engine takes them."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.between = Between(subject.caller)
        self.job = Job("conformance", subject.keys["kind"], "", (), "", created_at=subject.clock.now())
        self.service = self.built()
        self._sequences = count()
        self._reached = Position()
        """Where the batch that was made last ends in the input that all of them would come from."""

    def built(self) -> Service:
        """Return the service as a new process has it."""
        subject = self.subject
        return subject.module.build(subject.settings(), BatchSettings(), self.job, self.between, subject.clock)

    @classmethod
    async def of(cls, subject: Subject) -> Trial:
        """Begin a job, as a run does."""
        trial = cls(subject)
        if trial.service.referencing is not None:
            trial.job = replace(trial.job, learnt=await trial.service.referencing.learn())
            trial.service = trial.built()
        return trial

    def batch(self, tasks: Sequence[Row]) -> tuple[Batch, Payload]:
        """Return a frozen batch of the first of some tasks, as many as it may hold, and its payload."""
        sequence, tasks = next(self._sequences), tasks[: self.service.limits.records]
        marked = with_reference([orjson.dumps(task) for task in tasks], reference_of(self.service)(sequence))
        start = self._reached
        payload = Payload.of(marked, range(start.index, start.index + len(tasks)))
        size, proof = len(payload.array), sha256(payload.array).digest()
        self._reached = Position(start.offset + size, start.index + len(tasks))
        return Batch(sequence, start, self._reached, len(tasks), size, proof, b""), payload

    async def intend(self) -> None:
        """Note that a call goes out: the engine makes it durable."""
        self.between.intents += 1

    async def staged(
        self, batch: Batch, payload: Payload, earlier_id: str | None = None
    ) -> tuple[str, Settlement | None]:
        """Stage and upload a batch; return its name there, and its settlement, if that was all."""
        staging = self.service.staging
        assert staging is not None  # noqa: S101 - for the type: whoever calls has asked
        staged = await staging.stage(batch, payload, earlier_id=earlier_id, intent=self.intend)
        if staged.settlement is None:
            await staging.upload(staged, payload)
        return staged.remote_id, staged.settlement

    async def released(
        self, batch: Batch, remote_id: str | None, payload: Payload, *, sent_before: bool = False
    ) -> tuple[str | None, Settlement | None]:
        """Release a batch; `sent_before`: an attempt before this one was lost."""
        alone = payload if self.service.staging is None else None
        released = await self.service.release(batch, remote_id, alone, self.intend, sent_before=sent_before)
        return released.remote_id, released.settlement

    async def carried(self, batch: Batch, payload: Payload) -> Settlement:
        """Take a batch along its whole way."""
        return (await self.carried_as(batch, payload))[1]

    async def carried_as(self, batch: Batch, payload: Payload) -> tuple[str | None, Settlement]:
        """Likewise; return its name there, too."""
        name: str | None = None
        if self.service.staging is not None:
            name, settlement = await self.staged(batch, payload)
            if settlement is not None:
                return name, settlement
        name, settlement = await self.released(batch, name, payload)
        return name, settlement if settlement is not None else await self.followed(batch, name, payload)

    async def followed(self, batch: Batch, name: str | None, payload: Payload) -> Settlement:
        """Poll a batch until it is settled."""
        polling = self.service.polling
        hold(polling is not None and name, "its release brings neither a settlement nor a name to ask by")
        assert polling is not None  # noqa: S101 - for the type
        assert name is not None  # noqa: S101 - likewise

        async def read() -> Payload:
            return payload

        for number in range(MOST_POLLS):
            asked = Asked(batch.sequence, name, batch.count, unmoved=number > MOST_POLLS // 2, payload=read)
            (progress,) = await polling.progress([asked])
            settlement = progress.settlement
            if progress.finished and settlement is None:
                settlement = await polling.settlement(asked)
            if settlement is not None:
                return settlement
            await self.subject.clock.sleep(1.0)
        raise PromiseBroken(f"{MOST_POLLS} polls do not settle a batch that is created at once")


def hold(promise: object, otherwise: str) -> None:
    """Raise `PromiseBroken` with these words unless a promise is kept."""
    if not promise:
        raise PromiseBroken(otherwise)


def fates_in_words(settlement: Settlement) -> str:
    """Return the fate of each record, in words."""
    told = {at: "has no fate" for at, task_id in enumerate(settlement.task_ids) if task_id is None}
    told |= {at: f"created as {task_id}" for at, task_id in enumerate(settlement.task_ids) if task_id is not None}
    told |= {at: f"failed ({why})" for at, why in settlement.errors.items()}
    told |= {at: f"uncertain ({why})" for at, why in settlement.uncertain.items()}
    return "; ".join(f"record {at} {said}" for at, said in sorted(told.items()))


def hold_settled(settlement: Settlement, batch: Batch) -> None:
    """Hold that each record has exactly one fate, and each task an id of its own."""
    hold(len(settlement.task_ids) == batch.count, f"{len(settlement.task_ids)} fates for {batch.count} records")
    unclear = sorted(settlement.unclear())
    hold(not unclear, f"records {unclear} have none of an id, an error and an uncertainty, or two of them")
    ids = [task_id for task_id in settlement.task_ids if task_id not in {None, ""}]  # "" is there, and nobody names it
    hold(all(isinstance(one, str) for one in ids), f"ids must be texts: {ids}")
    hold(len(set(ids)) == len(ids), f"two records have the same id: {sorted(ids)}")
