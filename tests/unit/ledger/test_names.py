import shutil

import pytest

from engine.clock import SystemClock
from engine.ledger.names import MOST_JOB_NAMES, job_names
from engine.ledger.sqlite import SqliteLedger
from engine.model.job import Job


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a folder?" / "ledger.db"


def job(name):
    return Job(name, "sama", "", (), name)


async def test_the_newest_come_first_and_no_more_than_a_list_may_hold(path):
    async with SqliteLedger.open(path, SystemClock()) as ledger:
        for number in range(MOST_JOB_NAMES + 5):
            await ledger.create_job(job(f"a-{number}"))
        await ledger.create_job(job("b_-"))
    names = job_names(path)
    assert names[:2] == ["b_-", f"a-{MOST_JOB_NAMES + 4}"]
    assert len(names) == MOST_JOB_NAMES
    assert job_names(path, "b_-") == ["b_-"]
    assert job_names(path, "B") == []
    assert len(job_names(path, "a-19")) == 11


async def test_names_are_seen_while_a_process_writes_and_when_it_was_killed(path, tmp_path):
    async with SqliteLedger.open(path, SystemClock()) as ledger:
        await ledger.create_job(job("now"))
        assert job_names(path) == ["now"]
        shutil.copytree(path.parent, tmp_path / "killed")  # what a kill leaves
    (tmp_path / "killed" / "ledger.db-shm").unlink()
    assert job_names(tmp_path / "killed" / "ledger.db") == ["now"]


def test_without_a_ledger_there_are_none_and_nothing_is_made(path):
    assert job_names(path) == []
    assert not path.parent.exists()
