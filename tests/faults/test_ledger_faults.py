"""A disk that is full or broken at the ledger's 1st, 2nd, 3rd, … write, until a job passes clean: then `resume`.

The failing file system is made SQLite's default, so the engine opens its ledger on it without being told.
"""

import contextlib
import itertools
import os

import apsw
import pytest

from engine import operations
from engine.model.errors import Exit, JobError, LedgerError
from engine.operations import Order
from engine.run import Stop
from tests.ledger.disk import Disk, _File

from .judge import CONFIG, KEY, lines, sandbox_process, write_tasks

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
RECORDS, BATCH = 4, 2
STEP = 1 if TORTURE else 5
"""Every write fails once under torture; else every fifth one."""


SYSTEM = apsw.vfs_names()[0]
"""By its name, for an empty one would mean the default: this disk itself."""


class OnlyFile(_File):
    def __init__(self, disk, name, flags):
        self._disk = disk
        apsw.VFSFile.__init__(self, SYSTEM, name, flags)


class OnlyDisk(Disk):
    """The file system that SQLite takes where it is not told of one."""

    def __init__(self, fail_at, error):
        self.fail_at, self.error = fail_at, error
        self.once = self.fail_reads = False
        self.writes = 0
        apsw.VFS.__init__(self, self.name, SYSTEM, makedefault=True)

    def xOpen(self, name, flags):  # noqa: N802 - apsw looks for this name
        return OnlyFile(self, name, flags)


@contextlib.contextmanager
def the_only_disk(fail_at, error):
    disk = OnlyDisk(fail_at, error)
    try:
        yield disk
    finally:
        disk.unregister()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    with sandbox_process(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


async def try_to_submit(order, ledger):
    """Return the exit code, and whether the failure was told as the ledger's."""
    try:
        result = await operations.submit(order, ledger, lambda _: None, Stop())
    except LedgerError as error:
        return error.exit_status, str(error)
    return result.exit_code, result.message


async def finish(order, ledger):
    try:
        return await operations.resume("j", ledger, lambda _: None, Stop())
    except JobError:  # the disk failed before there was a job
        return await operations.submit(order, ledger, lambda _: None, Stop())


@pytest.mark.parametrize("mode", ["presigned", "inline"])
@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
async def test_a_disk_that_fails_at_any_write_stops_the_job_and_resume_finishes_it(
    tmp_path, sandbox, monkeypatch, mode, error, tally
):
    monkeypatch.setenv("SAMA_ACCESS_KEY", KEY)
    port, judge = sandbox
    for fail_at in itertools.count(1, STEP):
        home = tmp_path / str(fail_at)
        home.mkdir()
        config, source, ledger = home / "engine.toml", home / "tasks.ndjson", home / "ledger.db"
        config.write_text(CONFIG.format(port=port, mode=mode, batch=BATCH, send=""))
        markers = write_tasks(source, f"{mode}-{error.__name__}-{fail_at}", RECORDS)
        order = Order([str(source)], config, job="j", output=home)
        with the_only_disk(fail_at, error) as disk:
            code, message = await try_to_submit(order, ledger)
        if disk.writes < fail_at:
            break
        result = await finish(order, ledger)
        tally["disk failures"] += 1
        tally["tasks"] += RECORDS
        tally["parked"] += result.tally.uncertain
        assert not judge.complaints(lines(result.outcomes), markers), f"write {fail_at}: {message}"
        assert result.exit_code == (Exit.SOME_UNCERTAIN if result.tally.uncertain else Exit.ALL_CREATED)
        assert mode == "inline" or not result.tally.uncertain
        assert (await operations.audit("j", ledger)).holds
    assert code == Exit.ALL_CREATED
    assert fail_at > 20
    tally["duplicated"] += judge.duplicated
    assert not judge.duplicated
