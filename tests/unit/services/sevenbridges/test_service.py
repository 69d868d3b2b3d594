import orjson
import pytest
from msgspec.structs import replace

from engine.adaptive.settle_time import SETTLE_SECONDS
from engine.model.batch import Limits
from engine.model.doubt import Again, RemoteStatus
from engine.model.errors import ConfigError, PossiblyApplied, Refused, Unauthorized, Unavailable, UnexpectedAnswer
from engine.model.outcome import Settlement
from engine.model.settings import BatchSettings
from engine.model.submission import State, Submission
from engine.services.base import Answer, BatchProgress, Released, Staged
from engine.services.sevenbridges.calls import BULK_FIELDS, TASK_FIELDS, time_text
from engine.services.sevenbridges.drafts import draft_reference
from engine.services.sevenbridges.service import OUR_CLOCK_SECONDS

from .scripted import (
    API,
    APP,
    CREATED,
    JOB,
    NOW,
    PROJECT,
    TASK_ID,
    Caller,
    a_batch,
    bulk,
    follows,
    listed,
    parent,
    payload,
    service,
    task,
)

REFERENCE = draft_reference(JOB, a_batch())
RUNS = {"project": PROJECT, "app": APP, "run": True}
ERRORS = [{"type": "error/task_validation/input/required", "message": "This input is required.", "input_id": "reads"}]
CRITERIA = {"type": "CRITERIA", "criteria": ["metadata.library_id", "metadata.sample_id"]}


def settled(**details):
    return Settlement([TASK_ID], details={0: {"created_time": CREATED, **details}})


# Staging: a draft


async def test_staging_creates_a_draft_that_carries_a_marker():
    caller = Caller(task())
    staged = await service(caller, run=True).stage(a_batch(), payload(name="n", description="d"))
    assert staged == Staged(TASK_ID)
    (call,) = caller.calls
    assert (call.kind, call.method, call.url) == ("create", "POST", f"{API}/tasks")
    assert call.query == {"fields": TASK_FIELDS}
    assert call.headers == {"Content-Type": "application/json"}
    assert orjson.loads(call.body) == {"project": PROJECT, "app": APP, "name": "n", "description": f"d {REFERENCE}"}
    assert (call.repeatable, call.reconcilable, call.authenticated, call.yielding) == (False, True, True, False)


async def test_without_run_the_draft_is_all_there_is_to_do():
    staged = await service(Caller(task()), project=PROJECT).stage(a_batch(), payload())
    assert staged.settlement == settled(status="DRAFT")


async def test_a_draft_that_cannot_be_run_yet_is_created_and_says_why():
    staged = await service(Caller(task(errors=ERRORS)), project=PROJECT).stage(a_batch(), payload())
    assert staged.settlement == settled(status="DRAFT", errors=ERRORS)


async def test_one_that_shall_run_and_cannot_is_deleted_and_refused_with_its_inputs():
    caller = Caller(task(errors=ERRORS), task(errors=ERRORS), b"")
    with pytest.raises(Refused, match=r"its draft cannot be run: inputs\.reads: This input is required\."):
        await service(caller, run=True).stage(a_batch(), payload())
    assert caller.kinds == ["create", "get", "delete"]


async def test_the_defaults_of_the_configuration_go_up_with_the_spec():
    caller = Caller(task())
    defaults = {"batch_input": "reads", "batch_by": CRITERIA, "use_interruptible_instances": True}
    defaults |= {"execution_settings": {"instance_type": "c4.2xlarge"}, "output_location": {"main_location": "r"}}
    await service(caller, name="n", inputs={"threads": 4}, **defaults).stage(a_batch(), payload())
    sent = orjson.loads(caller.calls[0].body)
    spec = {"project": PROJECT, "app": APP, "name": "n", "inputs": {"threads": 4}, "description": REFERENCE}
    assert sent == {**spec, **defaults}


async def test_batching_is_disabled_in_the_body_and_in_the_query_as_the_vendors_client_does():
    caller = Caller(task())
    await service(caller).stage(a_batch(), payload(batch=False))
    assert caller.calls[0].query == {"fields": TASK_FIELDS, "batch": "False"}
    assert orjson.loads(caller.calls[0].body)["batch"] is False


