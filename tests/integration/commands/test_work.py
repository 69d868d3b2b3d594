"""Work beside the process that plans a job, as `bulksubmit work` does it."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from fakes.clock import until
from msgspec.structs import replace

import engine
import engine.commands.work
from engine.cli.output.status import job_screen
from engine.commands.paths import open_ledger
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import ConfigError, Exit, Interrupted
from engine.model.shard import LeaseTerms
from engine.progress.events import BatchSettled, JobEnded, JobTallied, Noticed
from engine.run.context import Stop

from .desk import once, tasks


@pytest.fixture
def shared(monkeypatch):
    """Let several share the jobs of a file, as they share those of a database, and look often for what there is."""
    monkeypatch.setattr(engine.commands.work, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(SqliteLedger, "shares_jobs", True)


@asynccontextmanager
async def staying(desk):
    """Work beside the block, and wait for jobs; the block gets what the worker emits, and at last what it has done."""
    events, stop = [], Stop()
    worker = asyncio.create_task(engine.work(None, desk.ledger, events.append, stop, stay=True))
    try:
        yield events
    finally:
        stop.request(Interrupted(15))
        events.append(await worker)


def settled(events):
    return sum(isinstance(event, BatchSettled) for event in events)


async def has_helped(events, before=0):
    """Wait until the worker has settled more batches than before."""
    await until(lambda: settled(events) > before)


def submitting(desk, count, per_second=25):
    """Begin to submit so many tasks, so slowly that others can take part or step in."""
    config = desk.config(send=f"requests_per_second = {per_second}")
    return asyncio.create_task(desk.submit(desk.source(tasks(count)), config))


async def test_a_worker_helps_again_once_a_person_has_gone_on_with_a_job_that_ended(shared, desk):
    desk = await desk()
    config = desk.config(send="requests_per_second = 60")
    async with staying(desk) as events:
        first = asyncio.create_task(
            desk.submit(desk.source(tasks(400)), config, limits=engine.RunLimits(max_records=200))
        )
        await has_helped(events)
        result = await first
        assert result.exit_code == Exit.STOPPED_EARLY
        assert len(desk.created()) == 200
        await asyncio.sleep(1)  # it ends, looks again, and finds that this is for a person
        helped = settled(events)
        second = asyncio.create_task(desk.resume())
        await has_helped(events, helped)
        assert (await second).exit_code == Exit.ALL_CREATED
    assert "max_records" not in events[-1].message, "it is done"
    assert desk.created() == once(400)


async def test_a_limit_of_a_run_that_was_killed_is_kept_by_the_worker_that_goes_on_for_it(shared, desk):
    desk = await desk()
    limits = engine.RunLimits(max_records=200)
    config = desk.config(send="requests_per_second = 60")
    async with staying(desk) as events:
        killed = asyncio.create_task(desk.submit(desk.source(tasks(400)), config, limits=limits))
        await has_helped(events)
        desk.stop.request(Interrupted(15))
        assert (await killed).exit_code == Interrupted(15).exit_status
        async with asyncio.timeout(20):
            while len(runs := (await desk.status()).runs) < 2 or runs[-1].ended_at is None:  # noqa: ASYNC110 - as people look
                await asyncio.sleep(0.1)
    status = await desk.status()
    assert [(run.command, run.exit_code) for run in status.runs] == [("submit", 143), ("work", Exit.STOPPED_EARLY)]
    assert len(desk.created()) == 200
    assert sum(run.counts.created for run in status.runs) == 200, "what the worker did between the two runs included"


async def test_a_job_is_canceled_while_one_process_plans_it_and_another_one_helps(shared, desk):
    desk = await desk()
    async with staying(desk) as events:
        submitted = submitting(desk, 2000)
        await has_helped(events)
        canceled = await engine.cancel("j", desk.ledger)
        assert (canceled.state, canceled.job) == ("canceled", "j")
        planned = await submitted
        assert (planned.state, planned.exit_code) == ("canceled", Exit.MEND_FIRST)
    assert events[-1].exit_code == Interrupted(15).exit_status, "for the worker it is a job less, and no failure"
    assert "was canceled" not in events[-1].message
    status = await desk.status()
    assert [run.command for run in status.runs] == ["submit", "cancel"]
    created = desk.created()
    assert max(created.values()) == 1
    assert status.tally.created == len(created) < 2000
    assert status.tally.uncertain == 0


async def test_status_tells_of_each_worker_how_long_its_shards_are_its_own(shared, desk):
    desk = await desk()
    async with staying(desk) as events:
        submitted = submitting(desk, 400)
        await has_helped(events)
        status = await desk.status()
        worker = status.workers[0]
        shown = [
            replace(worker, silent_seconds=1.0, lease_seconds=300.0),
            replace(worker, silent_seconds=125.0, lease_seconds=235.0),
            replace(worker, silent_seconds=125.0, lease_seconds=None),
        ]
        screen = job_screen(replace(status, workers=shown), desk.ledger)
        (table,) = (table for table in screen.tables if table.title == "Workers")
        assert [row[-1] for row in table.rows[:3]] == [
            "5 min 00 s left",
            "last heard of 2 min 05 s ago; its shards are free in 3 min 55 s",
            "",
        ]
        desk.stop.request(Interrupted(15))
        await submitted


async def test_a_wrong_name_of_a_cluster_is_told_before_there_is_anything_to_do(shared, desk):
    desk = await desk()
    with pytest.raises(ConfigError, match="locl:2"):
        await engine.work(None, desk.ledger, stay=True, dask="locl:2")


async def test_what_others_have_settled_is_told_before_the_end_of_the_job(shared, desk):
    desk = await desk()
    async with staying(desk) as events:
        submitted = asyncio.create_task(
            desk.submit(desk.source(tasks(300)), desk.config(send="requests_per_second = 60"))
        )
        await has_helped(events)
        await submitted
    *_, last, ended = [event for event in desk.events if isinstance(event, JobTallied | JobEnded)]
    assert isinstance(ended, JobEnded)
    assert (last.tally.created, last.read_bytes) == (300, desk.folder.joinpath("tasks.ndjson").stat().st_size)


async def test_a_job_that_cannot_be_worked_on_here_keeps_no_worker_from_the_others(shared, desk, monkeypatch):
    desk = await desk()
    monkeypatch.setenv("OTHER_KEY", "sandbox-key")
    config, other = desk.config(), desk.folder / "other.toml"
    other.write_text(config.read_text().replace("SAMA_ACCESS_KEY", "OTHER_KEY"))
    desk.stop_at = 1
    await desk.submit(desk.source(tasks(50)), other, job="lacks")
    await desk.submit(desk.source(tasks(50, start=50), "more.ndjson"), config, job="has")
    monkeypatch.delenv("OTHER_KEY")
    done = await engine.work(None, desk.ledger)
    assert (done.exit_code, (await desk.status("has")).job.state) == (ConfigError.exit_code, "finished")
    assert "job lacks: " in done.message
    assert "OTHER_KEY" in done.message


async def test_a_key_that_is_missing_here_is_told_even_while_others_have_all_that_there_is(shared, desk, monkeypatch):
    desk = await desk()
    monkeypatch.setenv("OTHER_KEY", "sandbox-key")
    config = desk.config()
    config.write_text(config.read_text().replace("SAMA_ACCESS_KEY", "OTHER_KEY"))
    desk.stop_at = 1
    await desk.submit(desk.source(tasks(50)), config)
    monkeypatch.delenv("OTHER_KEY")
    events = []
    async with open_ledger(desk.ledger) as other:
        with other.lock("j"):
            await other.take_shards("j", LeaseTerms("other", 600.0, 300.0), 100)
            async with asyncio.timeout(20):
                done = await engine.work("j", desk.ledger, events.append)
    assert (done.exit_code, "OTHER_KEY" in done.message) == (ConfigError.exit_code, True)
    assert any("OTHER_KEY" in event.text for event in events if isinstance(event, Noticed))


async def test_a_job_that_is_not_there_is_named_and_waited_for_until_stopped(shared, desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(5)))
    events, stop = [], Stop()
    worker = asyncio.create_task(engine.work("nosuch", desk.ledger, events.append, stop, stay=True))
    await until(lambda: events)
    stop.request(Interrupted(15))
    done = await worker
    assert "there is no job 'nosuch'" in events[0].text
    assert "work nosuch --stay" in done.message
