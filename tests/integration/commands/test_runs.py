"""What came of it: a job remembers its runs, how each ended and why; a file tells those who watch."""

import os
import signal

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

import engine
from engine.cli.output.screen import text_of
from engine.cli.output.status import job_screen
from engine.commands.paths import open_ledger
from engine.commands.runs import RunMemory
from engine.model.errors import ConfigError, Exit, Interrupted, JobError, JobLocked, SourceError
from engine.progress.events import CallStarted, Noticed
from engine.progress.log_file import LOG_FILE
from engine.sandbox.behaviour import FailureRule, Fault
from engine.sandbox.settings import SandboxSama

from .desk import lines, stopped, tasks

BROKEN = FailureRule(path="data.status", equals="broken", message="data.status must not be broken.")
DOWN = Fault("put", "refuse", nth=tuple(range(3, 9)))


def screen(status, desk):
    return text_of(job_screen(status, desk.ledger), colours=False)


def metrics(path):
    families = text_string_to_metric_families(path.read_text())
    found = [sample for family in families for sample in family.samples]
    short = {sample.name.removeprefix("bulksubmit_job_"): sample for sample in found}
    records = {one.labels["state"]: one.value for one in found if one.name == "bulksubmit_job_records"}
    return {name: sample.value for name, sample in short.items() if "state" not in sample.labels} | records


async def killed(desk, monkeypatch):
    """Interrupt a job whose process then gets no chance to say how it ended."""

    async def gone(*_):
        pass

    with monkeypatch.context() as patched:
        patched.setattr(RunMemory, "_end", gone)
        return await stopped(desk)


# Runs


async def test_each_run_says_when_it_was_how_it_ended_why_and_what_it_did(desk):
    desk = await desk(failures=(BROKEN,))
    source = desk.source([*tasks(60), *tasks(5, start=60, status="broken"), {"input": 1}])
    desk.stop_at = 3
    first = await desk.submit(source, desk.config(send="max_in_flight = 1"))
    desk.stop_at = None
    await desk.resume()
    one, two = (await desk.status()).runs
    assert (one.number, one.exit_code, one.reason) == (1, 143, first.message)
    assert (two.number, two.exit_code, two.reason) == (2, Exit.SOME_FAILED, "")
    assert (one.host, one.version) == (os.uname().nodename, engine.__version__)
    assert one.begun_at < one.ended_at <= two.begun_at < two.ended_at
    assert one.counts.created == first.tally.created
    assert one.counts.created + two.counts.created == 60
    assert (two.counts.failed, one.counts.rejected + two.counts.rejected) == (5, 1)
    assert two.counts.requests == len([event for event in desk.events if isinstance(event, CallStarted)])


async def test_a_run_is_begun_before_anything_is_sent(desk):
    desk, begun = await desk(), []

    class Ledgers(list):
        """Looks into the file when the first call goes out, as another process would."""

        def append(self, event):
            if isinstance(event, CallStarted) and not begun:
                import apsw  # noqa: PLC0415 - of this moment

                ledger = apsw.Connection(str(desk.ledger), apsw.SQLITE_OPEN_READONLY)
                begun.extend(ledger.execute("SELECT number, ended_at FROM runs").fetchall())
                ledger.close()
            super().append(event)

    desk.events = Ledgers()
    await desk.submit(desk.source(tasks(5)))
    assert begun == [(1, None)]


async def test_a_killed_run_has_no_end_and_status_says_so(desk, monkeypatch):
    desk = await desk()
    await killed(desk, monkeypatch)
    status = await desk.status()
    assert (status.runs[0].ended_at, status.killed) == (None, True)
    said = screen(status, desk)
    assert f"was killed or lost its machine ({os.uname().nodename}); last sign at " in said
    assert "nothing is lost, and nothing is sent twice when it goes on" in said
    assert f"bulksubmit resume j --ledger {desk.ledger}" in said
    await desk.resume()
    assert [run.exit_code for run in (await desk.status()).runs] == [None, 0]
    assert not (await desk.status()).killed


async def test_a_run_that_was_killed_before_its_first_sample_shows_what_it_did(desk, monkeypatch):
    desk = await desk()
    await killed(desk, monkeypatch)
    (told,) = (await desk.status()).runs
    tally = (await desk.status()).tally
    assert (told.counts.records, told.counts.created) == (tally.records, tally.created)
    assert tally.created >= 10
    assert (await desk.status()).last_sign_at > told.begun_at  # a batch has moved since
    await desk.resume()
    first, second = (await desk.status()).runs
    assert first.counts.created + second.counts.created == 100
    assert first.counts.created >= tally.created
    assert f"{first.counts.created}" in next(
        line for line in screen(await desk.status(), desk).splitlines() if "killed" in line
    )