async def test_files_that_are_only_named_are_found_before_the_draft_is_created():
    found = listed([{"id": "f1", "name": "a b&c.fastq", "type": "file"}])
    caller = Caller(listed([], total=500), found, task())
    inputs = {"reads": [{"class": "File", "name": "a b&c.fastq"}], "n": 12345678901234567890}
    await service(caller).stage(a_batch(), payload(inputs=inputs))
    every, find, create = caller.calls
    assert (find.kind, find.method, find.url) == ("files", "GET", f"{API}/files?name=a%20b%26c.fastq")
    assert (every.kind, every.method, every.url) == ("files", "GET", f"{API}/files")
    assert (find.query["project"], find.query["fields"]) == (PROJECT, "id,name,type")
    assert not find.few_tries
    reads = {"class": "File", "name": "a b&c.fastq", "path": "f1"}
    assert orjson.loads(create.body)["inputs"] == {"reads": [reads], "n": 12345678901234567890}


async def test_files_in_folders_are_listed_by_their_parent_and_many_names_may_be_asked_for_in_parts():
    folder, reads = {"id": "F", "name": "runs", "type": "FOLDER"}, [{"id": f"f{n}", "name": f"r{n}"} for n in (1, 2)]
    caller = Caller(listed([folder]), listed([], total=500), listed(reads), task())
    inputs = {"reads": [{"class": "File", "name": f"runs/r{n}"} for n in (1, 2)]}
    await service(caller).stage(a_batch(), payload(inputs=inputs))
    root, every, find, create = caller.calls
    assert (root.query["project"], "parent" in root.query) == (PROJECT, False)
    assert [(call.query["parent"], "project" in call.query) for call in (every, find)] == [("F", False)] * 2
    assert (find.url, every.few_tries, find.few_tries) == (f"{API}/files?name=r1&name=r2", False, True)
    assert orjson.loads(create.body)["inputs"]["reads"][1] == {"class": "File", "name": "r2", "path": "f2"}


async def test_a_file_that_is_not_there_refuses_the_record_before_anything_is_created():
    caller = Caller(listed([]), listed([]))
    with pytest.raises(Refused, match=r"inputs\.x: project owner/project has no file named 'a'"):
        await service(caller).stage(a_batch(), payload(inputs={"x": {"class": "File", "name": "a"}}))
    assert caller.kinds == ["files", "files"]


@pytest.mark.parametrize("answer", [b"", b"<html>", [1], {}, {"id": TASK_ID}, {"id": 5, "status": "DRAFT"}])
async def test_a_create_whose_answer_is_no_task_may_have_been_applied(answer):
    with pytest.raises(UnexpectedAnswer):
        await service(Caller(answer)).stage(a_batch(), payload())


# Looking for a draft whose answer was lost


async def test_after_a_lost_answer_the_draft_is_looked_for_and_gone_on_with():
    caller = Caller(PossiblyApplied("lost"), listed([task(id="other"), task(description=f"d {REFERENCE}")]))
    bridges = service(caller, run=True)
    with pytest.raises(PossiblyApplied):
        await bridges.stage(a_batch(), payload())
    assert await bridges.find(a_batch(), payload()) == TASK_ID
    find = caller.calls[1]
    assert (find.kind, find.method, find.url, find.yielding) == ("find", "GET", f"{API}/tasks", False)
    assert find.query == {
        "project": PROJECT,
        "created_from": time_text(NOW - OUR_CLOCK_SECONDS),
        "order_by": "created_time",
        "order": "asc",
        "fields": TASK_FIELDS,
        "limit": "100",
        "offset": "0",
    }
    assert await bridges.stage(a_batch(), payload(), earlier_id=TASK_ID) == Staged(TASK_ID)
    assert caller.kinds == ["create", "find"], "what the search has seen need not be asked for"


async def test_one_look_that_finds_nothing_says_so_and_creates_nothing():
    caller = Caller(listed([]))
    assert await service(caller, run=True).find(a_batch(), payload()) is None
    assert caller.kinds == ["find"]


async def test_a_draft_that_an_earlier_run_made_is_asked_for_by_its_name():
    caller = Caller(task())
    assert await service(caller, run=True).stage(a_batch(), payload(), earlier_id=TASK_ID) == Staged(TASK_ID)
    (call,) = caller.calls
    assert (call.kind, call.url) == ("get", f"{API}/tasks/{TASK_ID}")


async def test_a_draft_that_is_known_and_not_to_be_seen_may_still_be_there():
    with pytest.raises(PossiblyApplied, match=f"draft {TASK_ID} is not to be seen"):
        await service(Caller(Refused("no such task", status=404))).stage(a_batch(), payload(), earlier_id=TASK_ID)
    with pytest.raises(Refused):
        await service(Caller(Refused("busy", status=409))).stage(a_batch(), payload(), earlier_id=TASK_ID)


