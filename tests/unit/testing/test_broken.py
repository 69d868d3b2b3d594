"""Each check is seen to fail: by a toy that breaks just its promise, or by a service that stages and does."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import orjson
import pytest
from fakes.toy import KEY
from msgspec.structs import replace

from engine.batch.planning import service_at
from engine.model.batch import ClientReference
from engine.model.doubt import Again, RemoteStatus
from engine.model.errors import PossiblyApplied, Refused
from engine.model.outcome import Settlement
from engine.services.base import Answer, BatchProgress, Call, Located, Released, Staged, no_intent
from engine.services.created import TaskState
from engine.services.decoding import Anything, decode
from engine.services.one_call import OneCall
from engine.testing import CHECKS, PromiseBroken, Subject, checks
from engine.testing.trial import fates_in_words

from .subjects import toy

TOY = service_at("bulksubmit_toy")


def module(service, settings=TOY.SETTINGS):
    """Return what an entry point would name."""
    return SimpleNamespace(SETTINGS=settings, build=service)


def broken_toy(*, settings=TOY.SETTINGS, **parts):
    """Return a way to a toy of which some parts are other ones."""
    return toy(module(type("Wrong", (TOY.Toy,), parts), settings))


class AskingToy(TOY.Toy):
    def check(self, task):
        self.caller.calls.append("check")


class CallingToy(TOY.Toy):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.caller.calls.append("while it is built")


class LyingToy(TOY.Toy):
    """Calls each record created that the answer does not call failed."""

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        answer = await self.caller.call(replace(self.request(batch, payload.array), repeatable=False, intent=intent))
        body = orjson.loads(answer.body or b"{}")
        items = body.get("items", []) if isinstance(body, dict) else []
        ids = [f"t{at}" for at in range(batch.count)]
        errors = {at: "no" for at, item in enumerate(items) if "error" in item}
        return Released(None, Settlement([None if at in errors else one for at, one in enumerate(ids)], errors))


class CrashingToy(TOY.Toy):
    def settle(self, payload, answer):
        items = orjson.loads(answer.body)["items"]
        errors = {at: item["error"] for at, item in enumerate(items) if "error" in item}
        return Settlement([item.get("id") for item in items], errors)


class TrustingToy(TOY.Toy):
    """Believes that ids differ."""

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        answer = await self.caller.call(replace(self.request(batch, payload.array), repeatable=False, intent=intent))
        return Released(None, self.settle(payload.array, answer))


class RepeatableToy(LyingToy):
    """Says of its one call that it may be repeated."""

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        answer = await self.caller.call(self.request(batch, payload.array))
        return Released(None, self.settle(payload.array, answer))


class SilentToy(TrustingToy):
    """Does not hand the intent on."""

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        return await super().release(batch, remote_id, payload, no_intent, sent_before=sent_before)


class LoudToy(TOY.Toy):
    def request(self, batch, payload):
        call = super().request(batch, payload)
        return replace(call, headers={"X-Api-Key": KEY})


TOYS = {
    "is_built_without_a_call": toy(module(CallingToy)),
    "has_the_abilities_that_it_names": broken_toy(again=Again.ASK),
    "checks_tasks_without_io": toy(module(AskingToy)),
    "checks_tasks_without_io, but proves too much": broken_toy(plain_task=Anything),
    "creates_each_task_once": broken_toy(
        settle=lambda self, payload, answer: Settlement.refused(len(orjson.loads(payload)), "none is named")
    ),
    "repeatable_calls_do_no_more_when_repeated": toy(module(RepeatableToy)),
    "says_when_a_call_goes_out": toy(module(SilentToy)),
    "nonsense_creates_nothing": toy(module(LyingToy)),
    "nonsense_creates_nothing, but crashes": toy(module(CrashingToy)),
    "ids_that_two_tasks_have_are_none": toy(module(TrustingToy)),
    "secrets_stay_where_they_are": toy(module(LoudToy)),
}


@pytest.mark.parametrize("name", TOYS)
async def test_a_toy_that_breaks_a_promise_is_found_out(tmp_path, name):
    check = getattr(checks, name.partition(",")[0])
    async with TOYS[name](tmp_path) as subject:
        if name == "is_built_without_a_call":
            subject.caller.calls = []
        with pytest.raises(PromiseBroken):
            await check(subject)


@dataclass
class Remote:
    """The server of a service that stages: batches by name, and what was created."""

    batches: dict = field(default_factory=dict)
    created: list = field(default_factory=list)

    async def call(self, call):
        return Answer(200, {}, orjson.dumps(self._done(call.kind, call.url, call.body)))

    def _done(self, kind, url, body):
        name = url.rpartition("/")[2]
        if kind == "stage":
            name = str(len(self.batches) + 1)
            self.batches[name] = {"state": "waiting", "mark": name, "tasks": []}
            return {"name": name}
        if name not in self.batches:
            raise Refused("there is none", status=404)
        batch = self.batches[name]
        if kind == "put":
            batch["tasks"] = orjson.loads(body)
        if kind == "cancel":
            batch["state"] = "canceled"
        if kind == "release":
            if batch["state"] != "waiting":
                raise Refused("it does not wait", status=409)
            batch["state"] = "done"
            self.created += batch["tasks"]
        return {"state": batch["state"], "ids": [f"{name}-{at}" for at in range(len(batch["tasks"]))]}


class Stager:
    """A service with most abilities, and the ways in which it may be broken."""

    kind, settle_seconds, polls_together, open_batches = "toy", 1.0, 1, 10
    broken, counting, drafting, referencing, plain_task, checking = "", None, None, None, None, None
    undone_together, by_people = 10, False
    again, stage_again = Again.ASK, Again.SAFE

    def __init__(self, settings, batch, job, caller, clock):
        self.caller, self.limits = caller, OneCall(settings, batch, job, caller, clock).limits
        self.staging = self.polling = self.canceling = self.refreshing = self.undoing = self
        self.undone = set()

    def check(self, task):
        return None if "title" in task else "title: missing"

    def task_url(self, task_id):
        return f"https://toy.example/{task_id}"

    async def look(self):
        return "it is there"

    async def _call(self, kind, name="", body=None, **flags):
        call = Call(kind, "POST", f"https://toy.example/{name}", body=body, **flags)
        return decode(await self.caller.call(call), dict)

    async def stage(self, batch, payload, *, earlier_id=None, intent=no_intent):
        said = await self._call("stage", intent=intent, repeatable=self.broken != "stage")
        return Staged(str(said.get("name")))

    async def upload(self, staged, payload, *, few_tries=False):
        await self._call("put", staged.remote_id, payload.array)

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        try:
            await self._call("release", remote_id, repeatable=False, intent=intent)
        except Refused as refusal:
            refusal.released_before = self.broken != "unsaid"
            raise
        return Released(remote_id)

    async def remote_status(self, remote_id):
        if self.broken == "unknown":
            return RemoteStatus.WAITING
        state = (await self._call("status", remote_id)).get("state")
        if self.broken == "ask" or (self.broken == "canceled" and state == "canceled"):
            return RemoteStatus.WAITING
        if self.broken == "started":
            return RemoteStatus.STARTED
        return {"waiting": RemoteStatus.WAITING, "canceled": RemoteStatus.ENDED}.get(state, RemoteStatus.STARTED)

    async def progress(self, followed):
        (asked,) = followed
        word = str((await self._call("status", asked.remote_id)).get("state"))
        understood = self.broken == "words" or word in {"waiting", "done", "canceled"}
        return [BatchProgress(asked.sequence, 0, word == "done", said=word, understood=understood)]

    async def settlement(self, asked):
        return Settlement((await self._call("status", asked.remote_id))["ids"])

    async def cancel(self, remote_id):
        if self.broken != "cancel":
            await self._call("cancel", remote_id)

    async def task_states(self, batches):
        (asked,) = batches
        ids = (await self._call("status", asked.remote_id)).get("ids", ())
        shown = ids if self.broken == "undo" else [one for one in ids if one not in self.undone]
        return {task_id: TaskState("new", untouched=True) for task_id in shown[self.broken == "hidden" :]}

    async def undo(self, task_ids):
        self.undone.update(task_ids)


class RefusingStager(Stager):
    again = Again.REFUSED


class ForgettingDrafter(Stager):
    """Says that it finds what a lost stage made, and does not."""

    stage_again = Again.SEARCH

    def __init__(self, *parts):
        super().__init__(*parts)
        self.drafting = self

    async def find(self, batch, payload):
        return None

    async def find_extras(self, known):
        return ()


class ForgettingSearcher(Stager):
    again = Again.SEARCH

    def __init__(self, *parts):
        super().__init__(*parts)
        self.referencing, self.staging = self, None

    async def learn(self):
        return "marked"

    def reference(self, sequence):
        return ClientReference("data", "mark", str(sequence))

    async def locate(self, batch, payload, since):
        return Located(["1", "2"])

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        name = (await self._call("stage", repeatable=False, intent=intent))["name"]
        await self._call("put", name, payload.array)
        await self._call("release", name)
        return Released(name)


class RenamingSearcher(ForgettingSearcher):
    """Finds a batch by a URL, and calls it by a number when it is released."""

    async def locate(self, batch, payload, since):
        return Located(["https://toy.example/1"])


def stager(broken="", service=Stager):
    remote = Remote()
    kept = type("Wrong", (service,), {"broken": broken})
    keys = {"kind": "toy", "base_url": "https://toy.example", "api_key": KEY}
    good = [{"title": "a", "data": {}}, {"title": "b", "data": {}}]
    return Subject(module(kept), keys, remote, good, {"title": {}}, created=lambda: len(remote.created))


@pytest.mark.parametrize("service", [Stager, RefusingStager])
@pytest.mark.parametrize("check", [check for check in CHECKS if check is not checks.nonsense_creates_nothing])
async def test_a_stager_that_keeps_its_promises_passes(check, service):
    await check(stager(service=service))


@pytest.mark.parametrize(
    ("check", "broken", "service"),
    [
        (checks.a_lost_stage_is_harmless, "", ForgettingDrafter),
        (checks.a_lost_release_that_arrived_is_known, "ask", Stager),
        (checks.a_lost_release_that_arrived_is_known, "unsaid", RefusingStager),
        (checks.a_lost_release_that_arrived_is_known, "", ForgettingSearcher),
        (checks.a_lost_release_that_never_arrived_is_known, "started", Stager),
        (checks.a_search_names_a_batch_as_its_release_did, "", RenamingSearcher),
        (checks.a_batch_that_is_not_there_is_said_to_be_unknown, "unknown", Stager),
        (checks.canceled_is_not_created, "canceled", Stager),
        (checks.canceled_is_not_created, "cancel", Stager),
        (checks.undone_is_gone, "undo", Stager),
        (checks.undone_is_gone, "hidden", Stager),
        (checks.words_that_it_does_not_know_are_said, "words", Stager),
    ],
)
async def test_a_stager_that_breaks_a_promise_is_found_out(check, broken, service):
    with pytest.raises(PromiseBroken):
        await check(stager(broken, service))


def test_fates_are_told_in_words():
    settlement = Settlement(["a", None, None, None], {1: "no"}, uncertain={2: "lost"})
    said = "record 0 created as a; record 1 failed (no); record 2 uncertain (lost); record 3 has no fate"
    assert fates_in_words(settlement) == said


async def test_a_stager_that_cannot_read_nonsense_is_found_out():
    with pytest.raises(PromiseBroken, match="KeyError"):
        await checks.nonsense_creates_nothing(stager())


def test_every_check_was_seen_to_fail():
    seen = {name.partition(",")[0] for name in TOYS}
    seen |= {"a_lost_stage_is_harmless", "a_lost_release_that_arrived_is_known", "words_that_it_does_not_know_are_said"}
    seen |= {"a_lost_release_that_never_arrived_is_known", "a_batch_that_is_not_there_is_said_to_be_unknown"}
    seen |= {"a_search_names_a_batch_as_its_release_did"}
    assert seen | {"canceled_is_not_created", "undone_is_gone"} == {check.__name__ for check in CHECKS}


async def test_an_answer_that_is_lost_must_not_pass_for_one_that_came():
    class Deaf(Stager):
        async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
            try:
                return await super().release(batch, remote_id, payload, intent, sent_before=sent_before)
            except PossiblyApplied:
                return Released(remote_id)

    with pytest.raises(PromiseBroken, match="goes well"):
        await checks.a_lost_release_that_arrived_is_known(stager(service=Deaf))
