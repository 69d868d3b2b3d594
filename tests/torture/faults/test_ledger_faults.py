"""A disk that is full or broken at the ledger's 1st, 2nd, 3rd, … write, until a job passes clean: then `resume`.

The failing file system is made SQLite's default, so the engine opens its ledger on it without being told.
"""

import contextlib
import itertools
import os

import apsw
import pytest

import engine
from engine.model.errors import Exit, JobError, LedgerError
from tests.unit.ledger.disk import Disk, _File

from .judge import lines
from .power import SYSTEM
from .tally import Tally
from .ways import BRIDGES, WAYS

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
BATCHES = 2


def step_of(way):
    """Every write fails once under torture; else every fifth one, and fewer where each resume has to wait."""
    return 1 if TORTURE else 11 if way is BRIDGES else 5


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


async def try_to_submit(order, ledger):
    """Return the exit code, and whether the failure was told as the ledger's."""
    try:
        result = await engine.submit(ledger=ledger, **order)
    except LedgerError as error:
        return error.exit_status, str(error)
    return result.exit_code, result.message


async def finish(order, ledger):
    try:
        return await engine.resume("j", ledger)
    except JobError:  # the disk failed before there was a job
        return await engine.submit(ledger=ledger, **order)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
async def test_a_disk_that_fails_at_any_write_stops_the_job_and_resume_finishes_it(
    tmp_path, sandboxes, secrets, way, error, tally
):
    port, judge = sandboxes[way.behaviour]
    for fail_at in itertools.count(1, step_of(way)):
        name = f"{way}-{error.__name__}-{fail_at}".replace(" ", "-")
        home = tmp_path / str(fail_at)
        home.mkdir()
        config, source, ledger = home / "engine.toml", home / "tasks.ndjson", home / "ledger.db"
        way.write_config(config, port, project=name)
        markers = way.write_tasks(source, name, BATCHES)
        order = {"sources": source, "config": config, "job": "j", "output": home}
        with the_only_disk(fail_at, error) as disk:
            code, message = await try_to_submit(order, ledger)
        if disk.writes < fail_at:
            break
        result = await finish(order, ledger)
        found = Tally(faults=1)
        complaints = judge.weigh(way, lines(result.outcomes), markers, found)
        tally.add(found)
        assert not complaints, f"write {fail_at}: {message}"
        assert result.exit_code == (Exit.SOME_UNCERTAIN if found.parked else Exit.ALL_CREATED)
        assert way.parks or not found.parked
        assert (await engine.audit("j", ledger)).holds
    assert code == Exit.ALL_CREATED
    assert fail_at > 20
    assert not judge.duplicated
