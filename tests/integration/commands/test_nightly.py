import os
import shutil
import signal
import time

import anyio
import pytest

import engine
from engine.model.errors import ConfigError, Exit, JobError, JobLocked, SourceError, WindowClosed
from engine.sandbox.behaviour import CreationPace, FailureRule, Fault

from .desk import counts, once, tasks

NO = FailureRule(path="data.status", equals="broken", message="no")


def limits(**said):
    return engine.RunLimits(**said)


def overwrite(desk, source, records):
    """Put another file in the place of one, as an export does."""
    shutil.move(desk.source(records, "new"), source)


@pytest.fixture
async def night(desk, monkeypatch):
    """Return a desk where `nightly` is called, and the name of tonight's job."""

    async def starting(**behaviour):
        made = await desk(**behaviour)
        day = time.strftime("%Y-%m-%d")

        async def nightly(source, config=None, **order):
            order.setdefault("family", "load")
            return await engine.nightly(
                source, config or made.config(), made.ledger, made.emit, made.new_stop(), **order
            )

        made.nightly, made.tonight = nightly, f"load-{day}"
        return made

    return starting


# One night


async def test_tonights_job_is_called_after_the_family_and_the_day(night):
    desk = await night()
    result = await desk.nightly(desk.source(tasks(25)))
    assert (result.job, result.state, result.exit_code) == (desk.tonight, "finished", Exit.ALL_CREATED)
    assert desk.created() == once(25)
    status = await desk.status(desk.tonight)
    assert (status.job.family, status.job.delta) == ("load", True)


async def test_the_family_is_called_after_the_configuration_if_it_has_no_name(night):
    desk = await night()
    result = await desk.nightly(desk.source(tasks(5)), family=None)
    assert result.job.startswith("engine-20")


async def test_called_again_once_all_is_done_it_sends_nothing_and_says_so(night):
    desk = await night()
    source = desk.source([*tasks(5), {"data": {"id": "5"}, "priority": "high"}])
    first = await desk.nightly(source)
    again = await desk.nightly(source)
    assert (again.job, again.exit_code, first.exit_code) == (desk.tonight, Exit.SOME_FAILED, Exit.SOME_FAILED)
    assert "has loaded these files already, and they have not changed since: there is nothing new" in again.message
    assert desk.created() == once(5)
    assert len(await engine.status(None, desk.ledger)) == 1


async def test_called_again_it_goes_on_with_tonights_job(night):
    desk = await night()
    source, desk.stop_at = desk.source(tasks(60)), 2
    config = desk.config(send="max_in_flight = 1")
    stopped = await desk.nightly(source, config)
    assert (stopped.state, stopped.exit_code) == ("open", 128 + signal.SIGTERM)
    assert "not begun" not in stopped.message
    desk.stop_at = None
    result = await desk.nightly(source, config)
    assert (result.job, counts(result)) == (desk.tonight, (60, 0, 0, 0, 0))
    assert desk.created() == once(60)


async def test_a_file_that_came_anew_the_same_night_is_a_further_job_of_it(night):
    desk = await night()
    source = desk.source(tasks(5))
    await desk.nightly(source)
    overwrite(desk, source, tasks(5, start=5))
    result = await desk.nightly(source)
    assert (result.job, result.state) == (f"{desk.tonight}.2", "finished")
    assert desk.created() == once(10)
    assert (await desk.nightly(source)).job == f"{desk.tonight}.2"


async def test_a_job_that_a_person_has_canceled_is_not_begun_anew_the_same_night(night):
    desk = await night()
    source, desk.stop_at = desk.source(tasks(60)), 2
    await desk.nightly(source, desk.config(send="max_in_flight = 1"))
    desk.stop_at = None
    await desk.cancel(desk.tonight)
    created = desk.created()
    with pytest.raises(JobError, match=r"of this night was canceled, and its files have not changed"):
        await desk.nightly(source)
    assert desk.created() == created


