"""What a creation status says, and what is made of it; which task is which record stands in test_fates."""

import random

import orjson
import pytest

from engine.model.error_hints import Blame
from engine.model.errors import ConfigError, Refused, UnexpectedAnswer
from engine.model.payload import NO_TASKS
from engine.services.base import Answer, Staged
from engine.services.decoding import decode
from engine.services.sama.answers import (
    CreatedPage,
    Creation,
    MadeTask,
    MixedPage,
    Phase,
    ToldBatch,
    creation_of,
    creation_status,
    is_the_stores,
    listed,
    phase_of,
)
from engine.services.sama.service import PAGE_SIZE, TASKS_PAGE_SIZE

from .scripted import PUT_URL, Caller, Remote, a_batch, created, follows, service

NO_LIST = Refused("there is no list of tasks here", status=404)


def told_batch(body):
    return decode(Answer(200, {}, orjson.dumps(body)), ToldBatch)


def told(*pages):
    return Caller(*pages, tasks=NO_LIST)


async def late(records, page, **more):
    """Settle a batch of which nothing has moved for the whole settle time."""
    sama = service(told(page, *[{**page, "tasks": []}] * 2))
    asked = follows(count=records, unmoved=True, **more)
    await sama.progress(asked)
    return await sama.settlement(*asked)


async def test_a_settlement_names_the_task_of_each_record_in_the_order_in_which_they_were_sent():
    caller = told({"state": "completed", "tasks": created("a", "b")})
    settlement = await service(caller).settlement(*follows(count=2))
    assert settlement.task_ids == ["a", "b"]
    assert settlement.errors == {}
    assert settlement.note == ""
    assert caller.calls[0].query == {"page_size": "1000", "page": "1"}, "the data of failed tasks tells them apart"


async def test_the_id_and_the_state_of_a_task_are_read_tolerantly():
    tasks = [{"task_id": "a", "status": "Created"}, {"id": 17, "state": "created", "extra": {}}]
    caller = told({"state": "completed", "tasks": tasks})
    assert (await service(caller).settlement(*follows(count=2))).task_ids == ["a", "17"]


@pytest.mark.parametrize("word", ["queued", "preprocessing", "ready", "brand new word", ""])
async def test_a_task_that_waits_to_be_created_is_not_created(word):
    tasks = [*created("a"), {"id": "b", "state": word}]
    assert await service(told({"state": "completed", "tasks": tasks})).settlement(*follows(count=2)) is None


@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        ([*created("a"), {"state": "created"}], "gives it no id"),
        ([*created("a"), {"state": "created", "id": ""}], "gives it no id"),
        ([*created("a"), {"state": "created", "id": None, "task_id": None}], "gives it no id"),
    ],
)
async def test_a_created_task_without_an_id_is_asked_about_again_and_then_uncertain(tasks, why):
    page = {"state": "completed", "tasks": tasks}
    assert await service(told(page)).settlement(*follows(count=2)) is None
    settlement = await late(2, page)
    assert settlement.task_ids == ["a", None]
    assert why in settlement.uncertain[1]
    assert not settlement.unclear()


async def test_the_same_id_twice_is_asked_about_again_and_then_uncertain():
    page = {"state": "completed", "tasks": created("a", "b", "a")}
    assert await service(told(page)).settlement(*follows(count=3)) is None
    settlement = await late(3, page)
    assert settlement.task_ids == [None, "b", None]
    assert settlement.uncertain.keys() == {0, 2}
    assert "the same id" in settlement.uncertain[0]


async def test_zero_is_an_id():
    page = {"state": "completed", "tasks": [{"id": 0, "state": "created"}]}
    assert (await service(told(page)).settlement(*follows(count=1))).task_ids == ["0"]
    assert told_batch({"batch_id": 0}).name == "0"