async def test_a_search_goes_back_by_the_settle_time_from_the_newest_draft_known_when_the_lost_call_went_out():
    caller = Caller(task(created_time="2027-01-15T09:00:00Z"), PossiblyApplied("lost"))
    caller.answers += [task(created_time="2027-01-15T09:30:00Z"), listed([]), PossiblyApplied("lost again")]
    caller.answers += [listed([task(description=REFERENCE)])]
    bridges = service(caller)
    bridges.settle_seconds = 7.0
    await bridges.stage(a_batch(1), payload())
    with pytest.raises(PossiblyApplied):
        await bridges.stage(a_batch(), payload())
    await bridges.stage(a_batch(2), payload())
    assert await bridges.find(a_batch(), payload()) is None
    with pytest.raises(PossiblyApplied):
        await bridges.stage(a_batch(), payload())
    assert await bridges.find(a_batch(), payload()) == TASK_ID
    await bridges.stage(a_batch(), payload(), earlier_id=TASK_ID)
    froms = {call.query["created_from"] for call in caller.calls if call.kind == "find"}
    assert froms == {time_text(NOW + 3600 - 7)}
    assert bridges._sent_after == {}


async def test_adopted_without_run_it_says_how_it_stands():
    caller = Caller(listed([task("QUEUED", description=REFERENCE)]))
    bridges = service(caller, project=PROJECT)
    found = await bridges.find(a_batch(), payload())
    assert (await bridges.stage(a_batch(), payload(), earlier_id=found)).settlement == settled(status="QUEUED")


async def test_one_that_somebody_mended_and_ran_is_not_deleted_for_its_errors():
    caller = Caller(listed([task("RUNNING", description=REFERENCE, errors=ERRORS)]))
    bridges = service(caller, run=True)
    found = await bridges.find(a_batch(), payload())
    assert await bridges.stage(a_batch(), payload(), earlier_id=found) == Staged(TASK_ID)


async def test_the_pages_of_a_search_overlap_by_one_so_that_none_slips_by():
    first, second = [task(id=f"t{n}") for n in range(3)], [task(id="t2"), task(id="t3", description=REFERENCE)]
    caller = Caller(listed(first, 4), listed(second, 4))
    assert await service(caller).find(a_batch(), payload()) == "t3"
    assert [call.query["offset"] for call in caller.calls] == ["0", "2"]


async def test_a_list_from_which_something_was_deleted_meanwhile_is_read_again():
    first = [task(id=f"t{n}") for n in range(3)]
    caller = Caller(listed(first, 4), listed([task(id="t3")], 3))
    caller.answers += [listed([task(id="t1"), task(id="t2"), task(id="t3", description=REFERENCE)])]
    assert await service(caller).find(a_batch(), payload()) == "t3"
    assert [call.query["offset"] for call in caller.calls] == ["0", "2", "0"]


async def test_a_list_that_says_it_has_more_than_it_shows_is_not_taken_for_whole():
    caller = Caller(*[listed([], 3)] * 5)
    with pytest.raises(UnexpectedAnswer, match="says it has 3 items, and shows 0"):
        await service(caller).find(a_batch(), payload())


async def test_a_list_that_does_not_say_how_long_it_is_is_read_as_far_as_its_links_lead():
    following = {"links": [{"rel": "prev"}, {"rel": "next", "href": f"{API}/tasks?offset=2"}]}
    first = {"items": [task(id=f"t{n}") for n in range(3)], **following}
    last = {"items": [task(id="t2"), task(id="t3", description=REFERENCE)], "links": [{"rel": "prev"}]}
    caller = Caller(first, last)
    assert await service(caller).find(a_batch(), payload()) == "t3"
    assert [call.query["offset"] for call in caller.calls] == ["0", "2"]


def test_times_are_asked_for_in_a_form_that_the_vendor_names():
    assert time_text(1_452_623_970.7) == "2016-01-12T18:39:30+00:00"


@pytest.mark.parametrize("answer", [Answer(200, {}, b'{"items":[]}'), listed([1]), listed([{"no": "id"}])])
async def test_a_list_that_cannot_be_understood_does_not_say_that_nothing_is_there(answer):
    caller = Caller(answer)
    with pytest.raises(UnexpectedAnswer):
        await service(caller).find(a_batch(), payload())
    assert caller.kinds == ["find"]


# What lost answers left there


