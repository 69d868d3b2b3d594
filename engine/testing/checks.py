"""Checks that a service keeps what it promises to the engine.

Each check takes a `Subject` that no other check has used, and raises `PromiseBroken` with what is wrong. It knows no
service, and believes nobody but the stand-in of the server (`Subject.created`) about what was created. The module is a
long one, since it has a check for each promise.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, TypeAlias

import msgspec
import orjson
from msgspec.structs import replace

from engine.model.batch import Batch
from engine.model.doubt import REPEATABLE, Again, RemoteStatus
from engine.model.errors import BulkSubmitError, CallFailed, PossiblyApplied, Refused
from engine.model.outcome import Settlement
from engine.model.payload import Payload
from engine.model.record import Row
from engine.model.settings import BatchSettings
from engine.services.base import (
    Answer,
    Asked,
    Canceling,
    Counting,
    Drafting,
    Located,
    Polling,
    Referencing,
    Service,
    Staging,
)
from engine.services.checks import Checking
from engine.services.created import CreatedTasks, Refreshing, Undoing
from engine.testing.trial import PromiseBroken, Subject, Trial, fates_in_words, hold, hold_settled, never

Check: TypeAlias = Callable[[Subject], Awaitable[None]]

NONSENSE = (b"", b"null", b"[]", b"{}", b'{"unheard": "of"}', b"<html>busy</html>", b'{"cut": [')

ABILITIES: Mapping[str, type] = {
    "staging": Staging,
    "drafting": Drafting,
    "referencing": Referencing,
    "polling": Polling,
    "canceling": Canceling,
    "counting": Counting,
    "refreshing": Refreshing,
    "undoing": Undoing,
    "checking": Checking,
}


async def is_built_without_a_call(subject: Subject) -> None:
    """To validate, to report and to audit, a service is built without a network."""
    trial = Trial(subject)
    hold(not trial.between.calls, f"it calls {trial.between.calls} while it is built")
    hold(trial.service.kind == subject.keys["kind"], f"its kind is {trial.service.kind!r}")
    limits, batch = trial.service.limits, BatchSettings()
    hold(0 < limits.records <= batch.max_records, f"{limits} ignores the configuration's {batch.max_records} records")
    hold(0 < limits.bytes <= batch.max_bytes, f"{limits} ignores the configuration's {batch.max_bytes} bytes")
    pages = [trial.service.task_url(task_id) for task_id in ("one-7", "two-8")]
    hold("one-7" in pages[0], "task_url does not hold the task's id")
    hold(pages[1] == pages[0].replace("one-7", "two-8"), "task_url differs from task to task in more than the id")
    hold(subject.settings().__struct_config__.frozen, "its settings can be changed")


async def has_the_abilities_that_it_names(subject: Subject) -> None:
    """An ability is there as a whole; and what makes a call safe to repeat needs the ability that shows it."""
    service = (await Trial.of(subject)).service
    for name, ability in ABILITIES.items():
        one = getattr(service, name)
        hold(one is None or isinstance(one, ability), f"{name} lacks methods of {ability.__name__}")
    needs = {Again.ASK: service.polling, Again.REFUSED: service.polling, Again.SEARCH: service.referencing}
    hold(needs.get(service.again, service), f"again is {service.again}, and the ability that this needs is missing")
    hold(
        service.again is not Again.KEY or service.key_seconds > 0,
        "key_seconds says no time for a key",
    )
    hold(service.undoing is None or service.refreshing, "what is undone is looked at first: undoing needs refreshing")
    if service.staging is not None:
        stage_again = service.staging.stage_again
        hold(stage_again in {Again.SAFE, Again.SEARCH}, f"a stage that is lost may be made again, not {stage_again}")
        hold((stage_again is Again.SEARCH) == (service.drafting is not None), "drafting goes with stage_again SEARCH")


async def checks_tasks_without_io(subject: Subject) -> None:
    """`check` names what is wrong with a task, asks nobody and changes nothing; `plain_task` takes no bad one."""
    trial = Trial(subject)
    for task in (*subject.good, *subject.refused):
        before = orjson.dumps(task)
        said = trial.service.check(task)
        hold(said is None, f"check finds fault with a good task: {said}")
        hold(orjson.dumps(task) == before, "check changes the task")
    for name, task in subject.bad.items():
        said = trial.service.check(task)
        hold(not inspect.isawaitable(said), "check is asked per record: it must not be async")
        hold(isinstance(said, str) and name in said, f"check does not name {name!r}: {said}")
        hold(not _is_plain(trial.service, task), f"plain_task takes a task that check does not: {said}")
    hold(not trial.between.calls, f"check calls the service: {trial.between.calls}")


def _is_plain(service: Service, task: Row) -> bool:
    try:
        return service.plain_task is not None and bool(msgspec.convert(task, service.plain_task))
    except msgspec.ValidationError:
        return False


async def creates_each_task_once(subject: Subject) -> None:
    """Each task is created once, each refused one has the service's reason, and nothing else is said to be there."""
    await _create_all(subject, await Trial.of(subject))


