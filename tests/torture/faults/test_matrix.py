"""Every step x every fault x {done by the server, not done, done late}: never lost, never twice, and proven so.

The cases are generated (`cases.py`) for every way to submit, and run side by side, since a run mostly waits. The judge
is the journal of a sandbox process. Sama's creates a batch twice if it is released twice; that of Seven Bridges keeps
every draft that it was asked for. BULKSUBMIT_CASE="continue: reset" runs those alone whose names hold these words.

A few of the cases are run by two workers that send the job together: all of them in `make torture`.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from fakes.pairwise import pairs, pairwise

import engine
from engine.commands import work
from engine.ledger.sqlite import SqliteLedger
from engine.model import shard
from engine.model.errors import Exit, Interrupted
from engine.run.context import Stop

from .cases import EVERY_SECOND, EVERY_THIRD, FIRST, SECOND, STEPS, Case, generate
from .catalogue import FAULTS, GROUPS
from .judge import Judge, lines
from .proxy import fault_proxy
from .tally import Tally
from .ways import BULK_WAYS, EVERY_WAY, FEW_WAYS, WAYS, Way

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
BATCHES = 6
SIDE_BY_SIDE = 12
"""Runs of one way; each way may be run by another process at the same time."""
MOST_RESUMES = 3
LATE_SECONDS = 1.2
"""How long a lost request may stay under way: longer than until the engine first asks what became of it."""
SETTLE_SECONDS = 2.5
"""Longer than that, on a busy machine, too."""
RUN_SECONDS = 240
"""Longest run that is still taken for one that ends."""
SEND = """
connect_seconds = 0.2
answer_seconds = 0.8
call_seconds = 5
give_up_seconds = 10
"""


def few_of(cases: Sequence[Case]) -> list[Case]:
    """Return cases of described services in which every step meets every work and pattern, every service every group.

    A service meets a fault of each group both where it creates and where it does not. Which calls these services make
    is all that is special to them: what becomes of a call is one code for all.
    """
    group_of = {fault: number for number, group in enumerate(GROUPS) for fault in group}
    mixed = random.Random(1).sample(cases, len(cases))
    by_step = pairwise(mixed, lambda case: (case.step, case.work, case.pattern))
    by_group = pairwise(mixed, lambda case: ((case.step.way, case.step.creates), group_of[case.fault]))
    met = {((case.step.way, case.step.creates), group_of[case.fault]) for case in by_step}
    others = [case for case in by_group if ((case.step.way, case.step.creates), group_of[case.fault]) not in met]
    return [*by_step, *others]


ALL = list(generate(FIRST, EVERY_THIRD, SECOND, EVERY_SECOND))
BUILT_IN = [case for case in ALL if case.step.way in WAYS]
DESCRIBED = [case for case in ALL if case.step.way in BULK_WAYS]
CASES = ALL if TORTURE else [*pairwise(BUILT_IN, lambda case: case.factors), *few_of(DESCRIBED)]
WANTED = os.environ.get("BULKSUBMIT_CASE", "")


def few_for_two(way: Way) -> list[Case]:
    """Return cases of a way in which a fault of every group strikes once, where it creates and where it does not."""
    group_of = {fault: number for number, group in enumerate(GROUPS) for fault in group}
    ours = [case for case in ALL if case.step.way is way and not case.one_at_a_time]
    if TORTURE:
        return ours
    mixed = random.Random(2).sample(ours, len(ours))
    once = [case for case in mixed if case.pattern in {FIRST, SECOND}]
    return list({(case.step.creates, group_of[case.fault]): case for case in once}.values())


@dataclass
class Verdict:
    """How a run ended."""

    code: int
    message: str
    resumes: int
    struck: Counter
    missed: int
    uncertain: int
    tally: Tally
    complaints: list[str]
    audit: list[str]

    def wrong(self, case: Case) -> list[str]:
        """Return what must not be."""
        may_park = case.may_park or (case.step.way.parks and self.missed)
        allowed = {Exit.ALL_CREATED, Exit.SOME_UNCERTAIN} if may_park else {Exit.ALL_CREATED}
        wrong = [*self.complaints, *self.audit]
        if not self.struck[case.fault.name]:
            wrong.append("the fault never struck")
        if self.code not in allowed:
            wrong.append(f"exit code {self.code}: {self.message}")
        if bool(self.uncertain) != (self.code == Exit.SOME_UNCERTAIN):
            wrong.append(f"{self.uncertain} records are uncertain, and the exit code is {self.code}")
        return wrong


@dataclass
class Field:
    """Where all runs of one way to submit take place."""

    folder: Path
    port: int
    judge: Judge
    shared: bool = False
    """A second worker takes part."""
    created_by_second: int = 0
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SIDE_BY_SIDE))

    async def run(self, case: Case) -> Verdict:
        async with self.places:
            number = len(list(self.folder.iterdir()))
            # Its name is the markers' too, and the journal is that of all tests with this sandbox.
            folder = self.folder / f"{case.step.way}-{'shared-' * self.shared}{number}".replace(" ", "-")
            folder.mkdir()
            try:
                proxy = fault_proxy(self.port, case.step.way.kind_of, case.strikes, LATE_SECONDS)
                async with proxy as proxy, asyncio.timeout(RUN_SECONDS):
                    return await self._work(case, folder, proxy)
            except Exception as error:
                error.add_note(f"in {folder}: {case}")
                raise

    async def _work(self, case, folder, proxy) -> Verdict:
        way = case.step.way
        send = SEND + ("max_in_flight = 1\nmax_open_batches = 1" if case.one_at_a_time else "")
        config, source, ledger = folder / "engine.toml", folder / "tasks.ndjson", folder / "ledger.db"
        way.write_config(config, proxy.port, settle_seconds=SETTLE_SECONDS, send=send, project=folder.name)
        markers = way.write_tasks(source, folder.name, BATCHES)
        family = {"family": "nightly", "delta": True}
        async with self._second_worker(ledger):
            result = await engine.submit(source, config, ledger, job="j", output=folder, **family)
        resumes = 0
        # What is uncertain is searched for again by the next run, where it can be.
        unfinished = {Exit.STOPPED_EARLY} if way.parks else {Exit.STOPPED_EARLY, Exit.SOME_UNCERTAIN}
        while result.exit_code in unfinished and resumes < MOST_RESUMES:
            async with self._second_worker(ledger):
                result = await engine.resume("j", ledger)
            resumes += 1
        audit = await engine.audit("j", ledger)
        tally = Tally(faults=proxy.struck.total())
        complaints = self.judge.weigh(way, lines(result.outcomes), markers, tally)
        findings = audit.findings if audit.holds else audit.findings or ["the audit does not hold"]
        uncertain = result.tally.uncertain
        if not result.tally.failed:  # the next night has nothing to send, without faults
            way.write_config(config, self.port, project=folder.name)
            again = await engine.submit(source, config, ledger, job="again", **family)
            if again.tally.skipped < len(markers):
                complaints.append(f"the next night skips {again.tally.skipped} of {len(markers)}")
        return Verdict(
            result.exit_code,
            result.message,
            resumes,
            proxy.struck,
            proxy.missed,
            uncertain,
            tally,
            complaints,
            findings,
        )

    @asynccontextmanager
    async def _second_worker(self, ledger):
        if not self.shared:
            yield
            return
        stop = Stop()
        working = asyncio.create_task(work.work("j", ledger, stop=stop, stay=True))
        try:
            yield
        finally:
            stop.request(Interrupted(15))
            self.created_by_second += (await working).created


@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
async def test_a_fault_loses_nothing_and_creates_nothing_twice(tmp_path, sandboxes, secrets, way, tally):
    cases = [case for case in CASES if case.step.way is way and WANTED in str(case)]
    port, judge = sandboxes[way.behaviour]
    field = Field(tmp_path, port, judge)
    verdicts = dict(zip(cases, await asyncio.gather(*map(field.run, cases)), strict=True))
    for verdict in verdicts.values():
        tally.add(verdict.tally)
    assert not {str(case): wrong for case, verdict in verdicts.items() if (wrong := verdict.wrong(case))}
    assert not judge.duplicated  # what came late, too


@pytest.mark.parametrize("way", EVERY_WAY if TORTURE else FEW_WAYS, ids=str)
async def test_so_it_is_where_two_workers_send_a_job_together(tmp_path, sandboxes, secrets, way, tally, monkeypatch):
    monkeypatch.setattr(SqliteLedger, "open", partial(SqliteLedger.open, shares_jobs=True))
    monkeypatch.setattr(shard, "SHARD_BATCHES", 1)  # so that there is something for each of them
    monkeypatch.setattr(work, "_LOOK_SECONDS", 0.02)
    cases = [case for case in few_for_two(way) if WANTED in str(case)]
    port, judge = sandboxes[way.behaviour]
    field = Field(tmp_path, port, judge, shared=True)
    verdicts = dict(zip(cases, await asyncio.gather(*map(field.run, cases)), strict=True))
    for verdict in verdicts.values():
        tally.add(verdict.tally)
    assert not {str(case): wrong for case, verdict in verdicts.items() if (wrong := verdict.wrong(case))}
    assert not judge.duplicated
    assert field.created_by_second > 0


def pairs_in(cases):
    return set().union(*(pairs(case.factors) for case in cases))


def test_every_pair_of_step_fault_work_and_pattern_meets_that_can():
    assert pairs_in(case for case in CASES if case.step.way in WAYS) == pairs_in(BUILT_IN)
    assert {case.step for case in CASES} == set(STEPS)
    assert {case.fault for case in CASES} == set(FAULTS)
    steps = {case.step for case in BUILT_IN}
    assert len({(case.step, case.fault) for case in CASES if case.step in steps}) > 0.9 * len(steps) * len(FAULTS)
