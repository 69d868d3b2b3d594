"""A disk that is full or broken at the 1st, 2nd, 3rd, … write: nothing awaited is lost, nothing is half-written."""

import itertools

import apsw
import pytest

from engine.ledger.database import as_ledger_error
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import LedgerError
from engine.model.job import JobState
from engine.model.submission import State, Submission

from .disk import failing_disk
from .values import a_batch, a_job, a_reject, all_batches, bring, one_failed, settle

RECORDS = 300

STEPS = [
    lambda ledger: ledger.create_job(a_job()),
    lambda ledger: ledger.freeze("j", [a_batch(0, RECORDS, rejected=2)], [a_reject(0), a_reject(1)], last=False),
    lambda ledger: ledger.freeze("j", [a_batch(1, RECORDS, rejected=2)], [a_reject(302), a_reject(303)], last=True),
    lambda ledger: ledger.move("j", Submission(0, State.STAGING), expected=State.FROZEN),
    lambda ledger: ledger.move("j", Submission(0, State.STAGED, "r"), expected=State.STAGING),
    lambda ledger: settle(ledger, "j", 0, one_failed(RECORDS), State.STAGED),
    lambda ledger: ledger.set_job_state("j", JobState.FINISHED),
    lambda ledger: ledger.create_job(a_job("later")),
]


async def snapshot(ledger):
    """All that can be asked."""
    jobs = await ledger.jobs()
    if not jobs:
        return None
    batches = await all_batches(ledger, "j")
    settlements = [await ledger.settlement("j", batch.sequence) for batch, _ in batches]
    return jobs, batches, settlements, await ledger.rejects("j", 0, 10_000), await ledger.tally("j")


async def take_steps(path, clock, vfs):
    """Try all steps; return how many were awaited before one failed, and why it and those after it failed."""
    done, failures = 0, []
    try:
        async with SqliteLedger.open(path, clock, vfs=vfs) as ledger:
            for step in STEPS:
                try:
                    await step(ledger)
                    done += not failures
                except LedgerError as failure:
                    failures.append(str(failure))
    except LedgerError as failure:  # it could not even be opened
        failures.append(str(failure))
    return done, failures


@pytest.fixture
async def expected(tmp_path, clock):
    """What a ledger holds after 0, 1, 2, … steps."""
    async with SqliteLedger.open(tmp_path / "expected.db", clock) as ledger:
        snapshots = [await snapshot(ledger)]
        for step in STEPS:
            await step(ledger)
            snapshots.append(await snapshot(ledger))
    return snapshots


@pytest.mark.parametrize("once", [False, True], ids=["from then on", "once"])
@pytest.mark.parametrize(
    ("error", "words"), [(apsw.FullError, "the disk is full"), (apsw.IOError, "the disk could not")]
)
async def test_a_disk_that_fails_at_any_write(tmp_path, clock, expected, error, words, once):
    for fail_at in itertools.count(1):
        path = tmp_path / f"{fail_at}.db"
        with failing_disk(fail_at, error, once=once) as disk:
            done, failures = await take_steps(path, clock, disk.name)
            if failures and not once:  # whoever looks at it meanwhile changes nothing
                assert (await take_steps(path, clock, disk.name))[0] == 0
        async with SqliteLedger.open(path, clock) as ledger:  # as a new process on a mended disk
            found = await snapshot(ledger)
        assert apsw.Connection(str(path)).pragma("integrity_check") == "ok"
        if not failures:
            break
        assert words in failures[0]
        assert len(set(failures)) == 1  # it has stopped, for one and the same reason
        # The step that failed is there whole or not at all; those before it are there.
        assert found in expected[done : done + 2]
    assert fail_at > 2 * len(STEPS)


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
async def test_a_disk_that_fails_while_a_large_operation_spills(path, clock, error):
    """SQLite writes before the commit what exceeds its cache, and on failure takes back all, the savepoint too."""
    with failing_disk(error=error) as disk:
        async with SqliteLedger.open(path, clock, vfs=disk.name) as ledger:
            await ledger.create_job(a_job())
            disk.fail_at = disk.writes + 20
            with pytest.raises(LedgerError, match="injected"):
                await ledger.freeze("j", [a_batch(number, 1000) for number in range(400)], [], last=True)
    async with SqliteLedger.open(path, clock) as ledger:
        assert await ledger.last_batch("j") is None
        assert not (await ledger.job("j")).read_complete


async def test_what_was_read_before_can_be_read_when_the_disk_is_full(path, clock):
    with failing_disk() as disk:
        async with SqliteLedger.open(path, clock, vfs=disk.name) as ledger:
            await ledger.create_job(a_job())
            disk.fail_at = disk.writes + 1
            with pytest.raises(LedgerError, match=r"the disk is full; make room, then `bulksubmit resume`"):
                await ledger.freeze("j", [a_batch(0)], [], last=True)
            assert (await ledger.job("j")).name == "j"
            assert await ledger.last_batch("j") is None


async def test_a_disk_that_cannot_be_read(path, clock):
    with failing_disk(error=apsw.IOError) as disk:
        async with SqliteLedger.open(path, clock) as ledger:
            await ledger.create_job(a_job())
            await ledger.freeze("j", [a_batch(0)], [], last=True)
            await bring(ledger, "j", 0, State.RELEASED)
        async with SqliteLedger.open(path, clock, vfs=disk.name) as ledger:
            disk.fail_reads = True
            with pytest.raises(LedgerError, match="the disk could not be written or read"):
                await ledger.tally("j")
            disk.fail_reads = False


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (apsw.FullError("x"), "the disk is full; make room"),
        (apsw.IOError("x"), "the disk could not be written or read; check it"),
        (apsw.NotADBError("x"), "this is not a ledger"),
        (apsw.CorruptError("x"), "the file is damaged; put a backup back"),
        (apsw.ReadOnlyError("x"), "the file cannot be written; check the permissions"),
        (apsw.CantOpenError("x"), "the file cannot be opened; check the path"),
        (apsw.BusyError("x"), "another program holds it"),
        (PermissionError("x"), "the file cannot be opened; check the path"),
        (ValueError("x"), "it cannot be used"),
    ],
)
def test_an_error_says_where_and_what_to_do(path, error, words):
    mapped = as_ledger_error(path, error)
    assert isinstance(mapped, LedgerError)
    assert str(mapped).startswith(f"ledger {path}: {words}")
    assert str(mapped).endswith(f"({type(error).__name__}: x)")
    assert mapped.__cause__ is error
