import pytest

from engine.model.errors import UnexpectedAnswer
from engine.services.sama.service import PAGE_SIZE

from .scripted import Caller, a_batch, created, service


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
