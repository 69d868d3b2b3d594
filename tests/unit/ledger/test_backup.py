"""A ledger is more than its file while it is open: copies that are whole, and files that were parted from their WAL."""

import asyncio
import shutil
import signal
import sys
from contextlib import closing

import apsw
import pytest

from engine.ledger.database import LEFT_BEHIND, WAL_PAGES, open_writer
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import LedgerError

from .values import a_job, all_batches, frozen


async def names(path, clock):
    async with SqliteLedger.open(path, clock) as ledger:
        return {job.name for job in await ledger.jobs()}


async def parted(ledger, path, to):
    """Copy the file of an open ledger as people do: alone."""
    to.parent.mkdir(exist_ok=True)
    shutil.copy(path, to)
    return to


async def test_a_file_without_what_stood_beside_it_is_recognised(path, clock, tmp_path):
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
        copy = await parted(ledger, path, tmp_path / "elsewhere" / "copy.db")
    with pytest.raises(LedgerError, match=r"is not whole: its newest steps are in copy\.db-wal.*bulksubmit backup"):
        await names(copy, clock)


async def test_it_is_recognised_whenever_it_was_parted(path, clock, tmp_path):
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
        for number in range(3):
            await frozen(ledger, batches=2_000, records=300, name=f"j{number}")
            copy = await parted(ledger, path, tmp_path / f"copy-{number}.db")
            with pytest.raises(LedgerError, match="is not whole"):
                await names(copy, clock)
        assert path.stat().st_size > WAL_PAGES * 4096  # so much was folded in meanwhile


def begun_by_another_program(copy):
    """The WAL of a program that has changed the copy and ended in the middle."""
    shutil.copy(copy, twin := copy.with_name("twin.db"))
    with closing(apsw.Connection(str(twin))) as others:
        others.execute("CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1)")
        return twin.with_name("twin.db-wal").read_bytes()


def of_another_file(copy):
    """Its frames do not belong to its header: SQLite reads none of them."""
    wal = bytearray(begun_by_another_program(copy))
    wal[12:24] = b"\0\0\0\7" + b"othersal"
    return bytes(wal)


FOREIGN = {
    "empty": lambda _: b"",
    "a header only": lambda copy: begun_by_another_program(copy)[:32],
    "of another file": of_another_file,
    "begun by another program": begun_by_another_program,
}


@pytest.mark.parametrize("kind", FOREIGN)
async def test_a_wal_that_does_not_go_on_from_the_file_does_not_make_it_whole(path, clock, tmp_path, kind):
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
        copy = await parted(ledger, path, tmp_path / "copy.db")
        wal = copy.with_name("copy.db-wal")
        wal.write_bytes(found := FOREIGN[kind](copy))
        before = copy.read_bytes()
        for _ in range(2):
            with pytest.raises(LedgerError, match="is not whole"):
                await names(copy, clock)
        assert copy.read_bytes() == before
        assert not found or wal.read_bytes() == found
        shutil.copy(f"{path}-wal", wal)
    assert await names(copy, clock) == {"j"}


async def test_a_file_that_another_program_holds_open_is_still_not_whole(path, clock, tmp_path):
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
        copy = await parted(ledger, path, tmp_path / "copy.db")
    with closing(apsw.Connection(str(copy))) as others:
        others.execute("SELECT * FROM jobs").fetchall()
        with pytest.raises(LedgerError, match="is not whole"):
            await names(copy, clock)
        assert others.pragma("user_version") > LEFT_BEHIND


