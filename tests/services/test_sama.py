import re
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from fakes.clock import FakeClock
from pydantic import SecretStr

from engine.model.batches import Batch, Limits, part_sequences
from engine.model.errors import ConfigError, Refused, Unauthorized, UnexpectedAnswer
from engine.model.jobs import Job
from engine.model.records import Position
from engine.model.settings import BatchSettings
from engine.model.submissions import State, Submission
from engine.ports import Answer, Released, Staged, Standing
from engine.services import sama
from engine.services.sama import PAGE_SIZE, TASKS_PAGE_SIZE, UPLOAD_URL_SECONDS, SamaSettings

API = "https://api.sama.com/v2/projects/42"
PUT_URL = "https://bucket.s3.amazonaws.com/7?X-Amz-Signature=abc"


class Caller:
    """Answers calls with what a test lays ready, in order, and keeps the calls."""

    def __init__(self, *answers, headers=None):
        self.answers = list(answers)
        self.headers = headers or {}
        self.calls = []

    async def call(self, call):
        self.calls.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Answer(200, self.headers, answer if isinstance(answer, bytes) else orjson.dumps(answer))


JOB = Job("nightly", "sama", "", (), "")


def service(caller=None, *, batch=None, clock=None, **keys):
    values = {"kind": "sama", "project_id": 42, "access_key": SecretStr("the-key"), **keys}
    return sama.build(SamaSettings(**values), batch or BatchSettings(), JOB, caller, clock or FakeClock())


def a_batch(count=2):
    return Batch(0, Position(), Position(count * 10, count), count, 2, b"", b"")


def follows(remote_id="7"):
    return [Submission(3, State.RELEASED, remote_id)]


def created(*ids):
    return [{"id": task_id, "state": "created"} for task_id in ids]


# Presigned: the calls


async def test_staging_creates_a_batch_without_tasks_under_the_name_of_the_job():
    caller = Caller({"batch_id": 7, "tasks_put_url": PUT_URL})
    staged = await service(caller).stage(a_batch(), b"[]", again=False)
    assert (staged.remote_id, staged.upload_url) == ("7", PUT_URL)
    (call,) = caller.calls
    assert (call.kind, call.method, call.url) == ("create", "POST", f"{API}/batches.json")
    assert orjson.loads(call.body) == {"tasks_file_name": "nightly"}
    assert call.headers == {"Content-Type": "application/json"}
    assert (call.repeatable, call.authenticated) == (True, True)


async def test_the_name_of_the_file_and_who_is_told_can_be_configured():
    caller = Caller({"batch_id": 7, "tasks_put_url": PUT_URL})
    keys = {"tasks_file_name": "photos", "notification_email": "me@example.com"}
    await service(caller, **keys).stage(a_batch(), b"[]", again=False)
    assert orjson.loads(caller.calls[0].body) == {"tasks_file_name": "photos", "notification_email": "me@example.com"}


async def test_an_upload_url_is_good_for_a_little_less_than_its_four_hours():
    clock = FakeClock()
    clock.elapsed = 100.0
    staged = await service(Caller({"batch_id": 7, "tasks_put_url": PUT_URL}), clock=clock).stage(
        a_batch(), b"[]", again=True
    )
    assert staged.expires_at == 100.0 + UPLOAD_URL_SECONDS
    assert UPLOAD_URL_SECONDS < 4 * 3600


async def test_the_payload_goes_up_as_it_is_and_without_our_key():
    caller = Caller(b"", headers={"ETag": '"5d41402a"'})
    await service(caller).upload(Staged("7", PUT_URL), b'[{"data":{}}]')
    (call,) = caller.calls
    assert (call.kind, call.method, call.url, call.body) == ("put", "PUT", PUT_URL, b'[{"data":{}}]')
    assert not call.query
    assert (call.repeatable, call.authenticated) == (True, False)


async def test_a_release_is_never_repeated_by_whoever_makes_the_call():
    caller = Caller({"batch_id": 7})
    assert await service(caller).release(a_batch(), "7", None) == Released("7")
    (call,) = caller.calls
    assert (call.kind, call.method, call.url) == ("continue", "POST", f"{API}/batches/7/continue.json")
    assert call.body is None
    assert (call.repeatable, call.authenticated, call.reconcilable) == (False, True, True)


