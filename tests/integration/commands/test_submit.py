import asyncio
import gzip
import io
import os
import signal
import sys
from pathlib import Path

import apsw
import orjson
import pytest
from fakes.clock import under_way, until
from fakes.processes import children

import engine
from engine.adaptive.concurrency import LimitChanged
from engine.clock import SystemClock
from engine.commands.result import Result
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import ConfigError, Exit, Interrupted, JobError, JobLocked, SourceError
from engine.model.settings import MEBIBYTE
from engine.model.submission import State
from engine.progress.events import BatchesWaiting, BatchMoved, CallEnded, JobEnded, JobStarted
from engine.sandbox.behaviour import CreationPace, FailureRule, Fault, Project, RefusalRule
from engine.sandbox.journal import canonical_sha256

from .desk import counts, lines, once, stopped, tasks

BROKEN = FailureRule(path="data.status", equals="broken", message="data.status must not be broken.")


# submit


async def test_submit_creates_every_task_and_proves_it(desk):
    desk = await desk()
    result = await desk.submit(desk.source(tasks(45)))
    assert (result.state, result.exit_code, result.message) == ("finished", Exit.ALL_CREATED, "")
    assert counts(result) == (45, 0, 0, 0, 0)
    assert result.tally.batches == 5
    assert result.elapsed_seconds > 0
    assert desk.created() == once(45)
    assert {line["state"] for line in lines(result.outcomes)} == {"created"}
    assert (await desk.audit()).holds


async def test_a_program_names_sources_configuration_and_ledger_as_it_likes(desk, monkeypatch):
    desk = await desk()
    monkeypatch.chdir(desk.folder)
    desk.source(tasks(15)), desk.source(tasks(10, 15), "more.ndjson"), desk.config()
    result = await engine.submit(["tasks.ndjson", desk.folder / "more.ndjson"], config="engine.toml", job="j")
    assert counts(result) == (25, 0, 0, 0, 0)
    assert result.outcomes == desk.folder / ".bulksubmit" / "j" / "outcomes.ndjson"
    assert [one.job.name for one in await engine.status()] == ["j"]
    assert (await engine.audit("j")).holds


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_run_is_the_same_with_other_processes_that_read(desk, processes):
    desk, before = await desk(), children()
    source = desk.source([*tasks(25), {"priority": "high"}, *tasks(5, start=25)])
    here = await desk.submit(source, job="here", processes=0)
    there = await desk.submit(source, job="there", processes=processes, again=True)
    assert children() == before
    assert (there.exit_code, there.tally) == (here.exit_code, here.tally)
    left_out = {"task_id", "batch_id", "url"}
    of_here, of_there = (
        [{key: line[key] for key in line.keys() - left_out} for line in lines(result.outcomes)]
        for result in (here, there)
    )
    assert of_there == of_here


async def test_a_process_that_stands_by_ends_with_a_run_that_never_reads(desk):
    desk, before, seen = await desk(faults=(Fault("schema", "refuse", nth=(1,), status=401),)), children(), set()
    config = desk.config(service='mode = "inline"')
    source = desk.source(tasks(25))
    result = await engine.submit(
        source, config, desk.ledger, lambda _: seen.update(children() - before), job="j", processes=1
    )
    assert result.exit_code == Exit.MEND_FIRST
    assert desk.calls("create") == 0
    assert len(seen) == 1
    assert children() == before


async def test_a_process_that_stands_by_ends_with_a_run_that_breaks_off(desk):
    desk, before = await desk(), children()

    def broken(event):
        assert len(children() - before) == 1
        raise ZeroDivisionError(event)

    source = desk.source(tasks(25))
    with pytest.raises(ZeroDivisionError):
        await engine.submit(source, desk.config(), desk.ledger, broken, job="j", processes=1)
    assert children() == before


async def test_what_is_created_is_what_the_source_holds(desk):
    desk = await desk()
    records = tasks(12, text="é \n \u2028", nested={"a": [1, 2.5, None, True]})
    await desk.submit(desk.source(records))
    assert desk.created_digests() == {str(at): canonical_sha256(record) for at, record in enumerate(records)}


async def test_the_reports_stand_beside_the_ledger_or_where_they_are_wanted(desk, tmp_path):
    desk = await desk()
    source = desk.source(tasks(1))
    assert (await desk.submit(source)).outcomes == tmp_path / "state" / "j" / "outcomes.ndjson"
    assert (
        await desk.submit(source, job="k", output=tmp_path / "here", again=True)
    ).outcomes == tmp_path / "here" / "outcomes.ndjson"


async def test_a_job_without_a_name_is_named_after_its_configuration_and_the_time(desk):
    desk = await desk()
    result = await desk.submit(desk.source(tasks(1)), job=None)
    assert result.job.startswith("engine-20")


async def test_failed_and_rejected_records_are_told_apart_and_the_exit_code_says_so(desk):
    desk = await desk(failures=(BROKEN,))
    records = [*tasks(20), {"input": 1}, *tasks(5, start=20, status="broken"), {"data": {}, "priority": "high"}]
    result = await desk.submit(desk.source(records))
    assert result.exit_code == Exit.SOME_FAILED
    assert counts(result) == (20, 5, 2, 0, 0)
    errors = [line["error"] for line in lines(result.rejects)]
    assert errors[0].startswith("input: not a key of a task")
    assert errors[1:6] == ["InvalidInputSchema: data.status must not be broken."] * 5
    assert errors[6].startswith('priority: "high" is not an integer')
    assert (await desk.audit()).holds


