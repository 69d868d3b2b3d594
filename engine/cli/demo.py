"""The command `demo`: 28,000 airports into a sandbox, followed, audited, and judged by the sandbox's journal.

The sandbox is a process of its own, as a service would be. Its journal is written apart from the engine, so it can say
whether each airport became a task exactly once.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import anyio
import orjson
from msgspec.structs import replace

import engine
from engine.cli.output.result import result_screen
from engine.cli.output.screen import Screen, Table
from engine.commands.examples import example_path
from engine.commands.paths import command, program
from engine.commands.result import Result
from engine.model.errors import BulkSubmitError, ConfigError, Exit
from engine.model.job import JobState
from engine.progress.events import Listener
from engine.progress.text import count
from engine.reports.audit import Audit
from engine.run.context import Stop
from engine.sandbox.journal import read_journal

ACCESS_KEY = "sandbox-key"
START_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo showed."""

    result: Result
    audit: Audit
    journal: Path
    tasks: int
    """Tasks that the sandbox says it created."""
    twice: int
    """Markers that its journal holds more than once."""
    source: Path
    """What was submitted."""


async def run(folder: Path, emit: Listener, stop: Stop) -> Demo:
    """Submit the airports to a sandbox of our own and audit what came of it.

    Raises:
        ConfigError: the package `airportsdata` is not installed.
    """
    source = _airports()
    ledger, journal = folder / "ledger.db", _new_journal(folder)
    async with _sandbox(journal) as port:
        os.environ |= {"BULKSUBMIT_SANDBOX_PORT": str(port), "SAMA_ACCESS_KEY": ACCESS_KEY}
        # The sandbox is a new one each time, and knows nothing of earlier demos.
        result = await engine.submit(source, example_path("demo"), ledger, emit, stop, again=True)
        audited = await engine.audit(result.job, ledger)
    markers = Counter(entry.marker for entry in read_journal(journal))
    twice = sum(times > 1 for times in markers.values())
    return Demo(result, audited, journal, markers.total(), twice, source)


def _new_journal(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = folder / "sandbox-journal.ndjson"
    journal.unlink(missing_ok=True)
    return journal


def _airports() -> Path:
    spec = find_spec("airportsdata")
    if spec is None or spec.origin is None:
        raise ConfigError("the demo needs its data: pip install 'bulksubmit[demo]'")
    return Path(spec.origin).with_name("airports.csv")


@asynccontextmanager
async def _sandbox(journal: Path) -> AsyncIterator[int]:
    """Run `bulksubmit sandbox` on a free port; end it by its own id."""
    command = [sys.executable, "-m", "engine", "sandbox", "--port", "0", "--json", "--journal", str(journal)]
    command += ["--behaviour", str(example_path("demo-sandbox"))]
    # A session of its own: Ctrl-C is for us, and the sandbox must answer until we have drained.
    async with await anyio.open_process(command, stderr=None, start_new_session=True) as process:
        try:
            yield await _port(process)
        finally:
            process.terminate()
            await process.wait()


async def _port(process: anyio.abc.Process) -> int:
    assert process.stdout is not None  # noqa: S101 - opened with a pipe
    line = b""
    with anyio.move_on_after(START_SECONDS):
        while not line.endswith(b"\n"):
            line += await process.stdout.receive()
        return int(orjson.loads(line)["url"].split(":")[2].split("/")[0])
    raise BulkSubmitError(f"the sandbox did not start within {START_SECONDS} seconds")


def demo_screen(shown: Demo, ledger: Path) -> Screen:
    """Return the screen of the run, with the proof from outside the engine below it."""
    screen = result_screen(shown.result, ledger)
    proven = shown.audit.holds and not shown.twice and shown.tasks == shown.result.tally.created
    proof = Table(
        [
            ["tasks that the sandbox created", count(shown.tasks)],
            ["tasks that it created twice", count(shown.twice)],
            ["the audit holds", "yes" if shown.audit.holds else "no"],
        ],
        "Proof, from the sandbox's own journal",
        figures=frozenset({1}),
    )
    data = {
        "proven": proven,
        "sandbox_tasks": shown.tasks,
        "sandbox_twice": shown.twice,
        "audit_holds": shown.audit.holds,
        "journal": str(shown.journal),
    }
    more = Table(
        [
            ["see what became of one airport", command(f"report {shown.result.job} --record 17", ledger)],
            ["make a configuration of your own", f"{program()} init sama --from {shlex.quote(str(shown.source))}"],
        ],
        "Go on",
        whole=frozenset({1}),
    )
    return replace(
        screen,
        tables=[screen.tables[0], proof, *screen.tables[1:], more],
        data={**screen.data, **data},
        # Of a demo that was interrupted nothing is proven yet, and nothing is wrong.
        exit_code=screen.exit_code if proven or shown.result.state == JobState.OPEN else Exit.ERROR,
    )