async def test_standard_input_is_refused_and_a_missing_file_closes_nothing(night):
    desk = await night()
    with pytest.raises(ConfigError, match="write standard input to one first"):
        await desk.nightly("-")
    source, desk.stop_at = desk.source(tasks(60)), 2
    await desk.nightly(source, desk.config(send="max_in_flight = 1"))
    source.unlink()
    with pytest.raises(SourceError):
        await desk.nightly(source)
    assert (await desk.status(desk.tonight)).job.state == "open"


# What earlier nights left open


async def left_open(desk, count=60, **options):
    """Leave a job of last night open, some of it created."""
    source, desk.stop_at = desk.source(tasks(count)), 2
    config = desk.config(send="max_in_flight = 1")
    result = await desk.submit(source, config, job="load-before", family="load", delta=True, **options)
    desk.stop_at = None
    assert result.state == "open"
    return source


async def test_an_open_job_whose_file_is_what_it_was_goes_on_first(night):
    desk = await night()
    await left_open(desk)
    result = await desk.nightly(desk.source(tasks(10, start=60), "tonight.ndjson"))
    assert (result.job, result.state, result.exit_code) == (desk.tonight, "finished", Exit.ALL_CREATED)
    assert "job load-before was ended first: 60 of 60 created" in result.message
    assert desk.created() == once(70)
    assert (await desk.status("load-before")).job.state == "finished"


async def test_an_open_job_whose_file_was_overwritten_is_followed_and_closed(night):
    desk = await night(continue_again="duplicate")
    source = await left_open(desk)
    sent = len(desk.created())
    overwrite(desk, source, tasks(10, start=60))
    result = await desk.nightly(source)
    assert (result.job, result.state) == (desk.tonight, "finished")
    assert "job load-before was closed first, for its files were written anew" in result.message
    before = await desk.status("load-before")
    assert before.job.state == "canceled"
    *loading, closing = before.runs
    assert {run.exit_code for run in loading} <= {Exit.STOPPED_EARLY, 128 + signal.SIGTERM}  # nobody has to mend it
    assert (closing.command, closing.exit_code, before.canceled_by) == ("cancel", Exit.ALL_CREATED, closing)
    assert before.tally.created == sent == len(desk.created()) - 10
    assert max(desk.created().values()) == 1


@pytest.mark.parametrize("times", ["kept", "new"])
async def test_a_file_of_the_same_size_is_another_one_by_its_inode_or_its_time(night, times):
    desk = await night()
    source = await left_open(desk)
    was = source.stat()
    if times == "kept":
        copy = shutil.copy2(source, source.with_name("copy"))
        shutil.move(copy, source)
        os.utime(source, ns=(was.st_atime_ns, was.st_mtime_ns))
    else:
        os.utime(source)
    await desk.nightly(desk.source(tasks(5, start=60), "tonight.ndjson"))
    assert (await desk.status("load-before")).job.state == "canceled"


def written_in_place(source, data):
    """Write over a file and give it the time that it had, as `rsync --inplace --times` does."""
    was = source.stat()
    source.write_bytes(data)
    os.utime(source, ns=(was.st_atime_ns, was.st_mtime_ns))


async def test_a_file_that_was_written_in_place_with_its_old_size_and_time_is_another_one(night):
    desk = await night()
    source = desk.source([*tasks(12), {"data": {"id": "x"}, "priority": "high"}])
    await desk.nightly(source)
    written_in_place(source, source.read_bytes().replace(b'"11"', b'"99"'))
    result = await desk.nightly(source)
    assert result.job == f"{desk.tonight}.2"
    assert desk.created() == {**once(12), "99": 1}


async def test_of_an_open_job_such_a_file_ends_it(night):
    desk = await night()
    source = await left_open(desk)
    written_in_place(source, source.read_bytes().replace(b'"1"', b'"x"'))
    await desk.nightly(desk.source(tasks(5, start=60), "tonight.ndjson"))
    assert (await desk.status("load-before")).job.state == "canceled"