def draft(number, batch, **fields):
    return task(id=f"t{number}", description=f"d {draft_reference(JOB, batch)}", **fields)


def knowing(**names):
    """Return what the ledger knows: the batches by the word `b` and their sequence, and the names of their tasks."""
    known = {int(word[1:]): name for word, name in names.items()}

    async def find(sequence):
        if sequence not in known:
            return None
        return a_batch(sequence), Submission(sequence, State.SETTLED, known[sequence])

    return find


async def test_a_task_with_the_marker_of_a_batch_that_is_another_task_is_extra():
    one, two, three = (a_batch(sequence) for sequence in (1, 2, 3))
    caller = Caller(listed([draft(1, one), draft(2, two), draft(3, two), draft(4, three), task(id="t5")]))
    extras = await service(caller, project=PROJECT).find_extras(knowing(b1="t1", b2="t3", b3="t4"))
    assert extras == ["t2"]
    (call,) = caller.calls
    assert (call.kind, call.query["created_from"]) == ("find", time_text(NOW - OUR_CLOCK_SECONDS))


async def test_a_task_of_a_batch_of_which_nothing_is_known_there_is_extra():
    listing = listed([draft(1, a_batch(1))])
    assert await service(Caller(listing), project=PROJECT).find_extras(knowing(b1=None)) == ["t1"]


async def test_what_belongs_to_others_is_not_extra():
    unknown, namesake = a_batch(8), a_batch(2, sha256=b"\x01" * 32)
    other_job = task(id="t4", description="[bulksubmit other/1/0123456789ab]")
    child = draft(5, a_batch(2), parent="t1")
    listing = listed([draft(1, unknown), draft(3, namesake), other_job, child])
    assert await service(Caller(listing), project=PROJECT).find_extras(knowing(b2="t9")) == []


async def test_where_each_record_names_its_project_nobody_knows_where_to_look():
    caller = Caller()
    assert await service(caller).find_extras(knowing(b1="t1")) == ()
    assert caller.calls == []


# What was certainly not created


@pytest.mark.parametrize("error", [Refused("no", status=400), Unauthorized(status=401), Unavailable("down")])
async def test_what_was_certainly_not_created_leaves_nothing_to_look_for(error):
    bridges = service(Caller(error))
    with pytest.raises(type(error)):
        await bridges.stage(a_batch(), payload())
    assert bridges._sent_after == {}


# What is noticed


async def test_a_draft_that_comes_back_with_its_marker_is_nothing_to_tell():
    events = []
    await service(Caller(task(description=f"d {REFERENCE}")), emit=events.append).stage(a_batch(), payload())
    assert events == []


async def test_a_description_that_has_lost_its_marker_is_told_once():
    events = []
    bridges = service(Caller(*[task(description=f"d {REFERENCE[:-3]}")] * 2), emit=events.append)
    for _ in range(2):
        await bridges.stage(a_batch(), payload())
    (event,) = events
    assert event.text.startswith(
        f"the description of task {TASK_ID} has lost the client reference at its end ({REFERENCE})"
    )


async def test_each_status_never_heard_of_is_told_once_wherever_it_shows():
    events = []
    said = [task("NEW"), bulk(task("NEW"), task("QUEUED")), task("NEWER"), task("NEWEST", description=REFERENCE)]
    bridges = service(Caller(*said), emit=events.append, **RUNS)
    await bridges.release(a_batch(), TASK_ID, None)
    await bridges.progress(follows())
    await bridges.remote_status(TASK_ID)
    await bridges.stage(a_batch(), payload())
    assert [event.text.split(",")[0] for event in events] == [
        f"task {TASK_ID} has the status {word}" for word in ("NEW", "NEWER", "NEWEST")
    ]


# Releasing: a run


async def test_a_release_runs_the_draft_and_may_be_repeated():
    caller = Caller(task("QUEUED"))
    released = await service(caller, **RUNS).release(a_batch(), TASK_ID, None)
    assert released == Released(TASK_ID, settled(status="QUEUED"))
    (call,) = caller.calls
    assert (call.kind, call.method, call.url) == ("run", "POST", f"{API}/tasks/{TASK_ID}/actions/run")
    assert (call.repeatable, call.body, call.query) == (True, b"{}", {"fields": TASK_FIELDS})


