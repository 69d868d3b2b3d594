import shutil

import pytest

import engine
from engine.clock import SystemClock
from engine.commands.query import MOST_REJECTS
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import ConfigError, Exit, JobError, SourceError
from engine.model.record import Format
from engine.progress.events import BatchesFrozen, JobStarted
from engine.sandbox.behaviour import CreationPace, FailureRule, RefusalRule

from .desk import counts, lines, stopped, tasks

BROKEN = FailureRule(path="data.status", equals="broken", message="data.status must not be broken.")


# status


async def test_status_tells_where_a_job_stands(desk):
    desk = await desk(failures=(BROKEN,))
    await desk.submit(desk.source([*tasks(20), *tasks(3, start=20, status="broken"), {"input": 1}]))
    status = await desk.status()
    assert (status.job.name, status.job.state, status.running, status.working) == ("j", "finished", False, {})
    assert (status.tally.created, status.tally.failed, status.tally.rejected) == (20, 3, 1)
    assert status.tally.states == {"settled": 3}


async def test_status_of_all_jobs_has_the_newest_first(desk):
    desk = await desk()
    for name in ("a", "b"):
        await desk.submit(desk.source(tasks(1)), job=name, again=True)
    assert [status.job.name for status in await engine.status(None, desk.ledger)] == ["b", "a"]


async def test_without_a_ledger_there_is_nothing_to_ask_and_none_is_made(desk):
    desk = await desk()
    with pytest.raises(JobError, match="there is no ledger"):
        await engine.status(None, desk.ledger)
    assert not desk.ledger.exists()


async def test_status_tells_whether_a_process_works_on_the_job(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(1)))
    async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:
        with ledger.lock("j"):
            assert (await desk.status()).running
    assert not (await desk.status()).running


async def test_status_asks_nobody_unless_told_to(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(1)))
    calls = desk.sandbox.stats.requests.copy()
    await desk.status()
    assert desk.sandbox.stats.requests == calls


async def test_status_with_tasks_counts_people_s_work_over_batches_and_pages(desk):
    desk = await desk(failures=(BROKEN,))
    submitted = [task | {"submit": True} for task in tasks(7, start=150)]
    records = [*tasks(150), *submitted, *tasks(2, start=160, status="broken")]
    config = desk.config(service="max_tasks_per_batch = 1000")
    config.write_text(config.read_text().replace("max_records = 10", "max_records = 120"))
    await desk.submit(desk.source(records), config)
    assert (await desk.status(tasks=True)).working == {"new": 150, "completed": 7}


async def test_status_with_tasks_says_beforehand_how_long_it_will_take(desk):
    desk = await desk()
    said = []
    await desk.submit(desk.source(tasks(10)))
    assert (await desk.status(tasks=True, tell=said.append)).working == {"new": 10}
    assert said == [], "a moment needs no word"
    await desk.submit(desk.source(tasks(30, start=10)), job="long")
    assert (await desk.status("long", tasks=True, tell=said.append)).working == {"new": 30}
    (line,) = said
    assert line.startswith("job long: counting the tasks of 3 batches by their state takes about 3.2 s")


async def test_status_with_tasks_passes_over_batches_that_the_service_has_never_taken(desk):
    desk = await desk(refusals=(RefusalRule(path="data.status", equals="broken"),))
    records = [*tasks(10, status="broken"), *tasks(10, start=10)]
    await desk.submit(desk.source(records), desk.config(service='mode = "inline"', send="max_in_flight = 1"))
    status = await desk.status(tasks=True)
    assert (status.tally.failed, status.working) == (10, {"new": 10})


@pytest.mark.parametrize("operation", ["status", "report", "audit"])
async def test_a_job_that_nobody_knows_is_an_error(desk, operation):
    desk = await desk()
    await desk.submit(desk.source(tasks(1)))
    with pytest.raises(JobError, match="there is no job 'k'"):
        await getattr(engine, operation)("k", desk.ledger)


# report


async def test_report_writes_the_reports_again(desk):
    desk = await desk(failures=(BROKEN,))
    first = await desk.submit(desk.source([*tasks(5), *tasks(2, start=5, status="broken")]))
    before = first.outcomes.read_bytes(), first.rejects.read_bytes()
    shutil.rmtree(first.outcomes.parent)
    again = await engine.report("j", desk.ledger)
    assert (again.outcomes.read_bytes(), again.rejects.read_bytes()) == before
    assert (again.state, again.exit_code, counts(again)) == ("finished", Exit.SOME_FAILED, counts(first))