@pytest.mark.parametrize("frames", [0, 1], ids=["the header", "half a frame"])
async def test_a_kill_while_the_wal_is_begun_anew_leaves_it_whole(path, clock, tmp_path, frames):
    """SQLite writes a new header over the old one, then the first frame; the process may end in between."""
    copy = tmp_path / "copy.db"
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job("before"))
    connection = open_writer(path)
    connection.pragma("user_version", connection.pragma("user_version") + LEFT_BEHIND)
    connection.wal_checkpoint()
    old = path.with_name("ledger.db-wal").read_bytes()
    shutil.copy(path, copy)
    connection.pragma("user_version", connection.pragma("user_version") - LEFT_BEHIND)
    new = path.with_name("ledger.db-wal").read_bytes()
    cut = 32 + frames * 1_000
    copy.with_name("copy.db-wal").write_bytes(new[:cut] + old[cut:])
    connection.close()
    assert await names(copy, clock) == {"before"}


async def test_with_what_stood_beside_it_the_file_is_whole(path, clock, tmp_path):
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
        copy = await parted(ledger, path, tmp_path / "copy.db")
        shutil.copy(f"{path}-wal", f"{copy}-wal")
    assert await names(copy, clock) == {"j"}
    assert await names(copy, clock) == {"j"}


async def test_a_ledger_that_was_closed_is_whole(path, clock, tmp_path):
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
    assert await names(await parted(None, path, tmp_path / "copy.db"), clock) == {"j"}


async def test_whoever_closes_it_last_leaves_it_whole(path, clock):
    """Another command, or the sqlite3 shell that somebody looks at a killed job with."""
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
        others = apsw.Connection(str(path))
        others.execute("SELECT * FROM jobs").fetchall()
    others.close()
    assert not path.with_name("ledger.db-wal").exists()
    assert await names(path, clock) == {"j"}


DYING = """
import os, signal, sys
import apsw
from pathlib import Path
from engine.ledger.database import mark_left_behind, open_writer
connection = open_writer(Path(sys.argv[1]))
steps = int(sys.argv[2])

def count(*_):
    global steps
    steps -= 1
    if steps < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0

connection.set_wal_hook(count)
connection.set_commit_hook(count)
mark_left_behind(connection)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("steps", range(5))
async def test_a_kill_while_it_is_marked_leaves_it_whole(path, clock, steps):
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, str(path), str(steps))
    assert await ended.wait() == -signal.SIGKILL
    assert await names(path, clock) == {"j"}
    connection = open_writer(path)
    assert connection.pragma("user_version") < LEFT_BEHIND
    connection.close()
    assert await names(path, clock) == {"j"}


async def test_a_wal_whose_file_is_missing_is_not_thrown_away(path, clock):
    path.parent.mkdir()
    wal = path.with_name("ledger.db-wal")
    wal.write_bytes(b"x")
    with pytest.raises(LedgerError, match=r"ledger\.db is missing, and its newest steps are in .*ledger\.db-wal"):
        await names(path, clock)
    assert wal.read_bytes() == b"x"


async def test_a_backup_is_whole_while_the_ledger_is_written(path, clock, tmp_path):
    copy = tmp_path / "backups" / "copy.db"
    async with SqliteLedger.open(path, clock) as ledger:
        await frozen(ledger, batches=100)
        await ledger.back_up(copy)
        await ledger.create_job(a_job("later"))
        await ledger.back_up(tmp_path / "second.db")
    async with SqliteLedger.open(copy, clock) as copied:
        assert [job.name for job in await copied.jobs()] == ["j"]
        assert len(await all_batches(copied, "j")) == 100
    assert await names(tmp_path / "second.db", clock) == {"j", "later"}
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in copy.parent.iterdir()) == ["copy.db"]


async def test_a_backup_writes_over_nothing(path, clock, tmp_path):
    (tmp_path / "there").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.create_job(a_job())
        for name in ("there", "link"):
            with pytest.raises(LedgerError, match=f"{name} exists, and a backup writes over nothing"):
                await ledger.back_up(tmp_path / name)
        (tmp_path / "not-a-folder").touch()
        with pytest.raises(LedgerError, match="not-a-folder"):
            await ledger.back_up(tmp_path / "not-a-folder" / "copy.db")
    assert (tmp_path / "there").read_text() == "mine"
    assert not list(tmp_path.glob("*partial*"))