async def test_an_upload_is_not_believed_unless_the_store_itself_answers():
    with pytest.raises(UnexpectedAnswer, match="ETag"):
        await service(Caller(b"<html>welcome</html>")).upload(Staged("7", PUT_URL), b"[]")


@pytest.mark.parametrize("answer", [b"", b"<html>", {}, [1]])
async def test_a_release_is_not_believed_unless_the_service_itself_answers(answer):
    with pytest.raises(UnexpectedAnswer):
        await service(Caller(answer)).release(a_batch(), "7", None)


async def test_an_answer_without_a_state_does_not_say_that_a_batch_was_started():
    with pytest.raises(UnexpectedAnswer, match="state"):
        await service(Caller({"ok": True})).standing("7")


async def test_a_page_without_the_state_of_a_finished_batch_settles_nothing():
    with pytest.raises(UnexpectedAnswer, match="finished"):
        await service(Caller({"ok": True})).settlement(a_batch(1), "7")


async def test_a_cancel_may_be_repeated():
    caller = Caller(b"")
    await service(caller).cancel("7")
    (call,) = caller.calls
    assert (call.kind, call.method, call.url) == ("cancel", "POST", f"{API}/batches/7/cancel.json")
    assert call.repeatable


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", [7], {"batch_id": 7}, {"tasks_put_url": PUT_URL}, {"batch_id": [], "tasks_put_url": "u"}]
)
async def test_a_stage_without_id_or_url_is_an_answer_that_cannot_be_understood(answer):
    with pytest.raises(UnexpectedAnswer):
        await service(Caller(answer)).stage(a_batch(), b"[]", again=False)


@pytest.mark.parametrize("body", [{"id": 7}, {"batch_id": "7"}, {"batch_id": 7, "extra": None}])
async def test_the_id_of_a_batch_is_read_tolerantly(body):
    assert (
        await service(Caller(body | {"tasks_put_url": PUT_URL})).stage(a_batch(), b"", again=False)
    ).remote_id == "7"


# Inline: the call


async def test_inline_the_tasks_travel_in_the_one_call_which_is_never_repeated():
    caller = Caller({"batch_id": 8})
    inline = service(caller, mode="inline", notification_email="me@example.com")
    payload = b'[{"data":{"n":12345678901234567890123}}]'
    assert await inline.release(a_batch(1), None, payload) == Released("8")
    (call,) = caller.calls
    assert (call.kind, call.method, call.url) == ("post", "POST", f"{API}/batches.json")
    assert call.body == b'{"tasks":' + payload + b',"tasks_file_name":"nightly","notification_email":"me@example.com"}'
    assert (call.repeatable, call.authenticated, call.reconcilable) == (False, True, False)


async def test_inline_an_answer_without_an_id_cannot_be_understood():
    with pytest.raises(UnexpectedAnswer):
        await service(Caller({}), mode="inline").release(a_batch(), None, b"[]")


def test_only_the_presigned_way_has_a_harmless_step():
    assert service().stages
    assert not service(mode="inline").stages


@pytest.mark.parametrize(("ours", "theirs", "limit"), [(5000, 1000, 1000), (300, 1000, 300), (5000, 5000, 5000)])
def test_a_batch_holds_no_more_than_the_service_takes(ours, theirs, limit):
    batch = BatchSettings(max_records=ours, max_bytes=99)
    assert service(batch=batch, max_tasks_per_batch=theirs).limits == Limits(limit, 99)


@pytest.mark.parametrize("until", ["", "created"])
def test_a_task_of_sama_is_done_when_it_is_created(until):
    settings = SamaSettings(kind="sama", project_id=42, access_key=SecretStr("the-key"))
    sama.build(settings, BatchSettings(), replace(JOB, until=until), Caller(), FakeClock())
    with pytest.raises(ConfigError, match="--until completed: a Sama task is done when it is created"):
        sama.build(settings, BatchSettings(), replace(JOB, until="completed"), Caller(), FakeClock())


async def test_a_base_url_may_end_with_a_slash():
    caller = Caller(b"")
    await service(caller, base_url="http://127.0.0.1:1/v2/").cancel("7")
    assert caller.calls[0].url == "http://127.0.0.1:1/v2/projects/42/batches/7/cancel.json"


def test_people_see_a_task_in_its_workspace():
    assert service().task_url("63d8") == "https://app.sama.com/projects/42/tasks/63d8"