async def test_inline_a_lost_answer_makes_a_batch_uncertain_and_the_exit_code_says_so(desk):
    desk = await desk(faults=(Fault("create", "drop_after", nth=(2,)),))
    config = desk.config(service='mode = "inline"', send="max_in_flight = 1")
    result = await desk.submit(desk.source(tasks(30)), config)
    assert (result.state, result.exit_code) == ("finished", Exit.SOME_UNCERTAIN)
    assert counts(result) == (20, 0, 0, 10, 0)
    assert [line["index"] for line in lines(result.rejects)] == list(range(10, 20))
    assert (await desk.resume()).exit_code == Exit.SOME_UNCERTAIN
    assert desk.calls("create") == 3
    assert desk.created() == once(30)


async def test_a_service_that_does_not_answer_stops_the_job_and_resume_goes_on(desk):
    desk = await desk(faults=(Fault("put", "refuse", nth=(3, 4, 5, 6, 7, 8)),))
    source = desk.source(tasks(100))
    result = await desk.submit(source, desk.config(send="give_up_seconds = 0.0\nmax_in_flight = 1"))
    assert (result.state, result.exit_code) == ("open", Exit.STOPPED_EARLY)
    assert "put" in result.message
    assert result.tally.created < 100
    while (result := await desk.resume()).exit_code == Exit.STOPPED_EARLY:
        pass
    assert (result.state, result.exit_code) == ("finished", Exit.ALL_CREATED)
    assert desk.created() == once(100)


async def test_credentials_that_do_not_hold_stop_the_job_and_new_ones_finish_it(desk, monkeypatch):
    desk = await desk()
    monkeypatch.setenv("SAMA_ACCESS_KEY", "last-years-key")
    result = await desk.submit(desk.source(tasks(30)))
    assert (result.state, result.exit_code) == ("open", Exit.MEND_FIRST)
    assert "credentials" in result.message
    assert "last-years-key" not in result.message
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    assert (await desk.resume()).exit_code == Exit.ALL_CREATED
    assert desk.created() == once(30)


async def test_a_run_that_takes_too_long_stops_at_its_deadline(desk):
    desk = await desk(creation=CreationPace(tasks_per_second=1.0))
    result = await desk.submit(desk.source(tasks(20)), desk.config(send="deadline_seconds = 0.1"))
    assert (result.state, result.exit_code) == ("open", Exit.STOPPED_EARLY)
    assert "deadline_seconds" in result.message


async def test_a_run_that_is_done_before_its_deadline_does_not_wait_for_it(desk):
    desk = await desk()
    result = await desk.submit(desk.source(tasks(20)), desk.config(send="deadline_seconds = 300.0"))
    assert result.exit_code == Exit.ALL_CREATED
    assert result.elapsed_seconds < 300.0


async def test_a_signal_stops_the_run_in_order_and_resume_creates_the_rest_once(desk):
    desk = await desk(creation=CreationPace(tasks_per_second=1000.0))
    desk.stop_at = 3
    result = await desk.submit(desk.source(tasks(200)), desk.config(send="max_in_flight = 2"))
    assert (result.state, result.exit_code) == ("open", 128 + signal.SIGTERM)
    assert result.tally.unresolved > 0
    assert desk.events[-1] == JobEnded("j", "open")
    desk.stop_at = None
    result = await desk.resume()
    assert (result.exit_code, counts(result)) == (Exit.ALL_CREATED, (200, 0, 0, 0, 0))
    assert desk.created() == once(200)
    started = desk.events[0]
    assert isinstance(started, JobStarted)
    assert started.read_bytes > 0
    assert (await desk.audit()).holds


async def test_empty_batches_left_behind_are_canceled_at_the_end(desk):
    desk = await desk(faults=(Fault("put", "refuse", nth=(1,), status=403),))
    result = await desk.submit(desk.source(tasks(10)))
    assert (result.exit_code, result.orphans) == (Exit.ALL_CREATED, 0)
    assert desk.calls("cancel") == 1
    assert desk.created() == once(10)


async def test_empty_batches_that_could_not_be_canceled_are_told_of(desk):
    faults = (Fault("put", "refuse", nth=(1,), status=403), Fault("cancel", "refuse", nth=(1,), status=400))
    desk = await desk(faults=faults)
    result = await desk.submit(desk.source(tasks(10)))
    assert (result.exit_code, result.orphans) == (Exit.ALL_CREATED, 1)


async def test_a_strict_job_sends_nothing_if_a_record_is_not_fit(desk):
    desk = await desk()
    result = await desk.submit(desk.source([*tasks(30), {"input": 1}]), strict=True)
    assert (result.state, result.exit_code) == ("canceled", Exit.SOME_FAILED)
    assert "line 31" in result.message
    assert result.tally.unresolved == 30
    assert desk.calls("create", "put", "continue") == 0
    with pytest.raises(JobError, match="was canceled"):
        await desk.resume()


