"""A service that acts later than it answers, or never, and shows things later than they are: both services, all modes.

Each manner is a sandbox process of its own, and its journal the judge. The jobs of a way to submit run side by side,
since they mostly wait. What is late is shown within the settle time: so nothing is lost, nothing twice.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import engine
from engine.model.errors import Exit

from .judge import Judge, lines, sandbox_process
from .tally import Tally
from .ways import BRIDGES, INLINE, MARKED, PRESIGNED, WAYS, Way

BATCHES = 6
SETTLE_SECONDS = 2.5
LATE, LAG = 0.7, 0.5
"""Seconds; together less than the settle time, on a busy machine, too."""
SEND = "give_up_seconds = 3"
RUN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Manner:
    """What is the matter with a service."""

    name: str
    fault: str
    """Of every second call that creates or releases."""
    again: str = "duplicate"
    """What a second release does."""
    busy: bool = False
    lags: bool = False
    status: int = 504

    def __str__(self) -> str:
        return self.name

    def of(self, way: Way) -> Way:
        """Return a way to submit to such a service."""
        call = RELEASE[way]
        faults = {
            "drop_after": [f'call = "{one}"\nevery = 2' for one in {"create", call}],  # other calls may be repeated
            "swallow": [f'call = "{call}"\nnth = [2]  # {way}'],  # of a sandbox that has no other way
        }.get(self.fault, ['call = "all"\nevery = 2'])
        head = f'\n[[faults]]\nkind = "{self.fault}"\nstatus = {self.status}\nseconds = {LATE}\n'
        tables = "".join(f"{head}{fault}\n" for fault in sorted(faults))
        if self.lags:
            tables += f"\n[reads]\nstatus_seconds = {LAG}\nsingle_seconds = {LAG}\nlist_seconds = {LAG}\n"
        behaviour = way.behaviour.replace('continue_again = "duplicate"', f'continue_again = "{self.again}"')
        if way is BRIDGES:
            tables += f'\n[sevenbridges]\nrun_again = "{self.again}"\n'
        busy = f"busy_while_late = {str(self.busy).lower()}\n"
        return replace(way, behaviour=busy + behaviour + tables, settle_seconds=SETTLE_SECONDS)


RELEASE = {PRESIGNED: "continue", INLINE: "create", MARKED: "create", BRIDGES: "run"}
SAMA = [
    Manner("acts later", "act_later"),
    Manner("acts later, the answer is lost", "drop_late"),
    Manner("acts later, says 504 and is busy", "html_late", busy=True),
    Manner("acts later, says 500, a second call is refused", "refuse_late", again="error", status=500),
    Manner("reads lag, answers are lost", "drop_after", lags=True),
    Manner("reads lag, answers are lost, a second call is refused", "drop_after", lags=True, again="error"),
    Manner("reads lag, it acts later, a second call gets a page", "drop_late", lags=True, again="html"),
    Manner("reads lag, it acts later, a second call does nothing", "html_late", lags=True, again="noop", busy=True),
]
OF_BRIDGES = [
    Manner("acts later", "act_later", again="error"),
    Manner("acts later, the answer is lost", "drop_late", again="error"),
    Manner("acts later, says 504 and is busy", "html_late", again="error", busy=True),
    Manner("reads lag, answers are lost", "drop_after", again="error", lags=True),
    Manner("reads lag, it acts later, a second run gets a page", "refuse_late", again="html", lags=True),
]
SWALLOWS = Manner("swallows", "swallow", again="error")


@dataclass
class End:
    """What became of a job."""

    codes: list[int]
    message: str
    tally: Tally
    complaints: list[str]


async def work(way: Way, late: Way, home: Path, port: int, judge: Judge) -> End:
    """Submit a job to a service that is late; what is uncertain and can be asked about is asked about once more."""
    config, source, ledger = home / "engine.toml", home / "tasks.ndjson", home / "ledger.db"
    late.write_config(config, port, send=SEND, project=home.name)
    markers = late.write_tasks(source, home.name, BATCHES)
    async with asyncio.timeout(RUN_SECONDS):
        result = await engine.submit(source, config, ledger, job="j", output=home)
        codes, message = [result.exit_code], result.message
        if result.exit_code == Exit.STOPPED_EARLY:
            result = await engine.retry("j", ledger, uncertain=True)
            codes.append(result.exit_code)
        if result.exit_code == Exit.SOME_UNCERTAIN and not way.parks:
            result = await engine.resume("j", ledger)
            codes.append(result.exit_code)
        audit = await engine.audit("j", ledger)
    tally = Tally()
    complaints = judge.weigh(late, lines(result.outcomes), markers, tally)
    complaints += [] if audit.holds else audit.findings or ["the audit does not hold"]
    return End(codes, message, tally, complaints)


async def ends_of(way: Way, manners: list[Manner], tmp_path) -> list[End]:
    """Return what becomes of a job with a service of each manner; all start, and run, at the same time."""
    lates = [manner.of(way) for manner in manners]
    folders = [tmp_path / f"service-{number}" for number in range(len(lates))]
    homes = [tmp_path / f"job-{number}" for number in range(len(lates))]
    for folder in [*folders, *homes]:
        folder.mkdir()
    with ExitStack() as stack, ThreadPoolExecutor(len(lates)) as pool:
        started = pool.map(sandbox_process, folders, [late.behaviour for late in lates])
        found = list(pool.map(stack.enter_context, started))
        jobs = [
            work(way, late, home, port, judge) for late, home, (port, judge) in zip(lates, homes, found, strict=True)
        ]
        return await asyncio.gather(*jobs)


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_what_comes_late_is_neither_lost_nor_created_twice(way, tmp_path, secrets, tally):
    manners = OF_BRIDGES if way is BRIDGES else SAMA
    for manner, end in zip(manners, await ends_of(way, manners, tmp_path), strict=True):
        end.tally.faults = BATCHES // 2
        tally.add(end.tally)
        assert not end.complaints, manner
        assert end.codes[-1] == (Exit.SOME_UNCERTAIN if end.tally.parked else Exit.ALL_CREATED), (manner, end.message)
        assert way.parks or not end.tally.parked, manner


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_what_is_swallowed_is_named_and_sent_again_by_a_person_only(way, tmp_path, secrets, tally):
    (end,) = await ends_of(way, [SWALLOWS], tmp_path)
    end.tally.faults = 1
    tally.add(end.tally)
    assert not end.complaints
    assert end.codes == [Exit.STOPPED_EARLY, Exit.ALL_CREATED]
    assert "still says waiting of 1 batch that it has accepted: " in end.message