def test_the_key_travels_in_the_query_and_nowhere_else():
    settings = SamaSettings(kind="sama", project_id=42, access_key=SecretStr("the-key"))
    assert {name: key.get_secret_value() for name, key in settings.secret_query().items()} == {"access_key": "the-key"}
    assert settings.secret_headers() == {}
    assert settings.allowed_upload_hosts() == ("*.amazonaws.com",)


# What became of a release


@pytest.mark.parametrize(
    ("status", "standing"),
    [
        ({"state": "waiting"}, Standing.WAITING),
        ({"status": "waiting"}, Standing.WAITING),
        *[
            ({"state": state}, Standing.STARTED)
            for state in ("queued", "processing", "completed", "failed", "canceled")
        ],
        ({"state": "brand new word"}, Standing.STARTED),
        (Refused("no such batch", status=404), Standing.UNKNOWN),
    ],
)
async def test_only_a_batch_that_waits_may_be_released_again(status, standing):
    caller = Caller(status)
    assert await service(caller).standing("7") is standing
    (call,) = caller.calls
    assert (call.kind, call.method, call.url) == ("status", "GET", f"{API}/batches/7.json")
    assert call.query == {"page_size": "0"}
    assert call.repeatable


@pytest.mark.parametrize("error", [Refused("what?", status=400), Unauthorized(status=401)])
async def test_a_question_that_is_refused_is_no_answer(error):
    with pytest.raises(type(error)):
        await service(Caller(error)).standing("7")


# Polls


@pytest.mark.parametrize("state", ["completed", "failed", "canceled"])
async def test_a_poll_sees_the_end(state):
    (progress,) = await service(Caller({"state": state, "created": 3})).progress(follows())
    assert (progress.sequence, progress.created, progress.finished) == (3, 3, True)


@pytest.mark.parametrize("state", ["queued", "processing", "waiting", "brand new word"])
async def test_a_poll_sees_a_batch_under_way(state):
    (progress,) = await service(Caller({"status": state, "created": 3})).progress(follows())
    assert (progress.created, progress.finished) == (3, False)


async def test_a_poll_leaves_the_tasks_out():
    caller = Caller({"state": "processing"})
    await service(caller).progress(follows())
    assert caller.calls[0].query == {"page_size": "0"}


async def test_polls_leave_the_budget_to_the_calls_that_create():
    caller = Caller({"state": "processing"}, {"batch_id": 7, "tasks_put_url": PUT_URL}, {"batch_id": 7})
    await service(caller).progress(follows())
    await service(caller).stage(a_batch(), b"[]", again=False)
    await service(caller).release(a_batch(), "7", None)
    assert [call.yielding for call in caller.calls] == [True, False, False]


@pytest.mark.parametrize("created", [None, "2026-01-31T12:00:00Z", [], True])
async def test_a_count_that_is_none_is_read_as_nothing_yet(created):
    (progress,) = await service(Caller({"state": "processing", "created": created})).progress(follows())
    assert progress.created == 0


@pytest.mark.parametrize("answer", [b"", b"<html>busy</html>", [1], b"null"])
async def test_a_poll_answered_with_nonsense_says_so(answer):
    with pytest.raises(UnexpectedAnswer, match="not a JSON object"):
        await service(Caller(answer)).progress(follows())


# Settling


async def test_a_settlement_names_the_task_of_each_record_in_the_order_in_which_they_were_sent():
    caller = Caller({"state": "completed", "tasks": created("a", "b")})
    settlement = await service(caller).settlement(a_batch(2), "7")
    assert settlement.task_ids == ["a", "b"]
    assert settlement.errors == {}
    assert settlement.note == ""
    assert caller.calls[0].query == {"page_size": "1000", "page": "1", "omit_failed_task_data": "true"}


async def test_the_id_and_the_state_of_a_task_are_read_tolerantly():
    tasks = [{"task_id": "a", "status": "created"}, {"id": 17, "state": "ready", "extra": {}}]
    assert (await service(Caller({"state": "completed", "tasks": tasks})).settlement(a_batch(2), "7")).task_ids == [
        "a",
        "17",
    ]


async def test_a_created_task_without_an_id_is_created_all_the_same():
    settlement = await service(Caller({"state": "completed", "tasks": [{"state": "created"}]})).settlement(
        a_batch(1), "7"
    )
    assert settlement.task_ids == [""]
    assert settlement.errors == {}