async def repeatable_calls_do_no_more_when_repeated(subject: Subject) -> None:
    """The caller makes a repeatable call again whose answer was lost: twice must do no more than once."""
    trial = await Trial.of(subject)
    trial.between.twice = (
        trial.service.again is not Again.REFUSED
    )  # whose second release is refused, which is tried below
    await _create_all(subject, trial)


async def _create_all(subject: Subject, trial: Trial) -> None:
    made = 0
    left = [*subject.good[:1], *subject.refused, *subject.good[1:]]
    while left:
        batch, payload = trial.batch(left)
        wanted = [task not in subject.refused for task in left[: batch.count]]
        left = left[batch.count :]
        settlement = await trial.carried(batch, payload)
        hold_settled(settlement, batch)
        got = [task_id is not None for task_id in settlement.task_ids]
        hold(got == wanted, f"created are {got}, and should be {wanted}: {fates_in_words(settlement)}")
        hold(all(settlement.errors.get(at) for at, good in enumerate(wanted) if not good), "an error has no reason")
        made += sum(wanted)
    hold(subject.created() == made, f"{subject.created()} tasks were created of {made} that were sent once")


async def says_when_a_call_goes_out(subject: Subject) -> None:
    """A call that must not be repeated hands the intent on: so the ledger knows before it goes out."""
    trial = await Trial.of(subject)
    await trial.carried(*trial.batch(subject.good))
    kinds = sorted({call.kind for call in trial.between.unannounced})
    hold(not kinds, f"calls of the kind {kinds} are not repeatable, and go out without the intent")


async def a_lost_stage_is_harmless(subject: Subject) -> None:
    """After a call to stage whose answer was lost, the batch is staged again or found; it is created once."""
    trial = await Trial.of(subject)
    staging, drafting = trial.service.staging, trial.service.drafting
    if staging is None:
        return
    batch, payload = trial.batch(subject.good)
    trial.between.loses_answer = lambda call: call.repeatable is False or staging.stage_again is Again.SAFE
    try:
        await staging.stage(batch, payload, intent=trial.intend)
    except PossiblyApplied:
        pass
    else:
        raise PromiseBroken("stage goes well, though its answer is lost")
    trial.between.loses_answer = never
    known = None
    if drafting is not None:
        known = await drafting.find(batch, payload)
        hold(known, "find does not find what the lost call made")
    name, settlement = await trial.staged(batch, payload, known)
    if settlement is None:
        name, settlement = await trial.released(batch, name, payload)  # type: ignore[assignment]
    settled = settlement if settlement is not None else await trial.followed(batch, name, payload)
    hold_settled(settled, batch)
    hold(subject.created() == batch.count, f"{subject.created()} tasks were created of a batch of {batch.count}")


