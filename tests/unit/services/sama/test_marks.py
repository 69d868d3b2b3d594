import orjson
import pytest
from fakes.clock import FakeClock
from msgspec.structs import replace

from engine.model.batch import part_sequences
from engine.model.errors import Refused, Unauthorized, UnexpectedAnswer
from engine.model.payload import Payload
from engine.model.settings import BatchSettings, SecretStr
from engine.services import sama
from engine.services.sama.settings import SamaSettings

from .scripted import API, JOB, Caller, a_batch, service

WITH_MARK = {"properties": {"data": {"type": "object", "properties": {"client_batch_id": {"type": "string"}}}}}
MARKED_JOB = replace(JOB, learnt="marked 0123456789abcdef")
OURS = "nightly-0123456789abcdef-0"


def inline(caller, *, job=MARKED_JOB, **keys):
    values = {"kind": "sama", "project_id": 42, "access_key": SecretStr("the-key"), "mode": "inline", **keys}
    return sama.build(SamaSettings(**values), BatchSettings(), job, caller, FakeClock())


def listed(batch_id, *, reference=OURS, at="2027-01-15T08:00:05.000Z", **data):
    return {"id": "t", "batch_id": batch_id, "created_at": at, "data": {"client_batch_id": reference, **data}}


@pytest.mark.parametrize(
    ("schema", "learnt"),
    [
        (WITH_MARK, "marked"),
        ({"allOf": [{"type": "object"}, WITH_MARK]}, "marked"),
        ({"properties": {"data": {"type": "object"}}}, "unmarked"),
        ({"title": "client_batch_id"}, "unmarked"),
        ({"properties": {"data": {"properties": {"client_batch_id": {"type": "integer"}}}}}, "unmarked"),
        ({"properties": {"data": {"properties": {"client_batch_id": {"maxLength": 8}}}}}, "unmarked"),
        ({"properties": {"data": {"properties": {"meta": WITH_MARK["properties"]["data"]}}}}, "unmarked"),
        ({"properties": {"data": {"properties": {"client_batch_id": {"$ref": "#/nowhere"}}}}}, "unmarked"),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "properties": {"data": {"properties": {"client_batch_id": {"$ref": "#/definitions/text"}}}},
                "definitions": {"text": {"type": "string"}},
            },
            "marked",
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "properties": {"data": {"properties": {"client_batch_id": {"$ref": "#/definitions/text"}}}},
                "definitions": {"text": {"type": "string", "maxLength": 5}},
            },
            "unmarked",
        ),
        (Refused("there is none", status=404), "unmarked"),
        (b"<html>", "unmarked"),
    ],
)
async def test_whether_the_project_has_the_input_is_learnt_from_its_schema(schema, learnt):
    caller = Caller(schema)
    service = inline(caller, job=JOB)
    assert service.reference(0) is None
    assert (await service.learn()).partition(" ")[0] == learnt
    assert (service.reference(0) is not None) == (learnt == "marked")
    (call,) = caller.calls
    assert (call.method, call.url) == ("GET", f"{API}/schemas/create_task.json")


@pytest.mark.parametrize(
    "mark", [{"pattern": "(?=a)b"}, {"$ref": "http://127.0.0.1:9/x"}, {"$ref": "file:///dev/zero"}, {"$ref": "#/no"}]
)
async def test_a_schema_that_cannot_be_checked_means_no_marks_and_that_is_said(mark):
    service, heard = inline(Caller({"properties": {"data": {"properties": {"client_batch_id": mark}}}}), job=JOB), []
    service._emit = heard.append
    assert await service.learn() == "unmarked"
    (event,) = heard
    assert "the schema of project 42 cannot be checked here" in event.text
    assert "stays uncertain" in event.text


async def test_jobs_of_the_same_name_have_marks_of_their_own():
    services = [inline(Caller(WITH_MARK), job=JOB) for _ in range(2)]
    learnt = [await service.learn() for service in services]
    assert services[0].reference(0) != services[1].reference(0)
    assert inline(None, job=replace(JOB, learnt=learnt[0])).reference(7) == services[0].reference(7)


async def test_a_key_that_does_not_hold_is_known_before_anything_is_frozen():
    with pytest.raises(Unauthorized):
        await inline(Caller(Unauthorized(status=401)), job=JOB).learn()


