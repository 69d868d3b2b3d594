"""A week of nights in made-up time: one file that is overwritten each day, `engine.nightly`, and a sandbox that judges.

Made up are the socket (the sandbox behind `fakes.sandbox`) and time. A night that is killed reaches neither service nor
disk any more; the next one begins with the ledger's files as they stood.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import anyio.to_thread
import orjson
from fakes.clock import FakeClock, Watched
from fakes.sandbox import InProcessSandbox
from multidict import CIMultiDict
from torture.faults.model import InStep, at_once

import engine
from engine.commands import wiring
from engine.commands.result import Result
from engine.http import caller
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks
from engine.sandbox.behaviour import Behaviour
from engine.sandbox.journal import canonical_sha256, read_journal
from engine.services.base import Answer

BERLIN = ZoneInfo("Europe/Berlin")
ANSWER_SECONDS = 0.05
SECRET = "SAMA_ACCESS_KEY"
LIMITS = engine.RunLimits(window="22:00-06:00", zone="Europe/Berlin")
CONFIG = """
[service]
kind = "sama"
base_url = "http://127.0.0.1:8800/v2"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"

[mapping]
wrap = "data"
{mapping}

[batch]
max_records = 10

[delta]
judged_records = 100
{delta}

[send]
max_in_flight = 1
max_open_batches = 2
{send}
"""


class Dead(Exception):
    """The process does not live any more."""


class Week:
    """Survives every night."""

    def __init__(self, folder: Path, monkeypatch, *, begins: str, delta: str) -> None:
        self._folder = folder
        self._delta = delta
        self.clock = FakeClock(datetime.fromisoformat(begins).replace(tzinfo=BERLIN).timestamp())
        behaviour = Behaviour(access_keys=("key",), continue_again="duplicate")
        self._sandbox = InProcessSandbox(behaviour, self.clock, folder)
        self.file = folder / "export.ndjson"
        self.maintenance = False
        self._lives_for = {"requests": 0, "steps": 0}
        """What is left to be done until the process dies; 0: it lives."""
        self._dead = False
        self._life = 0
        self._work: asyncio.Task[Result] | None = None
        monkeypatch.setenv(SECRET, "key")
        self._make_up(monkeypatch)

    def _make_up(self, monkeypatch) -> None:
        open_ledger, clock = SqliteLedger.open, self.clock

        @asynccontextmanager
        async def open_wire(*_, **__):
            yield self

        @asynccontextmanager
        async def open_in_step(path, _, **__):
            async with open_ledger(path, clock, hooks=Hooks(before_commit=self._before)) as ledger:
                InStep(ledger._writer)
                ledger._writer._connection.raw.pragma("synchronous", 0)  # a lost power is another test's matter
                yield Watched(ledger, clock)

        monkeypatch.setattr(caller, "open_client", open_wire)
        monkeypatch.setattr(SqliteLedger, "open", open_in_step)
        monkeypatch.setattr(anyio.to_thread, "run_sync", at_once)
        monkeypatch.setattr(wiring, "CLOCK", clock)

    # What people and cron do

    def export(self, rows: dict[str, int]) -> None:
        """Overwrite the file: key → version of its content."""
        new = self._folder / "export.new"
        new.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in map(_row, rows.items())))
        new.replace(self.file)

    async def until(self, moment: str) -> None:
        """Let time pass until the clocks in Berlin show a time."""
        at = datetime.fromisoformat(moment).replace(tzinfo=BERLIN).timestamp()
        assert at >= self.clock.now(), f"it is later than {moment} already"
        await self.clock.sleep(at - self.clock.now())

    async def night(self, *, send: str = "", mapping: str = "", **order) -> Result:
        """Do what cron does."""
        config = self._folder / "load.toml"
        config.write_text(CONFIG.format(send=send, mapping=mapping, delta=self._delta))
        return await engine.nightly(self.file, config, self.ledger, family="load", limits=LIMITS, **order)

    async def killed_night(self, **lives_for: int) -> bool:
        """Have a process work that is killed after so many `requests` or durable `steps`; return whether it was."""
        self._lives_for |= lives_for
        self._work = asyncio.ensure_future(self.night())
        (came_of_it,) = await asyncio.gather(self._work, return_exceptions=True)
        self._lives_for = dict.fromkeys(self._lives_for, 0)
        if not self._dead:
            assert isinstance(came_of_it, Result), came_of_it
            return False
        self._dead = False
        self._life += 1
        return True

    async def status(self, job: str):
        """Return where a job stands."""
        (status,) = await engine.status(job, self.ledger)
        return status

    async def jobs(self) -> dict[str, str]:
        """Return the state of each job, oldest first."""
        return {one.job.name: str(one.job.state) for one in reversed(await engine.status(None, self.ledger))}

    @property
    def ledger(self) -> Path:
        return self._folder / f"life-{self._life}" / "ledger.db"

    # What was created, as the journal has it

    async def created(self) -> tuple[Counter[str], Counter[str]]:
        """Return how often each key, and each content, was created."""
        await self._sandbox.come_to_rest()
        entries = list(read_journal(self._sandbox.path))
        return Counter(str(one.marker) for one in entries), Counter(one.sha256 for one in entries)

    # What reaches the outside

    async def send(self, request):
        """Be the wire of a process, until it dies."""
        await self.clock.sleep(ANSWER_SECONDS)
        if self._dead:
            raise Dead
        if self.maintenance:
            return Answer(503, CIMultiDict(), b"")
        answer = await self._sandbox.serve(request)
        self._strike("requests")
        return answer

    def _before(self, _changes) -> None:
        if self._dead:
            raise Dead
        self._strike("steps")

    def _strike(self, what: str) -> None:
        left = self._lives_for[what]
        self._lives_for[what] = max(0, left - 1)
        if left == 1:
            self._die()
            raise Dead

    def _die(self) -> None:
        """Leave the ledger's files as they are: its closing never happens for the next night."""
        self._dead = True
        after = self._folder / f"life-{self._life + 1}"
        after.mkdir()
        for name in ("ledger.db", "ledger.db-wal"):
            if (found := self.ledger.with_name(name)).exists():
                shutil.copyfile(found, after / name)
        assert self._work is not None
        self._work.cancel()


def _row(item: tuple[str, int]) -> dict[str, object]:
    key, version = item
    return {"id": key, "version": version}


def content(item: tuple[str, int], **more: object) -> str:
    """Return what the journal says of a row of the file that became a task."""
    return canonical_sha256({"data": _row(item), **more})