async def test_a_strict_job_that_was_interrupted_is_still_strict_when_it_goes_on(desk):
    desk = await desk()
    desk.stop_at = 0
    result = await desk.submit(desk.source([*tasks(30), {"input": 1}]), strict=True)
    assert result.state == "open"
    desk.stop_at = None
    result = await desk.resume()
    assert (result.state, result.exit_code) == ("canceled", Exit.SOME_FAILED)
    assert desk.calls("create", "put", "continue") == 0


async def test_a_source_of_no_records_is_finished_and_says_so(desk):
    desk = await desk()
    source = desk.source([])
    result = await desk.submit(source)
    assert (result.state, result.exit_code, result.message) == ("finished", 0, f"{source} is empty")


async def test_two_jobs_do_not_share_a_folder_for_their_reports(desk, tmp_path):
    desk = await desk()
    source = desk.source(tasks(3))
    await desk.submit(source, output=tmp_path / "out")
    with pytest.raises(JobError, match="holds the reports of another job"):
        await desk.submit(source, job="k", output=tmp_path / "out")
    assert desk.created() == once(3)


async def test_of_two_ledgers_in_one_folder_one_may_have_a_job_of_a_name_though_both_begin_at_once(desk):
    desk = await desk()
    source, ledgers = desk.source(tasks(45)), [desk.ledger, desk.ledger.with_name("other.db")]
    both = [engine.submit(source, desk.config(), ledger, job="j") for ledger in ledgers]
    ends = await asyncio.gather(*both, return_exceptions=True)
    (result,) = [end for end in ends if isinstance(end, Result)]
    (refused,) = [end for end in ends if isinstance(end, JobError)]
    assert "holds the reports of another job; choose another --output or --job" in str(refused)
    assert (result.tally.created, len(lines(result.outcomes))) == (45, 45)
    assert desk.created() == once(45)


async def test_the_folder_of_a_job_that_was_stopped_before_it_had_reports_is_no_other_jobs(desk):
    desk = await desk()
    source = await stopped(desk)
    for report in ("outcomes.ndjson", "rejects.ndjson", "rejects.csv"):
        (desk.ledger.parent / "j" / report).unlink(missing_ok=True)
    with pytest.raises(JobError, match="holds the reports of another job"):
        await engine.submit(source, desk.config(), desk.ledger.with_name("other.db"), job="j")


async def test_a_folder_that_cannot_hold_the_reports_is_found_before_anything_is_sent(desk, tmp_path):
    desk = await desk()
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="cannot hold the reports"):
        await desk.submit(desk.source(tasks(3)), output=tmp_path / "file" / "out")
    assert desk.created() == {}


async def test_a_name_that_is_taken_is_refused_and_nothing_is_sent(desk):
    desk = await desk()
    source = desk.source(tasks(10))
    await desk.submit(source)
    with pytest.raises(JobError, match=r"`bulksubmit resume j --ledger .*` goes on with it"):
        await desk.submit(source)
    assert desk.created() == once(10)


async def test_a_name_that_could_leave_the_folder_is_refused(desk):
    desk = await desk()
    with pytest.raises(JobError, match="cannot be used"):
        await desk.submit(desk.source(tasks(1)), job="../elsewhere")


@pytest.mark.parametrize(
    "mistake",
    [
        {"url": "http://api.sama.com/v2"},
        {"url": "not a url"},
        {"service": 'task_schema = "nowhere.json"'},
        {"more": '[mapping]\nwrap = "data"\ndefaults = { data = 1 }'},
    ],
    ids=["plain http", "no url", "no schema", "contradiction"],
)
async def test_a_configuration_that_cannot_work_leaves_no_job_behind(desk, mistake):
    desk = await desk()
    source = desk.source(tasks(3))
    with pytest.raises(ConfigError):
        await desk.submit(source, desk.config(**mistake))
    assert (await desk.submit(source, desk.config())).exit_code == Exit.ALL_CREATED


async def test_a_wish_that_the_service_cannot_fulfil_leaves_no_job_behind(desk):
    desk = await desk()
    with pytest.raises(ConfigError, match="--until completed"):
        await desk.submit(desk.source(tasks(3)), until="completed")
    assert not desk.ledger.exists()


async def test_a_key_with_a_newline_leaves_no_job_behind_and_is_not_shown(desk, monkeypatch):
    desk = await desk()
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key\n")
    source = desk.source(tasks(3))
    with pytest.raises(ConfigError) as raised:
        await desk.submit(source)
    assert "sandbox-key" not in str(raised.value)
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    assert (await desk.submit(source)).exit_code == Exit.ALL_CREATED


async def test_a_source_that_is_not_there_leaves_no_job_behind(desk):
    desk = await desk()
    with pytest.raises(SourceError):
        await desk.submit(desk.folder / "nowhere.ndjson")
    assert (await desk.submit(desk.source(tasks(3)))).exit_code == Exit.ALL_CREATED


async def test_a_reference_that_is_no_secret_serves_the_reports_and_the_audit_too(desk, monkeypatch):
    desk = await desk()
    monkeypatch.setenv("PROJECT", "42")
    monkeypatch.setenv("COLOUR", "red")
    config = desk.config(
        more='[mapping]\ndefaults = { priority = 1 }\nwrap = "data"\nrename = { "${env:COLOUR}" = "x" }'
    )
    config.write_text(config.read_text().replace("= 42", '= "${env:PROJECT}"'))
    result = await desk.submit(desk.source([task["data"] for task in tasks(5)]), config)
    assert (result.exit_code, result.message) == (Exit.ALL_CREATED, "")
    assert "projects/42/" in lines(result.outcomes)[0]["url"]
    assert (await desk.audit()).holds


