"""SIGKILL at any instant: what was awaited is there, what was not is there whole or not at all."""

import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from engine.ledger.sqlite import SqliteLedger
from engine.model.outcome import Settlement
from engine.model.submission import State, Submission

from .stream import WRITERS
from .values import all_batches, ids, submission


def start(path, *arguments):
    command = [sys.executable, "-m", "unit.ledger.stream", str(path), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("lines", [1, 500])
async def test_every_write_that_was_awaited_is_there(path, clock, lines):
    with start(path, "forever") as process:
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    awaited = {}
    for line in said:
        sequence, number = line.split()
        awaited[int(sequence)] = int(number)
    assert apsw.Connection(str(path)).pragma("integrity_check") == "ok"
    async with SqliteLedger.open(path, clock) as ledger:
        found = {batch.sequence: int(found.note or 0) for batch, found in await all_batches(ledger, "j")}
    assert len(found) == WRITERS
    # One more than was said: committed, and killed before it could be told.
    assert all(found[sequence] - number in {0, 1} for sequence, number in awaited.items())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("last", range(1, 6))
async def test_killed_around_a_commit(path, clock, when, last):
    with start(path, when, str(last)) as process:
        assert process.wait() == -signal.SIGKILL
    commits = last if when == "after" else last - 1
    async with SqliteLedger.open(path, clock) as ledger:
        assert [job.name for job in await ledger.jobs()] == ["j"] * (commits >= 1)
        if commits >= 1:
            assert (await ledger.job("j")).read_complete == (commits >= 2)
        if commits >= 2:
            state = [State.FROZEN, State.RELEASING, State.RELEASED, State.SETTLED][commits - 2]
            assert (await submission(ledger, "j", 0)).state is state
            assert await ledger.settlement("j", 0) == (Settlement(ids(2)) if state is State.SETTLED else None)


async def test_a_killed_job_goes_on(path, clock):
    with start(path, "after", "3") as process:
        process.wait()
    async with SqliteLedger.open(path, clock) as ledger:
        await ledger.move("j", Submission(0, State.RELEASED, "r"), expected=State.RELEASING)
        assert (await ledger.tally("j")).states == {"released": 1}