async def test_a_failed_task_keeps_every_error_in_the_words_of_the_service():
    errors = [{"type": "InvalidInputSchema", "message": "data.name: too long"}, {"type": 400, "message": "no"}]
    caller = told({"state": "completed", "tasks": [{"state": "failed", "errors": errors}]})
    settlement = await service(caller).settlement(*follows(count=1))
    assert settlement.task_ids == [None]
    assert settlement.errors == {0: "InvalidInputSchema: data.name: too long; 400: no"}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"state": "failed"}, "the task's creation ended as 'failed'"),
        ({"state": "canceled", "errors": None}, "the task's creation ended as 'canceled'"),
        ({"state": "failed", "errors": ["what?"]}, "the task's creation ended as 'failed'"),
        ({"state": "failed", "errors": 5}, "the task's creation ended as 'failed'"),
        ({"state": "failed", "errors": [{}]}, "error:"),
    ],
)
async def test_a_task_that_was_not_created_has_a_reason_in_any_case(task, said):
    settlement = await service(told({"state": "completed", "tasks": [task]})).settlement(*follows(count=1))
    assert settlement.errors == {0: said}


async def test_a_batch_that_failed_as_a_whole_tells_why_for_each_record_after_the_settle_time():
    answer = {"state": "failed", "created": 0, "messages": ["The tasks file is no JSON.", "Ask support."], "tasks": []}
    assert await service(told(answer)).settlement(*follows(count=2)) is None
    settlement = await late(2, answer)
    assert settlement.task_ids == [None, None]
    assert settlement.errors == dict.fromkeys(range(2), "The tasks file is no JSON.; Ask support.")


@pytest.mark.parametrize(("state", "said"), [("canceled", "canceled"), ("Completed", "Completed"), ("done", "done")])
async def test_what_is_missing_in_a_batch_that_ended_by_its_own_word_is_uncertain(state, said):
    """Nobody said that it failed, nor did we cancel it."""
    settlement = await late(2, {"state": state, "created": 0, "tasks": []})
    assert settlement.task_ids == [None, None]
    assert settlement.uncertain.keys() == {0, 1}
    assert said in settlement.uncertain[0]


async def test_what_is_missing_after_our_own_cancel_was_confirmed_was_not_created():
    page = {"state": "canceled", "created": 0, "tasks": []}
    sama = service(told({"batch_id": 7}, page, page))
    await sama.cancel("7")
    asked = follows(count=2, unmoved=True)
    await sama.progress(asked)
    settlement = await sama.settlement(*asked)
    assert settlement.errors == dict.fromkeys(range(2), "the batch ended as 'canceled'")


@pytest.mark.parametrize("state", ["processing", "brand new word"])
async def test_a_batch_that_has_not_ended_by_its_own_word_is_followed_on_however_still_it_is(state):
    assert await late(2, {"state": state, "created": 0, "tasks": []}) is None


_ODD = rb'"b"  "../x"  ""  "a\n"  5  -1  null  "created"  "Created"  "cre\u0061ted"  "failed"  "\ud83d"  1e999  {"k":1}'
_ODD_VALUES = [*_ODD.split(b"  "), b'"\xff"', b'[{"message":"no"}]']
_KEYS = [b"id", b"id", b"state", b"state", b"status", b"task_id", b"errors", b"data", b"new"]


def test_a_page_of_created_tasks_is_read_as_any_other_however_it_is_spoilt():
    draw, quick = random.Random(14), 0
    for _ in range(2000):
        tasks = [[b'"id":"%s"' % name, b'"state":"created"'] for name in (b"a", b"b", b"c")]
        for task in draw.sample([*tasks, tasks], k=draw.randrange(3)):
            task.insert(draw.randrange(3), b'"%s":%s' % (draw.choice(_KEYS), draw.choice(_ODD_VALUES)))
        shown = b",".join(b"{%s}" % b",".join(task) if isinstance(task, list) else b"{%s}" % task for task in tasks)
        answer = Answer(200, {}, b'{"state":"completed","created":3,"total":3,"tasks":[%s]}' % shown)
        page, exact = creation_status(answer), decode(answer, MixedPage)
        quick += isinstance(page, CreatedPage)
        told = [[(fate.creation, fate.task_id, fate.data) for fate in listed(one)] for one in (page, exact)]
        assert told[0] == told[1], answer.body
        assert (page.word, page.created, page.total) == (exact.word, exact.created, exact.total)
    assert 500 < quick < 1500


