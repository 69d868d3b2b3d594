"""A scenario enters, what happened leaves: the engine's own operations, with a simulated socket and made-up time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
import orjson
from fakes.bench import write_records
from fakes.clock import FakeClock, Watched

import engine
from engine.commands import wiring
from engine.commands.result import Result
from engine.http import caller
from engine.ledger.sqlite import SqliteLedger
from engine.model.job import JobState
from engine.progress.events import Event
from engine.reports.audit import Audit

from .scenario import Scenario
from .server import BASE_URL, PROJECT, SimulatedSama

REAL_SECONDS = 30.0
"""Of a scenario that hangs; one takes about a second."""
SECRET = "SCENARIO_ACCESS_KEY"
JOB = "scenario"


@dataclass(frozen=True)
class Played:
    """What happened, as all that were there tell it."""

    scenario: Scenario
    server: SimulatedSama
    results: list[Result]
    """Of the first run and of each resume."""
    events: list[tuple[float, Event]]
    outcomes: list[dict]
    """The report, a line each."""
    audit: Audit
    elapsed_seconds: float


class World:
    """One scenario's clock and server, in which the engine runs instead of in ours."""

    def __init__(self, scenario: Scenario, folder: Path, monkeypatch) -> None:
        self.scenario = scenario
        self.clock = FakeClock()
        self.server = SimulatedSama(scenario, self.clock, folder)
        self.events: list[tuple[float, Event]] = []
        self._folder = folder
        self._patch = monkeypatch

    async def play(self) -> Played:
        """Submit the job, resume it as the scenario says, and audit it."""
        self._replace_socket_and_clock()
        ledger, config = self._folder / "ledger.db", self._folder / "job.toml"
        config.write_text(_config(self.scenario))
        job = self.scenario.job
        text = {"text": "x" * job.record_bytes} if job.record_bytes else {}
        source = write_records(self._folder / "tasks.ndjson", job.records, **text)
        output = self._folder / "output"
        async with asyncio.timeout(REAL_SECONDS):
            with _seeded(self.scenario.seed):
                self._patch.setenv(SECRET, "first-key")
                results = [await engine.submit(source, config, ledger, self._note, job=JOB, output=output)]
                for resume in self.scenario.resumes:
                    if results[-1].state == JobState.FINISHED:
                        break
                    await self.clock.sleep(resume.at - self.clock.elapsed)
                    self._patch.setenv(SECRET, resume.access_key)
                    results.append(await engine.resume(JOB, ledger, self._note))
            audit = await engine.audit(JOB, ledger)
        elapsed = self.clock.elapsed
        await self.server.come_to_rest()
        assert results[-1].outcomes is not None, results[-1].message
        outcomes = [orjson.loads(line) for line in results[-1].outcomes.read_bytes().splitlines()]
        return Played(self.scenario, self.server, results, self.events, outcomes, audit, elapsed)

    def _note(self, event: Event) -> None:
        self.events.append((self.clock.elapsed, event))

    def _replace_socket_and_clock(self) -> None:
        """All that is not the engine's own: the socket, the clock, and threads, for which the clock has to wait."""
        open_ledger, in_thread = SqliteLedger.open, anyio.to_thread.run_sync
        clock, server = self.clock, self.server

        @asynccontextmanager
        async def open_wire(settings, **_):
            server.answer_timeout, server.call_timeout = settings.answer_seconds, settings.call_seconds
            yield server

        @asynccontextmanager
        async def open_watched(path, _, **options):
            async with open_ledger(path, clock, **options) as ledger:
                yield Watched(ledger, clock)

        async def run_sync(work, *args, **options):
            with clock.stopped():
                return await in_thread(work, *args, **options)

        self._patch.setattr(caller, "open_client", open_wire)
        self._patch.setattr(SqliteLedger, "open", open_watched)
        self._patch.setattr(anyio.to_thread, "run_sync", run_sync)
        self._patch.setattr(wiring, "CLOCK", clock)


def _config(scenario: Scenario) -> str:
    send = "\n".join(f"{key} = {value}" for key, value in scenario.job.send.items())
    return f"""
[service]
kind = "sama"
base_url = "{BASE_URL}"
project_id = {PROJECT}
access_key = "${{env:{SECRET}}}"
mode = "{scenario.job.mode}"

[batch]
max_records = {scenario.job.batch_records}

[send]
{send}
"""


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw the same jitter each time; who draws first may still depend on threads."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
