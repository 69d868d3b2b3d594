"""Four processes send one job by a ledger in PostgreSQL, while processes, the database and the network come and go.

Each run is left alone at first: then the service, which counts the requests of all, pushes back not once. After that,
at moments that a seed decides: processes are killed, one is stopped until its leases are over and wakes, the database
ends at once and is started anew, and the network of one process to the database is cut. In some runs a Dask cluster
plans and sends, too, and its scheduler is killed. What has ended is started anew, as somebody would who looks after it.
The sandbox's journal judges: each record was created once.

BULKSUBMIT_WORKERS_RECORDS=100000 is the long form, of twenty runs.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.model.errors import Exit
from engine.sandbox.behaviour import Behaviour, JournalSettings, RateLimit
from engine.sandbox.journal import count_markers
from engine.sandbox.server import Sandbox, running_sandbox
from engine.sandbox.settings import SandboxSama

from .cut_proxy import CutProxy, cut_proxy
from .postgres import SUPERUSER, PostgresServer, postgres

pytestmark = pytest.mark.slow

RECORDS = int(os.environ.get("BULKSUBMIT_WORKERS_RECORDS", "10000"))
RUNS = 20 if RECORDS >= 100_000 else 10
AT_ONCE = 3
"""Runs side by side: most of their time they wait."""
WORKERS = 3
"""Beside the process that submits."""
BATCH = max(50, RECORDS // 400)
FAULT_SECONDS = 4.0 * max(1, RECORDS // 20_000)
"""Within which the faults begin."""
LEASE_SECONDS = 10.0
"""Twice as long as a call may take."""
END_SECONDS = 10.0
"""Longest that a process may take to end once it is told to."""
SECONDS = 120 + RECORDS / 100
"""Longest that one run may take."""
PER_SECOND, LIMIT = 60, 100
"""Requests that the configuration allows, and the service; a busy machine may hold some up for half a second."""
BROKEN = ("Traceback", "defect worth reporting", "never awaited")
MAY_END = {Exit.ALL_CREATED, Exit.STOPPED_EARLY, Exit.LOCKED, -signal.SIGKILL}
ENGINE = (sys.executable, "-m", "engine")
DASK_EVERY = 5
"""Of so many runs one has a Dask cluster."""
START_AGAIN_SECONDS = 0.3
SUBMIT = ("submit", "tasks.ndjson", "--config", "load.toml", "--job", "load", "--output", "reports")
WORK = ("work", "load")
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")

CONFIG = f"""
[service]
kind = "sama"
base_url = "{{url}}"
project_id = 42
access_key = "${{{{env:SAMA_ACCESS_KEY}}}}"

[send]
call_seconds = {LEASE_SECONDS / 2}
settle_seconds = 2
requests_per_second = {PER_SECOND}

[batch]
max_records = {BATCH}
"""


@dataclass
class Process:
    """One process of the engine, which is started anew as long as it ends early."""

    name: str
    url: str
    environment: dict[str, str]
    folder: Path
    codes: list[int] = field(default_factory=list)
    """With which it has ended, life by life."""
    _running: asyncio.subprocess.Process | None = None

    async def run(self, *arguments: str) -> int:
        """Run it once, to its end."""
        command = [*DIES_WITH_US, *ENGINE, *arguments, "--ledger", self.url]
        nothing = asyncio.subprocess.DEVNULL
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(arguments)}\n".encode())
            log.flush()
            self._running = await asyncio.create_subprocess_exec(
                *command, cwd=self.folder, env=self.environment, stdin=nothing, stdout=log, stderr=log
            )
            try:
                self.codes.append(await self._running.wait())
            finally:
                self.signal(signal.SIGKILL)
            log.write(f"= {self.codes[-1]}\n".encode())
        return self.codes[-1]

    async def keep_running(self, *arguments: str, then: Sequence[str] = WORK) -> None:
        """Run it until nothing is left to do: once with `arguments`, and `then`; `work` where others have the job."""
        while code := await self.run(*arguments):
            assert code in MAY_END, f"exit code {code}:\n{self.said}"
            arguments = WORK if code == Exit.LOCKED else tuple(then)
            await asyncio.sleep(START_AGAIN_SECONDS)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the life that runs, if any does."""
        if self._running is not None and self._running.returncode is None:
            with suppress(ProcessLookupError):
                self._running.send_signal(number)

    @property
    def pid(self) -> int:
        """Of the newest life; 0 before the first one."""
        return self._running.pid if self._running else 0

    def children(self) -> list[int]:
        """Return the processes that the life that runs has started."""
        files = Path(f"/proc/{self.pid}/task").glob("*/children")
        with suppress(OSError):  # it has ended
            return [int(pid) for file in files for pid in file.read_text().split()]
        return []

    async def stand_still(self, seconds: float) -> None:
        stopped = self._running
        self.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        if stopped is self._running:
            self.signal(signal.SIGCONT)