async def test_pages_are_read_to_the_last():
    ids = [f"t{number}" for number in range(2 * PAGE_SIZE + 5)]
    pages = [ids[:PAGE_SIZE], ids[PAGE_SIZE : 2 * PAGE_SIZE], ids[2 * PAGE_SIZE :]]
    caller = told(*({"state": "completed", "created": len(ids), "tasks": created(*page)} for page in pages))
    settlement = await service(caller).settlement(*follows(count=len(ids)))
    assert settlement.task_ids == ids
    assert [call.query["page"] for call in caller.calls if call.kind == "status"] == ["1", "2", "3"]


async def test_a_full_last_page_is_not_taken_for_the_end():
    ids = [f"t{number}" for number in range(PAGE_SIZE)]
    caller = told({"state": "completed", "tasks": created(*ids)}, {"state": "completed", "tasks": []})
    settlement = await service(caller).settlement(*follows(count=PAGE_SIZE))
    assert (settlement.created, settlement.note) == (PAGE_SIZE, "")


@pytest.mark.parametrize("word", ["Completed", "FAILED", "Cancelled", "wAiTiNg", "in_progress"])
def test_the_words_of_a_batch_are_read_in_any_case_and_spelling(word):
    assert phase_of(word) is not Phase.UNKNOWN


def test_the_states_of_a_task_are_the_vendors():
    assert creation_of("ready") is creation_of("queued") is creation_of("preprocessing") is Creation.OPEN
    assert (creation_of("created"), creation_of("failed"), creation_of("canceled")) == (
        Creation.CREATED,
        Creation.FAILED,
        Creation.CANCELED,
    )


@pytest.mark.parametrize(
    "body",
    [
        {"task_ids": ["a", "b"]},
        {"tasks": [{"id": "a"}, {"task_id": "b", "state": "queued"}]},
        {"batch_id": 7, "ids": ["a", "b"], "task_ids": []},
        {"tasks": ["a", "b"]},
        {"task_ids": ["a", "../b"], "tasks": ["a", -1], "ids": ["a", "b"]},
    ],
)
def test_ids_in_an_answer_are_taken_where_they_are(body):
    assert told_batch(body).told_ids == ["a", "b"]


@pytest.mark.parametrize(
    "body", [{}, {"tasks": [{}]}, {"tasks": 2}, {"task_ids": ["a", "a"]}, {"task_ids": ["a", None]}, {"ids": ["a\n"]}]
)
def test_what_is_no_list_of_different_ids_tells_nothing(body):
    assert told_batch(body).told_ids == ()


@pytest.mark.parametrize("at", ["20130715T04:45:57", "2013-07-15T04:45:57", "2013-07-15T04:45:57Z"])
def test_a_time_without_a_zone_is_utc(at):
    assert MadeTask(created_at=at).made_at == 1_373_863_557.0


@pytest.mark.parametrize(
    ("headers", "body", "stores"),
    [
        ({"ETag": '"5d41"'}, b"", True),
        ({}, b"", True),
        ({"Content-Type": "text/html"}, b"", True),
        ({"Content-Type": "application/xml"}, b"<?xml version='1.0'?><Result/>", True),
        ({"ETag": '"5d41"'}, b'{"etag":"5d41"}', True),
        ({}, b'{"ok":true}', False),
        ({}, b"[]", False),
        ({"Content-Type": "text/html"}, b"welcome", False),
        ({"ETag": '"page"'}, b"\n<!DOCTYPE html><p>", False),
        ({}, b"<html>", False),
    ],
)
def test_an_etag_is_welcome_and_a_page_or_a_proxys_json_is_no_stores_answer(headers, body, stores):
    assert is_the_stores(Answer(200, headers, body)) is stores