async def test_several_files_and_globs_are_one_job(desk):
    desk = await desk()
    desk.source(tasks(15), "a.ndjson")
    desk.source(tasks(15, start=15), "b.ndjson")
    result = await desk.submit(desk.folder / "?.ndjson")
    assert counts(result) == (30, 0, 0, 0, 0)
    assert desk.created() == once(30)
    assert {Path(line["source"]).name for line in lines(result.outcomes)} == {"a.ndjson", "b.ndjson"}


async def test_a_csv_is_mapped_to_tasks(desk):
    desk = await desk()
    path = desk.folder / "rows.csv"
    path.write_text("id,lat,rank\n0,1.5,7\n1,2.5,8\n")
    more = '[source.types]\nlat = "number"\nrank = "integer"\n[mapping]\nwrap = "data"\nfields = { priority = "rank" }'
    assert (await desk.submit(path, desk.config(more=more))).exit_code == Exit.ALL_CREATED
    sent = {
        "0": {"data": {"id": "0", "lat": 1.5}, "priority": 7},
        "1": {"data": {"id": "1", "lat": 2.5}, "priority": 8},
    }
    assert desk.created_digests() == {marker: canonical_sha256(task) for marker, task in sent.items()}


# Standard input


def piped(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


async def test_standard_input_is_spooled_so_that_it_can_be_resumed(desk, monkeypatch):
    desk = await desk(creation=CreationPace(tasks_per_second=1000.0))
    piped(monkeypatch, b"".join(orjson.dumps(task) + b"\n" for task in tasks(100)))
    desk.stop_at = 2
    result = await desk.submit("-", desk.config(send="max_in_flight = 1"))
    assert result.exit_code == 128 + signal.SIGTERM
    desk.stop_at = None
    piped(monkeypatch, b"")
    result = await desk.resume()
    assert counts(result) == (100, 0, 0, 0, 0)
    assert desk.created() == once(100)
    assert Path(lines(result.outcomes)[0]["source"]).is_relative_to(desk.folder / "state" / "j")


async def test_standard_input_that_cannot_be_read_is_no_job(desk, monkeypatch):
    desk = await desk()
    piped(monkeypatch, b"\x1f\x8b\x08 compressed")
    with pytest.raises(SourceError, match="standard input is damaged"):
        await desk.submit("-")
    with pytest.raises(JobError, match="there is no job"):
        await desk.status()


async def test_standard_input_may_be_packed_and_mixed_with_files(desk, monkeypatch):
    desk = await desk()
    piped(monkeypatch, gzip.compress(b"".join(orjson.dumps(task) + b"\n" for task in tasks(60)[:30])))
    result = await desk.submit([str(desk.source(tasks(60)[30:])), "-"])
    assert counts(result) == (60, 0, 0, 0, 0)
    assert desk.created() == once(60)
    assert lines(result.outcomes)[-1]["source"].endswith("/j/standard-input")


async def test_standard_input_that_was_interrupted_is_no_job(desk, monkeypatch):
    desk = await desk()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb") as writer:
        writer.write(b'{"data":{}}\n')
        writer.flush()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        async with under_way(desk.submit("-")) as submitting:
            await until(lambda: list(desk.folder.glob("state/j/standard-input*")))
            desk.stop.request(Interrupted(signal.SIGINT))
            with pytest.raises(Interrupted):
                await submitting
    with pytest.raises(JobError, match="there is no job"):
        await desk.resume()


# resume


async def test_resume_of_a_finished_job_tells_how_it_ended(desk):
    desk = await desk(failures=(BROKEN,))
    first = await desk.submit(desk.source(tasks(10, status="broken")))
    calls = desk.sandbox.stats.requests.copy()
    again = await desk.resume()
    assert (again.state, again.exit_code, again.tally) == (first.state, Exit.SOME_FAILED, first.tally)
    assert desk.sandbox.stats.requests == calls


async def test_resume_of_a_finished_job_leaves_rejects_alone_that_a_person_may_be_mending(desk):
    desk = await desk(failures=(BROKEN,))
    result = await desk.submit(desk.source(tasks(10, status="broken")))
    mend(result.rejects)
    before = result.rejects.read_bytes()
    assert (await desk.resume()).rejects.read_bytes() == before


async def test_resume_goes_on_with_a_new_address(desk):
    desk = await desk()
    source = desk.source(tasks(30))
    closed = "http://127.0.0.1:9/v2"  # nobody listens
    result = await desk.submit(source, desk.config(url=closed, send="give_up_seconds = 0.0"))
    assert (result.state, result.exit_code) == ("open", Exit.STOPPED_EARLY)
    assert (await desk.resume(config=desk.config())).exit_code == Exit.ALL_CREATED
    assert desk.sandbox.url in (await desk.status()).job.config


async def test_resume_refuses_a_configuration_that_would_make_other_batches(desk):
    desk = await desk()
    await stopped(desk)
    with pytest.raises(ConfigError, match="mapping: cannot change"):
        await desk.resume(config=desk.config(more='[mapping]\nwrap = "data"'))
    assert (await desk.resume()).exit_code == Exit.ALL_CREATED


async def test_resume_of_a_job_that_nobody_knows_names_those_there_are(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(1)))
    with pytest.raises(JobError, match="there are: j"):
        await desk.resume("k")


