"""Whole jobs against the sandbox, judged by its journal."""

import pytest

from engine.model.errors import Exit
from engine.sandbox.behaviour import FailureRule, Fault, Reads
from engine.sandbox.settings import App, AppInput, FileRule, Life, Rate, SevenBridgesUnwritten

from .bench import CURRENT, READS, specs
from .scripted import APP, PROJECT

CRITERIA = {"type": "CRITERIA", "criteria": ["metadata.library_id", "metadata.sample_id"]}
FILES = [{"class": "File", "path": f"{1:08x}{number:016x}"} for number in range(60)]
LOST = (
    Fault("create", "drop_after", share=0.03, seed=1),
    Fault("create", "drop_before", share=0.02, seed=2),
    Fault("run", "drop_after", share=0.03, seed=3),
    Fault("run", "drop_before", share=0.02, seed=4),
)


def once(count):
    return {f"t{number}": 1 for number in range(count)}


def parent(by, **fields):
    return {"name": "cohort", "batch_input": "reads", "batch_by": by, "inputs": {"reads": FILES}, **fields}


# Single tasks


async def test_drafts_are_created_and_nothing_is_run(bench):
    bench = await bench(run=False)
    result = await bench.submit(specs(30, description="my draft"))
    assert (result.state, result.exit_code, result.tally.created) == ("finished", Exit.ALL_CREATED, 30)
    assert (bench.times(), bench.times("run")) == (once(30), {})
    assert dict(bench.sandbox.stats.requests) == {"app": 1, "create": 30}
    line = bench.outcomes()[7]
    assert (line["state"], line["status"]) == ("created", "DRAFT")
    assert line["url"] == f"{bench.sandbox.url}/tasks/{line['task_id']}"
    assert (await bench.audit()).holds


async def test_until_created_each_task_takes_two_calls(bench):
    bench = await bench(life=Life(queued_seconds=100))
    result = await bench.submit(specs(30))
    assert (result.state, result.tally.created) == ("finished", 30)
    assert (bench.times(), bench.times("run")) == (once(30), once(30))
    assert dict(bench.sandbox.stats.requests) == {"app": 1, "create": 30, "run": 30}
    assert {line["status"] for line in bench.outcomes()} == {"QUEUED"}


async def test_until_finished_each_task_is_followed_to_its_end(bench):
    broken = FailureRule(path="inputs.n", equals=5, message="Docker image not found")
    bench = await bench(life=Life(running_seconds=0.2), failures=(broken,))
    result = await bench.submit(specs(150), until="finished")
    assert (result.state, result.exit_code, result.tally.created) == ("finished", Exit.TASKS_FAILED, 150)
    lines = bench.outcomes()
    assert {line["status"] for line in lines if line["index"] != 5} == {"COMPLETED"}
    failed = lines[5]
    assert (failed["state"], failed["status"], failed["message"]) == ("created", "FAILED", "Docker image not found")
    assert dict(bench.sandbox.stats.requests).keys() == {"app", "create", "run", "bulk"}


@pytest.mark.slow
async def test_answers_lost_on_creates_and_runs_make_nothing_twice(bench):
    bench = await bench(faults=LOST)
    result = await bench.submit(specs(300), until="finished")
    assert (result.state, result.exit_code, result.tally.created) == ("finished", Exit.ALL_CREATED, 300)
    assert (bench.times(), bench.times("run")) == (once(300), once(300))
    assert sum(bench.sandbox.stats.faults.values()) > 20
    assert result.orphans == 0
    assert (await bench.audit()).holds


async def test_drafts_whose_answers_are_lost_are_adopted(bench):
    bench = await bench(run=False, faults=(Fault("create", "drop_after", share=0.1, seed=1),))
    result = await bench.submit(specs(200))
    assert (result.exit_code, result.tally.created) == (Exit.ALL_CREATED, 200)
    assert bench.times() == once(200)
    assert len({line["task_id"] for line in bench.outcomes()}) == 200


async def test_what_a_list_shows_late_is_not_made_twice(bench):
    faults = (Fault("create", "drop_after", share=0.1, seed=1), Fault("create", "drop_late", nth=(9,), seconds=0.1))
    bench = await bench(run=False, faults=faults, reads=Reads(list_seconds=0.15))
    result = await bench.submit(specs(60))
    assert (result.exit_code, result.tally.created, result.message) == (Exit.ALL_CREATED, 60, "")
    assert bench.times() == once(60)