async def test_each_command_that_works_on_a_job_is_a_run_of_it(desk):
    desk = await desk(sama=SandboxSama(task_lists_per_second=0))
    await stopped(desk)
    await desk.resume()
    await engine.refresh("j", desk.ledger, desk.emit, desk.new_stop())
    undone = await engine.undo("j", desk.ledger, desk.emit, desk.new_stop())
    runs = (await desk.status()).runs
    assert [(run.command, run.exit_code) for run in runs] == [
        ("submit", 143),
        ("resume", 0),
        ("refresh", 0),
        ("undo", 0),
    ]
    assert (runs[-1].reason, runs[-1].counts.later) == (undone.message, {"undone": 100})
    assert runs[-1].counts.created == runs[-1].counts.records == 0
    assert runs[-1].counts.requests > 0
    begun = [line["command"] for line in lines(desk.ledger.parent / "j" / LOG_FILE) if line["event"] == "RunBegun"]
    assert begun == ["submit", "resume", "refresh", "undo"]
    said = screen(await desk.status(), desk)
    assert "100 undone" in said
    data = job_screen(await desk.status(), desk.ledger).data
    assert [run["command"] for run in data["runs"]] == begun


async def test_a_canceled_job_says_by_which_run_and_what_is_next(desk):
    desk = await desk()
    await stopped(desk)
    result = await desk.cancel()
    status = await desk.status()
    assert (status.canceled_by.number, status.canceled_by.command, status.canceled_by.exit_code) == (2, "cancel", 0)
    said, data = screen(status, desk), job_screen(status, desk.ledger).data
    assert "by run 2 (cancel), " in said
    assert f"{result.tally.unresolved} records not sent" in said
    assert "interrupted" not in said
    assert data["canceled_by"] == 2
    assert data["next"][0]["command"] == f"bulksubmit resume j --ledger {desk.ledger}"


async def test_an_undo_that_was_interrupted_is_what_goes_on_next(desk):
    desk = await desk(sama=SandboxSama(task_lists_per_second=0))
    await desk.submit(desk.source(tasks(30)))
    stop = desk.new_stop()
    stop.request(Interrupted(signal.SIGTERM))
    result = await engine.undo("j", desk.ledger, desk.emit, stop)
    assert f"`bulksubmit undo j --ledger {desk.ledger}` goes on" in result.message
    assert "resume" not in result.message
    status = await desk.status()
    assert status.runs[-1].reason == result.message
    assert job_screen(status, desk.ledger).data["next"][0] == {
        "what": "go on with the undo that was ended early",
        "command": f"bulksubmit undo j --ledger {desk.ledger}",
    }


async def test_a_run_that_was_refused_is_remembered_too(desk, monkeypatch):
    desk = await desk()
    source = await stopped(desk)
    monkeypatch.delenv("SAMA_ACCESS_KEY")
    with pytest.raises(ConfigError):
        await desk.resume()
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    source.write_text("{}")
    assert (await desk.resume()).exit_code == Exit.MEND_FIRST
    _, without_key, without_source = (await desk.status()).runs
    assert without_key.exit_code == Exit.USAGE
    assert without_key.reason == "service.access_key: environment variable SAMA_ACCESS_KEY is not set"
    assert "Put the old file back" in without_source.reason
    said = screen(await desk.status(), desk)
    assert "Put the old file back" in said
    assert "mend what is named above, then go on" in said
    assert "bulksubmit resume j --config FILE" in said


async def test_a_service_that_is_down_is_why_a_job_stopped(desk):
    desk = await desk(faults=(DOWN,))
    config = desk.config(send="give_up_seconds = 0.0\nmax_in_flight = 1")
    result = await desk.submit(desk.source(tasks(100)), config)
    status = await desk.status()
    said, data = screen(status, desk), job_screen(status, desk.ledger).data
    assert result.message in said
    assert data["stands"]["exit code"] == "5"
    assert data["runs"][0]["reason"] == result.message
    assert data["next"][0]["command"] == f"bulksubmit resume j --ledger {desk.ledger}"


async def test_a_retry_has_runs_of_its_own(desk):
    desk = await desk()
    await desk.submit(desk.source([*tasks(5), {"input": 1}]))
    result = await desk.retry()
    assert [(run.command, run.exit_code) for run in (await desk.status(result.job)).runs] == [
        ("retry", Exit.SOME_FAILED)
    ]
    assert len((await desk.status()).runs) == 1


async def test_a_program_that_breaks_a_run_off_leaves_its_reason(desk):
    desk = await desk()

    class Broken(list):
        def append(self, event):
            raise ZeroDivisionError("of the listener")

    desk.events = Broken()
    with pytest.raises(ZeroDivisionError):
        await engine.submit(desk.source(tasks(5)), desk.config(), desk.ledger, desk.events.append, job="j")
    (run,) = (await desk.status()).runs
    assert (run.exit_code, run.reason) == (1, "unexpected error: ZeroDivisionError: of the listener")