async def a_lost_release_that_arrived_is_known(subject: Subject) -> None:
    """After a release that was carried out, and whose answer was lost, the service shows it as `again` says."""
    trial = await Trial.of(subject)
    batch, payload = trial.batch(subject.good)
    name = await _lose_release(trial, batch, payload, arrives=True)
    service = trial.service
    settlement: Settlement | None = None
    if service.again is Again.ASK:
        await _wait_for_remote_status(trial, name, RemoteStatus.STARTED, RemoteStatus.ENDED)
    elif service.again is Again.REFUSED:
        try:
            await trial.released(batch, name, payload)
        except Refused as refusal:
            hold(refusal.released_before, f"a second release is refused without released_before: {refusal}")
        else:
            raise PromiseBroken("a second release is not refused")
    elif service.again is Again.SEARCH:
        name, settlement = await _located(trial, batch, payload)
        hold(name or settlement, "locate does not find what the lost call made")
    elif service.again in REPEATABLE:
        name, settlement = await trial.released(batch, name, payload, sent_before=True)
    if service.again is not Again.NEVER:
        settled = settlement if settlement is not None else await trial.followed(batch, name, payload)
        hold_settled(settled, batch)
        hold(
            settled.created == batch.count,
            f"what a lost call has made is not told as created: {fates_in_words(settled)}",
        )
    hold(subject.created() == batch.count, f"{subject.created()} tasks were created of a batch of {batch.count}")


async def a_lost_release_that_never_arrived_is_known(subject: Subject) -> None:
    """After a release that did not arrive, the service shows that nothing was begun, and a second one does it."""
    trial = await Trial.of(subject)
    batch, payload = trial.batch(subject.good)
    if trial.service.again is Again.NEVER:
        return
    name = await _lose_release(trial, batch, payload, arrives=False)
    if trial.service.again is Again.ASK:
        await _wait_for_remote_status(trial, name, RemoteStatus.WAITING)
    if trial.service.again is Again.SEARCH:
        found, fates = await _located(trial, batch, payload)
        hold(not found and not fates, f"locate finds {found or fates}, and nothing was sent")
    name, settlement = await trial.released(batch, name, payload, sent_before=trial.service.again in REPEATABLE)
    hold_settled(settlement or await trial.followed(batch, name, payload), batch)
    hold(subject.created() == batch.count, f"{subject.created()} tasks were created of a batch of {batch.count}")


async def _lose_release(trial: Trial, batch: Batch, payload: Payload, *, arrives: bool) -> str | None:
    """Release a batch and lose it on the way, or its answer; return the name that it was staged by."""
    name = (await trial.staged(batch, payload))[0] if trial.service.staging is not None else None
    between = trial.between
    if arrives:
        between.loses_answer = lambda _: True
    else:
        between.loses_call = lambda _: True
    try:
        await trial.released(batch, name, payload)
    except PossiblyApplied:
        pass
    else:
        raise PromiseBroken("release goes well, though its answer is lost")
    finally:
        between.loses_answer = between.loses_call = never
    return name


async def _located(trial: Trial, batch: Batch, payload: Payload) -> tuple[str | None, Settlement | None]:
    """Return the name of a batch by a search, or the fates of its records if any of them is found."""
    referencing = trial.service.referencing
    located = await referencing.locate(batch, payload, trial.job.created_at) if referencing is not None else Located()
    hold(len(located.names) <= 1, f"locate finds {located.names}, and one batch was sent")
    found = located.settlement
    if found is not None:
        hold_settled(found, batch)
        found = found if found.created or found.errors else None
    return (located.names[0] if located.names else None), found


