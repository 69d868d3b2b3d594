"""SIGTERM while something hangs, the service first of all: gone within ten seconds, at a second signal within one."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from .judge import sandbox_process
from .ways import SECRETS, WAYS

BATCHES = 20
HANG = '\n[[faults]]\ncall = "all"\nkind = "hang"\nevery = 1\nseconds = 120.0\n'
DRAIN_SECONDS, HARD_SECONDS = 10, 1
REPEAT_SECONDS = 0.7
"""The same signal within half a second is the first one, told twice."""


def requests(port):
    """Return how many requests a sandbox has had; its figures are not subject to its faults."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/sandbox/stats") as answer:
        return sum(json.load(answer)["requests"].values())


@pytest.fixture(scope="module")
def hanging(tmp_path_factory):
    """The port of a sandbox that hangs, for each way."""
    with contextlib.ExitStack() as stack:
        yield {
            way: stack.enter_context(sandbox_process(tmp_path_factory.mktemp(way.service), way.behaviour + HANG))[0]
            for way in WAYS
        }


TERMINATED = {128 + signal.SIGTERM, -signal.SIGTERM}
"""A shell shows both as 143: the second signal may come while the interpreter shuts down."""


async def seconds_to_end(way, folder, port, *, again):
    """Return how long a command goes on after its last signal, and its exit code."""
    folder.mkdir()
    way.write_config(folder / "engine.toml", port)
    way.write_tasks(folder / "tasks.ndjson", "t", BATCHES)
    command = [sys.executable, "-m", "engine", "submit", "tasks.ndjson", "--config", "engine.toml", "--job", "j"]
    silent = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
    earlier = requests(port)
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env={**os.environ, **SECRETS}, **silent)
    try:
        async with asyncio.timeout(30):
            while requests(port) == earlier:  # noqa: ASYNC110 - another process brings it about
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        if again:
            await asyncio.sleep(REPEAT_SECONDS)
            with contextlib.suppress(ProcessLookupError):  # gone already: nothing was under way that had to finish
                process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code = await asyncio.wait_for(process.wait(), 30)
        return time.monotonic() - started, code
    finally:
        if process.returncode is None:
            process.kill()


@pytest.mark.parametrize(("again", "limit"), [(False, DRAIN_SECONDS), (True, HARD_SECONDS)], ids=["once", "twice"])
async def test_a_signal_ends_a_run_in_time_even_if_the_service_hangs(tmp_path, hanging, again, limit):
    ends = await asyncio.gather(*(seconds_to_end(way, tmp_path / way.name, hanging[way], again=again) for way in WAYS))
    for way, (seconds, code) in zip(WAYS, ends, strict=True):
        assert (code in TERMINATED, seconds < limit) == (True, True), f"{way}: {code} after {seconds:.1f} s"


HANGS = {
    "a loop that computes": "while True: pass",
    "a loop that sleeps": "time.sleep(600)",
    "a reader that reads for ever": "await anyio.to_thread.run_sync(time.sleep, 600)",
    "a standard error that nobody empties": """
    while stop.error is None:
        emit(Noticed("x" * 1_000))
        await anyio.sleep(0)
    raise stop.error""",
    "a disk of the ledger that hangs": """
    async with SqliteLedger.open(Path("ledger.db"), SystemClock(), hooks=Hooks(lambda _: time.sleep(600))) as ledger:
        await ledger.create_job(Job("j", "sama", "", (), "out"))""",
}
HANGING = """
import anyio, sys, time
from pathlib import Path
from engine.cli.options import OutputOptions
from engine.cli.signals import perform
from engine.clock import SystemClock
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks
from engine.model.errors import BulkSubmitError
from engine.model.job import Job
from engine.progress.events import Noticed

async def work(emit, stop):
    print("working", flush=True)
    {then}

try:
    perform(work, OutputOptions())
except BulkSubmitError as error:
    sys.exit(error.exit_status)
"""


def seconds_in(hang, folder, *, again):
    """Return how long a process goes on after its last signal while something hangs, and its exit code."""
    folder.mkdir()
    command = [sys.executable, "-c", HANGING.format(then=HANGS[hang])]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"working\n"
            time.sleep(REPEAT_SECONDS)  # until it hangs
            process.send_signal(signal.SIGTERM)
            if again:
                time.sleep(REPEAT_SECONDS)
                process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            return process.wait(30), time.monotonic() - started
        finally:
            process.kill()


@pytest.mark.parametrize(("again", "limit"), [(False, DRAIN_SECONDS), (True, HARD_SECONDS)], ids=["once", "twice"])
def test_a_signal_ends_a_process_in_time_whatever_hangs_in_it(tmp_path, again, limit):
    with ThreadPoolExecutor(len(HANGS)) as side_by_side:
        ends = list(side_by_side.map(lambda hang: seconds_in(hang, tmp_path / hang, again=again), HANGS))
    for hang, (code, seconds) in zip(HANGS, ends, strict=True):
        assert (code in TERMINATED, seconds < limit) == (True, True), f"{hang}: {code} after {seconds:.1f} s"