async def test_a_run_whose_answer_is_lost_and_shown_late_is_no_failure(bench):
    bench = await bench(faults=(Fault("run", "drop_after", nth=(1, 4)),), reads=Reads(single_seconds=0.2))
    result = await bench.submit(specs(10))
    assert (result.exit_code, result.tally.created) == (Exit.ALL_CREATED, 10)
    assert (bench.times(), bench.times("run")) == (once(10), once(10))


async def test_a_draft_that_comes_after_the_settle_time_is_reported_as_an_extra_one(bench):
    bench = await bench(faults=(Fault("create", "drop_late", nth=(2,), seconds=1.2),), life=Life(running_seconds=0.8))
    result = await bench.submit(specs(3), until="finished")
    assert (result.exit_code, result.tally.created) == (Exit.ALL_CREATED, 3)
    assert sorted(bench.times().values()) == [1, 1, 2]
    assert bench.times("run") == once(3), "the extra one is a draft"
    assert result.message.startswith("1 task at the service has a mark of this job and belongs to no outcome: ")
    assert not any(line["task_id"] in result.message for line in bench.outcomes())


async def test_the_rate_limit_is_never_run_into(bench):
    bench = await bench(rate=Rate(100, 1.0))
    result = await bench.submit(specs(70))
    assert result.tally.created == 70
    assert bench.sandbox.stats.rate_limited == 0


async def test_a_draft_with_invalid_inputs_fails_with_their_names_and_leaves_nothing_behind(bench):
    app = App(APP, inputs=(AppInput("n", "int", required=True),))
    bench = await bench(apps=(app,))
    result = await bench.submit([*specs(2), {"name": "bad", "inputs": {"n": "x"}}, {"name": "none"}])
    assert (result.exit_code, result.tally.created, result.tally.failed) == (Exit.SOME_FAILED, 2, 2)
    assert [line["error"] for line in bench.outcomes("rejects")] == [
        "its draft cannot be run: inputs.n: This input must be of type int.",
        "its draft cannot be run: inputs.n: This input is required.",
    ]
    assert bench.calls("delete") == 2
    assert bench.times("run") == once(2)


async def test_an_unknown_project_stops_the_job_with_the_services_code_and_words(bench):
    bench = await bench(projects=("other/project",))
    result = await bench.submit(specs(100))
    assert (result.exit_code, result.tally.failed, result.tally.unresolved) == (Exit.MEND_FIRST, 0, 100)
    assert "3002: Requested project does not exist." in result.message
    assert bench.calls("create") <= 40, "no more than were under way at once"


async def test_a_project_that_a_record_brings_itself_is_its_own_fault(bench):
    bench = await bench(projects=(PROJECT,))
    result = await bench.submit([*specs(1), {"name": "bad", "project": "no/such"}])
    assert (result.exit_code, result.tally.created, result.tally.failed) == (Exit.SOME_FAILED, 1, 1)
    assert "3002: Requested project does not exist." in bench.outcomes()[1]["error"]


async def test_records_that_the_service_would_not_take_are_rejected_before_anything_is_sent(bench):
    bench = await bench()
    result = await bench.submit([*specs(1), {"bath": True}])
    assert (result.tally.created, result.tally.rejected) == (1, 1)
    assert bench.outcomes()[1]["error"].startswith("bath: not a key of a task")


async def test_a_description_is_stored_as_it_is_written_with_the_marker_after_it(bench):
    written = ["  indented\n  code", "\tone tab\n", "\u2029", "plain", ""]
    bench = await bench(run=False)
    await bench.submit([{"description": one, "inputs": {"k": number}} for number, one in enumerate(written)])
    for one, line in zip(written, bench.outcomes(), strict=True):
        stored = (await bench.task(line["task_id"]))["description"]
        assert stored.startswith(f"{one} [bulksubmit j/" if one else "[bulksubmit j/")


async def test_outcomes_say_how_many_steps_a_task_and_a_child_took_when_and_for_how_much(bench):
    bench = await bench(files=(READS,), life=Life(running_seconds=0.1))
    await bench.submit([*specs(1), parent(CRITERIA)], until="finished")
    single, whole = bench.outcomes()
    for one in (single, *whole["children"]):
        assert (one["steps_completed"], one["steps_total"]) == (1, 1)
        assert one["running_duration"] == one["duration"] == 100
        assert one["price"]["currency"] == "USD"
        assert one["created_time"] <= one["start_time"] <= one["end_time"]
    assert (whole["execution_status"]["completed"], whole["price"]["currency"]) == (3, "USD")
    assert "steps_total" not in whole