@pytest.mark.parametrize(
    ("status", "code", "unknown", "released_before"),
    [(404, "7002", True, False), (400, "7010", False, True), (400, "7012", False, False), (403, "", False, False)],
)
async def test_a_run_is_refused_for_what_is_not_there_for_what_is_no_draft_or_for_another_reason(
    status, code, unknown, released_before
):
    refusal = Refused("no", status=status)
    refusal.code = code
    with pytest.raises(Refused) as caught:
        await service(Caller(refusal), **RUNS).release(a_batch(), TASK_ID, None)
    assert (caught.value.batch_not_found, caught.value.released_before) == (unknown, released_before)


@pytest.mark.parametrize(
    ("answer", "until"), [(parent("QUEUED", queued=2), ""), (task("QUEUED"), "finished"), (parent(), "finished")]
)
async def test_a_parent_and_who_shall_finish_are_followed(answer, until):
    bridges = service(Caller(answer), job=replace(JOB, until=until), **RUNS)
    assert await bridges.release(a_batch(), TASK_ID, None) == Released(TASK_ID)


async def test_there_is_nothing_to_upload():
    caller = Caller()
    await service(caller).upload(Staged(TASK_ID), payload())
    assert caller.calls == []


@pytest.mark.parametrize(
    ("answer", "remote_status"),
    [
        (task("DRAFT"), RemoteStatus.WAITING),
        *[(task(status), RemoteStatus.STARTED) for status in ("CREATING", "QUEUED", "RUNNING", "COMPLETED", "ABORTED")],
        (task("BRAND_NEW"), RemoteStatus.STARTED),
        (Refused("no such task", status=404), RemoteStatus.NOT_THERE),
    ],
)
async def test_only_a_draft_may_be_run_again(answer, remote_status):
    caller = Caller(answer)
    assert await service(caller, **RUNS).remote_status(TASK_ID) is remote_status
    assert (caller.calls[0].method, caller.calls[0].url) == ("GET", f"{API}/tasks/{TASK_ID}")


@pytest.mark.parametrize("error", [Refused("what?", status=400), Unauthorized(status=401)])
async def test_a_question_that_is_refused_is_no_answer(error):
    with pytest.raises(type(error)):
        await service(Caller(error)).remote_status(TASK_ID)


# Following


async def test_one_call_asks_about_a_hundred_tasks():
    ids = [f"t{number}" for number in range(100)]
    caller = Caller(bulk(*(task("QUEUED", id=one) for one in reversed(ids))))
    bridges = service(caller, **RUNS)
    assert bridges.polls_together == 100
    answers = await bridges.progress(follows(*ids))
    assert {one.sequence: one.settlement.task_ids for one in answers} == {at: [one] for at, one in enumerate(ids)}
    (call,) = caller.calls
    assert (call.kind, call.method, call.url) == ("bulk", "POST", f"{API}/bulk/tasks/get")
    assert orjson.loads(call.body) == {"task_ids": ids}
    assert (call.repeatable, call.yielding, call.query) == (True, True, {"fields": BULK_FIELDS})
    assert BULK_FIELDS.split(",")[:3] == ["resource.id", "resource.name", "resource.status"]


@pytest.mark.parametrize("blank", [{}, {"resource": {}}, {"resource": None}, {"resource": {"name": "n"}}])
async def test_a_bulk_call_whose_fields_bring_no_tasks_is_made_without_them_from_then_on(blank):
    whole = bulk(task("QUEUED"), {"code": 7002})
    caller = Caller({"items": [blank, {"error": {}}]}, whole, whole)
    bridges = service(caller, **RUNS)
    for _ in range(2):
        assert [one.sequence for one in await bridges.progress(follows(TASK_ID, "gone"))] == [0]
    assert [call.query for call in caller.calls] == [{"fields": BULK_FIELDS}, {}, {}]


async def test_a_bulk_call_that_brings_no_task_in_any_form_says_so():
    caller = Caller({"items": [{}]}, {"items": [{"resource": {}}]})
    with pytest.raises(UnexpectedAnswer, match="1 items of the answer are neither tasks nor errors"):
        await service(caller, **RUNS).progress(follows())


async def test_one_item_that_is_nothing_is_no_matter_of_the_other_tasks():
    caller = Caller(*[{"items": [{}, {"resource": task("QUEUED")}]}] * 2)
    assert [one.sequence for one in await service(caller, **RUNS).progress(follows("a", TASK_ID))] == [1]


@pytest.mark.parametrize("error", [{}, {"code": 7002}])
async def test_errors_alone_say_nothing_and_are_no_reason_to_ask_otherwise(error):
    caller = Caller({"items": [{"error": error}, {"resource": None, "error": error}]})
    assert await service(caller, **RUNS).progress(follows("a", "b")) == []


