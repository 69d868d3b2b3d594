"""Services whose release may be repeated: by an upsert, an idempotency key, or unique keys; and those that search."""

from dataclasses import dataclass, field

import orjson

from engine.model.batch import batch_name
from engine.model.doubt import Again
from engine.model.error_hints import Blame
from engine.model.errors import PossiblyApplied, Refused
from engine.model.outcome import Settlement
from engine.services.base import Located, Released, no_intent
from fakes.service import FakeService


@dataclass
class RepeatableService(FakeService):
    """`FakeService`, of which one call creates the records of a batch."""

    stages: bool = False
    kept: Again = Again.KEY
    """How it keeps that a repeat does no more than once."""
    refuses_whole: bool = False
    """It refuses a batch as a whole for a record that is there."""
    there: dict = field(default_factory=dict)
    """Id in the data of a task → name of the call that created it."""
    answers: dict = field(default_factory=dict)
    """Idempotency key → what was answered."""
    sent: list = field(default_factory=list)
    """(name of the batch, sent_before) of each call, as it goes out."""

    polling = canceling = counting = None

    @property
    def again(self):
        return self.kept

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        await intent()
        self.sent.append((batch_name(batch.sequence), sent_before))
        async with self._call("release", "send"):
            self._refuse_as_a_whole(payload, "too large")
            await self._keep_waiting(payload, PossiblyApplied("post timed out"))
            self._turn_away(payload, Blame.SUSPECT)
            self._refuse_poison(payload)
            settlement = self._made(batch, orjson.loads(payload.array), sent_before)
        return Released(None, settlement)

    def _made(self, batch, tasks, sent_before):
        if self.kept is Again.KEY:
            if batch.sequence not in self.answers:
                self.answers[batch.sequence] = self._create_each(batch, tasks, ())
            return self.answers[batch.sequence]
        known = [at for at, task in enumerate(tasks) if task["data"]["id"] in self.there]
        if self.kept is Again.EXISTS and known and self.refuses_whole and len(tasks) > 1:
            raise Refused("a key is there already", status=400, blame=Blame.PAYLOAD)
        settlement = self._create_each(batch, tasks, known)
        if self.kept is Again.SAFE or sent_before:
            return settlement
        errors = dict.fromkeys(known, "it is there already")
        return Settlement([None if at in errors else one for at, one in enumerate(settlement.task_ids)], errors)

    def _create_each(self, batch, tasks, known):
        new = [task for at, task in enumerate(tasks) if at not in known]
        self.journal += new
        self.there |= {task["data"]["id"]: batch_name(batch.sequence) for task in new}
        return Settlement([f"t{task['data']['id']}" for task in tasks])


@dataclass
class SearchedService(FakeService):
    """One call creates the records, and batches have no names: a search by mark tells of each record if it is there."""

    stages: bool = False
    marks: bool = True
    reaches: int = 10**9
    """Records of a batch that a call gets to."""
    blind: bool = False
    """A search finds nothing."""
    created_at: dict = field(default_factory=dict)
    """Mark and id in the data of a task → when it was created."""

    again = Again.SEARCH
    polling = canceling = counting = None

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        await intent()
        tasks = orjson.loads(payload.array)
        async with self._call("release", "send"):
            self._refuse_poison(payload)
            reached = tasks[: self.reaches]
            self.journal += reached
            self.created_at |= {self._key(task): self.clock.monotonic() for task in reached}
        return Released(None, Settlement([self._id(task) for task in tasks]))

    async def locate(self, batch, payload, since):
        async with self._call("locate", "ask"):
            tasks = orjson.loads(payload.array)
            missing = [at for at, task in enumerate(tasks) if not self._shows(task)]
            ids = [None if at in missing else self._id(task) for at, task in enumerate(tasks)]
            return Located(settlement=Settlement(ids, uncertain=dict.fromkeys(missing, "it was not found")))

    def _shows(self, task):
        made = self.created_at.get(self._key(task), float("inf"))
        return not self.blind and self.clock.monotonic() - made >= self.seen_after

    def _key(self, task):
        return task["data"]["mark"], task["data"]["id"]

    def _id(self, task):
        return f"t{task['data']['id']}"


@dataclass
class RenamingService(FakeService):
    """A batch is staged by one name, and has another one once it is released, by which it can be searched for."""

    marks: bool = True

    again = Again.SEARCH

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        await super().release(batch, remote_id, payload, intent, sent_before=sent_before)
        return Released(f"job-{remote_id}")

    def _create(self, remote_id):
        super()._create(remote_id)
        self.remotes[f"job-{remote_id}"] = self.remotes[remote_id]

    async def locate(self, batch, payload, since):
        located = await super().locate(batch, payload, since)
        return Located([name for name in located.names if name.startswith("job-")])
