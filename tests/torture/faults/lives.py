"""Jobs whose processes die enter, what became of each leaves, judged; several side by side, since they mostly wait."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import engine

from .judge import Sandboxes, lines
from .tally import Tally
from .ways import SECRETS, Way

DYING = Path(__file__).with_name("dying.py")
ROOT = Path(__file__).parents[3]
BRIEF = "call_seconds = 3\nanswer_seconds = 2"
"""So that leases are, too."""
GONE = "the parent of all processes has ended"
SIDE_BY_SIDE = 8
"""Jobs at a time: most of their time they wait, before they ask what became of a call that was lost."""


@dataclass
class End:
    """What became of a job."""

    died: int
    """Lives that ended early."""
    tally: Tally
    complaints: list[str]


@dataclass
class Lives:
    """Where jobs live and die."""

    folder: Path
    sandboxes: Sandboxes
    parent: asyncio.subprocess.Process
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SIDE_BY_SIDE))
    begun: int = 0
    ends: dict[int, asyncio.Future[dict]] = field(default_factory=dict)

    async def live(
        self, way: Way, batches: int, deaths: Sequence[dict], *, nights: bool = False, shared: bool = False
    ) -> End:
        """Have one job's processes die these deaths, then one finish it; `nights`: it is the second of three.

        `shared`: each of them is a worker with leases.
        """
        self.begun += 1
        number, home = self.begun, self.folder / f"life-{self.begun}"
        home.mkdir()
        port, judge = self.sandboxes[way.behaviour]
        config, source, ledger = home / "engine.toml", home / "tasks.ndjson", home / "ledger.db"
        way.write_config(config, port, project=home.name, send=BRIEF if shared else "")
        markers = way.write_tasks(source, home.name, batches)
        paths = {"config": config, "source": source, "ledger": ledger, "output": home}
        if nights:  # the first of them has every other batch
            records = source.read_bytes().splitlines(keepends=True)
            known = [record for number, record in enumerate(records) if number // way.batch % 2]
            paths["before"] = home / "before.ndjson"
            paths["before"].write_bytes(b"".join(known))
        async with self.places:
            end = await self._ordered({"number": number, **paths, "shared": shared, "deaths": list(deaths)})
        tally = Tally()
        complaints = judge.weigh(way, lines(home / "outcomes.ndjson"), markers, tally)
        expected = 4 if tally.parked else 0
        if end["code"] != expected:
            complaints.append(f"the exit code is {end['code']}, not {expected}")
        if tally.parked and not way.parks:
            complaints.append(f"{tally.parked} records are uncertain")
        for job in ["before", "j", "again"] if nights else ["j"]:
            audit = await engine.audit(job, ledger)
            if not audit.holds:
                complaints += audit.findings or [f"the audit of {job} does not hold"]
        if nights:
            again = lines(home / "again" / "outcomes.ndjson")
            complaints += [f"{one} is not skipped by the next night" for one in again if one["state"] != "skipped"]
        complaints += await _unlike_anew(home, ledger)
        return End(end["died"], tally, [f"{home}, {deaths}: {complaint}" for complaint in complaints])

    async def _ordered(self, order: dict) -> dict:
        if self.parent.returncode is not None:
            raise ChildProcessError(GONE)
        end = self.ends[order["number"]] = asyncio.get_running_loop().create_future()
        self.parent.stdin.write(json.dumps(order, default=str).encode() + b"\n")
        return await end

    async def hear(self) -> None:
        """Hand each end to whoever waits for it."""
        async for line in self.parent.stdout:
            end = json.loads(line)
            self.ends.pop(end["number"]).set_result(end)
        for waiting in self.ends.values():
            waiting.set_exception(ChildProcessError(GONE))


async def _unlike_anew(home: Path, ledger: Path) -> list[str]:
    """Say which reports, written beside lives that ended early, are not as they are when they are written at once."""
    reports = [home / "outcomes.ndjson", home / "rejects.ndjson"]
    beside = [path.read_bytes() for path in reports]
    await engine.report("j", ledger)
    return [
        f"{path} is another one anew" for path, was in zip(reports, beside, strict=True) if path.read_bytes() != was
    ]


@asynccontextmanager
async def mortal_lives(folder: Path, sandboxes: Sandboxes) -> AsyncIterator[Lives]:
    """Start the parent of all processes; it ends with the block."""
    environment = {**os.environ, **SECRETS, "PYTHONPATH": str(ROOT)}
    pipe = asyncio.subprocess.PIPE
    parent = await asyncio.create_subprocess_exec(sys.executable, DYING, stdin=pipe, stdout=pipe, env=environment)
    lives = Lives(folder, sandboxes, parent)
    hearing = asyncio.create_task(lives.hear())
    try:
        yield lives
    finally:
        parent.stdin.close()
        await parent.wait()
        await hearing
