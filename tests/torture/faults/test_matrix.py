"""Every step x every fault x {done by the server, not done, done late}: never lost, never twice, and proven so.

The cases are generated (`cases.py`) for every way to submit, and run side by side, since a run mostly waits; each test
then awaits its own. The judge is the journal of a sandbox process. Sama's creates a batch twice if it is released
twice; that of Seven Bridges keeps every draft that it was asked for.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from engine.commands import api
from engine.commands.api import Order
from engine.model.errors import Exit
from engine.run.context import Stop

from .cases import EVERY_SECOND, EVERY_THIRD, FIRST, SECOND, STEPS, Case, generate, thinned
from .catalogue import FAULTS
from .judge import Sandboxes, lines
from .proxy import fault_proxy
from .tally import Tally
from .ways import SECRETS

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
SEED = 7
BATCHES = 6
SIDE_BY_SIDE = 24
MOST_RESUMES = 3
LATE_SECONDS = 1.2
"""How long a lost request may stay under way: longer than until the engine first asks what became of it."""
SETTLE_SECONDS = 2.5
"""Longer than that, on a busy machine, too."""
RUN_SECONDS = 60
"""Longest run that is still taken for one that ends."""
SEND = """
connect_seconds = 0.2
answer_seconds = 0.8
call_seconds = 5
give_up_seconds = 10
"""

ALL = generate(FIRST, EVERY_THIRD, SECOND, EVERY_SECOND) if TORTURE else generate(FIRST, EVERY_THIRD)
CASES = list(ALL if TORTURE else thinned(ALL, SEED))


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


@dataclass
class Field:
    """Where all runs take place."""

    folder: Path
    sandboxes: Sandboxes
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SIDE_BY_SIDE))
    runs: dict[Case, asyncio.Task[Verdict]] = field(default_factory=dict)

    async def run(self, case: Case) -> Verdict:
        async with self.places:
            folder = self.folder / f"run-{len(list(self.folder.iterdir()))}"
            folder.mkdir()
            way, patience = case.step.way, asyncio.timeout(RUN_SECONDS)
            port, judge = self.sandboxes[way.behaviour]
            async with fault_proxy(port, way.kind_of, case.strikes, LATE_SECONDS) as proxy, patience:
                return await self._work(case, folder, proxy, judge)

    async def _work(self, case, folder, proxy, judge) -> Verdict:
        way = case.step.way
        send = SEND + ("max_in_flight = 1\nmax_open_batches = 1" if case.one_at_a_time else "")
        config, source, ledger = folder / "engine.toml", folder / "tasks.ndjson", folder / "ledger.db"
        way.write_config(config, proxy.port, settle_seconds=SETTLE_SECONDS, send=send, project=folder.name)
        markers = way.write_tasks(source, folder.name, BATCHES)
        order = Order([str(source)], config, job="j", output=folder)
        result = await api.submit(order, ledger, lambda _: None, Stop())
        resumes = 0
        # What is uncertain is searched for again by the next run, where it can be.
        unfinished = {Exit.STOPPED_EARLY} if way.parks else {Exit.STOPPED_EARLY, Exit.SOME_UNCERTAIN}
        while result.exit_code in unfinished and resumes < MOST_RESUMES:
            result = await api.resume("j", ledger, lambda _: None, Stop())
            resumes += 1
        audit = await api.audit("j", ledger)
        tally = Tally(faults=proxy.struck.total())
        complaints = judge.weigh(way, lines(result.outcomes), markers, tally)
        findings = audit.findings if audit.holds else audit.findings or ["the audit does not hold"]
        uncertain = result.tally.uncertain
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(request, tmp_path_factory, sandboxes):
    """Start the runs of all tests that are asked for; each takes its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        field = Field(tmp_path_factory.mktemp("matrix"), sandboxes)
        wanted = [item.callspec.params["case"] for item in request.session.items if _is_case(item)]
        field.runs = {case: asyncio.create_task(field.run(case)) for case in wanted}
        yield field
        for run in field.runs.values():
            run.cancel()
        await asyncio.gather(*field.runs.values(), return_exceptions=True)


def _is_case(item) -> bool:
    return item.module is not None and item.module.__name__ == __name__ and hasattr(item, "callspec")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_fault_loses_nothing_and_creates_nothing_twice(case, runs, tally):
    verdict = await runs.runs[case]
    tally.add(verdict.tally)
    assert verdict.struck[case.fault.name], "the fault never struck"
    assert not verdict.complaints
    assert not verdict.audit
    may_park = case.may_park or (case.step.way.parks and verdict.missed)
    allowed = {Exit.ALL_CREATED, Exit.SOME_UNCERTAIN} if may_park else {Exit.ALL_CREATED}
    assert verdict.code in allowed, verdict.message
    assert bool(verdict.uncertain) == (verdict.code == Exit.SOME_UNCERTAIN)


@pytest.mark.asyncio(loop_scope="module")
async def test_after_all_runs_nothing_that_came_late_was_created_twice(runs):
    await asyncio.gather(*runs.runs.values(), return_exceptions=True)
    for _, judge in runs.sandboxes.values():
        assert not judge.duplicated


def test_every_step_meets_every_fault_that_it_can_meet():
    met = {(case.step, case.fault, case.work) for case in CASES}
    assert met == {(case.step, case.fault, case.work) for case in generate(FIRST, EVERY_THIRD, SECOND, EVERY_SECOND)}
    met = {(step, fault) for step, fault, _ in met}
    assert {step for step, _ in met} == set(STEPS)
    assert {fault for _, fault in met} == set(FAULTS)
    assert len(met) > 0.9 * len(STEPS) * len(FAULTS)