async def test_resume_refuses_a_source_that_grew(desk):
    desk = await desk()
    source = await stopped(desk)
    source.write_bytes(source.read_bytes() + b"{}\n")
    result = await desk.resume()
    assert (result.state, result.exit_code) == ("open", Exit.MEND_FIRST)
    assert "Put the old file back" in result.message


async def test_resume_sends_nothing_of_a_source_whose_content_changed(desk):
    desk = await desk()
    source = await stopped(desk, 20_000)  # several windows: of what is not frozen yet only the time can tell
    before = desk.calls("continue")
    source.write_bytes(source.read_bytes().replace(b'"id"', b'"iD"'))
    result = await desk.resume()
    assert (result.state, result.exit_code) == ("open", Exit.MEND_FIRST)
    assert "written after the job began" in result.message
    assert desk.calls("continue") == before


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"x" * path.stat().st_size)])
async def test_what_was_released_is_followed_without_its_source(desk, change):
    desk = await desk(creation=CreationPace(delay_seconds=1.0), failures=(BROKEN,))
    records = [*tasks(20), *tasks(10, start=20, status="whole")]
    records[25]["data"]["status"] = "broken"
    source, desk.stop_at = desk.source(records), 3
    await desk.submit(source)
    desk.stop_at, content = None, source.read_bytes()
    change(source)
    result = await desk.resume()
    assert (result.state, result.exit_code, counts(result)) == ("finished", Exit.SOME_UNCERTAIN, (20, 0, 0, 10, 0))
    source.write_bytes(content)
    result = await desk.resume()
    assert (result.exit_code, counts(result)) == (Exit.SOME_FAILED, (29, 1, 0, 0, 0))
    assert [line["index"] for line in lines(result.rejects)] == [25]
    assert desk.created() == {str(number): 1 for number in range(30) if number != 25}


async def test_where_not_all_was_sent_what_was_released_is_followed_and_then_the_source_is_asked_for(desk):
    desk = await desk(creation=CreationPace(delay_seconds=1.0))
    source, desk.stop_at = desk.source(tasks(40)), 2
    await desk.submit(source, desk.config(send="max_in_flight = 1"))
    desk.stop_at, content = None, source.read_bytes()
    source.unlink()
    result = await desk.resume()
    assert (result.state, result.exit_code) == ("open", Exit.MEND_FIRST)
    assert 0 < result.tally.created < 40
    assert result.tally.created + result.tally.unresolved == 40
    assert "does not exist: check the path" in result.message
    source.write_bytes(content)
    assert (await desk.resume()).exit_code == Exit.ALL_CREATED
    assert desk.created() == once(40)


async def test_the_settings_of_a_job_are_those_it_was_submitted_with(desk):
    desk = await desk()
    await stopped(desk)
    (desk.folder / "engine.toml").write_text("not even toml")
    assert (await desk.resume()).exit_code == Exit.ALL_CREATED


@pytest.mark.parametrize("operation", ["submit", "resume", "cancel"])
async def test_a_job_that_another_process_works_on_is_left_alone(desk, operation):
    desk = await desk()
    source = await stopped(desk)
    async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:
        with ledger.lock("j"), pytest.raises(JobLocked):
            await (desk.submit(source) if operation == "submit" else getattr(desk, operation)())


# retry


def mend(path):
    path.write_bytes(path.read_bytes().replace(b'"broken"', b'"mended"'))


async def test_retry_submits_what_was_mended_as_a_job_of_its_own(desk):
    desk = await desk(failures=(BROKEN,))
    big = {"data": {"id": "big", "status": "broken", "n": 12345678901234567890}}
    result = await desk.submit(desk.source([*tasks(20), *tasks(5, start=20, status="broken"), big, {"data": 1}]))
    assert counts(result) == (20, 6, 1, 0, 0)
    mend(result.rejects)
    result = await desk.retry()
    assert (result.job, result.exit_code, counts(result)) == ("j.retry", Exit.SOME_FAILED, (6, 0, 1, 0, 0))
    assert desk.created() == {**once(25), "big": 1}
    assert desk.created_digests()["big"] == canonical_sha256(
        orjson.loads(orjson.dumps(big).replace(b"broken", b"mended"))
    )
    assert [line["attempts"] for line in lines(result.rejects)] == [2]
    status = await desk.status("j.retry")
    assert (status.job.parent, status.job.attempt) == ("j", 2)


async def test_a_retry_begins_without_what_its_parent_remembered_of_the_service(desk):
    desk = await desk(failures=(BROKEN,))
    await desk.submit(desk.source(tasks(5, status="broken")))
    async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:
        await ledger.note_slowest_start("j", 31.5)
        await ledger.note_lost_stage("j")
    await desk.retry()
    jobs = [(await desk.status(name)).job for name in ("j", "j.retry")]
    assert [(job.slowest_start, job.lost_stages) for job in jobs] == [(31.5, 1), (0, 0)]