# What no page of the vendor's says


UNWRITTEN = [
    {},
    {"bare_bulk_fields": "nothing"},
    {"bare_bulk_fields": "all"},
    {"bulk_errors": False, "reads": Reads(single_seconds=0.1, list_seconds=0.1, new_are_unknown=True)},
    {"bulk_order": "reversed"},
    {"descriptions": "trimmed"},
    {"descriptions": "one_line"},
    {"file_types": "upper"},
    {"reads": Reads(single_seconds=0.1, list_seconds=0.1, new_are_unknown=True)},
    {"list_order": "newest"},
    {"most_names": 3},
    {"run_lag_seconds": 0.3},
    {"status_words": {"COMPLETED": "SUCCEEDED", "RUNNING": "EXECUTING"}},
    {"total_header": False},
    {"z_times": False},
]
LOST_SOME = (Fault("create", "drop_after", nth=(3, 9)), Fault("run", "drop_after", nth=(4,)))


@pytest.mark.parametrize("switches", UNWRITTEN, ids=str)
async def test_whatever_the_service_does_each_task_is_made_and_run_once_and_followed_to_its_end(bench, switches):
    reads = FileRule(PROJECT, "runs/r{n}.fastq", count=150)
    lag = switches.get("reads", CURRENT)
    unwritten = SevenBridgesUnwritten(**{name: value for name, value in switches.items() if name != "reads"})
    bench = await bench(
        life=Life(running_seconds=0.2), files=(reads,), faults=LOST_SOME, reads=lag, unwritten=unwritten
    )
    bench.settle_seconds = 1.5  # far above the lag of reads, also where the machine stands still for a moment
    named = [{"class": "File", "name": f"runs/r{number}.fastq"} for number in range(20)]
    single = [{"name": f"t{n}", "description": " two\n lines \n", "inputs": {"x": named[n]}} for n in range(19)]
    result = await bench.submit([*single, parent({"type": "ITEM"}, inputs={"reads": named})], until="finished")
    assert (result.exit_code, result.tally.created, result.orphans) == (Exit.ALL_CREATED, 20, 0)
    assert (bench.times(), bench.times("run")) == ({**once(19), "cohort": 1}, {**once(19), "cohort": 1})
    lines, word = bench.outcomes(), switches.get("status_words", {}).get("COMPLETED", "COMPLETED")
    assert {one["status"] for line in lines for one in (line, *line.get("children", ()))} == {word}
    groups = {child["batch_group"]["value"] for child in lines[19]["children"]}
    assert (len(lines[19]["children"]), groups) == (20, {f"r{number}.fastq" for number in range(20)})
    assert (await bench.audit()).holds


GONE = Reads(single_seconds=10**6, list_seconds=10**6, new_are_unknown=True)


async def test_a_draft_that_is_gone_is_uncertain_after_the_settle_time_and_told_once(bench):
    bench = await bench(reads=GONE, unwritten=SevenBridgesUnwritten(run_lag_seconds=10**6))
    result = await bench.submit(specs(3))
    assert (result.state, result.exit_code, result.tally.uncertain) == ("finished", Exit.SOME_UNCERTAIN, 3)
    assert (bench.calls("run"), bench.times("run"), bench.times()) == (3, {}, once(3))
    assert bench.calls("get") <= 9


async def test_a_description_that_is_cut_is_told_once_a_run(bench):
    bench = await bench(run=False, unwritten=SevenBridgesUnwritten(descriptions="cut"))
    result = await bench.submit(specs(9, description="x" * 100))
    assert (result.exit_code, bench.times()) == (Exit.ALL_CREATED, once(9))
    (text,) = bench.noticed
    assert "has lost the client reference at its end ([bulksubmit j/" in text


async def test_each_status_never_heard_of_is_told_once_a_run(bench):
    words = {"COMPLETED": "SUCCEEDED", "RUNNING": "EXECUTING"}
    bench = await bench(life=Life(running_seconds=0.5), unwritten=SevenBridgesUnwritten(status_words=words))
    result = await bench.submit(specs(9), until="finished")
    assert result.exit_code == Exit.ALL_CREATED
    executing, succeeded = bench.noticed
    assert "has the status EXECUTING, which is not among" in executing
    assert "has the status SUCCEEDED, which is not among" in succeeded