@pytest.mark.parametrize("known", [False, True])
async def test_a_file_of_which_only_the_rights_changed_is_the_same_by_its_content(night, known):
    desk = await night()
    source = desk.source([*tasks(12), {"data": {"id": "x"}, "priority": "high"}])
    if known:
        await desk.submit(source, job="before", delta=True, family="load")
    await desk.nightly(source)
    source.chmod(0o640)
    os.link(source, source.with_name("linked"))
    again = await desk.nightly(source)
    assert again.job == desk.tonight
    assert "they have not changed since: there is nothing new" in again.message
    assert desk.created() == once(12)


async def test_an_open_job_of_such_a_file_goes_on(night):
    desk = await night()
    source = await left_open(desk)
    source.chmod(0o640)
    await desk.nightly(source)
    assert (await desk.status("load-before")).job.state == "finished"


async def test_a_job_that_cannot_be_ended_keeps_tonights_from_being_begun(night):
    desk = await night(faults=(Fault("status", "refuse", status=503, nth=tuple(range(3, 10_000))),))
    await left_open(desk)
    config = desk.config(send="give_up_seconds = 0.2")
    await engine.resume("load-before", desk.ledger, desk.emit, desk.new_stop(), config=config)
    result = await desk.nightly(desk.source(tasks(5, start=60), "tonight.ndjson"), config)
    assert (result.job, result.state, result.exit_code) == ("load-before", "open", Exit.STOPPED_EARLY)
    assert f"so tonight's job {desk.tonight} is not begun" in result.message
    assert [one.job.name for one in await engine.status(None, desk.ledger)] == ["load-before"]


async def test_jobs_of_other_families_and_finished_ones_are_left_alone(night):
    desk = await night()
    await left_open(desk)
    result = await desk.nightly(desk.source(tasks(5, start=60), "tonight.ndjson"), family="other")
    assert result.exit_code == Exit.ALL_CREATED
    assert (await desk.status("load-before")).job.state == "open"


async def test_that_an_earlier_job_had_failures_is_told_by_the_exit_code(night):
    desk = await night(failures=(NO,))
    source, desk.stop_at = desk.source([*tasks(59), *tasks(1, 59, status="broken")]), 2
    config = desk.config(send="max_in_flight = 1")
    await desk.submit(source, config, job="load-before", family="load", delta=True)
    desk.stop_at = None
    result = await desk.nightly(desk.source(tasks(5, start=60), "tonight.ndjson"))
    assert (result.job, result.tally.created, result.exit_code) == (desk.tonight, 5, Exit.SOME_FAILED)


async def test_failures_of_a_file_that_was_overwritten_since_stop_no_later_night(night):
    desk = await night(failures=(NO,))
    source = desk.source([*tasks(20, status="broken"), *tasks(40, 20)])
    config = desk.config(send="max_in_flight = 1\nmax_open_batches = 1")
    few = limits(max_failed="9")
    await desk.submit(source, config, job="load-before", family="load", delta=True, limits=few)
    assert (await desk.status("load-before")).job.state == "open"
    overwrite(desk, source, tasks(60, start=100))
    result = await desk.nightly(source, config, limits=few)
    assert (result.job, result.state, result.tally.created) == (desk.tonight, "finished", 60)
    assert (await desk.status("load-before")).job.state == "canceled"


async def test_an_open_job_goes_on_with_what_a_person_has_mended_in_the_configuration(night):
    desk = await night()
    await left_open(desk)
    wrong = desk.config(url="http://127.0.0.1:1/v2", send="give_up_seconds = 0.2")
    source = desk.source(tasks(5, start=60), "tonight.ndjson")
    stopped = await desk.nightly(source, wrong)
    assert (stopped.job, stopped.state) == ("load-before", "open")
    assert "is not begun" in stopped.message
    result = await desk.nightly(source)
    assert (result.job, result.exit_code) == (desk.tonight, Exit.ALL_CREATED)
    assert desk.created() == once(65)