async def test_nothing_is_said_of_a_task_that_is_not_there_and_the_others_are_told():
    caller = Caller(bulk(task("QUEUED", id="a"), {"status": 404, "code": 7002, "message": "no such task"}))
    answers = await service(caller, **RUNS).progress(follows("a", "b"))
    assert [one.sequence for one in answers] == [0]


@pytest.mark.parametrize(
    ("said", "until", "progress"),
    [
        (task("DRAFT"), "created", BatchProgress(0, 0, finished=False, waiting=True)),
        (task("CREATING"), "created", BatchProgress(0, 0, finished=False)),
        (task("QUEUED"), "created", BatchProgress(0, 1, finished=True, settlement=settled(status="QUEUED"))),
        (task("BRAND_NEW"), "created", BatchProgress(0, 1, finished=True, settlement=settled(status="BRAND_NEW"))),
        (parent("CREATING"), "created", BatchProgress(0, 0, finished=False)),
        (parent("QUEUED"), "created", BatchProgress(0, 0, finished=False)),
        (parent("QUEUED", queued=2), "created", BatchProgress(0, 1, finished=True)),
        (parent("RUNNING", completed=2), "created", BatchProgress(0, 1, finished=True)),
        (parent("ABORTED"), "created", BatchProgress(0, 1, finished=True)),
        (task("QUEUED"), "finished", BatchProgress(0, 1, finished=False)),
        (task("ABORTING"), "finished", BatchProgress(0, 1, finished=False)),
        (task("COMPLETED"), "finished", BatchProgress(0, 1, finished=True, settlement=settled(status="COMPLETED"))),
        (parent("RUNNING", running=1, completed=1), "finished", BatchProgress(0, 1, finished=False)),
        (parent("FAILED", failed=1, completed=1), "finished", BatchProgress(0, 1, finished=True)),
    ],
)
async def test_a_poll_sees_what_was_waited_for(said, until, progress):
    bridges = service(Caller(bulk(said)), job=replace(JOB, until=until), **RUNS)
    assert await bridges.progress(follows()) == [progress]


async def test_a_task_that_failed_was_created_and_says_how_it_ended():
    failed = task("FAILED", execution_status={"message": "Insufficient disk space"})
    bridges = service(Caller(bulk(failed)), until="finished", **RUNS)
    (progress,) = await bridges.progress(follows())
    assert progress.settlement == settled(
        status="FAILED",
        message="Insufficient disk space",
        later="failed",
        later_reason="Insufficient disk space",
    )
    assert progress.settlement.created == 1


EXECUTION = {"steps_completed": 3, "steps_total": 3, "duration": 90_000, "running_duration": 60_000, "message": "Done"}
TIMES = {"start_time": "2027-01-15T08:00:10Z", "end_time": "2027-01-15T08:01:40Z"}
PRICE = {"amount": 0.27, "currency": "USD"}
SHOWN = {key: value for key, value in EXECUTION.items() if key != "message"} | TIMES | {"price": PRICE}


async def test_an_outcome_says_how_many_steps_a_task_took_when_and_for_how_much():
    done = task("COMPLETED", execution_status={**EXECUTION, "queued_duration": None}, price=PRICE, **TIMES)
    bridges = service(Caller(bulk(done)), until="finished", **RUNS)
    (progress,) = await bridges.progress(follows())
    assert progress.settlement == settled(status="COMPLETED", **SHOWN)


async def test_a_status_never_heard_of_is_an_end_once_the_task_has_an_end_time():
    caller = Caller(bulk(task("CEASED", end_time=None), task("CEASED", id="b", end_time="2027-01-15T08:01:40Z")))
    answers = await service(caller, until="finished", **RUNS).progress(follows(TASK_ID, "b"))
    assert [one.finished for one in answers] == [False, True]


async def test_a_task_of_another_project_carries_its_own_page():
    bridges = service(Caller(bulk(task("QUEUED", project="other/project"))), **RUNS)
    (progress,) = await bridges.progress(follows())
    assert progress.settlement.details[0]["url"] == f"https://igor.sbgenomics.com/u/other/project/tasks/{TASK_ID}/"


@pytest.mark.parametrize("answer", [{}, {"items": {}}, {"items": [1]}, b"<html>", bulk({"id": "x"})])
async def test_a_poll_that_cannot_be_understood_is_none(answer):
    with pytest.raises(UnexpectedAnswer):
        await service(Caller(answer, answer), **RUNS).progress(follows())


# Parents and their children


