import orjson
import pytest
from fakes.clock import FakeClock
from msgspec.structs import replace

from engine.adaptive.settle_time import SETTLE_SECONDS
from engine.model.batch import Limits
from engine.model.doubt import Again, RemoteStatus
from engine.model.errors import ConfigError, Refused, Unauthorized, UnexpectedAnswer
from engine.model.payload import NO_TASKS, Payload
from engine.model.settings import BatchSettings, SecretStr
from engine.services import sama
from engine.services.base import Released, Staged
from engine.services.sama.service import PAGE_SIZE, TASKS_PAGE_SIZE, UPLOAD_URL_SECONDS
from engine.services.sama.settings import SamaSettings

from .scripted import API, JOB, PUT_URL, Caller, a_batch, created, follows, service

# Presigned: the calls


async def test_staging_creates_a_batch_without_tasks_under_the_name_of_the_job():
    caller = Caller({"batch_id": 7, "tasks_put_url": PUT_URL})
    staged = await service(caller).stage(a_batch(), NO_TASKS)
    assert (staged.remote_id, staged.upload_url) == ("7", PUT_URL)
    (call,) = caller.calls
    assert (call.kind, call.method, call.url) == ("create", "POST", f"{API}/batches.json")
    assert orjson.loads(call.body) == {"tasks_file_name": "nightly"}
    assert call.headers == {"Content-Type": "application/json"}
    assert (call.repeatable, call.authenticated) == (True, True)


async def test_the_name_of_the_file_and_who_is_told_can_be_configured():
    caller = Caller({"batch_id": 7, "tasks_put_url": PUT_URL})
    keys = {"tasks_file_name": "photos", "notification_email": "me@example.com"}
    await service(caller, **keys).stage(a_batch(), NO_TASKS)
    assert orjson.loads(caller.calls[0].body) == {"tasks_file_name": "photos", "notification_email": "me@example.com"}


async def test_an_upload_url_is_good_for_a_little_less_than_its_four_hours():
    clock = FakeClock()
    clock.elapsed = 100.0
    staged = await service(Caller({"batch_id": 7, "tasks_put_url": PUT_URL}), clock=clock).stage(a_batch(), NO_TASKS)
    assert staged.expires_at == 100.0 + UPLOAD_URL_SECONDS
    assert UPLOAD_URL_SECONDS < 4 * 3600


async def test_the_payload_goes_up_as_it_is_and_without_our_key():
    caller = Caller(b"", headers={"ETag": '"5d41402a"'})
    await service(caller).upload(Staged("7", PUT_URL), Payload.of([b'{"data":{}}']))
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


async def test_a_batch_that_was_staged_before_is_not_gone_on_with():
    caller = Caller({"batch_id": 8, "tasks_put_url": PUT_URL})
    assert (await service(caller).stage(a_batch(), NO_TASKS, earlier_id="7")).remote_id == "8"


@pytest.mark.parametrize("mode", ["presigned", "inline"])
async def test_the_intent_to_release_goes_with_the_call_and_with_no_other(mode):
    async def intent():
        """Stand in for the step in the ledger."""

    presigned = mode == "presigned"
    caller = Caller({"batch_id": 7})
    await service(caller, mode=mode).release(a_batch(), "7" if presigned else None, NO_TASKS, intent)
    (call,) = caller.calls
    assert call.intent is intent
    caller = Caller({"batch_id": 7, "tasks_put_url": PUT_URL})
    await service(caller).stage(a_batch(), NO_TASKS)
    assert caller.calls[0].intent is None


def refusal(status=400, code=""):
    refused = Refused("no", status=status)
    refused.code = code
    return refused


@pytest.mark.parametrize(
    ("refused", "before"),
    [
        (refusal(409), True),
        (refusal(400, "InvalidBatchState"), True),
        (refusal(400, "InvalidInputSchema"), False),
        (refusal(422), False),
        (refusal(404), False),
    ],
)
async def test_a_refused_release_says_whether_the_batch_was_released_before(refused, before):
    with pytest.raises(Refused) as raised:
        await service(Caller(refused)).release(a_batch(), "7", None)
    assert raised.value.released_before is before


