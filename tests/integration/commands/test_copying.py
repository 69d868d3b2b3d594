"""A ledger that is copied goes on where the first one stood, and only if nobody works on it."""

import resource

import pytest

import engine
from engine.clock import SystemClock
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import JobLocked, NoLedger
from engine.model.job import Job


async def ledger_of(path, *names, **job):
    async with SqliteLedger.open(path, SystemClock()) as ledger:
        for name in names:
            await ledger.create_job(Job(name, "sama", "", (), name, **job))


async def test_all_jobs_are_there_with_their_numbers(tmp_path):
    await ledger_of(tmp_path / "a.db", "first", "second")
    copied = await engine.copy_ledger(tmp_path / "a.db", str(tmp_path / "b.db"))
    assert copied.jobs == ["second", "first"]
    assert copied.tables["jobs"].rows == 2
    before, after = [await engine.status(ledger=tmp_path / name) for name in ("a.db", "b.db")]
    assert [one.job for one in before] == [one.job for one in after]


@pytest.mark.parametrize("lock", ["lock", "lock_family", "lock_nights"])
async def test_while_somebody_works_nothing_is_copied(tmp_path, lock):
    await ledger_of(tmp_path / "a.db", "f", family="f")
    async with SqliteLedger.open(tmp_path / "a.db", SystemClock()) as ledger:
        with getattr(ledger, lock)("f"), pytest.raises(JobLocked, match=r"a\.db: process"):
            await engine.copy_ledger(tmp_path / "a.db", tmp_path / "b.db")
    assert not (tmp_path / "b.db").exists()


async def test_there_is_nothing_to_copy_where_there_is_no_ledger(tmp_path):
    with pytest.raises(NoLedger, match="there is no ledger at"):
        await engine.copy_ledger(tmp_path / "a.db", tmp_path / "b.db")
    assert not list(tmp_path.iterdir())


async def test_many_jobs_are_locked_at_once(tmp_path):
    """More than this process could have files open for, if it did not ask for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    await ledger_of(tmp_path / "a.db", *(f"job-{number}" for number in range(80)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        copied = await engine.copy_ledger(tmp_path / "a.db", tmp_path / "b.db")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(copied.jobs) == 80