async def test_a_failed_task_keeps_every_error_in_the_words_of_the_service():
    errors = [{"type": "InvalidInputSchema", "message": "data.name: too long"}, {"type": 400, "message": "no"}]
    tasks = [*created("a"), {"state": "failed", "errors": errors}]
    settlement = await service(Caller({"state": "completed", "created": 1, "tasks": tasks})).settlement(a_batch(2), "7")
    assert settlement.task_ids == ["a", None]
    assert settlement.errors == {1: "InvalidInputSchema: data.name: too long; 400: no"}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"state": "failed"}, "the task's creation ended as 'failed'"),
        ({"state": "canceled", "errors": None}, "the task's creation ended as 'canceled'"),
        ({"state": "failed", "errors": ["what?"]}, "the task's creation ended as 'failed'"),
        ({"state": "failed", "errors": [{}]}, "error: "),
    ],
)
async def test_a_task_that_was_not_created_has_a_reason_in_any_case(task, said):
    settlement = await service(Caller({"state": "completed", "tasks": [task]})).settlement(a_batch(1), "7")
    assert settlement.errors == {0: said}


async def test_a_batch_that_failed_as_a_whole_tells_why_for_each_record():
    answer = {"state": "failed", "created": 0, "messages": ["The tasks file is no JSON.", "Ask support."], "tasks": []}
    settlement = await service(Caller(answer)).settlement(a_batch(2), "7")
    assert settlement.task_ids == [None, None]
    assert settlement.errors == dict.fromkeys(range(2), "The tasks file is no JSON.; Ask support.")


async def test_a_batch_that_was_canceled_keeps_what_was_created_before():
    answer = {"state": "canceled", "created": 1, "tasks": [*created("a"), {"state": "canceled"}]}
    settlement = await service(Caller(answer, answer | {"tasks": []})).settlement(a_batch(3), "7")
    assert settlement.task_ids == ["a", None, None]
    assert settlement.errors == {1: "the task's creation ended as 'canceled'", 2: "the batch ended as 'canceled'"}


async def test_pages_are_read_to_the_last():
    ids = [f"t{number}" for number in range(2 * PAGE_SIZE + 5)]
    pages = [ids[:PAGE_SIZE], ids[PAGE_SIZE : 2 * PAGE_SIZE], ids[2 * PAGE_SIZE :]]
    caller = Caller(*({"state": "completed", "created": len(ids), "tasks": created(*page)} for page in pages))
    settlement = await service(caller).settlement(a_batch(len(ids)), "7")
    assert settlement.task_ids == ids
    assert [call.query["page"] for call in caller.calls] == ["1", "2", "3"]


async def test_a_full_last_page_is_not_taken_for_the_end():
    ids = [f"t{number}" for number in range(PAGE_SIZE)]
    caller = Caller({"state": "completed", "tasks": created(*ids)}, {"state": "completed", "tasks": []})
    settlement = await service(caller).settlement(a_batch(PAGE_SIZE), "7")
    assert (settlement.created, settlement.note) == (PAGE_SIZE, "")


async def test_a_service_with_smaller_pages_than_we_asked_for_is_read_to_the_end_all_the_same():
    caller = Caller(*({"state": "completed", "created": 3, "tasks": created(name)} for name in "abc"))
    settlement = await service(caller).settlement(a_batch(3), "7")
    assert settlement.task_ids == ["a", "b", "c"]
    assert [call.query["page"] for call in caller.calls] == ["1", "2", "3"]


async def test_more_tasks_than_were_sent_leave_open_which_is_whose():
    caller = Caller({"state": "completed", "created": 3, "tasks": created("a", "b", "c")})
    with pytest.raises(UnexpectedAnswer, match="3 tasks for 2 records"):
        await service(caller).settlement(a_batch(2), "7")


async def test_a_service_that_ignores_the_page_does_not_keep_us_for_ever():
    page = {"state": "completed", "created": PAGE_SIZE, "tasks": created(*map(str, range(PAGE_SIZE)))}
    with pytest.raises(UnexpectedAnswer, match="2000 tasks"):
        await service(Caller(*[page] * 3)).settlement(a_batch(PAGE_SIZE), "7")


async def test_a_total_that_fits_saves_the_empty_page():
    page = {"state": "completed", "total": PAGE_SIZE, "tasks": created(*map(str, range(PAGE_SIZE)))}
    caller = Caller(page)
    assert (await service(caller).settlement(a_batch(PAGE_SIZE), "7")).created == PAGE_SIZE
    assert len(caller.calls) == 1