# The log file


async def test_a_job_has_a_log_whose_warnings_status_counts(desk):
    desk = await desk(faults=(DOWN,))
    config = desk.config(send="give_up_seconds = 0.0\nmax_in_flight = 1")
    result = await desk.submit(desk.source(tasks(100)), config)
    log = lines(desk.ledger.parent / "j" / LOG_FILE)
    assert [log[0]["event"], log[-1]["event"]] == ["RunBegun", "RunEnded"]
    assert (log[-1]["exit_code"], log[-1]["reason"]) == (5, result.message)
    warnings = sum(line["level"] == "warning" for line in log)
    assert warnings >= 2
    assert (await desk.status()).runs[0].counts.warnings == warnings
    assert f"{warnings} of that run, in {desk.ledger.parent / 'j' / LOG_FILE}" in screen(await desk.status(), desk)


async def test_why_records_failed_is_told_by_the_ledger_whatever_became_of_the_rejects(desk):
    desk = await desk(failures=(BROKEN,))
    await desk.submit(desk.source([*tasks(5), *tasks(12, start=5, status="broken"), {"input": 1}]))
    (desk.ledger.parent / "j" / "rejects.ndjson").write_text("")
    causes = (await desk.resume()).causes
    assert [(cause.fate, cause.records) for cause in causes] == [("failed", 12), ("rejected", 1)]
    assert causes[0].words == f"InvalidInputSchema: {BROKEN.message}"


async def test_no_secret_gets_into_what_is_remembered(desk, monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "wrong-key-that-is-long")
    desk = await desk(failures=(BROKEN,))
    broken = desk.source(tasks(5, status="broken"))
    result = await desk.submit(broken)
    assert result.exit_code == Exit.MEND_FIRST
    for path in desk.ledger.parent.rglob("*"):
        assert path.is_dir() or b"wrong-key-that-is-long" not in path.read_bytes()


# Metrics


async def test_metrics_are_told_at_the_start_and_at_the_end_and_a_failed_run_does_not_look_good(desk):
    desk, path = await desk(faults=(DOWN,)), None
    seen = []

    class Collected(list):
        def append(self, event):
            if isinstance(event, CallStarted) and not seen:
                seen.append(metrics(path))
            super().append(event)

    path, desk.events = desk.folder / "j.prom", Collected()
    config = desk.config(send="give_up_seconds = 0.0\nmax_in_flight = 1")
    await desk.submit(desk.source(tasks(100)), config, metrics_textfile=path)
    assert "exit_code" not in seen[0]
    down = metrics(path)
    assert (down["exit_code"], down["last_success_timestamp_seconds"]) == (5, 0)
    assert down["last_completion_timestamp_seconds"] == (await desk.status()).runs[0].ended_at
    assert down["created"] + down["unresolved"] == (await desk.status()).tally.records
    while (await desk.resume(metrics_textfile=path)).exit_code:
        pass
    up = metrics(path)
    assert (up["exit_code"], up["created"], up["unresolved"]) == (0, 100, 0)
    assert up["last_success_timestamp_seconds"] == (await desk.status()).runs[-1].ended_at


async def test_metrics_are_written_where_the_configuration_says(desk):
    desk = await desk()
    path = desk.folder / "engine.prom"
    await desk.submit(desk.source(tasks(5)), desk.config(more=f'[metrics]\ntextfile = "{path}"'))
    assert metrics(path)["created"] == 5


async def test_an_operation_that_fails_before_its_run_is_told_with_the_last_success(desk, monkeypatch):
    desk = await desk()
    path = desk.folder / "j.prom"
    config = desk.config(more=f'[metrics]\ntextfile = "{path}"')
    with pytest.raises(SourceError):
        await desk.submit(desk.folder / "missing.ndjson", config)
    assert (metrics(path)["exit_code"], metrics(path)["last_success_timestamp_seconds"]) == (2, 0)
    assert "created" not in metrics(path)  # nothing was counted, which is not the same as no records
    await desk.submit(desk.source(tasks(5)), config)
    well = metrics(path)
    assert well["last_success_timestamp_seconds"] > 0
    with pytest.raises(JobError):
        await desk.submit(desk.source(tasks(5)), config)
    stands = {**metrics(path), "last_completion_timestamp_seconds": well["last_completion_timestamp_seconds"]}
    assert stands == {**well, "exit_code": 2}
    async with open_ledger(desk.ledger) as ledger:
        with ledger.lock("j"), pytest.raises(JobLocked):
            await desk.submit(desk.source(tasks(5)), config)
    assert (metrics(path)["exit_code"], metrics(path)["created"]) == (6, 5)
    with pytest.raises(ConfigError):
        await desk.submit(desk.source(tasks(5)), desk.config(send="polls = 1", more=f'[metrics]\ntextfile = "{path}"'))
    assert (metrics(path)["exit_code"], metrics(path)["created"]) == (2, 5)
    path.unlink()
    config = desk.config(more=f'[metrics]\ntextfile = "{path}"')
    monkeypatch.delenv("SAMA_ACCESS_KEY")
    with pytest.raises(ConfigError):
        await desk.submit(desk.source(tasks(5)), config)
    assert metrics(path)["exit_code"] == 2


