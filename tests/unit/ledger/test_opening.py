"""What a path may hold when a ledger is opened there, and whom the files it leaves are for."""

import asyncio
import os
import re
import stat

import apsw
import pytest

from engine.ledger.database import STEPS, examine, open_writer
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import LedgerError

from .values import a_job, all_batches, frozen


@pytest.fixture
def no_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("no_umask")
async def test_files_and_folders_are_for_their_owner_whatever_the_umask(tmp_path, clock):
    path = tmp_path / "a" / "b" / "ledger.db"
    async with SqliteLedger.open(path, clock) as ledger:
        await frozen(ledger)
        with ledger.lock("j"):
            found = {file.name: mode(file) for file in path.parent.iterdir()}
    names = ["ledger.db", "ledger.db-shm", "ledger.db-wal", "ledger.db.j.lock", "ledger.db.lock"]
    assert found == dict.fromkeys(names, 0o600)
    assert [mode(folder) for folder in (tmp_path / "a", tmp_path / "a" / "b")] == [0o700, 0o700]


async def test_what_an_owner_has_opened_to_others_stays_so(tmp_path, clock):
    path = tmp_path / "ledger.db"
    tmp_path.chmod(0o750)
    path.touch()
    path.chmod(0o640)
    async with SqliteLedger.open(path, clock) as ledger:
        await frozen(ledger)
        assert (mode(path), mode(tmp_path)) == (0o640, 0o750)


async def test_a_closed_ledger_is_one_file(path, clock):
    async with SqliteLedger.open(path, clock) as ledger:
        await frozen(ledger)
    assert sorted(file.name for file in path.parent.iterdir()) == ["ledger.db", "ledger.db.lock"]


@pytest.mark.parametrize("again", [False, True], ids=["new", "opened again"])
def test_a_commit_reaches_the_disk_and_rows_belong_together(path, again):
    if again:
        open_writer(path).close()
    connection = open_writer(path)
    full = 2  # https://sqlite.org/pragma.html#pragma_synchronous
    settings = [connection.pragma(name) for name in ("journal_mode", "synchronous", "foreign_keys")]
    assert settings == ["wal", full, 1]


async def test_many_may_make_it_at_once(path, clock):
    async def make(name):
        async with SqliteLedger.open(path, clock) as ledger:
            await ledger.create_job(a_job(name))

    names = [f"j{number}" for number in range(8)]
    await asyncio.gather(*map(make, names))
    async with SqliteLedger.open(path, clock) as ledger:
        assert sorted(job.name for job in await ledger.jobs()) == names


async def test_it_is_open_until_its_block_ends_however_that_ends(path, clock):
    with pytest.raises(ZeroDivisionError):
        async with SqliteLedger.open(path, clock) as ledger:
            raise ZeroDivisionError
    with pytest.raises(LedgerError, match="is closed"):
        await ledger.jobs()


async def test_a_newer_ledger_is_left_alone(path, clock):
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 99)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(
        LedgerError, match=r"newer bulksubmit: its schema is version 99, this one knows up to \d+\. Update"
    ):
        async with SqliteLedger.open(path, clock):
            pass
    assert path.read_bytes() == before


async def test_an_older_ledger_is_upgraded_and_keeps_what_it_holds(path, clock):
    async with SqliteLedger.open(path, clock) as ledger:
        await frozen(ledger)
    newer = [*STEPS, "ALTER TABLE jobs ADD COLUMN extra TEXT; CREATE TABLE more (a)"]
    for _ in range(2):
        connection = open_writer(path, steps=newer)
        assert connection.pragma("user_version") == len(newer)
        assert connection.table_exists("main", "more")
        assert connection.execute("SELECT COUNT(*) FROM batches").get == 1
        connection.close()