async def test_a_schema_at_hand_is_not_asked_for(tmp_path):
    path = tmp_path / "schema.json"
    path.write_bytes(orjson.dumps(WITH_MARK))
    caller = Caller()
    assert await inline(caller, job=JOB, task_schema=path).learn() != "unmarked"
    assert caller.calls == []


def test_presigned_batches_have_a_name_and_need_no_mark():
    assert service().referencing is None
    assert inline(None).referencing


def test_a_mark_names_job_and_batch_and_is_the_same_in_every_run():
    marks = {inline(None).reference(sequence).value for sequence in (0, 0, 7, part_sequences(7)[1])}
    assert marks == {OURS, "nightly-0123456789abcdef-7", "nightly-0123456789abcdef-7.2"}


def payload(*inputs):
    return Payload.of([orjson.dumps({"data": data}) for data in inputs])


async def test_a_batch_is_searched_for_on_all_pages():
    pages = [{"tasks": [listed(8)] * 3}, {"tasks": [listed(8) | {"id": "t4"}]}, {"tasks": []}]
    caller = Caller(*pages)
    sent = payload({"client_batch_id": OURS, "id": "1"}, {"client_batch_id": OURS, "id": "2"})
    located = await inline(caller).locate(a_batch(), sent, since=0.0)
    assert list(located.names) == ["8"]
    assert [call.query["page"] for call in caller.calls] == ["1", "2", "3"]
    assert {call.query["client_batch_id"] for call in caller.calls} == {OURS}
    assert {call.query["client_batch_id_match_type"] for call in caller.calls} == {"exact"}


@pytest.mark.parametrize("answer", [{"ok": True}, [], b"<html>", {"tasks": {}}])
async def test_nothing_found_is_believed_of_the_service_only(answer):
    with pytest.raises(UnexpectedAnswer):
        await inline(Caller(answer)).locate(a_batch(), payload({"client_batch_id": OURS}), 0.0)


async def test_nothing_found_is_said_as_it_is():
    located = await inline(Caller({"tasks": []})).locate(a_batch(), payload({"client_batch_id": OURS}), 0.0)
    assert list(located.names) == []


async def test_a_batch_that_is_there_twice_is_named_twice():
    caller = Caller({"tasks": [listed(9), listed(8)]}, {"tasks": []})
    located = await inline(caller).locate(a_batch(), payload({"client_batch_id": OURS}), 0.0)
    assert list(located.names) == ["8", "9"]


@pytest.mark.parametrize(
    ("task", "found"),
    [
        (listed(8, reference="mine", a=1, output_x=2), ["8"]),
        (listed(8, reference="mine", a=2), []),
        (listed(8, reference="mine", a=1, at="2027-01-14T08:00:00Z"), []),
    ],
)
async def test_marks_that_came_with_the_records_count_for_tasks_that_hold_them_and_are_new(task, found):
    caller = Caller({"tasks": [task]}, {"tasks": []}, {"state": "processing", "total": 2})
    sent = payload({"client_batch_id": "mine", "a": 1})
    located = await inline(caller).locate(a_batch(), sent, since=1_800_000_000.0)
    assert list(located.names) == found


async def test_a_batch_of_another_size_is_not_ours_and_one_of_unknown_size_proves_nothing():
    sent, pages = (
        payload({"client_batch_id": "mine", "a": 1}),
        [{"tasks": [listed(8, reference="mine", a=1)]}, {"tasks": []}],
    )
    located = await inline(Caller(*pages, {"state": "completed", "total": 5})).locate(a_batch(), sent, 0.0)
    assert list(located.names) == []
    with pytest.raises(UnexpectedAnswer, match="how many"):
        await inline(Caller(*pages, {"state": "completed"})).locate(a_batch(), sent, 0.0)


async def test_a_service_that_does_not_search_is_not_believed():
    caller = Caller({"tasks": [listed(8, reference="nightly-0123456789abcdef-6")]})
    with pytest.raises(UnexpectedAnswer, match="does not search"):
        await inline(caller).locate(a_batch(), payload({"client_batch_id": OURS}), 0.0)


@pytest.mark.parametrize("missing", ["batch_id", "created_at", "data"])
async def test_a_task_that_does_not_tell_enough_proves_nothing(missing):
    task = {key: value for key, value in listed(8, reference="mine", a=1).items() if key != missing}
    with pytest.raises(UnexpectedAnswer):
        await inline(Caller({"tasks": [task]}, {"tasks": []})).locate(
            a_batch(), payload({"client_batch_id": "mine", "a": 1}), since=0.0
        )