async def night(desk, source, config, **order):
    return await engine.nightly(source, config, desk.ledger, desk.emit, desk.new_stop(), family="load", **order)


async def test_the_metrics_of_nights_are_those_of_their_family(desk):
    desk = await desk()
    path = desk.folder / "load.prom"
    with pytest.raises(SourceError):
        await night(desk, desk.folder / "missing.ndjson", desk.config(), metrics_textfile=path)
    assert (metrics(path)["exit_code"], metrics(path)["last_success_timestamp_seconds"]) == (2, 0)
    await night(desk, desk.source(tasks(5)), desk.config(), metrics_textfile=path)
    first = metrics(path)
    assert (first["exit_code"], first["created"], first["skipped"]) == (0, 5, 0)
    assert 'job_name="load"' in path.read_text()
    await night(desk, desk.source(tasks(7), "new.ndjson"), desk.config(), metrics_textfile=path)
    second = metrics(path)
    assert (second["exit_code"], second["created"], second["skipped"]) == (0, 2, 5)
    assert second["last_success_timestamp_seconds"] > first["last_success_timestamp_seconds"]


async def test_a_night_that_is_not_begun_does_not_look_good(desk):
    desk = await desk(failures=(BROKEN,))
    path = desk.folder / "load.prom"
    desk.stop_at = 3
    source = desk.source([*tasks(90), *tasks(10, start=90, status="broken")])
    config = desk.config(send="max_in_flight = 1")
    await night(desk, source, config)
    desk.stop_at = None
    # What was left open ends with a failure; tonight's file has no other, and its own run ends well.
    result = await night(desk, desk.source(tasks(1), "new.ndjson"), config, metrics_textfile=path)
    assert result.exit_code == Exit.SOME_FAILED
    assert (await desk.status(result.job)).runs[-1].exit_code == Exit.ALL_CREATED
    assert metrics(path)["exit_code"] == Exit.SOME_FAILED


async def test_a_new_job_that_has_read_nothing_yet_does_not_look_as_if_there_were_no_records(desk):
    desk, seen = await desk(), []
    path = desk.folder / "j.prom"
    await desk.submit(desk.source(tasks(5)), family="f", metrics_textfile=path)

    class Begun(list):
        def append(self, event):
            if not seen:
                seen.append(metrics(path))
            super().append(event)

    desk.events = Begun()
    await desk.submit(desk.source(tasks(3), "empty.ndjson"), job="k", family="f", metrics_textfile=path)
    assert (seen[0]["created"], metrics(path)["created"]) == (5, 3)


async def test_a_metrics_file_that_cannot_be_written_is_a_warning(desk):
    desk = await desk()
    result = await desk.submit(desk.source(tasks(5)), metrics_textfile=desk.folder / "none" / "j.prom")
    assert result.exit_code == Exit.ALL_CREATED
    (said,) = [event.text for event in desk.events if isinstance(event, Noticed)]
    assert said.startswith("metrics: ")
    assert said.endswith("cannot be written (No such file or directory); the job goes on without")


@pytest.mark.parametrize("textfile", ["j.prom", "../j.prom"])
async def test_a_metrics_file_of_the_configuration_has_an_absolute_path(desk, textfile):
    desk = await desk()
    with pytest.raises(ConfigError, match=r"metrics\.textfile: must be an absolute path"):
        await desk.submit(desk.source(tasks(5)), desk.config(more=f'[metrics]\ntextfile = "{textfile}"'))


async def test_where_metrics_go_may_change_while_a_job_goes_on(desk):
    desk = await desk()
    await stopped(desk)
    path = desk.folder / "j.prom"
    await desk.resume(config=desk.config(more=f'[metrics]\ntextfile = "{path}"'))
    assert metrics(path)["created"] == 100


async def test_an_old_job_without_runs_has_a_status(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(5)))
    import apsw  # noqa: PLC0415 - takes away what an older version did not write

    ledger = apsw.Connection(str(desk.ledger))
    ledger.execute("DELETE FROM runs")
    ledger.close()
    status = await desk.status()
    assert (status.runs, status.killed) == ([], False)
    assert "Where it stands" not in screen(status, desk)
    assert orjson.loads(orjson.dumps(job_screen(status, desk.ledger).data))["runs"] == []
