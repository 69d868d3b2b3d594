"""Callbacks about created tasks through the fault proxy: five tries, delivered or given up, and never a task more.

The engine learns of its tasks by asking, so nobody but a receiver of the sandbox's user depends on them; what is tested
is that the sandbox is as stubborn as the service that it stands for, and that a lost callback creates nothing.
"""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import aiohttp
import orjson
from aiohttp import web

from engine.sandbox.behaviour import Behaviour, Callbacks, JournalSettings
from engine.sandbox.journal import count_markers
from engine.sandbox.server import running_sandbox
from tests.unit.sandbox.api import Api

from .cases import EVERY_SECOND, FIRST, Pattern
from .catalogue import ANSWERED, FAULTS, HANG_IN_BODY, NONSENSE, RESET, TRUNCATE, UNCONNECTED
from .proxy import Fault, Strike, Work, fault_proxy
from .tally import Tally

TASKS = 4
TRIES = 5
"""The vendor's number."""
SECONDS = 90
"""Longest that all tries may take; they take five time-outs."""
SIDE_BY_SIDE = 24
SETTINGS = {"retry_seconds": 0.1, "timeout_seconds": 0.6}
ALWAYS = Pattern("always", lambda number: True)
SUCCESS = [*ANSWERED, *NONSENSE, HANG_IN_BODY, TRUNCATE]
"""The sender sees the head of a 2xx, which is all that it looks at."""


@dataclass(frozen=True)
class Case:
    fault: Fault
    work: Work
    pattern: Pattern

    def __str__(self):
        return f"callback: {self.fault.name}, {self.work}, {self.pattern.name}"

    @property
    def is_possible(self):
        if self.fault in UNCONNECTED:  # no request reaches anybody, and nothing comes before that tells which is next
            return self.work is Work.NEVER and self.pattern is FIRST
        if self.fault in SUCCESS:  # who says 2xx for a receiver that has heard nothing loses it, and nobody can know
            return self.work is Work.DONE
        return self.work is not Work.LATE or self.fault is RESET

    @property
    def is_given_up(self):
        return self.pattern is ALWAYS and self.fault not in SUCCESS


CASES = [Case(*parts) for parts in product(FAULTS, Work, [FIRST, EVERY_SECOND, ALWAYS])]
CASES = [case for case in CASES if case.is_possible]


@dataclass
class Receiver:
    """Stands for the user's server."""

    port: int = 0
    told: Counter[str] = field(default_factory=Counter)
    """How often it was told of each task."""

    async def handle(self, request):
        self.told.update(task["id"] for task in orjson.loads(await request.read())["tasks"])
        return web.json_response({"ok": True})


@contextlib.asynccontextmanager
async def receiving():
    receiver, app = Receiver(), web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.port = runner.addresses[0][1]
        yield receiver
    finally:
        await runner.cleanup()


async def complaints_about(case, journal: Path, tally):
    async with (
        receiving() as receiver,
        fault_proxy(
            receiver.port, lambda _: "callback", [Strike("callback", case.fault, case.work, case.pattern.when)], 0.2
        ) as proxy,
        running_sandbox(
            Behaviour(
                callbacks=Callbacks(f"http://127.0.0.1:{proxy.port}/hook", **SETTINGS), journal=JournalSettings(journal)
            )
        ) as sandbox,
        aiohttp.ClientSession() as session,
    ):
        await Api(sandbox, session).create([{"data": {"id": str(number)}} for number in range(TASKS)])
        heard = TASKS if case.work is not Work.NEVER or not case.is_given_up else 0
        tries = TASKS * TRIES if case.is_given_up else TASKS
        try:
            async with asyncio.timeout(SECONDS):
                while len(receiver.told) < heard or proxy.requests["callback"] < tries:  # noqa: ASYNC110 - on sockets
                    await asyncio.sleep(0.01)
            await asyncio.sleep(2 * SETTINGS["retry_seconds"])  # a sixth try would come now
        except TimeoutError:
            yield f"{case}: told of {len(receiver.told)} tasks in {proxy.requests['callback']} tries"
        created = count_markers(journal)
        tally.add(
            Tally(
                runs=1,
                faults=proxy.struck.total(),
                sent=TASKS,
                created=len(created),
                duplicated=sum(count > 1 for count in created.values()),
            )
        )
        if created != {str(number): 1 for number in range(TASKS)}:
            yield f"{case}: created {created}"
        if not proxy.struck[case.fault.name]:
            yield f"{case}: it never struck"
        if case.is_given_up and proxy.requests["callback"] != tries:
            yield f"{case}: {proxy.requests['callback']} tries"
        if receiver.told and max(receiver.told.values()) > TRIES:
            yield f"{case}: told {receiver.told}"


async def test_a_callback_is_tried_five_times_and_creates_nothing(tmp_path, tally):
    places = asyncio.Semaphore(SIDE_BY_SIDE)

    async def look_at(number, case):
        async with places:
            return [complaint async for complaint in complaints_about(case, tmp_path / f"{number}.ndjson", tally)]

    found = await asyncio.gather(*(look_at(number, case) for number, case in enumerate(CASES)))
    assert not [complaint for complaints in found for complaint in complaints]


def test_a_callback_meets_every_fault():
    assert {case.fault for case in CASES} == set(FAULTS)
