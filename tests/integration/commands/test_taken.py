"""What a job has taken already is not submitted twice by accident."""

import asyncio
import io
import os

import pytest

import engine
from engine.commands import taken
from engine.commands.undo import undo
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import AlreadyTaken, Exit, JobLocked, SourceError
from engine.progress.events import Noticed
from engine.sandbox.behaviour import FailureRule
from engine.sandbox.settings import SandboxSama

from .desk import once, stopped, tasks

BROKEN = FailureRule(path="data.status", equals="broken", message="data.status must not be broken.")


async def refused(desk, source, config=None, **order):
    """Submit what a job has taken; return what is said, once it is seen that nothing was sent and nothing is left."""
    before = desk.created()
    with pytest.raises(AlreadyTaken) as caught:
        await desk.submit(source, config, job="k", **order)
    assert caught.value.exit_code == Exit.USAGE
    assert desk.created() == before
    assert "k" not in [status.job.name for status in await engine.status(None, desk.ledger)]
    return str(caught.value)


async def test_the_same_command_twice_makes_its_tasks_once_and_names_job_ledger_and_ways_on(desk):
    desk = await desk()
    source = desk.source(tasks(45))
    await desk.submit(source)
    said = await refused(desk, source)
    assert said.startswith(f"ledger {desk.ledger}: job 'j' has taken these records already, and is finished (45 of 45 ")
    assert "--delta" not in said, "no family knows its records"
    assert "--again" in said
    assert "resume" not in said, "there is nothing to go on with"
    assert desk.created() == once(45)


async def test_again_submits_all_the_same(desk):
    desk = await desk()
    source = desk.source(tasks(5))
    await desk.submit(source)
    assert (await desk.submit(source, job="k", again=True)).tally.created == 5
    assert set(desk.created().values()) == {2}


async def test_content_decides_wherever_it_stands_and_the_old_file_may_be_gone(desk):
    desk = await desk()
    source = desk.source(tasks(45))
    await desk.submit(source)
    os.utime(source, (1, 1))
    await refused(desk, source)
    source.rename(desk.folder / "elsewhere.ndjson")
    await refused(desk, desk.folder / "elsewhere.ndjson")
    halves = [desk.source(tasks(20), "a.ndjson"), desk.source(tasks(25, 20), "b.ndjson")]
    await refused(desk, halves)


async def test_what_is_refused_leaves_no_folder_but_one_that_was_there(desk):
    desk = await desk()
    source = desk.source(tasks(5))
    await desk.submit(source)
    (own := desk.folder / "own").mkdir()
    before = sorted(path for path in desk.folder.rglob("*") if path.is_dir())
    for output in (None, desk.folder / "new", own):
        with pytest.raises(AlreadyTaken):
            await desk.submit(source, job="k", output=output)
    with pytest.raises(SourceError):
        await desk.submit(desk.folder / "nowhere.ndjson", job="k")
    assert sorted(path for path in desk.folder.rglob("*") if path.is_dir()) == before


@pytest.mark.parametrize("changed", [0, 44])
async def test_a_file_of_equal_size_with_another_record_is_another_one(desk, changed):
    desk = await desk()
    await desk.submit(desk.source(tasks(45, priority="a")))
    records = tasks(45, priority="a")
    records[changed]["data"]["priority"] = "b"
    assert (await desk.submit(desk.source(records), job="k")).tally.created == 45


async def test_csv_is_compared_by_the_tasks_that_it_makes(desk):
    desk = await desk()
    source, config = desk.folder / "rows.csv", desk.config(more='[mapping]\nwrap = "data"')
    source.write_text("id,size\n1,7\n2,8\n")
    await desk.submit(source, config)
    await refused(desk, source, config)
    source.write_text("id,mass\n1,7\n2,8\n")
    assert (await desk.submit(source, config, job="k")).tally.created == 2


@pytest.mark.parametrize(("old", "new"), [("= 42", "= 7"), ("[mapping]", "[mapping]\ndefaults = { priority = 1 }")])
async def test_what_goes_elsewhere_or_becomes_other_tasks_is_not_the_same(desk, old, new):
    desk = await desk()
    source, config = desk.source(tasks(5)), desk.config(more="[mapping]")
    await desk.submit(source, config)
    config.write_text(config.read_text().replace(old, new))
    result = await desk.submit(source, config, job="k")
    assert result.job == "k"


async def test_how_it_is_sent_and_cut_into_batches_does_not_count(desk):
    desk = await desk()
    source = desk.source(tasks(45))
    await desk.submit(source)
    config = desk.config(send="max_in_flight = 1", service='notification_email = "a@example.com"')
    config.write_text(config.read_text().replace("max_records = 10", "max_records = 7"))
    await refused(desk, source, config)


async def test_of_an_open_job_decides_what_it_has_frozen_and_resume_is_offered(desk):
    desk = await desk()
    source = await stopped(desk)
    said = await refused(desk, source)
    assert "is open" in said
    assert f"`bulksubmit resume j --ledger {desk.ledger}` goes on with it" in said