async def test_credentials_that_do_not_hold_say_nothing_of_an_earlier_release():
    with pytest.raises(Unauthorized) as raised:
        await service(Caller(Unauthorized(status=401))).release(a_batch(), "7", None)
    assert not isinstance(raised.value, Refused)


async def test_an_upload_is_not_believed_unless_the_store_itself_answers():
    with pytest.raises(UnexpectedAnswer, match="not a store's"):
        await service(Caller(b"<html>welcome</html>")).upload(Staged("7", PUT_URL), NO_TASKS)


@pytest.mark.parametrize("answer", [b"", b"<html>", {}, [1]])
async def test_a_release_is_not_believed_unless_the_service_itself_answers(answer):
    with pytest.raises(UnexpectedAnswer):
        await service(Caller(answer)).release(a_batch(), "7", None)


async def test_an_answer_without_a_state_does_not_say_that_a_batch_was_started():
    with pytest.raises(UnexpectedAnswer, match="state"):
        await service(Caller({"ok": True})).remote_status("7")


async def test_a_page_without_the_state_of_a_finished_batch_settles_nothing():
    with pytest.raises(UnexpectedAnswer, match="no page of a batch"):
        await service(Caller({"ok": True})).settlement(*follows(count=1))


async def test_a_poll_without_any_word_on_the_batch_is_nonsense():
    with pytest.raises(UnexpectedAnswer, match="nothing of the batch"):
        await service(Caller({"ok": True})).progress(follows())


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
        await service(Caller(answer)).stage(a_batch(), NO_TASKS)


@pytest.mark.parametrize("body", [{"id": 7}, {"batch_id": "7"}, {"batch_id": 7, "extra": None}])
async def test_the_id_of_a_batch_is_read_tolerantly(body):
    assert (await service(Caller(body | {"tasks_put_url": PUT_URL})).stage(a_batch(), NO_TASKS)).remote_id == "7"


# Inline: the call


async def test_inline_the_tasks_travel_in_the_one_call_which_is_never_repeated():
    caller = Caller({"batch_id": 8})
    inline = service(caller, mode="inline", notification_email="me@example.com")
    payload = Payload.of([b'{"data":{"n":12345678901234567890123}}'])
    assert await inline.release(a_batch(1), None, payload) == Released("8")
    (call,) = caller.calls
    assert (call.kind, call.method, call.url) == ("post", "POST", f"{API}/batches.json")
    assert (
        b"".join(call.pieces)
        == b'{"tasks":' + payload.array + b',"tasks_file_name":"nightly","notification_email":"me@example.com"}'
    )
    assert (call.repeatable, call.authenticated, call.reconcilable) == (False, True, False)


async def test_inline_an_answer_without_an_id_cannot_be_understood():
    with pytest.raises(UnexpectedAnswer):
        await service(Caller({}), mode="inline").release(a_batch(), None, NO_TASKS)


def test_only_the_presigned_way_has_a_harmless_step():
    assert service().staging
    assert not service(mode="inline").staging


@pytest.mark.parametrize(
    ("keys", "learnt", "again"),
    [
        ({}, "", Again.ASK),
        ({"mode": "inline"}, "", Again.NEVER),
        ({"mode": "inline"}, "unmarked", Again.NEVER),
        ({"mode": "inline"}, "marked 0123", Again.SEARCH),
    ],
)
def test_a_lost_release_is_asked_about_by_name_or_searched_for_by_mark(keys, learnt, again):
    settings = SamaSettings(kind="sama", project_id=42, access_key=SecretStr("the-key"), **keys)
    built = sama.build(settings, BatchSettings(), replace(JOB, learnt=learnt), Caller(), FakeClock())
    assert (built.again, built.stage_again) == (again, Again.SAFE)


def test_it_may_take_as_long_as_any_service_until_it_shows_what_a_call_did():
    assert service().settle_seconds == SETTLE_SECONDS == 120.0


def test_nobody_can_find_an_empty_batch_and_nobody_needs_to():
    assert service().drafting is None