@pytest.mark.parametrize("count", [1, 2])
async def test_fewer_tasks_than_records_in_a_completed_batch_are_not_guessed_at(count):
    """A record called failed would be sent again by `retry`, and might exist twice."""
    answer = {"state": "completed", "created": count, "tasks": created("a")}
    with pytest.raises(UnexpectedAnswer, match="1 tasks for 2 records"):
        await service(Caller(answer, answer | {"tasks": []})).settlement(a_batch(2), "7")


async def test_a_task_of_an_ended_batch_that_is_neither_created_nor_failed_is_not_called_failed():
    answer = {"state": "completed", "tasks": [{"state": "preprocessing"}]}
    with pytest.raises(UnexpectedAnswer, match="preprocessing"):
        await service(Caller(answer)).settlement(a_batch(1), "7")


async def test_a_list_of_every_task_is_believed_whatever_the_count_says():
    answer = {"state": "completed", "created": 2, "tasks": [*created("a"), {"state": "failed"}]}
    assert (await service(Caller(answer)).settlement(a_batch(2), "7")).task_ids == ["a", None]


@pytest.mark.parametrize("tasks", ["none", {"0": {}}, [1, 2], [None]])
async def test_tasks_that_are_no_list_of_objects_cannot_be_understood(tasks):
    with pytest.raises(UnexpectedAnswer):
        await service(Caller({"state": "completed", "tasks": tasks})).settlement(a_batch(1), "7")


# People's work


async def test_tasks_are_counted_by_how_work_on_them_stands_over_all_pages():
    first = [{"state": "new"}] * (TASKS_PAGE_SIZE - 1) + [{"state": "in progress"}]
    caller = Caller({"tasks": first}, {"tasks": [{"status": "completed"}, {"id": "x"}]})
    assert await service(caller).working(["7"]) == {"new": 99, "in progress": 1, "completed": 1, "unknown": 1}
    assert [call.query for call in caller.calls] == [
        {"batch_id": "7", "omit_answers": "true", "page": page, "page_size": "100"} for page in ("1", "2")
    ]
    assert (caller.calls[0].method, caller.calls[0].url) == ("GET", f"{API}/tasks.json")


# Whether a task would be taken


@pytest.mark.parametrize(
    "task",
    [
        {"data": {}},
        {"data": {"name": "x"}, "priority": 0},
        {"data": {}, "priority": 2**31 - 1},
        {"data": {}, "priority": -(2**31)},
        {"data": {}, "reserve_for": "agent-7"},
        {"data": {}, "reserve_for": 7},
        {"data": {}, "submit": True},
        {"data": {}, "submit": False},
        {"data": {}, "submit": True, "duration": 0},
        {"data": {}, "submit": True, "duration": 12.5},
    ],
)
def test_a_task_that_sama_takes_passes(task):
    assert service().check(task) is None


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ({}, 'data: missing; a task is {"data": {…}} (mapping.wrap = "data" wraps plain rows)'),
        ({"data": None}, "data: must be an object of inputs"),
        ({"data": []}, "data: must be an object of inputs"),
        ({"data": "x"}, "data: must be an object of inputs"),
        ({"data": {}, "priority": 2**31}, "priority: 2147483648 is not an integer from -2147483648 to 2147483647"),
        ({"data": {}, "priority": -(2**31) - 1}, "priority: -2147483649 is not"),
        ({"data": {}, "priority": True}, "priority: true is not an integer"),
        ({"data": {}, "priority": 1.0}, "priority: 1.0 is not an integer"),
        ({"data": {}, "priority": "1"}, 'priority: "1" is not an integer'),
        ({"data": {}, "priority": None}, "priority: null is not an integer"),
        ({"data": {}, "reserve_for": True}, "reserve_for: true is not the id of an agent"),
        ({"data": {}, "reserve_for": []}, "reserve_for: [] is not the id of an agent"),
        ({"data": {}, "submit": 1}, "submit: 1 is neither true nor false"),
        ({"data": {}, "submit": "true"}, 'submit: "true" is neither true nor false'),
        ({"data": {}, "duration": 5}, "duration: only goes with submit = true"),
        ({"data": {}, "submit": False, "duration": 5}, "duration: only goes with submit = true"),
        ({"data": {}, "submit": True, "duration": -1}, "duration: -1 is not a number of seconds"),
        ({"data": {}, "submit": True, "duration": True}, "duration: true is not a number of seconds"),
        ({"data": {}, "submit": True, "duration": "5"}, 'duration: "5" is not a number of seconds'),
        ({"data": {}, "priorty": 1}, "priorty: not a key of a task; did you mean 'priority'?"),
        ({"name": "x"}, 'name: not a key of a task; inputs belong under "data" (mapping.wrap = "data" does it)'),
    ],
)
def test_a_task_that_sama_would_not_take_is_told_with_its_field(task, reason):
    assert service().check(task).startswith(reason)