async def test_retry_asked_for_again_sends_nothing_again(desk):
    desk = await desk(failures=(BROKEN,))
    result = await desk.submit(desk.source(tasks(5, status="broken")))
    mend(result.rejects)
    assert (await desk.retry()).exit_code == Exit.ALL_CREATED
    assert (await desk.retry()).exit_code == Exit.ALL_CREATED
    assert desk.created() == once(5)


async def test_a_retry_does_not_write_over_the_reports_of_somebody_else(desk):
    desk = await desk(failures=(BROKEN,))
    await desk.submit(desk.source(tasks(5, status="broken")))
    await desk.submit(desk.source(tasks(1), "other.ndjson"), job="k", output=desk.folder / "state" / "j.retry")
    with pytest.raises(JobError, match="holds the reports of another job"):
        await desk.retry()


async def test_a_retry_can_be_retried(desk):
    desk = await desk(failures=(BROKEN,))
    await desk.submit(desk.source(tasks(5, status="broken")))
    result = await desk.retry()
    assert counts(result) == (0, 5, 0, 0, 0)
    mend(result.rejects)
    result = await desk.retry("j.retry")
    assert (result.job, counts(result)) == ("j.retry.retry", (5, 0, 0, 0, 0))


async def test_what_is_uncertain_is_not_tried_again(desk):
    desk = await desk(faults=(Fault("create", "drop_after", nth=(1,)),))
    await desk.submit(desk.source(tasks(10)), desk.config(service='mode = "inline"'))
    with pytest.raises(JobError, match="nothing to try again"):
        await desk.retry()
    assert desk.created() == once(10)


async def test_a_row_of_a_csv_is_tried_again_with_its_types(desk):
    desk = await desk(failures=(BROKEN,))
    path = desk.folder / "rows.csv"
    path.write_text('id,lat,status\n0,1.5,"broken"\n')
    more = '[source]\nformat = "csv"\n[source.types]\nlat = "number"\n[mapping]\nwrap = "data"'
    result = await desk.submit(path, desk.config(more=more))
    mend(result.rejects)
    assert (await desk.retry()).exit_code == Exit.ALL_CREATED
    sent = {"data": {"id": "0", "lat": 1.5, "status": "mended"}}
    assert desk.created_digests() == {"0": canonical_sha256(sent)}


async def test_retry_of_a_job_that_is_not_finished_is_refused(desk):
    desk = await desk(creation=CreationPace(tasks_per_second=0.5))
    await stopped(desk)
    with pytest.raises(JobError, match=r"`bulksubmit resume j --ledger .*` first"):
        await desk.retry()


async def test_retry_of_a_job_without_failures_is_refused(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(1)))
    with pytest.raises(JobError, match="nothing to try again"):
        await desk.retry()


# Batches that the service refuses as a whole


@pytest.mark.parametrize("mode", ["presigned", "inline"])
async def test_bad_records_in_refused_batches_end_alone_with_the_services_words(desk, mode):
    rule = RefusalRule("data.bad", equals=True, type="Invalid", message="Something is bad.")
    desk = await desk(refusals=(rule,))
    records = tasks(40)
    for number in (0, 13, 14, 39):
        records[number]["data"]["bad"] = True
    result = await desk.submit(desk.source(records), desk.config(service=f'mode = "{mode}"'))
    assert (result.exit_code, counts(result)) == (3, (36, 4, 0, 0, 0))
    assert desk.created() == {str(number): 1 for number in range(40) if number not in {0, 13, 14, 39}}
    outcomes = lines(result.outcomes)
    assert [outcome["index"] for outcome in outcomes] == list(range(40))
    errors = {outcome["index"]: outcome["error"] for outcome in outcomes if outcome["state"] == "failed"}
    assert errors.keys() == {0, 13, 14, 39}
    assert all("Invalid: Something is bad." in error for error in errors.values())
    assert [line["record"]["data"]["id"] for line in lines(result.rejects)] == ["0", "13", "14", "39"]
    assert (await desk.audit()).holds


@pytest.mark.parametrize("mode", ["presigned", "inline"])
async def test_batches_that_are_too_large_for_the_service_go_in_parts(desk, mode):
    desk = await desk(max_body_bytes=500)
    result = await desk.submit(desk.source(tasks(40, text="x" * 60)), desk.config(service=f'mode = "{mode}"'))
    assert counts(result) == (40, 0, 0, 0, 0)
    assert desk.created() == once(40)
    assert (await desk.audit()).holds


def heavy(desk, count):
    """Write records of which ten make 8 KB."""
    return desk.source(tasks(count, text="x" * 800))