async def a_search_names_a_batch_as_its_release_did(subject: Subject) -> None:
    """A batch that a search finds is asked about by the name that the search gives: it must be that of the release."""
    trial = await Trial.of(subject)
    if trial.service.again is not Again.SEARCH or trial.service.staging is not None:
        return
    batch, payload = trial.batch(subject.good)
    name, _ = await trial.carried_as(batch, payload)
    found, _ = await _located(trial, batch, payload)
    hold(
        not (name and found) or name == found,
        f"a search calls the batch {found!r}, and its release called it {name!r}: both must take the same name",
    )


async def _wait_for_remote_status(trial: Trial, name: str | None, *wanted: RemoteStatus) -> None:
    polling = trial.service.polling
    remote_status = await polling.remote_status(str(name)) if polling is not None else RemoteStatus.SILENT
    hold(
        remote_status in wanted,
        f"remote_status is {remote_status.name}, and should be {' or '.join(one.name for one in wanted)}",
    )


async def a_batch_that_is_not_there_is_said_to_be_unknown(subject: Subject) -> None:
    """`remote_status` of a name that nobody has given is NOT_THERE, or the question is refused; nothing else."""
    polling = (await Trial.of(subject)).service.polling
    if polling is None:
        return
    try:
        remote_status = await polling.remote_status("0")
    except CallFailed:
        return
    hold(remote_status is RemoteStatus.NOT_THERE, f"a batch that is not there is said to be {remote_status.name}")


async def canceled_is_not_created(subject: Subject) -> None:
    """What is canceled before its release is not created, and not said to wait."""
    trial = await Trial.of(subject)
    service = trial.service
    if service.staging is None or service.canceling is None or service.polling is None:
        return
    batch, payload = trial.batch(subject.good)
    name, settlement = await trial.staged(batch, payload)
    if settlement is not None:
        return
    await service.canceling.cancel(name)
    remote_status = await service.polling.remote_status(name)
    hold(
        remote_status in {RemoteStatus.ENDED, RemoteStatus.NOT_THERE},
        f"a canceled batch is said to be {remote_status.name}",
    )
    hold(subject.created() == 0, f"{subject.created()} tasks of a canceled batch were created")


async def undone_is_gone(subject: Subject) -> None:
    """A created task is shown; what was undone is shown no more, and nothing else is gone with it."""
    trial = await Trial.of(subject)
    refreshing, undoing = trial.service.refreshing, trial.service.undoing
    if refreshing is None:
        return
    batch, payload = trial.batch(subject.good)
    name, settlement = await trial.carried_as(batch, payload)
    ids = [task_id for task_id in settlement.task_ids if task_id is not None]
    asked = CreatedTasks(str(name), batch.count, ids)
    before = await refreshing.task_states([asked])
    hold(before.keys() == set(ids), f"{sorted(before)} are shown of the created tasks {ids}")
    untouched = [task_id for task_id, state in before.items() if state.untouched]
    if undoing is None or not untouched:
        return
    await undoing.undo(untouched[:1])
    after = await refreshing.task_states([asked])
    hold(after.keys() == set(ids) - set(untouched[:1]), f"{untouched[0]} was undone, and {sorted(after)} are shown")


async def nonsense_creates_nothing(subject: Subject) -> None:
    """An answer that makes no sense ends as an error of ours: no other exception, and no task that is not there."""
    honest = await Trial.of(subject)
    await honest.carried(*honest.batch(subject.good))
    for number in range(len(honest.between.calls)):
        for body in NONSENSE:
            await _spoiled(subject, _nonsense_at(number, body), f"answer {number + 1} is {body!r}")


def _nonsense_at(number: int, body: bytes) -> Callable[[Answer], Answer]:
    numbers = count()
    return lambda answer: replace(answer, body=body) if next(numbers) == number else answer


async def ids_that_two_tasks_have_are_none(subject: Subject) -> None:
    """Where an answer gives two tasks the same id, no record is said to have it; an upsert may make one of two."""
    if (await Trial.of(subject)).service.again is Again.SAFE:
        return
    await _spoiled(subject, _with_equal_values, "all entries of a list have the same values")