SCHEMA = {
    "type": "object",
    "properties": {
        "data": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "maxLength": 5}, "box": {"type": "array", "minItems": 4}},
        }
    },
}


@pytest.fixture
def schema(tmp_path):
    path = tmp_path / "create_task.schema.json"
    path.write_bytes(orjson.dumps(SCHEMA))
    return path


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"name": "short"}, None),
        ({}, "data: 'name' is a required property"),
        ({"name": "much too long"}, "data.name: 'much too long' is too long"),
        ({"name": "x", "box": [1, 2]}, "data.box: [1, 2] is too short"),
        ({"name": 5}, "data.name: 5 is not of type 'string'"),
    ],
)
def test_a_schema_of_the_project_finds_bad_tasks_and_names_the_field(schema, data, reason):
    assert service(task_schema=schema).check({"data": data}) == reason


def test_the_rules_of_sama_come_before_the_schema(schema):
    assert service(task_schema=schema).check({"data": {}, "priority": "x"}).startswith("priority: ")


def test_a_long_value_does_not_fill_the_reason(schema):
    assert len(service(task_schema=schema).check({"data": {"name": "x" * 10_000}})) < 300


@pytest.mark.parametrize("text", ["no json", '{"type": "nonsense"}'])
def test_a_schema_that_is_none_is_an_error_of_the_configuration(tmp_path, text):
    path = tmp_path / "schema.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(f"service.task_schema: {path} is not a usable JSON Schema")):
        service(task_schema=path)


def test_a_schema_that_is_not_there_is_an_error_of_the_configuration():
    with pytest.raises(ConfigError, match=r"service\.task_schema: nowhere\.json"):
        service(task_schema=Path("nowhere.json"))


# Inline: finding a batch by its mark

WITH_MARK = {"properties": {"data": {"type": "object", "properties": {"client_batch_id": {"type": "string"}}}}}
MARKED_JOB = replace(JOB, learnt="marked 0123456789abcdef")
OURS = "nightly-0123456789abcdef-0"


def inline(caller, *, job=MARKED_JOB, **keys):
    values = {"kind": "sama", "project_id": 42, "access_key": SecretStr("the-key"), "mode": "inline", **keys}
    return sama.build(SamaSettings(**values), BatchSettings(), job, caller, FakeClock())


def listed(batch_id, *, mark=OURS, at="2027-01-15T08:00:05.000Z", **data):
    return {"id": "t", "batch_id": batch_id, "created_at": at, "data": {"client_batch_id": mark, **data}}


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
        (Refused("there is none", status=404), "unmarked"),
        (b"<html>", "unmarked"),
    ],
)
async def test_whether_the_project_has_the_input_is_learnt_from_its_schema(schema, learnt):
    caller = Caller(schema)
    service = inline(caller, job=JOB)
    assert service.mark(0) is None
    assert (await service.learn()).partition(" ")[0] == learnt
    assert (service.mark(0) is not None) == (learnt == "marked")
    (call,) = caller.calls
    assert (call.method, call.url) == ("GET", f"{API}/schemas/create_task.json")


async def test_jobs_of_the_same_name_have_marks_of_their_own():
    services = [inline(Caller(WITH_MARK), job=JOB) for _ in range(2)]
    learnt = [await service.learn() for service in services]
    assert services[0].mark(0) != services[1].mark(0)
    assert inline(None, job=replace(JOB, learnt=learnt[0])).mark(7) == services[0].mark(7)


async def test_a_key_that_does_not_hold_is_known_before_anything_is_frozen():
    with pytest.raises(Unauthorized):
        await inline(Caller(Unauthorized(status=401)), job=JOB).learn()


