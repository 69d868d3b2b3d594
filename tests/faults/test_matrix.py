"""Every step x every fault x {done by the server, not done, done late}: never lost, never twice, and proven so.

The cases are generated (`cases.py`) and run side by side, since a run mostly waits; each test then awaits its own. The
judge is the journal of a sandbox process, which creates a batch twice if it is released twice.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from engine import operations
from engine.model.errors import Exit
from engine.operations import Order
from engine.run import Stop

from .cases import EVERY_SECOND, EVERY_THIRD, FIRST, SECOND, STEPS, Case, generate
from .catalogue import FAULTS, sama_kind
from .judge import CONFIG, KEY, Judge, lines, sandbox_process, write_tasks
from .proxy import fault_proxy

TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
RECORDS, BATCH = 18, 3
PATTERNS = [FIRST, EVERY_THIRD, *([SECOND, EVERY_SECOND] if TORTURE else [])]
SIDE_BY_SIDE = 10
MOST_RESUMES = 3
RUN_SECONDS = 60
"""Longest run that is still taken for one that ends."""
SEND = """
connect_seconds = 0.2
answer_seconds = 0.8
call_seconds = 5
give_up_seconds = 10
"""

CASES = list(generate(*PATTERNS))


@dataclass
class Verdict:
    """How a run ended."""

    code: int
    message: str
    resumes: int
    struck: Counter
    missed: int
    uncertain: int
    complaints: list[str]
    audit: list[str]


@dataclass
class Field:
    """Where all runs take place."""

    folder: Path
    port: int
    judge: Judge
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SIDE_BY_SIDE))
    runs: dict[Case, asyncio.Task[Verdict]] = field(default_factory=dict)

    async def run(self, case: Case) -> Verdict:
        async with self.places:
            folder = self.folder / str(len(list(self.folder.iterdir())))
            folder.mkdir()
            patience = asyncio.timeout(RUN_SECONDS)
            async with fault_proxy(self.port, sama_kind, case.strikes) as proxy, patience:
                return await self._work(case, folder, proxy)

    async def _work(self, case, folder, proxy) -> Verdict:
        send = SEND + ("max_in_flight = 1\nmax_open_batches = 1" if case.one_at_a_time else "")
        config, source, ledger = folder / "engine.toml", folder / "tasks.ndjson", folder / "ledger.db"
        config.write_text(CONFIG.format(port=proxy.port, mode=case.step.mode, batch=BATCH, send=send))
        markers = write_tasks(source, folder.name, RECORDS)
        order = Order([str(source)], config, job="j", output=folder)
        result = await operations.submit(order, ledger, lambda _: None, Stop())
        resumes = 0
        while result.exit_code == Exit.STOPPED_EARLY and resumes < MOST_RESUMES:
            result = await operations.resume("j", ledger, lambda _: None, Stop())
            resumes += 1
        audit = await operations.audit("j", ledger)
        complaints = self.judge.complaints(lines(result.outcomes), markers)
        findings = audit.findings if audit.holds else audit.findings or ["the audit does not hold"]
        uncertain = result.tally.uncertain
        return Verdict(
            result.exit_code, result.message, resumes, proxy.struck, proxy.missed, uncertain, complaints, findings
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(request, tmp_path_factory):
    """Start the runs of all tests that are asked for; each takes its own."""
    folder = tmp_path_factory.mktemp("matrix")
    (folder / "runs").mkdir()
    with sandbox_process(folder) as (port, judge), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMA_ACCESS_KEY", KEY)
        field = Field(folder / "runs", port, judge)
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
    tally["runs"] += 1
    tally["faults injected"] += verdict.struck.total()
    tally["tasks"] += RECORDS
    tally["parked"] += verdict.uncertain
    tally["resumed"] += verdict.resumes
    assert verdict.struck[case.fault.name], "the fault never struck"
    assert not verdict.complaints
    assert not verdict.audit
    may_park = case.may_park or (case.step.mode == "inline" and verdict.missed)
    allowed = {Exit.ALL_CREATED, Exit.SOME_UNCERTAIN} if may_park else {Exit.ALL_CREATED}
    assert verdict.code in allowed, verdict.message
    assert bool(verdict.uncertain) == (verdict.code == Exit.SOME_UNCERTAIN)


@pytest.mark.asyncio(loop_scope="module")
async def test_after_all_runs_nothing_that_came_late_was_created_twice(runs, tally):
    await asyncio.gather(*runs.runs.values(), return_exceptions=True)
    tally["duplicated"] += runs.judge.duplicated
    assert not runs.judge.duplicated


def test_every_step_meets_every_fault_that_it_can_meet():
    met = Counter((case.step, case.fault) for case in CASES)
    assert {step for step, _ in met} == set(STEPS)
    assert {fault for _, fault in met} == set(FAULTS)
    assert len(met) > 0.9 * len(STEPS) * len(FAULTS)