async def test_an_open_job_keeps_the_mapping_that_it_began_with(night):
    desk = await night()
    await left_open(desk)
    more = "[mapping]\ndefaults = { priority = 3 }"
    result = await desk.nightly(desk.source(tasks(5, start=60), "tonight.ndjson"), desk.config(more=more))
    assert (result.job, result.exit_code) == (desk.tonight, Exit.ALL_CREATED)
    assert (await desk.status("load-before")).job.state == "finished"
    assert desk.created() == once(65)
    assert (await desk.audit("load-before")).holds


# Limits of the whole call


async def test_two_nights_of_one_family_never_work_at_once(night):
    desk = await night()
    source, refused = desk.source(tasks(30)), []

    async def second():
        try:
            await engine.nightly(source, desk.config(), desk.ledger, family="load")
        except JobLocked as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(second)
        group.start_soon(second)
    assert len(refused) == 1
    assert refused[0].exit_code == Exit.LOCKED
    assert "is working on the nightly load of family 'load'" in str(refused[0])
    assert desk.created() == once(30)


async def test_the_limit_of_records_is_one_for_all_jobs_of_the_call(night):
    desk = await night()
    await left_open(desk)
    sent = len(desk.created())
    source = desk.source(tasks(40, start=60), "tonight.ndjson")
    result = await desk.nightly(source, limits=limits(max_records=60 - sent + 7))
    assert (result.job, result.state, result.exit_code) == (desk.tonight, "open", Exit.STOPPED_EARLY)
    assert len(desk.created()) == 67


async def test_once_an_earlier_job_has_used_up_a_limit_tonights_is_not_begun(night):
    desk = await night()
    await left_open(desk)
    source = desk.source(tasks(40, start=60), "tonight.ndjson")
    result = await desk.nightly(source, limits=limits(max_records=5))
    assert (result.job, result.state, result.exit_code) == ("load-before", "open", Exit.STOPPED_EARLY)
    assert "is not begun" in result.message


async def test_outside_of_its_window_nothing_is_begun(night):
    desk = await night()
    now = time.gmtime()
    window = f"{(now.tm_hour + 2) % 24:02}:00-{(now.tm_hour + 3) % 24:02}:00"
    with pytest.raises(WindowClosed, match="opens 20"):
        await desk.nightly(desk.source(tasks(5)), limits=limits(window=window, zone="UTC"))
    assert desk.created() == {}
    assert not desk.ledger.exists()


async def test_a_night_without_a_new_record_is_told_where_it_is_asked_for(night):
    desk = await night()
    result = await desk.nightly(desk.source([]), limits=limits(fail_if_empty=True))
    assert (result.state, result.exit_code) == ("finished", Exit.NOTHING)
    source = desk.source(tasks(5))
    for code in (Exit.ALL_CREATED, Exit.NOTHING):  # the second call has sent nothing
        assert (await desk.nightly(source, limits=limits(fail_if_empty=True))).exit_code == code
    overwrite(desk, source, tasks(5))
    for _ in range(2):
        result = await desk.nightly(source, limits=limits(fail_if_empty=True))
        assert (result.job, result.exit_code) == (f"{desk.tonight}.3", Exit.NOTHING)
    assert desk.created() == once(5)


async def test_the_deadline_is_one_moment_for_all_jobs_of_the_call(night):
    desk = await night(creation=CreationPace(tasks_per_second=20))
    await left_open(desk, count=300)
    began = time.monotonic()
    config, source = desk.config(send="max_open_batches = 1"), desk.source(tasks(5, start=300), "tonight.ndjson")
    result = await desk.nightly(source, config, limits=limits(deadline="3s"))
    assert time.monotonic() - began < 6
    assert (result.job, result.state, result.exit_code) == ("load-before", "open", Exit.STOPPED_EARLY)
    assert "the deadline, 2" in result.message
    assert "is not begun" in result.message