async def test_a_schema_at_hand_is_not_asked_for(tmp_path):
    path = tmp_path / "schema.json"
    path.write_bytes(orjson.dumps(WITH_MARK))
    caller = Caller()
    assert await inline(caller, job=JOB, task_schema=path).learn() != "unmarked"
    assert caller.calls == []


async def test_presigned_batches_have_a_name_and_need_no_mark():
    caller = Caller()
    presigned = service(caller)
    assert (await presigned.learn(), presigned.mark(0), caller.calls) == ("unmarked", None, [])


def test_a_mark_names_job_and_batch_and_is_the_same_in_every_run():
    marks = {inline(None).mark(sequence).value for sequence in (0, 0, 7, part_sequences(7)[1])}
    assert marks == {OURS, "nightly-0123456789abcdef-7", "nightly-0123456789abcdef-7.2"}


def payload(*inputs):
    return orjson.dumps([{"data": data} for data in inputs])


async def test_a_batch_is_searched_for_on_all_pages():
    pages = [{"tasks": [listed(8)] * 3}, {"tasks": [listed(8)]}, {"tasks": []}]
    caller = Caller(*pages)
    sent = payload({"client_batch_id": OURS, "id": "1"}, {"client_batch_id": OURS, "id": "2"})
    assert await inline(caller).locate(a_batch(), sent, since=0.0) == ["8"]
    assert [call.query["page"] for call in caller.calls] == ["1", "2", "3"]
    assert {call.query["client_batch_id"] for call in caller.calls} == {OURS}
    assert {call.query["client_batch_id_match_type"] for call in caller.calls} == {"exact"}


@pytest.mark.parametrize("answer", [{"ok": True}, [], b"<html>", {"tasks": {}}])
async def test_nothing_found_is_believed_of_the_service_only(answer):
    with pytest.raises(UnexpectedAnswer):
        await inline(Caller(answer)).locate(a_batch(), payload({"client_batch_id": OURS}), 0.0)


async def test_nothing_found_is_said_as_it_is():
    assert await inline(Caller({"tasks": []})).locate(a_batch(), payload({"client_batch_id": OURS}), 0.0) == []


async def test_a_batch_that_is_there_twice_is_named_twice():
    caller = Caller({"tasks": [listed(9), listed(8)]}, {"tasks": []})
    assert await inline(caller).locate(a_batch(), payload({"client_batch_id": OURS}), 0.0) == ["8", "9"]


@pytest.mark.parametrize(
    ("task", "found"),
    [
        (listed(8, mark="mine", a=1, output_x=2), ["8"]),
        (listed(8, mark="mine", a=2), []),
        (listed(8, mark="mine", a=1, at="2027-01-14T08:00:00Z"), []),
    ],
)
async def test_marks_that_came_with_the_records_count_for_tasks_that_hold_them_and_are_new(task, found):
    caller = Caller({"tasks": [task]}, {"tasks": []}, {"state": "processing", "total": 2})
    sent = payload({"client_batch_id": "mine", "a": 1})
    assert await inline(caller).locate(a_batch(), sent, since=1_800_000_000.0) == found


async def test_a_batch_of_another_size_is_not_ours_and_one_of_unknown_size_proves_nothing():
    sent, pages = (
        payload({"client_batch_id": "mine", "a": 1}),
        [{"tasks": [listed(8, mark="mine", a=1)]}, {"tasks": []}],
    )
    assert await inline(Caller(*pages, {"state": "completed", "total": 5})).locate(a_batch(), sent, 0.0) == []
    with pytest.raises(UnexpectedAnswer, match="how many"):
        await inline(Caller(*pages, {"state": "completed"})).locate(a_batch(), sent, 0.0)


async def test_a_service_that_does_not_search_is_not_believed():
    caller = Caller({"tasks": [listed(8, mark="nightly-0123456789abcdef-6")]})
    with pytest.raises(UnexpectedAnswer, match="does not search"):
        await inline(caller).locate(a_batch(), payload({"client_batch_id": OURS}), 0.0)


@pytest.mark.parametrize("missing", ["batch_id", "created_at", "data"])
async def test_a_task_that_does_not_tell_enough_proves_nothing(missing):
    task = {key: value for key, value in listed(8, mark="mine", a=1).items() if key != missing}
    with pytest.raises(UnexpectedAnswer):
        await inline(Caller({"tasks": [task]}, {"tasks": []})).locate(
            a_batch(), payload({"client_batch_id": "mine", "a": 1}), since=0.0
        )