@pytest.mark.parametrize(("ours", "theirs", "limit"), [(5000, 1000, 1000), (300, 1000, 300), (5000, 5000, 5000)])
def test_a_batch_holds_no_more_than_the_service_takes(ours, theirs, limit):
    batch = BatchSettings(max_records=ours, max_bytes=99)
    assert service(batch=batch, max_tasks_per_batch=theirs).limits == Limits(limit, 99)


@pytest.mark.parametrize("until", ["", "created"])
def test_a_task_of_sama_is_done_when_it_is_created(until):
    settings = SamaSettings(kind="sama", project_id=42, access_key=SecretStr("the-key"))
    sama.build(settings, BatchSettings(), replace(JOB, until=until), Caller(), FakeClock())
    with pytest.raises(ConfigError, match="--until completed: a record counts as done when its Sama task is created"):
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
    ("status", "remote_status"),
    [
        ({"state": "waiting"}, RemoteStatus.WAITING),
        ({"status": "waiting"}, RemoteStatus.WAITING),
        *[
            ({"state": state}, RemoteStatus.STARTED)
            for state in ("queued", "processing", "completed", "failed", "canceled")
        ],
        ({"state": "brand new word"}, RemoteStatus.STARTED),
        *[({"state": state, "created": 0}, RemoteStatus.ENDED) for state in ("failed", "canceled")],
        *[({"state": state, "created": 1}, RemoteStatus.STARTED) for state in ("failed", "canceled")],
        ({"state": "completed", "created": 0}, RemoteStatus.STARTED),
        ({"state": "waiting", "created": 0}, RemoteStatus.WAITING),
        (Refused("no such batch", status=404), RemoteStatus.NOT_THERE),
    ],
)
async def test_only_a_batch_that_waits_may_be_released_again(status, remote_status):
    caller = Caller(status)
    assert await service(caller).remote_status("7") is remote_status
    (call,) = caller.calls
    assert (call.kind, call.method, call.url) == ("status", "GET", f"{API}/batches/7.json")
    assert call.query == {"page_size": "0"}
    assert call.repeatable


@pytest.mark.parametrize("error", [Refused("what?", status=400), Unauthorized(status=401)])
async def test_a_question_that_is_refused_is_no_answer(error):
    with pytest.raises(type(error)):
        await service(Caller(error)).remote_status("7")


# Polls


@pytest.mark.parametrize("state", ["completed", "failed", "canceled"])
async def test_a_poll_sees_the_end(state):
    (progress,) = await service(Caller({"state": state, "created": 3})).progress(follows())
    assert (progress.sequence, progress.created, progress.finished) == (3, 3, True)


@pytest.mark.parametrize("state", ["completed", "Completed", "FAILED", "cancelled", "Done"])
async def test_an_end_is_seen_in_any_case_and_spelling(state):
    (progress,) = await service(Caller({"state": state, "created": 0})).progress(follows())
    assert (progress.finished, progress.understood) == (True, True)


@pytest.mark.parametrize("word", ["state", "status", "job_status"])
async def test_the_key_of_the_word_is_read_tolerantly(word):
    (progress,) = await service(Caller({word: "waiting", "created": 0})).progress(follows())
    assert (progress.waiting, progress.said) == (True, "waiting")


async def test_a_batch_is_looked_at_once_all_its_tasks_are_counted_whatever_it_is_called():
    (progress,) = await service(Caller({"state": "processing", "created": 10})).progress(follows(count=10))
    assert progress.finished


async def test_a_batch_of_which_nothing_moves_is_looked_at_with_its_tasks():
    caller = Caller({"state": "processing", "created": 3})
    (progress,) = await service(caller).progress(follows(unmoved=True))
    assert progress.finished
    assert caller.calls[0].query["page_size"] == str(PAGE_SIZE)


async def test_a_word_never_heard_of_is_looked_behind_once_and_again_if_that_paid():
    open_, done = {"state": "Erledigt", "created": 0, "tasks": []}, {"state": "Erledigt", "created": 1}
    sama = service(Caller(open_, open_, open_, done, done | {"tasks": created("a")}, open_, open_))
    assert [await _looked_behind(sama, count) for count in (2, 2)] == [True, False]
    assert await _looked_behind(sama, 1), "all are counted"
    assert await _looked_behind(sama, 2), "the word has been one for the end"