async def test_a_service_with_smaller_pages_than_we_asked_for_is_read_to_the_end_all_the_same():
    caller = told(*({"state": "completed", "created": 3, "tasks": created(name)} for name in "abc"))
    settlement = await service(caller).settlement(*follows(count=3))
    assert settlement.task_ids == ["a", "b", "c"]
    assert [call.query["page"] for call in caller.calls if call.kind == "status"] == ["1", "2", "3"]


async def test_more_tasks_than_were_sent_leave_open_which_is_whose():
    caller = told({"state": "completed", "created": 3, "tasks": created("a", "b", "c")})
    with pytest.raises(UnexpectedAnswer, match="3 tasks for 2 records"):
        await service(caller).settlement(*follows(count=2))


async def test_a_service_that_ignores_the_page_does_not_keep_us_for_ever():
    page = {"state": "completed", "created": PAGE_SIZE, "tasks": created(*map(str, range(PAGE_SIZE)))}
    with pytest.raises(UnexpectedAnswer, match="2000 tasks"):
        await service(told(*[page] * 3)).settlement(*follows(count=PAGE_SIZE))


async def test_a_total_that_fits_saves_the_empty_page():
    page = {"state": "completed", "total": PAGE_SIZE, "tasks": created(*map(str, range(PAGE_SIZE)))}
    caller = told(page)
    assert (await service(caller).settlement(*follows(count=PAGE_SIZE))).created == PAGE_SIZE
    assert caller.kinds().count("status") == 1


@pytest.mark.parametrize("count", [1, 2])
async def test_fewer_tasks_than_records_in_a_completed_batch_are_not_guessed_at(count):
    """A record called failed would be sent again by `retry`, and might exist twice."""
    answer = {"state": "completed", "created": count, "tasks": created("a")}
    assert await service(told(answer, answer | {"tasks": []})).settlement(*follows(count=2)) is None
    settlement = await late(2, answer)
    assert settlement.uncertain.keys() == {0, 1}, "which of the two it is, nobody said"


async def test_a_list_of_every_task_is_believed_whatever_the_count_says():
    answer = {"state": "completed", "created": 2, "tasks": [{"state": "failed"}] * 2}
    assert (await service(told(answer)).settlement(*follows(count=2))).errors.keys() == {0, 1}


@pytest.mark.parametrize("tasks", ["none", {"0": {}}, [1, 2], [None]])
async def test_tasks_that_are_no_list_of_objects_cannot_be_understood(tasks):
    with pytest.raises(UnexpectedAnswer):
        await service(told({"state": "completed", "tasks": tasks})).settlement(*follows(count=1))


# What the world sends


async def test_half_an_emoji_in_the_words_of_one_task_costs_no_record_its_fate():
    tasks = b",".join(b'{"id":"t%d","state":"created"}' % number for number in range(999))
    failed = b'{"state":"failed","errors":[{"type":"Bad","message":"too long \\ud83d"}],"data":{"k":999}}'
    page = b'{"batch_id":7,"state":"completed","created":999,"total":1000,"tasks":[' + tasks + b"," + failed + b"]}"
    remote = Remote([{"k": number} for number in range(1000)], failed=[999])
    settlement = await service(told(page)).settlement(*follows(count=1000, payload=remote.payload, unmoved=True))
    assert settlement.errors == {999: "Bad: too long ?"}
    assert (settlement.created, settlement.uncertain) == (999, {})


@pytest.mark.parametrize("odd", [5, {}, "x", [5, None], None])
async def test_odd_messages_of_a_batch_are_none(odd):
    settlement = await late(2, {"state": "failed", "created": 0, "messages": odd, "tasks": []})
    assert settlement.errors == dict.fromkeys(range(2), "the batch ended as 'failed'")


@pytest.mark.parametrize("odd", [[], {}, [["x"]], "../../x", "a/b", "x" * 201, 1.5, True, -1], ids=repr)
async def test_an_odd_id_of_a_created_task_makes_that_record_alone_uncertain(odd):
    page = {"state": "completed", "tasks": [*created("a"), {"state": "created", "id": odd}]}
    settlement = await late(2, page)
    assert settlement.task_ids == ["a", None]
    assert settlement.uncertain.keys() == {1}