def _with_equal_values(answer: Answer) -> Answer:
    """Return an answer in which the texts and numbers of all entries of each list are those of its first entry."""
    try:
        said = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return answer
    return replace(answer, body=orjson.dumps(_equalized(said)))


def _equalized(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _equalized(one) for key, one in value.items()}
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        names = [key for key in value[0] if key == "id" or key.endswith("_id")]
        return [one | {key: value[0][key] for key in names if key in one} for one in value]
    return value


async def _spoiled(subject: Subject, spoil: Callable[[Answer], Answer], what: str) -> None:
    """Carry a batch while answers are spoilt: it fails by an error of the engine, or all that it says is true."""
    before = subject.created()
    trial = await Trial.of(subject)
    batch, payload = trial.batch(subject.good)
    trial.between.spoil = spoil
    try:
        settlement = await trial.carried(batch, payload)
    except (BulkSubmitError, PromiseBroken):  # never settled is fair: the engine asks again later
        return
    except Exception as error:
        raise PromiseBroken(f"{what}: it fails by {error!r} and not by an UnexpectedAnswer") from error
    hold_settled(settlement, batch)
    there = subject.created() - before
    hold(settlement.created <= there, f"{what}: {settlement.created} tasks are said to be created, and {there} are")


async def words_that_it_does_not_know_are_said(subject: Subject) -> None:
    """A word for where a batch stands that nobody has heard of is not taken for another one."""
    trial = await Trial.of(subject)
    polling, staging = trial.service.polling, trial.service.staging
    if polling is None:
        return
    batch, payload = trial.batch(subject.good)
    name = (await trial.staged(batch, payload))[0] if staging is not None else None
    name, settlement = await trial.released(batch, name, payload)
    if settlement is not None:
        return
    asked = Asked(batch.sequence, name, batch.count)
    (known,) = await polling.progress([asked])
    if not known.said:
        return
    old, new = orjson.dumps(known.said), b'"unheard of"'
    trial.between.spoil = lambda answer: replace(answer, body=answer.body.replace(old, new))
    (progress,) = await polling.progress([asked])
    hold(not progress.understood, "a word that nobody has heard of is understood")
    hold(progress.settlement is None and not progress.waiting, f"more is made of an unheard word: {progress}")


async def secrets_stay_where_they_are(subject: Subject) -> None:
    """Credentials are added on the wire: no call, no error and no `repr` of ours has them."""
    trial = await Trial.of(subject)
    texts = [repr(trial.service), repr(subject.settings()), str(subject.settings())]
    await trial.carried(*trial.batch(subject.good))
    trial.between.spoil = lambda answer: replace(answer, body=b"null")
    try:
        await trial.carried(*trial.batch(subject.good))
    except CallFailed as error:
        texts += [repr(error), str(error)]
    for call in trial.between.calls:
        texts += [repr(call), call.url, repr(call.query), repr(call.headers)]
    for secret in subject.secrets:
        leaks = [text for text in texts if secret in text]
        hold(not leaks, f"a secret stands in {leaks[:1]}")


CHECKS: Sequence[Check] = (
    is_built_without_a_call,
    has_the_abilities_that_it_names,
    checks_tasks_without_io,
    creates_each_task_once,
    repeatable_calls_do_no_more_when_repeated,
    says_when_a_call_goes_out,
    a_lost_stage_is_harmless,
    a_lost_release_that_arrived_is_known,
    a_lost_release_that_never_arrived_is_known,
    a_search_names_a_batch_as_its_release_did,
    a_batch_that_is_not_there_is_said_to_be_unknown,
    canceled_is_not_created,
    undone_is_gone,
    nonsense_creates_nothing,
    ids_that_two_tasks_have_are_none,
    words_that_it_does_not_know_are_said,
    secrets_stay_where_they_are,
)
"""Every check."""