async def _looked_behind(sama, count):
    (progress,) = await sama.progress(follows(count=count))
    assert (progress.said, progress.understood) == ("Erledigt", False)
    if progress.finished:
        await sama.settlement(*follows(count=count))
    return progress.finished


async def test_where_no_count_is_shown_the_tasks_are_counted():
    tasks = [*created("a"), {"state": "queued"}]
    caller = Caller({"state": "processing"}, {"state": "processing", "tasks": tasks})
    sama = service(caller)
    assert [(await sama.progress(follows()))[0].created for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("state", ["queued", "processing", "waiting"])
async def test_a_poll_sees_a_batch_under_way(state):
    (progress,) = await service(Caller({"status": state, "created": 3})).progress(follows())
    assert (progress.created, progress.finished, progress.waiting) == (3, False, state == "waiting")


async def test_a_poll_leaves_the_tasks_out():
    caller = Caller({"state": "processing"})
    await service(caller).progress(follows())
    assert caller.calls[0].query == {"page_size": "0"}


async def test_where_most_polls_find_the_end_they_bring_the_fates_along():
    done = {"state": "completed", "created": 2, "total": 2, "tasks": created("a", "b")}
    caller = Caller(*[done] * 20, tasks=Refused("there is none", status=404))
    sama = service(caller)
    for _ in range(10):
        await sama.progress(follows(count=2))
    assert [call.query["page_size"] for call in caller.calls] == ["0"] * 7 + ["1000"] * 3
    assert (await sama.settlement(*follows(count=2))).task_ids == ["a", "b"]
    assert caller.kinds().count("status") == 10
    assert (await sama.settlement(*follows(count=2))).task_ids == ["a", "b"]
    assert caller.kinds().count("status") == 11


async def test_where_polls_mostly_come_too_early_again_they_are_light_again():
    done, early = {"state": "completed", "created": 9}, {"state": "processing", "created": 1}
    caller = Caller(*[done] * 10, *[early] * 5)
    sama = service(caller)
    for _ in range(15):
        await sama.progress(follows())
    assert caller.calls[-1].query == {"page_size": "0"}


async def test_of_a_batch_with_more_tasks_than_a_page_the_poll_brings_the_first():
    caller = Caller(
        *[{"state": "completed", "created": 0}] * 7,
        {"state": "completed", "created": 1001, "tasks": created(*map(str, range(PAGE_SIZE)))},
        {"state": "completed", "created": 1001, "tasks": created("last")},
        tasks=Refused("there is none", status=404),
    )
    sama = service(caller)
    for _ in range(8):
        await sama.progress(follows(count=PAGE_SIZE + 1))
    assert len((await sama.settlement(*follows(count=PAGE_SIZE + 1))).task_ids) == PAGE_SIZE + 1
    assert [call for call in caller.calls if call.kind == "status"][-1].query["page"] == "2"


async def test_polls_leave_the_budget_to_the_calls_that_create():
    caller = Caller({"state": "processing"}, {"batch_id": 7, "tasks_put_url": PUT_URL}, {"batch_id": 7})
    await service(caller).progress(follows())
    await service(caller).stage(a_batch(), NO_TASKS)
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


async def test_tasks_are_counted_by_how_work_on_them_stands_over_all_pages():
    first = [{"state": "new"}] * (TASKS_PAGE_SIZE - 1) + [{"state": "in progress"}]
    caller = Caller({"tasks": first}, {"tasks": [{"status": "completed"}, {"id": "x"}]})
    assert await service(caller).count_work(["7"]) == {"new": 99, "in progress": 1, "completed": 1, "unknown": 1}
    assert [call.query for call in caller.calls] == [
        {"batch_id": "7", "omit_answers": "true", "page": page, "page_size": "100"} for page in ("1", "2")
    ]
    assert (caller.calls[0].method, caller.calls[0].url) == ("GET", f"{API}/tasks.json")