def child(number, status="COMPLETED", **fields):
    group = {"value": f"hg19, s{number}", "fields": {"metadata.library_id": "hg19", "metadata.sample_id": f"s{number}"}}
    return task(status, id=f"c{number}", name=f"n - s{number}", parent=TASK_ID, batch_group=group, **fields)


async def test_the_outcome_of_a_parent_lists_its_children_with_their_groups():
    whole = parent("FAILED", completed=1, failed=1)
    broken = child(2, "FAILED", execution_status={"message": "Docker image not found", "steps_total": 1})
    done = child(1, execution_status=EXECUTION, price=PRICE, **TIMES)
    caller = Caller({**whole, "price": PRICE}, listed([done, broken]))
    settlement = await service(caller, **RUNS).settlement(*follows())
    groups = [child(number)["batch_group"] for number in (1, 2)]
    assert settlement == settled(
        status="FAILED",
        execution_status=whole["execution_status"],
        price=PRICE,
        children=[
            {"task_id": "c1", "name": "n - s1", "batch_group": groups[0], "status": "COMPLETED"}
            | {"created_time": CREATED, **SHOWN},
            {"task_id": "c2", "name": "n - s2", "batch_group": groups[1], "status": "FAILED"}
            | {"created_time": CREATED, "steps_total": 1, "message": "Docker image not found"},
        ],
        later="failed",
        later_reason="Failed; 1 of its 2 children failed or were aborted",
    )
    _, listing = caller.calls
    assert (listing.kind, listing.url, listing.query["parent"]) == ("children", f"{API}/tasks", TASK_ID)


async def test_children_are_read_from_all_pages():
    children = [child(number) for number in range(150)]
    caller = Caller(parent(completed=150), listed(children[:100], 150), listed(children[99:], 150))
    settlement = await service(caller, **RUNS).settlement(*follows())
    assert [one["task_id"] for one in settlement.details[0]["children"]] == [f"c{number}" for number in range(150)]
    assert [call.query["offset"] for call in caller.calls[1:]] == ["0", "99"]


async def test_fewer_children_than_the_parent_counts_are_not_taken_for_all():
    caller = Caller(parent(completed=2), listed([child(1)]))
    with pytest.raises(UnexpectedAnswer, match="has 2 children, but only 1 are listed"):
        await service(caller, **RUNS).settlement(*follows())


async def test_a_single_task_can_be_settled_as_well():
    assert await service(Caller(task("QUEUED")), **RUNS).settlement(*follows()) == settled(status="QUEUED")


# Cancelling, and how the work stands


@pytest.mark.parametrize(
    ("status", "kinds"),
    [
        ("DRAFT", ["get", "delete"]),
        ("CREATING", ["get", "abort"]),
        ("QUEUED", ["get", "abort"]),
        ("RUNNING", ["get", "abort"]),
        ("ABORTING", ["get"]),
        ("COMPLETED", ["get"]),
        ("FAILED", ["get"]),
        ("ABORTED", ["get"]),
    ],
)
async def test_a_cancel_deletes_a_draft_and_stops_what_is_under_way(status, kinds):
    caller = Caller(task(status), b"")
    await service(caller).cancel(TASK_ID)
    assert caller.kinds == kinds
    ways = {"delete": ("DELETE", f"{API}/tasks/{TASK_ID}"), "abort": ("POST", f"{API}/tasks/{TASK_ID}/actions/abort")}
    assert [(call.method, call.url) for call in caller.calls[1:]] == [ways[kind] for kind in kinds[1:]]


@pytest.mark.parametrize("answers", [[Refused("", status=404)], [task(), Refused("", status=404)]])
async def test_what_is_gone_needs_no_cancel(answers):
    await service(Caller(*answers)).cancel(TASK_ID)


async def test_a_draft_that_was_run_meanwhile_is_not_deleted_and_says_so():
    with pytest.raises(Refused):
        await service(Caller(task(), Refused("7007", status=400))).cancel(TASK_ID)


async def test_work_is_counted_by_status_and_by_the_children_of_parents():
    ids = ["a", "b", "c", "d", "e"]
    said = [task("QUEUED", id="a"), parent("RUNNING", queued=2, running=3, completed=1), task("DRAFT", batch=True)]
    caller = Caller(bulk(*said, task("FAILED"), {"code": 7002}))
    assert await service(caller).count_work(ids) == {
        "queued": 3,
        "running": 3,
        "completed": 1,
        "draft": 1,
        "failed": 1,
        "not found": 1,
    }


