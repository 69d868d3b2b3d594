"""What holds for all faces: who may call, limits, how bad records end, faults, and what the journal knows of it."""

import pytest

from engine.sandbox.behaviour import Behaviour, BehaviourError, FailureRule, Fault, RefusalRule, parse_behaviour
from engine.sandbox.bulk import BULK_CALLS, FACES, BulkService
from engine.sandbox.journal import Journal

from .api import CALLS, CREDENTIALS, EVERY_FACE, record

GOOD = [record("a"), record("b"), record("c")]
each_face = pytest.mark.parametrize("face", EVERY_FACE)


def _message(face, answer):
    body = answer.body[0] if face == "ask" else answer.body
    return body.get("message") or body["error"].get("message") or body["error"]["reason"]


@pytest.mark.parametrize("face", [face.name for face in FACES])
async def test_who_has_no_key_or_another_one_may_not_call(start, face):
    api = start()
    assert (await api.call("GET", f"/{face}")).status == 200
    assert (await api.call("GET", f"/{face}/")).body["service"] == f"bulk sandbox, {face}"
    assert (await api.call("GET", f"/{face}", credentials=False)).status == 401
    other = {name: value.replace("sandbox-key", "other").replace("=", "") for name, value in CREDENTIALS[face].items()}
    assert (await api.call("GET", f"/{face}", credentials=False, headers=other, api_key="other")).status == 401 or (
        face == "never"  # its key is coded
    )


async def test_basic_credentials_must_be_right(start):
    for header in ("Basic bWU6b3RoZXI=", "Basic !", "Bearer x"):
        answer = await start().call("GET", "/never", credentials=False, headers={"Authorization": header})
        assert answer.status == 401


@each_face
async def test_records_are_created_once_each_and_the_journal_has_them(start, face):
    api = start()
    answer = await EVERY_FACE[face](api, *GOOD)
    assert answer.status in {200, 201, 202}
    assert api.created == {"a": 1, "b": 1, "c": 1}
    assert [(entry.batch_id, entry.position) for entry in api.entries] == [(f"{face}-1", at) for at in range(3)]
    assert api.service.traffic.stats.tasks_created == 3


@each_face
async def test_what_a_bad_record_is_told_is_in_the_answer_and_the_others_are_created(start, face):
    api = start(Behaviour(failures=(FailureRule("color", equals="red", message="no red"),)))
    answer = await EVERY_FACE[face](api, record("a"), record("b", bad="too long"), record("c", color="red"))
    text = str(answer.body)
    assert "The record is bad: too long." in text
    assert "no red" in text
    assert api.created == {"a": 1}
    assert api.service.traffic.stats.tasks_failed == 2


@each_face
async def test_a_batch_may_be_refused_as_a_whole(start, face):
    api = start(Behaviour(refusals=(RefusalRule("color", equals="red", message="no red"),)))
    answer = await EVERY_FACE[face](api, record("a"), record("b", bad="batch"))
    assert (answer.status, _message(face, answer)) == (400, "Something in this batch is not wanted.")
    answer = await EVERY_FACE[face](api, record("a", color="red"))
    assert (answer.status, _message(face, answer)) == (422, "no red")
    assert api.created == {}


@each_face
async def test_a_batch_may_be_refused_with_the_records_that_are_at_fault(start, face):
    api = start()
    answer = await EVERY_FACE[face](api, record("a"), record("b", bad="index"), record("c", bad="index"))
    at = {"safe": ("inputs",), "exists": ("error", "failed_items"), "key": ("error", "orders")}
    found = answer.body
    for name in at.get(face, ("error", "records")):
        found = found[name]
    assert answer.status == 400
    assert [one["index"] for one in found] == [1, 2] if face == "key" else list(found) == ["1", "2"]
    assert api.created == {}


@each_face
async def test_a_refusal_may_be_hidden_in_a_200(start, face):
    api = start(unwritten={"errors_inside": True})
    answer = await EVERY_FACE[face](api, record("a", bad="batch"))
    assert (answer.status, _message(face, answer)) == (200, "Something in this batch is not wanted.")


@each_face
async def test_there_is_a_limit_of_records_and_one_of_bytes(start, face):
    api = start(Behaviour(max_body_bytes=300), most_records=2)
    assert (await EVERY_FACE[face](api, *GOOD)).status == 400
    assert (await EVERY_FACE[face](api, record("a", text="x" * 300))).status == 413
    assert api.created == {}