async def test_a_ledger_of_version_1_keeps_its_jobs_and_their_batches(path, clock):
    connection = open_writer(path, steps=STEPS[:1])
    connection.execute(
        "INSERT INTO jobs VALUES (1, 'j', 'sama', '', 'out', 'open', 0, NULL, 1, '', 0, 5.0);"
        "INSERT INTO batches VALUES (1, 0, 0, 0, 1, 9, 2, 3, 2, 7, x'00', 'frozen', NULL, 5.0, '', 0, 0);"
        "INSERT INTO spans VALUES (1, 0, x'49')"
    )
    connection.close()
    async with SqliteLedger.open(path, clock) as ledger:
        job = await ledger.job("j")
        assert (job.learnt, job.slowest_start, job.lost_stages) == ("", 0, 0)
        assert [batch.count for batch, _ in await all_batches(ledger, "j")] == [2]


async def test_an_upgrade_that_fails_changes_nothing(path, clock):
    async with SqliteLedger.open(path, clock) as ledger:
        await frozen(ledger)
    bad = "CREATE TABLE more (a); CREATE TABLE more (a)"
    with pytest.raises(apsw.SQLError, match="already exists"):
        open_writer(path, steps=[*STEPS, bad])
    async with SqliteLedger.open(path, clock) as ledger:
        assert len(await all_batches(ledger, "j")) == 1


async def test_the_database_of_another_program_is_left_alone(tmp_path, clock):
    path = tmp_path / "other.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="belongs to another program"):
        async with SqliteLedger.open(path, clock):
            pass
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


async def test_a_file_that_is_no_database_is_left_alone(tmp_path, clock):
    path = tmp_path / "notes.txt"
    path.write_text("These are my notes.\n" * 100)
    with pytest.raises(LedgerError, match="this is not a ledger"):
        async with SqliteLedger.open(path, clock):
            pass
    assert path.read_text() == "These are my notes.\n" * 100
    assert list(tmp_path.iterdir()) == [path]


async def test_a_damaged_ledger_is_named_when_the_damage_is_met(path, clock):
    async with SqliteLedger.open(path, clock) as ledger:
        await frozen(ledger, batches=1_000)
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        for page in range(pages // 2, pages):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    async with SqliteLedger.open(path, clock) as ledger:
        with pytest.raises(LedgerError, match=r"the file is damaged; put a backup back"):
            await all_batches(ledger, "j")


async def test_a_ledger_with_a_second_name_is_kept_and_can_be_used_as_the_error_says(path, clock, tmp_path):
    """As a snapshot leaves it that was taken with `cp -al`."""
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
    (tmp_path / "snapshot.db").hardlink_to(path)
    told = rf"^ledger {path}: it has a second name .* make it a file of its own: (cp .*)$"
    with pytest.raises(LedgerError, match=told) as refusal:
        async with SqliteLedger.open(path, clock):
            pass
    assert "remove" not in str(refusal.value)
    advice = re.match(told, str(refusal.value))[1]
    assert await (await asyncio.create_subprocess_shell(advice)).wait() == 0
    async with SqliteLedger.open(path, clock) as ledger:
        assert [job.name for job in await ledger.jobs()] == ["j"]


@pytest.mark.parametrize("name", ["folder", "file/ledger.db"])
async def test_a_path_that_cannot_be_opened_is_named(tmp_path, clock, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=str(tmp_path / name)):
        async with SqliteLedger.open(tmp_path / name, clock):
            pass


async def test_a_ledger_is_examined_and_left_as_it_was(path, clock):
    async with SqliteLedger.open(path, clock) as ledger:
        await frozen(ledger)
        assert examine(path) == (len(STEPS), len(STEPS))  # beside a job that works on it
        assert len(await ledger.jobs()) == 1
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert examine(path) == (len(STEPS), len(STEPS))
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_an_older_ledger_is_examined_and_stays_old(path):
    open_writer(path, steps=STEPS[:1]).close()
    assert examine(path) == (1, len(STEPS))
    assert examine(path) == (1, len(STEPS))


def test_a_ledger_that_is_held_or_cannot_be_written_is_told(path):
    writer = open_writer(path)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="another program holds it for writing"):
        examine(path, busy_seconds=0.01)
    writer.execute("ROLLBACK")
    writer.close()
    writer = open_writer(path)
    writer.pragma("user_version", 99)
    writer.close()
    with pytest.raises(LedgerError, match="newer bulksubmit"):
        examine(path)
