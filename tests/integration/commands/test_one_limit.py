"""Commands that call a service while others do: with a ledger that is shared, all keep its limits together."""

import asyncio
from contextlib import suppress

import pytest

import engine
from engine.adaptive.shared_limits import PaceReport, Report, SharedLimits
from engine.clock import SystemClock
from engine.commands import wiring
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import BulkSubmitError, Exit
from engine.run.sharing import budget_name
from engine.sandbox.behaviour import Behaviour, JournalSettings, RateLimit
from engine.sandbox.server import running_sandbox
from engine.sandbox.settings import Rate, SandboxPlatform, SandboxSama

from .desk import stopped, tasks, written

FREE = SandboxSama(task_lists_per_second=0)
HOLD_SECONDS = 3600.0
"""More than a command waits for a service: it gives up at once."""


@pytest.fixture(autouse=True)
def shared(monkeypatch):
    """Let several share a file as they share a database."""
    monkeypatch.setattr(SqliteLedger, "shares_jobs", True)


async def hold(desk):
    """Have another process hear that the service does not want to be called for a long time."""
    report = Report("other", {"": PaceReport(hold_seconds=HOLD_SECONDS)})

    def heard(text, now):
        limits = SharedLimits.of(text)
        limits.sync(report, now)
        return limits.text()

    async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:
        job = await ledger.job("j")
        await ledger.revise(budget_name(wiring.load(job.config).service), heard)


async def assert_calls_nobody(desk, command):
    await hold(desk)
    before = desk.sandbox.stats.requests.total()
    async with asyncio.timeout(20):
        with suppress(BulkSubmitError):
            await command
    assert desk.sandbox.stats.requests.total() == before


@pytest.mark.parametrize(
    "command",
    [
        lambda desk: engine.refresh("j", desk.ledger),
        lambda desk: engine.undo("j", desk.ledger),
        lambda desk: engine.status("j", desk.ledger, tasks=True),
        lambda desk: engine.status("j", desk.ledger, tasks=True, failed=True),
        lambda desk: engine.find_failed_tasks("j", desk.ledger),
        lambda desk: engine.retry_tasks("j", desk.ledger),
        lambda desk: engine.resume("j", desk.ledger, until="finished"),
    ],
    ids=["refresh", "undo", "status --tasks", "status --failed", "retry --task-failed asks", "retry", "resume --until"],
)
async def test_what_asks_about_a_finished_job_waits_when_the_service_has_told_another_process_to(desk, command):
    desk = await desk(sama=FREE)
    await desk.submit(desk.source(tasks(3)))
    await assert_calls_nobody(desk, command(desk))


@pytest.mark.parametrize(
    "command",
    [
        lambda desk: engine.cancel("j", desk.ledger),
        lambda desk: engine.find_uncertain("j", desk.ledger),
        lambda desk: engine.resume("j", desk.ledger),
    ],
    ids=["cancel", "retry --uncertain asks", "resume"],
)
async def test_so_does_what_goes_on_with_an_open_one(desk, command):
    desk = await desk(sama=FREE)
    await stopped(desk)
    await assert_calls_nobody(desk, command(desk))


PER_SECOND, LIMIT = 40, 66
"""Requests that the configuration allows, and the service: two that do not know of each other make 80."""
CONFIG = """
[service]
kind = "sevenbridges"
base_url = "{url}"
auth_token = "${{env:SAMA_ACCESS_KEY}}"
project = "owner/project"
app = "owner/project/align"

[send]
max_in_flight = 10
requests_per_second = {per_second}
retry_base_seconds = 0.01
settle_seconds = 0.3
"""


async def test_a_submit_and_an_undo_beside_it_are_one_polite_client(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    behaviour = Behaviour(
        service="sevenbridges",
        journal=JournalSettings(tmp_path / "journal.ndjson"),
        sevenbridges=SandboxPlatform(rate=Rate(0)),
        rate_limits=(RateLimit(LIMIT, 1.0),),
    )
    config, ledger = tmp_path / "load.toml", tmp_path / "ledger.db"
    wrong, right = (
        written(tmp_path / f"{name}.ndjson", [{"name": f"{name}-{n}", "inputs": {"n": n}} for n in range(count)])
        for name, count in (("wrong", 60), ("right", 100))
    )
    async with running_sandbox(behaviour) as sandbox:
        config.write_text(CONFIG.format(url=sandbox.url, per_second=PER_SECOND))
        assert (await engine.submit(wrong, config, ledger, job="wrong")).tally.created == 60
        undone, submitted = await asyncio.gather(
            engine.undo("wrong", ledger), engine.submit(right, config, ledger, job="right")
        )
        assert (undone.exit_code, undone.later) == (Exit.ALL_CREATED, {"undone": 60})
        assert (submitted.exit_code, submitted.tally.created) == (Exit.ALL_CREATED, 100)
        assert sandbox.stats.rate_limited == 0