@dataclass
class Scene:
    """All that takes part in one run."""

    random: random.Random
    server: PostgresServer
    proxy: CutProxy
    """Between the database and the first worker."""
    database: str
    sandbox: Sandbox
    folder: Path
    processes: list[Process] = field(default_factory=list)

    def process(self, name: str, port: int | None = None) -> Process:
        secrets = {"SAMA_ACCESS_KEY": "sandbox-key", "PGPASSWORD": self.server.passwords[SUPERUSER]}
        url = self.server.url(SUPERUSER, self.database, port=port)
        self.processes.append(Process(name, url, os.environ | secrets, self.folder))
        return self.processes[-1]

    def held_by(self, process: Process) -> list[int]:
        """Return the first batches of the shards that a process has."""
        held = f"SELECT first FROM shards WHERE holder LIKE '%:{process.pid}:%'"  # noqa: S608 - a number
        return [first for (first,) in self.server.query(held, self.database)]

    def free_among(self, firsts: Sequence[int]) -> list[int]:
        """Return those of some shards that nobody has, and of which something is to be done."""
        free = self.server.query("SELECT first FROM shards WHERE holder = '' AND state = 'open'", self.database)
        return [first for (first,) in free if first in firsts]

    async def until(self, happened: Callable[[], Any]) -> None:
        while not happened():  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(0.05)


# What goes wrong


async def kill(scene: Scene) -> None:
    scene.random.choice(scene.processes).signal(signal.SIGKILL)


async def kill_the_cluster(scene: Scene) -> None:
    """Kill the Dask cluster of the process that submits, its scheduler included; where there is none, nothing."""
    for child in scene.processes[0].children():
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


async def stop_beyond_the_lease(scene: Scene) -> None:
    await scene.random.choice(scene.processes).stand_still(LEASE_SECONDS + scene.random.uniform(0.5, 2))


async def restart_the_database(scene: Scene) -> None:
    await asyncio.to_thread(scene.server.stop, "immediate")
    await asyncio.sleep(scene.random.uniform(0, 3))
    await asyncio.to_thread(scene.server.start)


async def cut_the_network(scene: Scene) -> None:
    """Have the connections of one process reset, or pass nothing on; for a moment, or until its leases are over."""
    seconds = scene.random.choice([scene.random.uniform(0.1, 3), LEASE_SECONDS + 1])
    if scene.random.random() < 0.5:
        await asyncio.to_thread(scene.proxy.stall)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(scene.proxy.flow)
        return
    await asyncio.to_thread(scene.proxy.refuse)
    await asyncio.to_thread(scene.proxy.cut)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(scene.proxy.accept)


FAULTS: Sequence[Callable[[Scene], Coroutine[Any, Any, None]]] = (
    kill,
    kill,
    kill_the_cluster,
    stop_beyond_the_lease,
    restart_the_database,
    cut_the_network,
)


async def later(seconds: float, fault: Callable[[Scene], Coroutine[Any, Any, None]], scene: Scene) -> None:
    await asyncio.sleep(seconds)
    await fault(scene)


@asynccontextmanager
async def played(seed: int, folder: Path) -> AsyncIterator[Scene]:
    """Set a scene: a database, a service, and a file of records."""
    folder.mkdir()  # noqa: ASYNC240 - so are the next lines: nothing else goes on yet
    (folder / "tasks.ndjson").write_text("".join(f'{{"data":{{"id":{number}}}}}\n' for number in range(RECORDS)))
    behaviour = Behaviour(
        journal=JournalSettings(folder / "journal.ndjson"),
        rate_limits=(RateLimit(requests=LIMIT, seconds=1.0),),
        sama=SandboxSama(task_lists_per_second=0),  # the limit that is counted is that of all calls
    )
    with ExitStack() as held:
        # What was written outlives the database's process without fsync, too; it would not outlive the machine.
        server = await asyncio.to_thread(held.enter_context, postgres(durable=False))
        proxy = await asyncio.to_thread(held.enter_context, cut_proxy(server.port))
        async with running_sandbox(behaviour) as sandbox:
            (folder / "load.toml").write_text(CONFIG.format(url=sandbox.url))
            yield Scene(random.Random(seed), server, proxy, server.make_database(), sandbox, folder)