# What it asks of its settings


def test_a_batch_is_one_record():
    assert service(batch=BatchSettings(max_records=1000, max_bytes=99)).limits == Limits(1, 99)
    assert service().staging


def test_a_second_run_is_refused_and_a_draft_is_searched_for():
    bridges = service()
    assert (bridges.again, bridges.stage_again) == (Again.REFUSED, Again.SEARCH)
    assert bridges.settle_seconds == SETTLE_SECONDS


@pytest.mark.parametrize(
    ("until", "keys", "complaint"),
    [
        ("done", {"run": True}, "--until done: a Seven Bridges task is done when it is created or finished"),
        ("finished", {}, "until finished: a draft never finishes by itself; set service.run = true"),
        ("", {"until": "finished"}, "until finished: a draft never finishes"),
    ],
)
def test_an_end_that_cannot_come_is_an_error_of_the_configuration(until, keys, complaint):
    with pytest.raises(ConfigError) as error:
        service(job=replace(JOB, until=until), **keys)
    assert str(error.value).startswith(complaint)


async def test_the_command_line_says_when_a_record_counts_as_done():
    bridges = service(Caller(bulk(task("QUEUED"))), job=replace(JOB, until="created"), until="finished", run=True)
    (progress,) = await bridges.progress(follows())
    assert progress.finished


# What the world sends


@pytest.mark.parametrize("odd", ["../x", "a/b", "", "x" * 201, 5, None, []], ids=repr)
async def test_an_odd_id_of_a_draft_is_none_so_that_the_draft_is_looked_for(odd):
    with pytest.raises(UnexpectedAnswer):
        await service(Caller(task(id=odd))).stage(a_batch(), payload())


@pytest.mark.parametrize("odd", [5, "x", None, {"resource": {"id": "b"}}, {"resource": {"id": "b", "status": 5}}])
async def test_an_odd_item_of_a_poll_is_no_matter_of_the_other_tasks(odd):
    good = task("COMPLETED")
    answer = {"items": [{"resource": good}, odd]}
    if isinstance(odd, dict):
        (progress,) = await service(Caller(answer), **RUNS).progress(follows(TASK_ID, "b"))
        assert progress.sequence == 0
    else:
        with pytest.raises(UnexpectedAnswer):
            await service(Caller(answer, answer), **RUNS).progress(follows(TASK_ID, "b"))


async def test_what_else_is_odd_in_a_task_counts_as_not_there():
    odd = {"errors": 5, "execution_status": "done", "price": [], "batch": "no", "name": {}, "batch_group": 1}
    times = {"created_time": 5, "start_time": "x" * 41, "end_time": []}
    (progress,) = await service(Caller(bulk(task("COMPLETED", **odd, **times))), **RUNS).progress(follows())
    assert progress.settlement.details == {0: {"status": "COMPLETED"}}


@pytest.mark.parametrize("odd", [5, [], {}])
async def test_a_search_takes_no_list_whose_descriptions_are_odd(odd):
    """A draft that is passed over is made twice."""
    with pytest.raises(UnexpectedAnswer):
        await service(Caller(listed([task(description=odd)]))).find(a_batch(), payload())


async def test_a_search_takes_no_list_that_had_to_be_mended():
    body = b'{"items":[{"id":"a","status":"DRAFT","description":"\\ud83d"}],"links":[]}'
    with pytest.raises(UnexpectedAnswer):
        await service(Caller(body)).find(a_batch(), payload())


@pytest.mark.parametrize("total", ["-1", "9" * 5000, "1e3", "\u0663", ""])
async def test_an_odd_total_of_a_list_is_none(total):
    answer = Answer(200, {"X-Total-Matching-Query": total}, b'{"items":[]}')
    with pytest.raises(UnexpectedAnswer, match="neither how long"):
        await service(Caller(answer)).find(a_batch(), payload())


async def test_what_is_said_of_a_task_is_kept_within_bounds_and_without_presigned_urls():
    signed = "https://bucket.s3.amazonaws.com/7?X-Amz-Signature=abc"
    said = {"message": f"see {signed}", "steps_total": 2**63, "queued": 1}
    (progress,) = await service(
        Caller(bulk(task("FAILED", execution_status=said, errors=[{"message": "x" * 10**6}] * 1000))), **RUNS
    ).progress(follows())
    details = progress.settlement.details[0]
    assert details["message"] == "see https://bucket.s3.amazonaws.com/7?***"
    assert len(orjson.dumps(details)) < 40_000