# Interrupted


@pytest.mark.parametrize("state", ["staging", "staged", "releasing", "settled"])
async def test_a_job_stopped_in_any_state_goes_on_and_makes_nothing_twice(bench, state):
    bench = await bench(faults=(Fault("all", "hang", share=0.3, seconds=0.1),))
    bench.stop_after = (state, 25)
    assert (await bench.submit(specs(60))).state == "open"
    result = await bench.resume()
    assert (result.state, result.tally.created) == ("finished", 60)
    assert (bench.times(), bench.times("run")) == (once(60), once(60))


@pytest.mark.slow
@pytest.mark.parametrize(("state", "run"), [("settled", False), ("staged", True), ("releasing", True)])
async def test_a_job_broken_off_in_any_state_goes_on_and_makes_nothing_twice(bench, state, run):
    bench = await bench(run=run, faults=(Fault("all", "hang", share=0.5, seconds=0.1),))
    bench.crash_after = (state, 25)
    with pytest.raises(ExceptionGroup):
        await bench.submit(specs(60))
    result = await bench.resume()
    assert (result.state, result.tally.created, result.orphans) == ("finished", 60, 0)
    assert bench.times() == once(60)
    assert bench.times("run") == (once(60) if run else {})
    assert set(await bench.working()) <= ({"completed"} if run else {"draft"})


# Parents


async def test_a_parent_by_criteria_has_a_child_for_each_group(bench):
    bench = await bench(files=(READS,), life=Life(creating_seconds=0.1, queued_seconds=100))
    result = await bench.submit([parent(CRITERIA)])
    assert (result.state, result.exit_code) == ("finished", Exit.ALL_CREATED)
    (line,) = bench.outcomes()
    counts = {"queued": 3, "running": 0, "completed": 0, "failed": 0, "aborted": 0}
    assert line["execution_status"] == {"message": "Queued", **counts}
    samples = [f"E18127-pool{number}-L2355" for number in range(3)]
    assert [child["batch_group"] for child in line["children"]] == [
        {"value": f"hg19, {one}", "fields": {"metadata.library_id": "hg19", "metadata.sample_id": one}}
        for one in samples
    ]
    assert {child["status"] for child in line["children"]} == {"QUEUED"}
    assert bench.times("child").total() == 3


async def test_a_parent_by_item_is_followed_to_the_end_of_its_sixty_children(bench):
    bench = await bench(files=(READS,), life=Life(running_seconds=0.1))
    await bench.submit([parent({"type": "item"})], until="finished")
    (line,) = bench.outcomes()
    assert (line["status"], line["execution_status"]["completed"]) == ("COMPLETED", 60)
    assert [child["batch_group"]["value"] for child in line["children"]] == [f"s{n:02}.fastq" for n in range(60)]
    assert {child["status"] for child in line["children"]} == {"COMPLETED"}


async def test_more_children_than_a_page_holds_are_all_listed(bench):
    reads = [{"class": "File", "path": f"{number:024x}"} for number in range(250)]
    bench = await bench(life=Life(queued_seconds=100))
    await bench.submit([parent({"type": "ITEM"}, inputs={"reads": reads})])
    (line,) = bench.outcomes()
    assert len({child["task_id"] for child in line["children"]}) == 250


@pytest.mark.parametrize(
    ("spec", "children"),
    [
        ({}, 3),
        ({"batch": True}, 3),
        ({"batch_input": "reads", "batch_by": {"type": "ITEM"}}, 60),
        ({"batch": False}, 0),
    ],
)
async def test_the_apps_own_batching_can_be_taken_overridden_or_disabled(bench, spec, children):
    app = App(APP, batch_input="reads", batch_by=tuple(CRITERIA["criteria"]))
    bench = await bench(files=(READS,), apps=(app,))
    await bench.submit([{"name": "cohort", "inputs": {"reads": FILES}, **spec}])
    assert bench.times("child").total() == children
    assert len(bench.outcomes()[0].get("children", [])) == children