def told_too_large(desk, mode):
    """Count the refusals; of the whole upload, for the store's answers have one status for many reasons."""
    kind = "put" if mode == "presigned" else "post"
    return sum(isinstance(event, CallEnded) and (event.kind, event.status // 100) == (kind, 4) for event in desk.events)


def sizes_told(desk):
    limits = [event for event in desk.events if isinstance(event, LimitChanged)]
    return [event for event in limits if event.name == "max_batch_bytes"]


@pytest.mark.parametrize(("mode", "processes"), [("presigned", 1), ("inline", 0)])
async def test_what_is_read_after_a_refusal_is_cut_as_the_service_takes_it(desk, mode, processes):
    desk = await desk(max_body_bytes=5000)
    more = f"[source]\nprocesses = {processes}"
    result = await desk.submit(heavy(desk, 1000), desk.config(service=f'mode = "{mode}"', more=more))
    assert counts(result) == (1000, 0, 0, 0, 0)
    assert desk.created() == once(1000)
    assert told_too_large(desk, mode) == 1
    (change,) = sizes_told(desk)
    assert change.before == 4 * MEBIBYTE
    assert change.after < 5000
    assert "was too large" in change.reason
    halved = [event for event in desk.events if isinstance(event, BatchMoved) and event.after is State.SPLIT]
    assert len(halved) < 90, "those that were read ahead; a hundred, if none had been cut anew"
    assert (await desk.audit()).holds


async def test_a_job_stopped_while_it_learns_goes_on_from_the_limits_of_the_configuration(desk):
    desk = await desk(max_body_bytes=5000)
    desk.stop_at = 20
    config = desk.config(more="[source]\nprocesses = 1")
    first = await desk.submit(heavy(desk, 1000), config)
    assert first.exit_code == 128 + signal.SIGTERM
    desk.stop_at = None
    assert counts(await desk.resume()) == (1000, 0, 0, 0, 0)
    assert desk.created() == once(1000)
    assert (await desk.audit()).holds


# Inline batches whose answer was lost


def markable(tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_bytes(orjson.dumps({"properties": {"data": {"properties": {"client_batch_id": {}}}}}))
    return (Project(42, schema),)


INLINE = {"service": 'mode = "inline"', "send": "max_in_flight = 2"}


@pytest.mark.parametrize("kind", ["drop_after", "drop_before"])
async def test_a_project_with_a_client_batch_id_has_no_uncertain_records(desk, tmp_path, kind):
    desk = await desk(projects=markable(tmp_path), faults=(Fault("create", kind, nth=(1, 4)),))
    result = await desk.submit(desk.source(tasks(60)), desk.config(**INLINE))
    assert (result.exit_code, counts(result)) == (0, (60, 0, 0, 0, 0))
    assert desk.created() == once(60)
    assert (await desk.audit()).holds


async def test_a_job_stopped_before_its_searches_settles_them_when_it_is_resumed(desk, tmp_path):
    desk = await desk(projects=markable(tmp_path), faults=(Fault("create", "drop_after", nth=(1,)),))
    desk.stop_at = 3
    result = await desk.submit(desk.source(tasks(60)), desk.config(**INLINE))
    assert result.tally.uncertain == 10
    desk.stop_at = None
    assert counts(await desk.resume()) == (60, 0, 0, 0, 0)
    assert desk.created() == once(60)


async def test_without_the_input_records_stay_uncertain_until_a_person_has_them_sent_again(desk):
    desk = await desk(faults=(Fault("create", "drop_before", nth=(2,)),))
    first = await desk.submit(desk.source(tasks(30)), desk.config(**INLINE))
    assert (first.exit_code, first.tally.uncertain) == (4, 10)
    assert counts(await desk.resume()) == counts(first)
    found = await engine.find_uncertain("j", desk.ledger)
    assert (found.records, found.batches, len(found.examples)) == (10, 1, 1)
    again = await desk.send_again()
    assert (again.job, again.exit_code, counts(again)) == ("j", 0, (30, 0, 0, 0, 0))
    assert desk.created() == once(30)
    assert (await desk.audit()).holds
    with pytest.raises(JobError, match="no record of job 'j' is uncertain"):
        await desk.send_again()


async def test_what_an_open_job_is_uncertain_of_is_not_sent_again(desk):
    desk = await desk()
    await stopped(desk)
    with pytest.raises(JobError, match="bulksubmit resume j"):
        await desk.send_again()


# Releases whose answer was lost, and others that come to nothing


@pytest.mark.parametrize("kind", ["drop_late", "refuse_late", "html_late"])
async def test_a_release_that_is_carried_out_after_its_answer_was_lost_is_made_once(desk, kind):
    late = Fault("continue", kind, nth=(2,), status=504, seconds=0.15)
    desk = await desk(faults=(late,), continue_again="duplicate")
    result = await desk.submit(desk.source(tasks(40)))
    assert (result.exit_code, counts(result)) == (Exit.ALL_CREATED, (40, 0, 0, 0, 0))
    assert desk.created() == once(40)
    assert desk.calls("continue") == 4


async def not_begun(desk, **behaviour):
    """Submit 30 tasks to a service that accepts the second batch and never begins with it; return desk and result."""
    desk = await desk(faults=(Fault("continue", "swallow", nth=(2,)),), continue_again="duplicate", **behaviour)
    config = desk.config(send="give_up_seconds = 1.5\nmax_in_flight = 1")
    return desk, await desk.submit(desk.source(tasks(30)), config)


async def test_a_batch_that_is_accepted_and_never_begun_stops_the_job_which_names_it(desk):
    desk, result = await not_begun(desk)
    assert (result.state, result.exit_code, counts(result)) == ("open", Exit.STOPPED_EARLY, (20, 0, 0, 0, 10))
    assert "the service still says waiting of 1 batch that it has accepted: 1." in result.message
    assert next(event.names for event in desk.events if isinstance(event, BatchesWaiting)) == "1"
    assert (await desk.resume()).exit_code == Exit.STOPPED_EARLY
    assert desk.calls("continue") == 3, "it is followed on and not released again"


async def test_of_a_job_that_is_not_finished_a_person_can_have_told_again_what_the_service_says_waiting_of(desk):
    desk, _ = await not_begun(desk)
    found = await engine.find_uncertain("j", desk.ledger)
    assert (found.records, found.batches, found.job, found.sequences) == (10, 1, "j", frozenset({1}))
    assert found.examples == ["records 10 to 19 (batch 1: accepted, and the service says that it waits)"]
    again = await desk.send_again()
    assert (again.state, again.exit_code, counts(again)) == ("finished", Exit.ALL_CREATED, (30, 0, 0, 0, 0))
    assert desk.calls("continue") == 4
    assert desk.created() == once(30)
    assert (await desk.audit()).holds


# retry --uncertain, records of settled batches


async def partly_uncertain(desk, **config):
    """Submit 20 tasks and five that fail, of which the ledger then says that nobody knows; mend them in the rejects."""
    result = await desk.submit(desk.source([*tasks(20), *tasks(5, start=20, status="broken")]), desk.config(**config))
    assert counts(result) == (20, 5, 0, 0, 0)
    connection = apsw.Connection(str(desk.ledger))
    connection.execute("UPDATE settlements SET uncertain = errors, errors = '{}' WHERE errors <> '{}'")
    connection.execute("UPDATE batches SET uncertain = failed, failed = 0")
    connection.close()
    result = await engine.report("j", desk.ledger)
    mend(result.rejects)
    return result


async def test_a_settled_batch_with_uncertain_records_is_final(desk):
    desk = await desk(failures=(BROKEN,))
    result = await partly_uncertain(desk)
    assert (result.state, result.exit_code, counts(result)) == ("finished", Exit.SOME_UNCERTAIN, (20, 0, 0, 5, 0))
    assert (await desk.audit()).holds
    calls = desk.sandbox.stats.requests.total()
    assert counts(await desk.resume()) == counts(result)
    assert desk.sandbox.stats.requests.total() == calls
    found = await engine.find_record("j", 24, desk.ledger)
    assert (found.state, found.error) == ("uncertain", f"InvalidInputSchema: {BROKEN.message}")
    with pytest.raises(JobError, match="no record that failed or was rejected"):
        await desk.retry()


async def test_uncertain_records_of_settled_batches_are_sent_again_as_a_job_of_their_own(desk):
    desk = await desk(failures=(BROKEN,))
    await partly_uncertain(desk)
    found = await engine.find_uncertain("j", desk.ledger)
    assert (found.records, found.batches, found.job) == (5, 1, "j.retry")
    assert found.examples == [f"5 of records 20 to 24 (batch 2: InvalidInputSchema: {BROKEN.message})"]
    again = await desk.send_again()
    assert (again.job, again.exit_code, counts(again)) == ("j.retry", 0, (5, 0, 0, 0, 0))
    assert desk.created() == once(25)
    assert (await desk.status("j.retry")).job.parent == "j"
    assert all([(await desk.audit(name)).holds for name in ("j", "j.retry")])
    with pytest.raises(JobError, match=r"again as job 'j\.retry'; `bulksubmit resume j\.retry --ledger .*` goes on"):
        await desk.send_again()
    with pytest.raises(JobError, match="no record that failed or was rejected"):
        await desk.retry()
    assert desk.created() == once(25)


async def test_uncertain_batches_are_sent_again_before_uncertain_records_of_others(desk):
    desk = await desk(failures=(BROKEN,))
    await partly_uncertain(desk)
    connection = apsw.Connection(str(desk.ledger))
    connection.execute("DELETE FROM settlements WHERE sequence = 0")
    connection.execute("UPDATE batches SET state = 'uncertain', created = 0, note = 'lost' WHERE sequence = 0")
    connection.close()
    found = await engine.find_uncertain("j", desk.ledger)
    assert (found.records, found.batches, found.job) == (10, 1, "j")
    again = await desk.send_again()
    assert (again.job, again.exit_code, counts(again)) == ("j", Exit.SOME_UNCERTAIN, (20, 0, 0, 5, 0))
    assert (await engine.find_uncertain("j", desk.ledger)).job == "j.retry"


async def test_only_what_the_ledger_calls_uncertain_is_sent_again_however_old_the_report_is(desk):
    desk = await desk(failures=(BROKEN,))
    result = await partly_uncertain(desk)
    lines = result.rejects.read_bytes().splitlines(keepends=True)
    stale = lines[0].replace(b'"index":20', b'"index":3')
    result.rejects.write_bytes(b"".join([stale, *lines[2:]]))
    assert counts(await desk.send_again()) == (3, 0, 0, 0, 0)


async def test_uncertain_records_do_not_become_a_job_that_exists(desk):
    desk = await desk(failures=(BROKEN,))
    await partly_uncertain(desk)
    await desk.submit(desk.source(tasks(1, start=90), "other.ndjson"), job="j.retry")
    assert (await engine.find_uncertain("j", desk.ledger)).job == "j.retry-2"
    assert (await desk.send_again()).job == "j.retry-2"
    assert desk.created() == {**once(25), "90": 1}
