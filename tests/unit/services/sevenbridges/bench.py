"""The sandbox's Seven Bridges, a configuration for it and a ledger: whole jobs, as a person would submit them."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson

import engine
from engine.model.errors import Interrupted
from engine.progress.events import BatchMoved, Noticed
from engine.run.context import Stop
from engine.sandbox.behaviour import Behaviour, JournalSettings, Reads
from engine.sandbox.journal import count_markers, read_journal
from engine.sandbox.server import Sandbox
from engine.sandbox.settings import FileRule, Rate, SandboxPlatform

from .scripted import APP, PROJECT

READS = FileRule(
    PROJECT,
    "s{n:02}.fastq",
    count=60,
    group_size=20,
    metadata={"library_id": "hg19", "sample_id": "E18127-pool{group}-L2355"},
)
"""60 files of three samples."""

NO_LIMIT = Rate(0)
CURRENT = Reads()

CONFIG = """
[service]
kind = "sevenbridges"
base_url = "{url}"
auth_token = "${{env:SB_AUTH_TOKEN}}"
project = "{project}"
app = "{app}"
{service}

[send]
max_in_flight = 40
poll_seconds = 0.02
max_poll_seconds = 0.1
polls_per_second = 1000
retry_base_seconds = 0.01
give_up_seconds = 20
settle_seconds = {settle}

{more}
"""


def behaviour(folder, *, faults=(), failures=(), reads=CURRENT, rate=NO_LIMIT, **settings):
    journal = JournalSettings(folder / "journal.ndjson")
    bridges = SandboxPlatform(rate=rate, **settings)
    common = {"journal": journal, "faults": faults, "failures": failures, "reads": reads}
    return Behaviour(service="sevenbridges", sevenbridges=bridges, **common)


def specs(count, **fields):
    return [{"name": f"t{number}", "inputs": {"n": number}, **fields} for number in range(count)]


class Crash(Exception):
    """Stands in for the end of the process: nothing is tidied up."""


@dataclass
class Bench:
    """Where a test does its work."""

    folder: Path
    sandbox: Sandbox
    run: bool = True
    stop_after: tuple[str, int] = ("", 0)
    """Interrupt the next run after so many batches have come into a state."""
    crash_after: tuple[str, int] = ("", 0)
    """Break it off then."""
    settle_seconds: float = 0.3
    noticed: list[str] = field(default_factory=list)

    @property
    def ledger(self):
        return self.folder / "state" / "ledger.db"

    def config(self, service="", more=""):
        lines = f"run = {str(self.run).lower()}\n{service}"
        path = self.folder / "engine.toml"
        path.write_text(
            CONFIG.format(
                url=self.sandbox.url, project=PROJECT, app=APP, service=lines, more=more, settle=self.settle_seconds
            )
        )
        return path

    async def submit(self, records, service="", more="", **order):
        source = self.folder / "specs.ndjson"
        source.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
        return await self.submit_file(source, service, more, **order)

    async def submit_file(self, source, service="", more="", **order):
        return await engine.submit(source, self.config(service, more), self.ledger, *self.watching(), job="j", **order)

    async def resume(self):
        return await engine.resume("j", self.ledger, *self.watching())

    async def cancel(self):
        return await engine.cancel("j", self.ledger, *self.watching())

    async def working(self):
        (status,) = await engine.status("j", self.ledger, tasks=True)
        return status.working

    async def audit(self):
        return await engine.audit("j", self.ledger)

    def watching(self):
        stop, moves = Stop(), Counter()
        stop_after, crash_after = self.stop_after, self.crash_after
        self.stop_after = self.crash_after = ("", 0)

        def emit(event):
            if isinstance(event, Noticed):
                self.noticed.append(event.text)
            if not isinstance(event, BatchMoved):
                return
            moves[event.after] += 1
            reached = (event.after, moves[event.after])
            if reached == stop_after:
                stop.request(Interrupted(15))
            if reached == crash_after:
                raise Crash

        return emit, stop

    def times(self, kind="task"):
        """Count how often each task, by name, was created or run."""
        return count_markers(self.folder / "journal.ndjson", kind)

    def digests(self):
        return {entry.marker: entry.sha256 for entry in read_journal(self.folder / "journal.ndjson")}

    def outcomes(self, name="outcomes"):
        path = self.ledger.parent / "j" / f"{name}.ndjson"
        return [orjson.loads(line) for line in path.read_bytes().splitlines()]

    async def task(self, task_id):
        """Ask the sandbox about a task."""
        url, token = f"{self.sandbox.url}/tasks/{task_id}", {"X-SBG-Auth-Token": "sandbox-key"}
        async with aiohttp.ClientSession(headers=token) as session, session.get(url) as answer:
            return await answer.json()

    async def run_task(self, task_id):
        """Run a draft, as a person would."""
        url, token = f"{self.sandbox.url}/tasks/{task_id}/actions/run", {"X-SBG-Auth-Token": "sandbox-key"}
        async with aiohttp.ClientSession(headers=token) as session, session.post(url) as answer:
            assert answer.status == 200

    def calls(self, kind):
        return self.sandbox.stats.requests[kind]
