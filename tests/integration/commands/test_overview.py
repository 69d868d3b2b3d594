"""The facts of a real job, and its page: what the run has measured, why records failed, and whether it was audited."""

import pytest

import engine
from engine.commands.paths import open_ledger
from engine.model.errors import BulkSubmitError, JobError
from engine.sandbox.behaviour import FailureRule

from .desk import tasks

BROKEN = FailureRule(path="data.status", equals="broken", message="data.status must not be broken.")


async def test_a_job_is_told_by_what_its_run_measured(desk):
    desk = await desk(failures=(BROKEN,))
    source = desk.source([*tasks(20), *tasks(3, start=20, status="broken"), {"input": 1}])
    await desk.submit(source)
    facts = await engine.overview("j", desk.ledger)
    assert (facts.job, facts.state, facts.tally.created, facts.run_count) == ("j", "finished", 20, 1)
    kinds = {calls.kind: calls for calls in facts.calls}
    assert {"create", "put", "continue", "status"} <= kinds.keys()
    assert kinds["put"].answers == {"200": 3}
    assert sum(calls.sent_bytes for calls in facts.calls) == facts.counts.sent_bytes > 0
    assert 0 < kinds["put"].seconds.p50 <= kinds["put"].seconds.longest
    assert len(facts.slowest) == facts.batch_seconds.count == 3
    assert all(slow.remote_id and slow.took.seconds >= slow.took.settle_seconds > 0 for slow in facts.slowest)
    assert len(facts.series) >= 1
    failed, rejected = facts.causes.top
    assert (failed.fate, failed.records, rejected.fate, rejected.records) == ("failed", 3, "rejected", 1)
    assert [one.line for one in failed.examples] == [21, 22, 23]
    assert rejected.examples[0].line == 24


async def test_an_audit_is_remembered_whoever_made_it(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(5)))
    assert (await engine.overview("j", desk.ledger)).audit is None
    await engine.audit("j", desk.ledger)
    told = (await engine.overview("j", desk.ledger)).audit
    assert (told.found.holds, told.found.records, told.outdated) == (True, 5, False)


async def test_an_audit_can_be_asked_for_with_the_facts(desk):
    desk = await desk()
    source = desk.source(tasks(5))
    await desk.submit(source)
    source.write_bytes(source.read_bytes().replace(b"0", b"9"))
    told = (await engine.overview("j", desk.ledger, audit=True)).audit
    assert (told.found.holds, told.found.findings) == (False, [])
    assert str(source) in told.found.unproven[0]


async def test_the_page_is_written_beside_the_reports_for_its_owner_only(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(5)))
    facts = await engine.overview("j", desk.ledger)
    for file in (None, desk.folder / "morning.html"):
        for _ in range(2):  # in the place of what is there
            path = await engine.write_page(facts, file)
        assert path.read_text().startswith("<!DOCTYPE html>")
        assert path.stat().st_mode & 0o077 == 0
        assert [one.name for one in path.parent.iterdir() if one.name.endswith(".partial")] == []
    assert path.name == "morning.html"


async def test_a_page_that_cannot_be_written_is_said_with_its_name(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(1)))
    facts = await engine.overview("j", desk.ledger)
    with pytest.raises(BulkSubmitError, match=r"nowhere/x.html cannot be written \(No such file .*--html"):
        await engine.write_page(facts, desk.folder / "nowhere" / "x.html")


async def test_of_a_job_whose_service_is_not_installed_any_more_the_ledger_tells_all_the_same(desk):
    desk = await desk(failures=(BROKEN,))
    await desk.submit(desk.source(tasks(1, status="broken")))
    async with open_ledger(desk.ledger) as ledger:
        await ledger.set_config("j", "[service]\nkind = 'gone'\n")
    facts = await engine.overview("j", desk.ledger)
    assert (facts.causes.top[0].records, facts.causes.top[0].examples[0].line) == (1, 1)


async def test_there_are_no_facts_of_a_job_that_is_not_there(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(1)))
    with pytest.raises(JobError):
        await engine.overview("x", desk.ledger)
