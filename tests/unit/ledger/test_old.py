"""What an older version wrote is upgraded when it is opened, and reads the same."""

import apsw
import orjson
import pytest

import engine
from engine.commands.result import report_writer
from engine.ledger.database import STEPS
from engine.ledger.sqlite import SqliteLedger
from engine.model.job import JobState
from engine.model.outcome import Kept, Settlement, Tally
from engine.model.submission import State

from .old import BEGAN, INLINE, INLINE_MARK, PRESIGNED, REMOTE_IDS, URL, write_old_ledger
from .values import all_batches


@pytest.fixture
def old(tmp_path):
    return write_old_ledger(tmp_path)


@pytest.fixture
async def ledger(old, clock):
    async with SqliteLedger.open(old, clock) as ledger:
        yield ledger


def version(path):
    connection = apsw.Connection(str(path))
    number = connection.pragma("user_version")
    connection.close()
    return number


async def test_it_is_upgraded_once_when_it_is_opened(old, clock):
    assert version(old) == 2
    for _ in range(2):
        async with SqliteLedger.open(old, clock) as ledger:
            assert [job.name for job in await ledger.jobs()] == [INLINE, PRESIGNED]
        assert version(old) == len(STEPS) > 2


async def test_its_jobs_go_on_where_they_were_and_remember_nothing_of_what_was_not_asked_then(ledger, tmp_path):
    for name in (PRESIGNED, INLINE):
        job = await ledger.job(name)
        assert (job.state, job.read_complete, job.attempt) == (JobState.OPEN, True, 1)
        assert BEGAN < job.created_at < BEGAN + 10
        assert (job.slowest_start, job.lost_stages) == (0, 0)
        assert [source.path for source in job.sources] == [str(tmp_path / f"{name}.ndjson")]
        assert f'base_url = "{URL}"' in job.config
    assert f"inline-{job.learnt.removeprefix('marked ')}-1" == INLINE_MARK


async def test_its_batches_stand_where_they_stood(ledger):
    found = {
        (name, batch.sequence): (submission.state, submission.remote_id, batch.start.index, batch.count)
        for name in (PRESIGNED, INLINE)
        for batch, submission in await all_batches(ledger, name)
    }
    assert found == {
        (PRESIGNED, 0): (State.SETTLED, "878561001", 0, 2),
        (PRESIGNED, 1): (State.UNCERTAIN, "878561002", 3, 2),
        (PRESIGNED, 2): (State.RELEASED, "878561003", 5, 2),
        (PRESIGNED, 3): (State.RELEASING, "878561004", 7, 2),
        (PRESIGNED, 4): (State.FROZEN, None, 9, 2),
        (PRESIGNED, 5): (State.FROZEN, None, 11, 2),
        (INLINE, 0): (State.SETTLED, "878561005", 0, 2),
        (INLINE, 1): (State.UNCERTAIN, None, 2, 2),
        (INLINE, 2): (State.SETTLED, "878561007", 4, 2),
    }
    assert {key: remote_id for key, (_, remote_id, *_) in found.items() if remote_id} == REMOTE_IDS


async def test_what_was_under_way_or_uncertain_may_have_arrived_when_it_moved_last(ledger):
    for name in (PRESIGNED, INLINE):
        for _, submission in await all_batches(ledger, name):
            doubtful = submission.state in {State.RELEASING, State.UNCERTAIN}
            assert submission.sent_at == (submission.changed_at if doubtful else None)


async def test_its_settlements_read_the_same(ledger):
    failed = Settlement(["6b0aeea1345dc6e900000000", None], {1: "InvalidInputSchema: data.status must not be broken."})
    assert await ledger.settlement(PRESIGNED, 0) == failed
    assert await ledger.stored_fates(PRESIGNED, 0) == Kept(1, 1, 0, failed)
    assert await ledger.settlement(PRESIGNED, 1) is None
    assert [(await ledger.settlement(INLINE, at)).created for at in (0, 2)] == [2, 2]
    for name in (PRESIGNED, INLINE):
        assert [settlement.uncertain async for _, settlement in ledger.partly_created(name)] in ([], [{}])


async def test_its_tallies_read_the_same(ledger):
    states = {"frozen": 2, "released": 1, "releasing": 1, "settled": 1, "uncertain": 1}
    tally = await ledger.tally(PRESIGNED)
    assert tally == Tally(13, 6, created=1, failed=1, rejected=1, uncertain=2, states=states)
    tally = await ledger.tally(INLINE)
    assert tally == Tally(6, 3, created=4, uncertain=2, states={"settled": 2, "uncertain": 1})


async def test_its_outcomes_read_the_same(ledger):
    states = {
        PRESIGNED: ["created", "rejected", "failed", *["uncertain"] * 2, *["unresolved"] * 8],
        INLINE: [*["created"] * 2, *["uncertain"] * 2, *["created"] * 2],
    }
    for name, expected in states.items():
        job = await ledger.job(name)
        reports = await report_writer(job, ledger).finish()
        lines = [orjson.loads(line) for line in reports.outcomes.read_bytes().splitlines()]
        assert [line["state"] for line in lines] == expected
        assert {line["url"] for line in lines if line["task_id"]} == {
            f"https://app.sama.com/projects/42/tasks/{line['task_id']}" for line in lines if line["task_id"]
        }


@pytest.mark.parametrize("name", [PRESIGNED, INLINE])
async def test_its_sources_and_batches_hold_before_an_audit(old, name):
    audit = await engine.audit(name, old)
    assert (audit.findings, audit.holds) == ([], True)


async def test_a_server_of_a_test_may_have_its_own_address_and_names(tmp_path, clock):
    path = write_old_ledger(tmp_path, url="http://127.0.0.1:9/v2", remote_ids={(PRESIGNED, 3): "7", (INLINE, 0): "8"})
    async with SqliteLedger.open(path, clock) as ledger:
        assert 'base_url = "http://127.0.0.1:9/v2"' in (await ledger.job(PRESIGNED)).config
        names = [submission.remote_id for _, submission in await all_batches(ledger, PRESIGNED)]
        assert names == ["878561001", "878561002", "878561003", "7", None, None]
        assert (await all_batches(ledger, INLINE))[0][1].remote_id == "8"