@each_face
async def test_a_busy_record_is_done_the_third_time(start, face):
    api = start()
    for number in range(3):
        answer = await EVERY_FACE[face](api, record("a", bad="busy"), *([record("b")] if number == 0 else []))
        assert ("try again later" in str(answer.body)) == (number < 2) or face == "key"  # its first answer stays
        assert api.created.get("a", 0) == (number == 2 and face != "key")


@each_face
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'{"inputs": 1, "orders": {}}'])
async def test_what_is_no_payload_is_refused(start, face, body):
    api = start()
    path = {"safe": "/records/batch/upsert", "key": "/orders", "exists": "/records/_bulk", "search": "/tasks"}
    answer = await api.call("POST", f"/{face}{path.get(face, '/messages')}", body, headers={"Idempotency-Key": "k"})
    assert answer.status == 400 or face == "never"
    assert face != "never" or answer.status in {201, 400, 422}


@each_face
async def test_what_is_lost_on_the_way_back_was_done(start, face):
    api = start(Behaviour(faults=(Fault(CALLS[face], "drop_after", nth=(1,)),)))
    assert await EVERY_FACE[face](api, *GOOD) is None
    assert api.created == {"a": 1, "b": 1, "c": 1}
    await EVERY_FACE[face](api, *GOOD)
    twice = face in {"search", "never"}
    assert set(api.created.values()) == {2 if twice else 1}


@each_face
async def test_what_arrives_late_is_done_later(start, face):
    api = start(Behaviour(faults=(Fault(CALLS[face], "drop_late", nth=(1,), seconds=5),)))
    assert await EVERY_FACE[face](api, *GOOD) is None
    assert api.created == {}
    second = await EVERY_FACE[face](api, *GOOD)
    assert second.status == (409 if face == "key" else 201 if face == "never" else 202 if face == "search" else 200)
    api.clock.elapsed += 6
    assert set(api.created.values()) == {2 if face in {"search", "never"} else 1}


@each_face
async def test_what_is_swallowed_is_never_done(start, face):
    api = start(Behaviour(faults=(Fault(CALLS[face], "swallow", nth=(1,)),)))
    assert (await EVERY_FACE[face](api, *GOOD)).status in {200, 201, 202}
    api.clock.elapsed += 10**6
    assert api.created == {}


def test_a_behaviour_names_calls_of_the_faces_only():
    told = parse_behaviour("service = 'bulk'\n[[faults]]\ncall = 'continue'\nkind = 'refuse'\nnth = [1]")
    with pytest.raises(BehaviourError, match="unknown call 'continue'"):
        BulkService(told, Journal(told.journal), lambda: 0.0)


def test_no_two_faces_have_a_call_of_one_name():
    assert len(BULK_CALLS.names) == 1 + sum(len(face.calls) for face in FACES)


@pytest.mark.parametrize("number", ["numbers", "texts"])
async def test_ids_are_texts_or_numbers_and_the_journal_has_them_as_texts(start, number):
    api = start(unwritten={"ids": number})
    ids = [one["id"] for one in (await api.send(*GOOD)).body]
    assert [str(one) for one in ids] == [entry.task_id for entry in api.entries]
    assert {type(one) for one in ids} == {int if number == "numbers" else str}


async def test_results_may_lie(start):
    api = start(unwritten={"no_id_every": 3, "same_id_every": 2, "strangers": True, "words": {"created": "made"}})
    rows = (await api.send(*GOOD)).body
    assert [row.get("id") for row in rows[:2]] == [rows[0]["id"]] * 2
    assert "id" not in rows[2]
    assert rows[0]["status"] == "made"
    assert len(rows) == 4


async def test_results_may_leave_items_out_and_stand_in_another_order(start):
    api = start(unwritten={"omits_every": 2, "order": "reversed"})
    rows = (await api.order(*GOOD)).body["orders"]
    assert [row["index"] for row in rows] == [2, 0]
    many = [record(str(number)) for number in range(20)]
    shuffled = start(unwritten={"order": "shuffled"})
    indexes = [row["index"] for row in (await shuffled.order(*many)).body["orders"]]
    assert indexes != sorted(indexes)
    assert sorted(indexes) == list(range(20))