async def test_a_job_that_created_nothing_does_not_count(desk):
    desk = await desk(failures=(BROKEN,))
    source = desk.source(tasks(5, status="broken"))
    assert (await desk.submit(source)).tally.failed == 5
    assert (await desk.submit(source, job="k")).tally.failed == 5


async def test_a_job_whose_tasks_were_all_taken_back_does_not_count(desk):
    desk = await desk(sama=SandboxSama(task_lists_per_second=0))
    source = desk.source(tasks(10))
    await desk.submit(source)
    await undo("j", desk.ledger, desk.emit, desk.new_stop())
    assert (await desk.submit(source, job="k")).tally.created == 10


async def test_a_retry_does_not_count(desk):
    desk = await desk(failures=(BROKEN,))
    await desk.submit(desk.source([*tasks(5), *tasks(5, 5, status="broken")]))
    rejects = (await engine.report("j", desk.ledger)).rejects
    rejects.write_text(rejects.read_text().replace("broken", "mended"))
    child = await desk.retry()
    assert child.tally.created == 5
    records = (desk.ledger.parent / "j.retry" / "records.ndjson").read_bytes()
    copy = desk.folder / "copy.ndjson"
    copy.write_bytes(records)
    assert (await desk.submit(copy, job="k")).tally.created == 5


async def test_while_a_job_runs_the_same_files_wait_for_it(desk):
    desk = await desk()
    source = desk.source(tasks(5))
    await desk.submit(source)
    await desk.submit(desk.source(tasks(5, 5), "b.ndjson"), job="b")
    async with SqliteLedger.open(desk.ledger, taken.wiring.CLOCK) as ledger:
        with ledger.lock("j"):
            with pytest.raises(JobLocked, match="job 'j' works on these records just now") as caught:
                await desk.submit(source, job="k")
            assert caught.value.exit_code == Exit.LOCKED
            source.chmod(0o640)
            with pytest.raises(JobLocked):
                await desk.submit(source, job="k")
            copy = desk.folder / "copy.ndjson"
            copy.write_bytes(source.read_bytes())
            with pytest.raises(JobLocked):
                await desk.submit(copy, job="k")
    assert desk.created() == once(10)


async def test_of_two_submits_at_the_same_moment_one_goes(desk):
    desk = await desk()
    source, config = desk.source(tasks(45)), desk.config()
    results = await asyncio.gather(
        *(engine.submit(source, config, desk.ledger) for _ in range(4)), return_exceptions=True
    )
    kinds = [type(result).__name__ for result in results]
    assert kinds.count("Result") == 1
    assert set(kinds) <= {"Result", "JobLocked", "AlreadyTaken"}
    assert desk.created() == once(45)


async def test_two_submits_in_the_same_second_get_two_names(desk, monkeypatch):
    desk = await desk()
    monkeypatch.setattr("engine.commands.submit.time.strftime", lambda _: "20261128-030000")
    config = desk.config()
    sources = [desk.source(tasks(5, 5 * at), f"{at}.ndjson") for at in range(3)]
    results = await asyncio.gather(*(engine.submit(source, config, desk.ledger) for source in sources))
    assert {result.job for result in results} == {f"engine-20261128-030000{end}" for end in ("", "-2", "-3")}
    assert desk.created() == once(15)
    third = await engine.submit(desk.source(tasks(5, 15), "d.ndjson"), config, desk.ledger)
    assert third.job == "engine-20261128-030000-4", "those that have ended keep their names"


async def test_standard_input_is_compared_too_and_not_kept_in_vain(desk, monkeypatch):
    desk = await desk()
    source = desk.source(tasks(5))
    await desk.submit(source)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    await refused(desk, "-")
    assert not (desk.ledger.parent / "k").exists()


async def test_what_takes_long_is_said_and_can_be_interrupted(desk, monkeypatch):
    desk = await desk()
    monkeypatch.setattr(taken, "TOLD_BYTES", 0)
    monkeypatch.setattr(taken, "GROUP_BYTES", 0)
    source = desk.source(tasks(45))
    await desk.submit(source)
    await refused(desk, source)
    notes = [event.text for event in desk.events if isinstance(event, Noticed)]
    assert [note for note in notes if "begin as those of job j" in note] == notes
    assert len(notes) == 1
    stop = engine.Stop()
    stop.request(engine.errors.Interrupted(15))
    with pytest.raises(engine.errors.Interrupted):
        await engine.submit(source, desk.config(), desk.ledger, stop=stop)


async def test_delta_knows_each_record_and_needs_no_look_at_the_whole(desk):
    desk = await desk()
    source = desk.source(tasks(45))
    await desk.submit(source, family="nights")
    result = await desk.submit(source, job="k", delta=True, family="nights")
    assert (result.tally.created, result.tally.skipped) == (0, 45)
    assert desk.created() == once(45)


async def test_a_job_whose_first_call_never_arrived_does_not_count(desk):
    desk = await desk()
    source, config = desk.source(tasks(5)), desk.config(send="give_up_seconds = 0", url="http://127.0.0.1:1/v2")
    assert (await desk.submit(source, config)).state == "open"
    assert (await desk.submit(source, config, job="k")).state == "open"
