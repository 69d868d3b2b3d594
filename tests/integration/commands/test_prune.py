import time

import apsw
import pytest

import engine
from engine.clock import SystemClock
from engine.commands.prune import Fall
from engine.ledger import operations
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks
from engine.model.errors import ConfigError, Interrupted, JobError
from engine.model.job import JobState
from engine.run.context import Stop
from engine.sandbox.behaviour import FailureRule

from .desk import once, stopped, tasks


async def prune(desk, **order):
    order = order or {"keep_last": 1}
    pruned = await engine.prune(desk.ledger, **order)
    return {verdict.job: str(verdict.fall) for verdict in pruned.verdicts}


def rows(desk, table):
    """Return the numbers of the jobs that have rows in a table."""
    connection = apsw.Connection(str(desk.ledger))
    return {job for (job,) in connection.execute(f"SELECT DISTINCT job FROM {table}")}  # noqa: S608


async def three(desk):
    for number, job in enumerate("abc"):
        await desk.submit(desk.source(tasks(25, 25 * number), f"{job}.ndjson"), job=job)


async def test_old_jobs_leave_nothing_behind_and_the_others_are_whole(desk):
    desk = await desk(failures=(FailureRule("data.id", equals="1"),))
    await three(desk)
    assert await prune(desk) == {"c": "kept", "b": "removed", "a": "removed"}
    assert [status.job.name for status in await engine.status(None, desk.ledger)] == ["c"]
    assert not (desk.ledger.parent / "a").exists()
    for table in ("batches", "spans", "settlements", "sources"):
        assert rows(desk, table) == {3}
    assert (await desk.audit("c")).holds
    with pytest.raises(JobError, match="there is no job 'a'; there are: c"):
        await desk.status("a")


async def test_a_dry_run_removes_nothing(desk):
    desk = await desk()
    await three(desk)
    assert await prune(desk, keep_last=1, dry_run=True) == {"c": "kept", "b": "removed", "a": "removed"}
    assert (await desk.audit("a")).holds


async def test_by_age_the_last_step_counts(desk, monkeypatch):
    desk = await desk()
    await three(desk)
    assert await prune(desk, older_than_seconds=3600.0) == dict.fromkeys("cba", "kept")
    later = time.time() + 7200
    monkeypatch.setattr("engine.commands.wiring.CLOCK.now", lambda: later, raising=False)
    assert await prune(desk, older_than_seconds=3600.0) == {"c": "kept", "b": "removed", "a": "removed"}


async def test_without_a_limit_nothing_is_removed(desk):
    desk = await desk()
    with pytest.raises(ConfigError, match="give --older-than 90d, --keep-last 7, or both"):
        await engine.prune(desk.ledger)


async def test_an_open_job_an_uncertain_one_and_one_that_is_being_worked_on_stay(desk):
    desk = await desk()
    await stopped(desk)
    await desk.submit(desk.source(tasks(5, 200), "held.ndjson"), job="held")
    await desk.submit(desk.source(tasks(5, 300), "last.ndjson"), job="last")
    async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:
        with ledger.lock("held"):
            pruned = await engine.prune(desk.ledger, keep_last=1)
    assert {verdict.job: verdict.reason for verdict in pruned.verdicts} == {
        "last": "the newest of the ledger",
        "held": "a process works on it",
        "j": "it is open: `resume` goes on with it",
    }
    assert (await desk.resume()).exit_code == 0


async def test_only_files_of_ours_are_removed(desk):
    desk = await desk()
    await three(desk)
    folder = desk.ledger.parent / "a"
    (folder / "notes.txt").write_text("mine")
    rejects = folder / "rejects.ndjson"
    rejects.unlink()
    rejects.symlink_to(desk.folder / "a.ndjson")
    await prune(desk)
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "rejects.ndjson"}
    assert (desk.folder / "a.ndjson").exists()


async def test_a_file_from_which_a_job_was_read_that_stays_stays(desk):
    desk = await desk(failures=(FailureRule("data.id", equals="1"),))
    await three(desk)
    rejects = desk.ledger.parent / "a" / "rejects.ndjson"
    await desk.submit(rejects, job="of-rejects")
    await prune(desk)
    assert list(rejects.parent.iterdir()) == [rejects]


async def test_a_retry_goes_with_what_it_retries(desk):
    desk = await desk(failures=(FailureRule("data.id", equals="1"),))
    await desk.submit(desk.source(tasks(5)), job="a")
    await desk.retry("a")
    assert await prune(desk) == {"a.retry": "kept", "a": "kept"}
    await desk.submit(desk.source(tasks(5, 5), "b.ndjson"), job="b")
    assert await prune(desk) == {"b": "kept", "a.retry": "removed", "a": "removed"}
    assert not (desk.ledger.parent / "a.retry").exists()