async def test_an_answer_lost_on_a_parent_makes_no_second_one(bench):
    faults = (Fault("create", "drop_after", nth=(1,)), Fault("run", "drop_after", nth=(1,)))
    bench = await bench(files=(READS,), faults=faults)
    await bench.submit([parent(CRITERIA)], until="finished")
    assert (bench.times(), bench.times("run")) == ({"cohort": 1}, {"cohort": 1})
    assert [child["status"] for child in bench.outcomes()[0]["children"]] == ["COMPLETED"] * 3


# Files by name, numbers as written


async def test_files_are_found_by_their_names(bench):
    bench = await bench(run=False, files=(READS, FileRule(PROJECT, "twice.fa", count=2)))
    named = [{"name": f"t{n}", "inputs": {"reads": {"class": "File", "name": f"s{n:02}.fastq"}}} for n in range(60)]
    odd = [{"inputs": {"x": {"class": "File", "name": name}}} for name in ("none.fa", "twice.fa")]
    result = await bench.submit([*named, *odd])
    assert (result.tally.created, result.tally.failed) == (60, 2)
    assert bench.calls("files") < 15
    task = await bench.task(bench.outcomes()[17]["task_id"])
    assert task["inputs"]["reads"] == {"class": "File", "name": "s17.fastq", "path": FILES[17]["path"]}
    errors = [line["error"] for line in bench.outcomes("rejects")]
    assert errors[0].startswith("inputs.x: project owner/project has no file named 'none.fa'")
    assert errors[1].startswith("inputs.x: project owner/project has 2 of the name 'twice.fa'")


async def test_files_in_folders_are_found_by_their_paths(bench):
    reads = FileRule(PROJECT, "runs/S{group:02}/r{n}.fastq", count=40, group_size=2)
    bench = await bench(run=False, files=(reads, FileRule(PROJECT, "index.fa")))
    files = [[{"class": "File", "name": f"runs/S{n:02}/r{2 * n + read}.fastq"} for read in range(2)] for n in range(20)]
    named = [
        {"name": f"t{n}", "inputs": {"reads": reads, "index": {"class": "File", "name": "index.fa"}}}
        for n, reads in enumerate(files)
    ]
    result = await bench.submit([*named, {"inputs": {"x": {"class": "File", "name": "r1.fastq"}}}])
    assert (result.tally.created, result.tally.failed) == (20, 1)
    assert bench.calls("files") <= 24  # root, runs, its twenty folders; the name that is not there
    task = await bench.task(bench.outcomes()[7]["task_id"])
    assert [one["name"] for one in task["inputs"]["reads"]] == ["r14.fastq", "r15.fastq"]
    assert task["errors"] == []
    assert "no file named 'r1.fastq' outside its folders" in bench.outcomes("rejects")[0]["error"]


async def test_a_manifest_and_a_template_make_tasks(bench):
    bench = await bench(run=False, files=(READS,))
    source = bench.folder / "manifest.csv"
    source.write_text("sample,r1,r2\n" + "".join(f"p{n},s{2 * n:02}.fastq,s{2 * n + 1:02}.fastq\n" for n in range(30)))
    template = """
[mapping.template]
name = "align ${row.sample}"
inputs.sample = "${row.sample}"
inputs.reads = [{ class = "File", name = "${row.r1}" }, { class = "File", name = "${row.r2}" }]
"""
    result = await bench.submit_file(source, more=template)
    assert (result.exit_code, result.tally.created) == (Exit.ALL_CREATED, 30)
    assert bench.times() == {f"align p{n}": 1 for n in range(30)}


# Cancelling, and how the work stands


async def test_a_cancel_stops_what_runs_and_deletes_what_was_only_drafted(bench):
    bench = await bench(life=Life(running_seconds=100))
    bench.stop_after = ("released", 30)
    assert (await bench.submit(specs(60), until="finished")).state == "open"
    assert (await bench.cancel()).state == "canceled"
    lines = bench.outcomes()
    assert {line["status"] for line in lines if line["state"] == "created"} == {"ABORTED"}
    assert bench.times("run").total() == sum(line["state"] == "created" for line in lines)
    assert bench.times("run").total() >= 30


async def test_the_state_of_the_work_can_be_asked_for(bench):
    bench = await bench(files=(READS,), life=Life(queued_seconds=0, running_seconds=100, parallel=40))
    await bench.submit([*specs(120), parent({"type": "ITEM"})])
    assert await bench.working() == {"running": 40, "queued": 140}
    assert bench.calls("bulk") >= 2
