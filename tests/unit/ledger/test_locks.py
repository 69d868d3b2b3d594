"""One process works on a job at a time; the lock ends with the process."""

import fcntl
import os
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.ledger import files
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import JobLocked, LedgerError


@contextmanager
def holder(path, job):
    command = [sys.executable, "-m", "unit.ledger.holder", str(path), job]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout.readline() == "held\n"
        yield process


@pytest.fixture
async def ledger(path, clock):
    async with SqliteLedger.open(path, clock) as ledger:
        yield ledger


def lock_file(path, job="j"):
    return path.with_name(f"{path.name}.{job}.lock")


@pytest.mark.parametrize("end", [lambda process: process.stdin.close(), lambda process: process.kill()])
async def test_a_job_is_held_by_one_process_as_long_as_it_lives(ledger, path, end):
    with holder(path, "j") as process:
        assert ledger.is_locked("j")
        with (
            pytest.raises(JobLocked, match=rf"process {process.pid} is working on job 'j'") as locked,
            ledger.lock("j"),
        ):
            pass
        assert locked.value.exit_code == 6
        with ledger.lock("k"):
            pass
        end(process)
        process.wait()
        assert not ledger.is_locked("j")
        with ledger.lock("j"):
            assert ledger.is_locked("j")


async def test_the_file_names_the_process_while_it_holds_the_job(ledger, path):
    with ledger.lock("j"):
        assert lock_file(path).read_text() == f"{os.getpid()}\n"
    assert lock_file(path).read_text() == ""


async def test_what_a_killed_process_wrote_is_written_over(ledger, path):
    lock_file(path).write_text("1234567890\n")
    assert not ledger.is_locked("j")
    with ledger.lock("j"):
        assert lock_file(path).read_text() == f"{os.getpid()}\n"


async def test_looking_leaves_no_file(ledger, path):
    assert not ledger.is_locked("j")
    assert not lock_file(path).exists()


async def test_a_look_at_the_lock_does_not_keep_anyone_out(ledger, path):
    """Who finds the lock shared waits for the look to end, and takes it."""
    looking = os.open(lock_file(path), os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)

    def take():
        with ledger.lock("j"):
            return lock_file(path).read_text()

    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take)
        while not taken.done() and not is_running(files._acquire):
            pass
        os.close(looking)
        assert taken.result() == f"{os.getpid()}\n"


def is_running(function):
    """Tell whether a thread is inside `function`."""
    stacks = sys._current_frames().values()
    return any(frame.f_code is function.__code__ for top in stacks for frame, _ in traceback.walk_stack(top))


async def test_the_work_under_the_lock_keeps_its_own_errors(ledger):
    with pytest.raises(FileNotFoundError), ledger.lock("j"):
        raise FileNotFoundError
    assert not ledger.is_locked("j")


async def test_a_symbolic_link_is_not_followed(ledger, path, tmp_path):
    target = tmp_path / "precious"
    target.write_text("keep me")
    lock_file(path).symlink_to(target)
    with pytest.raises(LedgerError, match=r"ledger\.db\.j\.lock: it is a symbolic link: put the"), ledger.lock("j"):
        pass
    with pytest.raises(LedgerError, match="it is a symbolic link"):
        ledger.is_locked("j")
    assert target.read_text() == "keep me"


async def test_a_ledger_behind_a_link_has_the_same_locks(ledger, path, clock, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(path)
    async with SqliteLedger.open(link, clock) as other:
        with ledger.lock("j"), pytest.raises(JobLocked), other.lock("j"):
            pass