async def survived(seed: int, folder: Path) -> None:
    """Send a job through a run of faults; assert that each record was created once, and that all know it."""
    async with played(seed, folder) as scene, asyncio.timeout(SECONDS):
        async with asyncio.TaskGroup() as group:
            dask = ("--dask", "local:1") if seed % DASK_EVERY == DASK_EVERY - 1 else ()
            group.create_task(scene.process("planner").keep_running(*SUBMIT, *dask, then=("resume", "load", *dask)))
            await scene.until(lambda: scene.sandbox.stats.batches)
            for number in range(WORKERS):
                worker = scene.process(f"worker-{number}", scene.proxy.port if number == 0 else None)
                group.create_task(worker.keep_running(*WORK))
            await scene.until(lambda: scene.sandbox.stats.tasks_created > RECORDS / 4)
            assert scene.sandbox.stats.rate_limited == 0
            for fault in FAULTS:
                group.create_task(later(scene.random.uniform(0, FAULT_SECONDS), fault, scene))
        created = count_markers(folder / "journal.ndjson")
        lost = set(range(RECORDS)) - created.keys()
        assert (len(lost), [record for record, times in created.items() if times > 1]) == (0, [])
        auditor = scene.process("auditor")
        assert await auditor.run("audit", "load") == 0, auditor.said
        for process in scene.processes:
            assert not any(sign in process.said for sign in BROKEN), process.said


async def test_four_processes_create_each_record_once_whatever_ends_or_is_cut_off(tmp_path):
    room = asyncio.Semaphore(AT_ONCE)

    async def one(seed: int) -> None:
        async with room:
            await survived(seed, tmp_path / str(seed))

    async with asyncio.TaskGroup() as runs:
        for seed in range(RUNS):
            runs.create_task(one(seed))


async def test_a_process_alone_goes_on_after_the_database_was_away_for_longer_than_its_leases(tmp_path):
    async with played(0, tmp_path / "run") as scene, asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        alone = scene.process("alone")
        submitted = group.create_task(alone.run(*SUBMIT))
        await scene.until(lambda: scene.sandbox.stats.tasks_created > RECORDS / 10)
        await asyncio.to_thread(scene.server.stop, "immediate")
        await asyncio.sleep(LEASE_SECONDS + 2)
        await asyncio.to_thread(scene.server.start)
        assert await submitted == 0, alone.said
        created = count_markers(scene.folder / "journal.ndjson")
        assert created == dict.fromkeys(range(RECORDS), 1)


async def test_a_job_is_canceled_beside_all_processes_that_send_it(tmp_path):
    async with played(0, tmp_path / "run") as scene, asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        planner, worker, submitted, worked = await _both_at_work(scene, group)
        canceler = scene.process("canceler")
        assert await canceler.run("cancel", "load", "--yes") == 0, canceler.said
        assert (await submitted, await worked) == (Exit.MEND_FIRST, 0), planner.said + worker.said
        created = count_markers(scene.folder / "journal.ndjson")
        assert max(created.values()) == 1
        assert len(created) < RECORDS
        assert await planner.run("resume", "load", "--yes") == 0, planner.said
        assert count_markers(scene.folder / "journal.ndjson") == dict.fromkeys(range(RECORDS), 1)


async def test_a_process_that_is_told_to_end_gives_its_leases_back_at_once(tmp_path):
    async with played(0, tmp_path / "run") as scene, asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        planner, worker, submitted, worked = await _both_at_work(scene, group)
        held = scene.held_by(worker)
        assert await _ended(worker, worked) < END_SECONDS
        assert not scene.held_by(worker)
        gone_at = time.monotonic()
        await scene.until(lambda: not scene.free_among(held))
        assert time.monotonic() - gone_at < LEASE_SECONDS / 2
        assert await _ended(planner, submitted) < END_SECONDS
        assert not scene.held_by(planner)
        assert (worker.codes, planner.codes) == ([128 + signal.SIGTERM], [128 + signal.SIGTERM]), worker.said


async def _both_at_work(scene: Scene, group: asyncio.TaskGroup) -> tuple[Process, Process, asyncio.Task, asyncio.Task]:
    """Begin a load and a worker; return both, and their lives, once the worker has shards."""
    planner, worker = scene.process("planner"), scene.process("worker")
    submitted = group.create_task(planner.run(*SUBMIT))
    await scene.until(lambda: scene.sandbox.stats.batches)
    worked = group.create_task(worker.run(*WORK))
    await scene.until(lambda: scene.held_by(worker))
    return planner, worker, submitted, worked


async def _ended(process: Process, life: asyncio.Task) -> float:
    """Tell a process to end; return the seconds until it has."""
    told_at = time.monotonic()
    process.signal(signal.SIGTERM)
    await life
    return time.monotonic() - told_at