async def test_reports_need_no_secret_and_no_service(desk, monkeypatch):
    desk = await desk()
    await desk.submit(desk.source(tasks(5)))
    monkeypatch.delenv("SAMA_ACCESS_KEY")
    calls = desk.sandbox.stats.requests.copy()
    assert len(lines((await engine.report("j", desk.ledger)).outcomes)) == 5
    assert (await desk.audit()).holds
    assert desk.sandbox.stats.requests == calls


async def test_a_report_that_needs_a_source_that_is_gone_says_so(desk):
    desk = await desk(failures=(BROKEN,))
    source = desk.source(tasks(2, status="broken"))
    await desk.submit(source)
    source.unlink()
    result = await engine.report("j", desk.ledger)
    assert (result.outcomes, result.exit_code) == (None, Exit.SOME_FAILED)
    assert f"`bulksubmit report j --ledger {desk.ledger}` writes them later" in result.message


# audit


async def test_an_audit_finds_a_source_that_changed(desk):
    desk = await desk()
    source = desk.source(tasks(30))
    await desk.submit(source)
    assert (await desk.audit()).holds
    source.write_bytes(source.read_bytes().replace(b'"15"', b'"51"'))
    result = await desk.audit()
    assert not result.holds
    assert len([finding for finding in result.findings if finding.startswith("batch 1 (records 10 to 19, ")]) == 1


# one record


async def test_one_record_is_found_by_its_index(desk):
    desk = await desk(failures=(BROKEN,))
    result = await desk.submit(desk.source([*tasks(15), *tasks(1, status="broken"), {"input": 1}]))
    found = [await engine.find_record("j", index, desk.ledger) for index in (14, 15, 16)]
    assert [outcome.state for outcome in found] == ["created", "failed", "rejected"]
    assert found[0].task_id == lines(result.outcomes)[14]["task_id"]


async def test_one_record_is_found_without_going_through_the_job(desk, monkeypatch):
    desk = await desk()
    await desk.submit(desk.source(tasks(95)))

    def walk(*_):
        raise AssertionError("the whole job was read")

    monkeypatch.setattr(SqliteLedger, "batches", walk)
    assert [(await engine.find_record("j", index, desk.ledger)).index for index in (0, 57, 94)] == [0, 57, 94]


async def test_a_record_that_was_not_read_is_an_error(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(5)))
    with pytest.raises(JobError, match="has no record 5; indexes count from 0"):
        await engine.find_record("j", 5, desk.ledger)


async def test_a_record_that_is_not_read_yet_is_said_to_be_so(desk):
    desk = await desk()
    await stopped(desk, 5_000, service="", send="max_open_batches = 1")
    read = (await desk.status()).tally.records
    assert read < 5_000
    with pytest.raises(JobError) as refused:
        await engine.find_record("j", 4_999, desk.ledger)
    assert str(refused.value) == (
        f"ledger {desk.ledger}: record 4,999 is not read yet: job 'j' stopped at record {read:,}; "
        f"`bulksubmit resume j --ledger {desk.ledger}` goes on"
    )
    await desk.cancel()
    with pytest.raises(JobError, match="record 4,999 is not read yet: job 'j' was canceled at record"):
        await engine.find_record("j", 4_999, desk.ledger)


async def test_jobs_are_listed_by_state_by_time_and_no_more_than_wanted(desk):
    desk = await desk()
    await stopped(desk)
    for job in ("k", "l"):
        await desk.submit(desk.source(tasks(5), f"{job}.ndjson"), job=job, again=True)

    async def listed(**wanted):
        return [status.job.name for status in await engine.status(None, desk.ledger, **wanted)]

    assert await listed() == ["l", "k", "j"]
    assert await listed(state="finished") == ["l", "k"]
    assert await listed(state="open", limit=20) == ["j"]
    assert await listed(state="running") == []
    assert await listed(limit=2) == ["l", "k"]
    k_ended = (await desk.status("k")).runs[-1].ended_at
    assert await listed(since=k_ended) == ["l", "k"]
    assert await listed(since=k_ended + 3_600) == []
    assert (await desk.resume()).state == "finished"
    assert await listed(since=k_ended + 1e-6) == ["l", "j"]  # begun before, and heard of since