async def test_what_a_family_knows_keeps_the_job_and_not_its_reports(desk):
    desk = await desk()
    await three(desk)
    connection = apsw.Connection(str(desk.ledger))
    connection.execute("INSERT INTO known (hash, rest, job, record_index) VALUES (1, x'00', 1, 0)")
    connection.execute("INSERT INTO skips VALUES (3, 0, 1, 0, x'49', 2, 0, 'created')")
    connection.close()
    assert await prune(desk) == {"c": "kept", "b": "reports removed", "a": "reports removed"}
    assert not (desk.ledger.parent / "a").exists()
    assert (await engine.find_record("a", 3, desk.ledger)).task_id
    assert (await desk.audit("a")).holds


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8])
async def test_a_prune_that_was_killed_leaves_a_ledger_that_opens_and_the_next_one_goes_on(desk, monkeypatch, after):
    monkeypatch.setattr(operations, "REMOVED_ROWS", 2)
    desk = await desk()
    await three(desk)
    steps = []

    def die(changes):
        steps.extend(changes)
        if len(steps) >= after:
            raise OSError("killed here")

    opened = SqliteLedger.open
    with monkeypatch.context() as patched:
        patched.setattr(SqliteLedger, "open", lambda path, clock: opened(path, clock, hooks=Hooks(on_commit=die)))
        with pytest.raises(engine.errors.LedgerError):
            await prune(desk)
    states = {status.job.name: status.job.state for status in await engine.status(None, desk.ledger)}
    assert states == {"c": JobState.FINISHED, "b": JobState.REMOVED, "a": JobState.FINISHED}
    for operation in (desk.resume, desk.retry, desk.cancel, desk.status):
        with pytest.raises(JobError, match=r"job 'b' is being removed.*`bulksubmit prune --ledger .*` takes the rest"):
            await operation("b")
    assert (await desk.audit("a")).holds
    assert await prune(desk, older_than_seconds=1e9) == {"c": "kept", "b": "removed", "a": "kept"}
    assert rows(desk, "batches") == rows(desk, "sources") == {1, 3}
    assert apsw.Connection(str(desk.ledger)).pragma("integrity_check") == "ok"
    assert desk.created() == once(75)


async def test_it_ends_between_two_jobs_when_it_is_interrupted(desk):
    desk = await desk()
    await three(desk)
    stop = Stop()
    stop.request(Interrupted(15))
    pruned = await engine.prune(desk.ledger, stop=stop, keep_last=1)
    assert [verdict.fall for verdict in pruned.verdicts] == [Fall.KEPT] * 3
    assert pruned.error.exit_status == 143


async def test_a_name_that_was_removed_is_free_again(desk):
    desk = await desk()
    await three(desk)
    await prune(desk)
    assert (await desk.submit(desk.source(tasks(5, 500), "new.ndjson"), job="a")).exit_code == 0
    assert await prune(desk) == {"a": "kept", "c": "removed"}


async def test_nights_that_are_pruned_leave_what_their_family_knows(desk):
    desk = await desk()
    for number in range(4):
        source = desk.source(tasks(20, 5 * number), f"n{number}.ndjson")
        await desk.submit(source, job=f"n{number}", delta=True, family="f")
    await desk.submit(desk.source(tasks(5, 500), "other.ndjson"), job="other")
    fallen = await prune(desk)
    assert (fallen["other"], fallen["n3"]) == ("kept", "kept")
    assert set(fallen.values()) == {"kept", "reports removed"}  # each has records that no later one has taken
    assert not (desk.ledger.parent / "n0").exists()
    again = await desk.submit(desk.source(tasks(40), "n5.ndjson"), job="n5", delta=True, family="f")
    assert (again.tally.skipped, again.tally.created) == (35, 5)
    assert desk.created() == {**once(40), **{str(number): 1 for number in range(500, 505)}}
    assert (await desk.audit("n5")).holds
    assert (await desk.audit("n0")).holds


async def test_a_job_that_has_sent_records_of_a_canceled_one_stays_with_it(desk):
    desk = await desk()
    await three(desk)
    connection = apsw.Connection(str(desk.ledger))
    connection.execute("UPDATE jobs SET taken_over = 2, state = 'canceled' WHERE id = 1")
    connection.close()
    assert await prune(desk) == {"c": "kept", "b": "reports removed", "a": "removed"}
