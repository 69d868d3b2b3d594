"""SIGKILL at random moments, again and again, then `resume`: nothing lost, nothing twice, by the sandbox's journal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import operations

from .judge import CONFIG, KEY, lines, sandbox_process, write_tasks

DYING = Path(__file__).with_name("dying.py")
TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
KILLS = int(os.environ.get("BULKSUBMIT_KILLS", "200" if TORTURE else "8"))
SEED = int(os.environ.get("BULKSUBMIT_SEED", "4"))
RECORDS, BATCH = 120, 3
LONGEST_SECONDS = 0.5
"""Most that a life is given: such a job takes about as long, so the kills spread over all of it."""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    with sandbox_process(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
def parent(mode):
    """Start the process whose children are killed; each mode has its own draws."""
    command = [sys.executable, str(DYING), f"{SEED}{len(mode)}", str(LONGEST_SECONDS)]
    environment = os.environ | {"SAMA_ACCESS_KEY": KEY}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        yield process
        process.stdin.close()
        process.wait(timeout=60)


def let_die(parent, folder, port, mode, number):
    """Have one job killed until it outlives it; return what the parent tells, and the markers of its tasks."""
    home = folder / str(number)
    home.mkdir()
    config, source = home / "engine.toml", home / "tasks.ndjson"
    config.write_text(CONFIG.format(port=port, mode=mode, batch=BATCH, send=""))
    markers = write_tasks(source, f"{mode}-{number}", RECORDS)
    order = {"config": config, "source": source, "ledger": home / "ledger.db", "output": home}
    parent.stdin.write(json.dumps(order, default=str) + "\n")
    parent.stdin.flush()
    return home, json.loads(parent.stdout.readline()), markers


@pytest.mark.parametrize("mode", ["presigned", "inline"])
async def test_kills_at_random_moments_lose_nothing_and_create_nothing_twice(tmp_path, sandbox, parent, mode, tally):
    port, judge = sandbox
    kills = number = 0
    while kills < KILLS / 2:
        home, end, markers = let_die(parent, tmp_path, port, mode, number)
        kills, number = kills + end["kills"], number + 1
        outcomes = lines(home / "outcomes.ndjson")
        uncertain = sum(outcome["state"] == "uncertain" for outcome in outcomes)
        tally["kills"] += end["kills"]
        tally["tasks"] += len(markers)
        tally["parked"] += uncertain
        assert not judge.complaints(outcomes, markers), f"job {number} of seed {SEED}"
        assert end["code"] == (4 if uncertain else 0)
        assert mode == "inline" or not uncertain
        assert (await operations.audit("j", home / "ledger.db")).holds
    tally["duplicated"] += judge.duplicated
    assert not judge.duplicated