# validate


async def validated(desk, source, config=None, format_=None):
    events = []
    result = await engine.validate(source, config or desk.config(), events.append, format=format_)
    return result, events


DESCRIBED = """
[service]
kind = "http"
base_url = "http://127.0.0.1:9"
record = {{ key = "{key}" }}
release = {{ call = "POST /rows", payload = true, again = "safe" }}
"""


@pytest.mark.parametrize(
    ("key", "twins"),
    [("${task.k}", [2, 4]), ("${token}-${task.k}", [2, 4]), ("${task.k}-${index}", []), ("${task.k}-${task.n}", [])],
)
async def test_validate_finds_keys_of_the_source_that_stand_twice(desk, key, twins):
    desk = await desk()
    source = desk.source([{"k": k, "n": n} for n, k in enumerate(["a", "b", "a", "c", "a"])])
    config = desk.folder / "described.toml"
    config.write_text(DESCRIBED.format(key=key))
    result, _ = await validated(desk, source, config)
    assert (result.records, result.rejected, result.twins) == (5, 0, len(twins))
    assert [(reject.index, reject.line) for _, reject in result.first_twins] == [(at, at + 1) for at in twins]
    assert all("its key is that of record 0 (" in reject.reason for _, reject in result.first_twins)


async def test_validate_counts_and_sends_nothing(desk):
    desk = await desk()
    source = desk.source([*tasks(25), {"input": 1}, {"data": {}, "priority": 2**31}])
    result, events = await validated(desk, source)
    assert (result.records, result.rejected, result.batches) == (27, 2, 3)
    assert result.size_bytes == source.stat().st_size
    assert [(source.path, reject.index, reject.line) for source, reject in result.rejects] == [
        (str(source), 25, 26),
        (str(source), 26, 27),
    ]
    assert not desk.sandbox.stats.requests
    assert not desk.ledger.exists()
    assert isinstance(events[0], JobStarted)
    assert isinstance(events[-1], BatchesFrozen)
    assert events[-1].last


@pytest.mark.parametrize(("text", "records"), [("", 0), ("a,b\n", 0), ("a,b\n1,2\n", 1)])
async def test_validate_counts_no_batch_where_nothing_would_be_sent(desk, text, records):
    desk = await desk()
    path = desk.folder / "rows.csv"
    path.write_text(text)
    result, _ = await validated(desk, path)
    assert (result.records, result.rejected, result.batches, result.size_bytes) == (records, records, 0, 0)


async def test_validate_shows_the_first_rejects_and_counts_them_all(desk):
    desk = await desk()
    source = desk.source([{"input": 1}] * 60 + tasks(1000) + [{"input": 1}] * 1900)  # over several steps of reading
    result, _ = await validated(desk, source)
    assert (result.records, result.rejected, len(result.rejects)) == (2960, 1960, MOST_REJECTS)
    assert [reject.index for _, reject in result.rejects] == [*range(60), *range(1060, 1100)]


async def test_validate_takes_the_format_that_it_is_told(desk):
    desk = await desk()
    path = desk.folder / "rows.ndjson"  # whatever its name says
    path.write_text('id,name\n1,"a"\n')
    result, _ = await validated(desk, path, desk.config(more='[mapping]\nwrap = "data"'), Format.CSV)
    assert (result.records, result.rejected) == (1, 0)


async def test_validate_names_what_cannot_be_used_at_all(desk):
    desk = await desk()
    with pytest.raises(SourceError):
        await validated(desk, desk.folder / "nowhere.ndjson")
    with pytest.raises(ConfigError, match=r"did you mean 'max_in_flight'"):
        await validated(desk, desk.source(tasks(1)), desk.config(send="max_inflight = 1"))


async def test_an_open_job_is_audited_and_reported_as_far_as_it_went(desk):
    desk = await desk(creation=CreationPace(tasks_per_second=1.0))
    desk.stop_at = 2
    await desk.submit(desk.source(tasks(1000)), desk.config(send="max_in_flight = 1"))
    audit = await desk.audit()
    assert audit.holds
    assert audit.fates["unresolved"] == audit.records
    result = await engine.report("j", desk.ledger)
    assert (result.state, result.exit_code) == ("open", Exit.STOPPED_EARLY)
    assert {line["state"] for line in lines(result.outcomes)} == {"unresolved"}
    assert result.rejects.read_bytes() == b""