@pytest.mark.parametrize("odd", [-1, 2**63, "7", 1e300, [], True])
async def test_an_odd_count_is_none(odd):
    caller = told({"state": "processing", "created": odd, "tasks": []})
    (progress,) = await service(caller).progress(follows(count=10))
    assert (progress.created, progress.finished) == (0, False)


async def test_more_created_tasks_than_were_sent_are_not_counted():
    (progress,) = await service(told({"state": "processing", "created": 10**9})).progress(follows(count=10))
    assert progress.created == 10


@pytest.mark.parametrize("odd", ["../7", "7/continue", "7?x=1", "", "\x00", "x" * 201, [], True, 7.5], ids=repr)
async def test_an_odd_name_of_a_batch_is_no_name(odd):
    for answer in ({"batch_id": odd, "tasks_put_url": PUT_URL}, {"id": odd, "tasks_put_url": PUT_URL}):
        with pytest.raises(UnexpectedAnswer):
            await service(Caller(answer)).stage(a_batch(), NO_TASKS)


async def test_no_odd_name_that_a_ledger_holds_goes_into_a_url():
    for call in ("remote_status", "cancel"):
        caller = Caller()
        with pytest.raises(UnexpectedAnswer):
            await getattr(service(caller), call)("../43")
        assert caller.calls == []


@pytest.mark.parametrize("odd", ["", "no url", "ftp://x/y", "https://a b", "https://" + "x" * 9000, 5], ids=repr)
async def test_an_odd_upload_url_is_none(odd):
    with pytest.raises(UnexpectedAnswer, match="no tasks_put_url"):
        await service(Caller({"batch_id": 7, "tasks_put_url": odd})).stage(a_batch(), NO_TASKS)


async def test_an_upload_url_that_may_not_be_called_costs_a_fresh_one():
    staged = Staged("7", "https://elsewhere.example/k")
    with pytest.raises(Refused, match="elsewhere") as raised:
        await service(Caller(ConfigError("elsewhere.example is not allowed"))).upload(staged, NO_TASKS)
    assert raised.value.blame is Blame.URL


async def test_a_presigned_url_in_the_words_of_a_task_or_a_batch_is_not_kept():
    tasks = [{"state": "failed", "errors": [{"type": "E", "message": f"cannot read {PUT_URL}"}]}]
    settlement = await service(told({"state": "completed", "tasks": tasks})).settlement(*follows(count=1))
    assert settlement.errors == {0: "E: cannot read https://bucket.s3.amazonaws.com/7?***"}
    settlement = await late(2, {"state": "failed", "created": 0, "messages": [f"see {PUT_URL}\n"], "tasks": []})
    assert settlement.errors == dict.fromkeys(range(2), "see https://bucket.s3.amazonaws.com/7?***")


async def test_words_of_any_length_are_kept_short():
    kept = []
    for message in ("x " * 10**6, "x" * 10**6):  # of one word without an end nobody knows whether it is a secret
        tasks = [{"state": "failed", "errors": [{"type": "E", "message": message}]}]
        settlement = await service(told({"state": "completed", "tasks": tasks})).settlement(*follows(count=1))
        kept.append(settlement.errors[0])
    assert (len(kept[0]), kept[1]) == (300, "E:")


async def test_a_list_that_never_goes_on_is_not_read_for_ever():
    page = {"tasks": [{"id": "a", "state": "new"}] * TASKS_PAGE_SIZE}
    with pytest.raises(UnexpectedAnswer, match="does not go on"):
        await service(Caller(*[page] * 3)).count_work(["7"])


async def test_many_different_reasons_are_told_in_one_short_line():
    tasks = [{"state": "failed", "errors": [{"type": "E", "message": f"no {number}"}]} for number in range(500)]
    settlement = await service(told({"state": "completed", "tasks": tasks})).settlement(
        *follows(count=500, unmoved=True)
    )
    assert len(settlement.errors) == 500
    assert {len(error) for error in settlement.errors.values()} == {300}
    assert settlement.errors[0].startswith("one of: E: no 0 | E: no 1 | ")
