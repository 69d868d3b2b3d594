import pytest
from fakes.bench import a_bench
from msgspec.structs import replace

from engine.clock import SystemClock
from engine.commands.cancel import MOST_SHOWN, find_extras
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import Exit, JobCanceled, JobError, Unavailable
from engine.model.job import Job, JobState
from engine.model.settings import SourceSettings
from engine.model.submission import State, Submission
from engine.sandbox.behaviour import CreationPace, Fault
from engine.source.sources import find_sources

from .desk import counts, once, stopped, tasks


async def test_cancel_ends_what_the_service_works_on_and_keeps_what_was_never_sent(desk):
    desk = await desk(creation=CreationPace(tasks_per_second=0.5))
    await stopped(desk)
    released = desk.calls("continue")
    result = await desk.cancel()
    assert (result.state, result.exit_code) == ("canceled", Exit.ALL_CREATED)
    created, failed, rejected, uncertain, unresolved = counts(result)
    assert created == sum(desk.created().values()) < 10 * released
    assert (created + failed, rejected, uncertain) == (10 * released, 0, 0)
    assert unresolved == result.tally.records - 10 * released > 0
    assert result.tally.states.keys() == {"settled", "frozen"}
    assert desk.calls("continue") == released
    assert (await desk.audit()).holds
    with pytest.raises(JobCanceled, match=f"was canceled: {unresolved} records that it has read were not sent"):
        await desk.resume()


async def test_a_canceled_job_that_is_resumed_goes_on_with_all_of_it(desk):
    desk = await desk()
    await stopped(desk)
    assert counts(await desk.cancel())[4] > 0
    result = await desk.resume(reopen=True)
    assert (result.state, result.exit_code, counts(result)) == ("finished", Exit.ALL_CREATED, (100, 0, 0, 0, 0))
    assert desk.created() == once(100)
    assert (await desk.audit()).holds


async def test_a_canceled_job_whose_records_its_family_may_have_taken_since_does_not_go_on(desk):
    desk = await desk()
    await stopped(desk)
    await desk.cancel()
    async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:
        job = replace(await ledger.job("j"), read_complete=False)
        await ledger.create_job(replace(job, name="old", family="f", state=JobState.CANCELED))
        await ledger.create_job(replace(job, name="new", family="f", state=JobState.OPEN))
    assert counts(await desk.resume("new")) == (100, 0, 0, 0, 0)
    with pytest.raises(JobError, match=r"job 'new' of the same family \(f\) has read records since"):
        await desk.resume("old", reopen=True)


async def test_cancel_leaves_what_was_created_in_the_meantime(desk):
    desk = await desk()
    await stopped(desk)
    result = await desk.cancel()
    assert result.tally.created == sum(desk.created().values()) >= 30


async def test_what_a_canceled_job_did_not_send_is_sent_by_the_next_load_of_its_family_and_then_by_nobody_else(desk):
    desk = await desk()
    desk.stop_at = 3
    source, config = desk.source(tasks(60)), desk.config(send="max_in_flight = 1")
    await desk.submit(source, config, family="f", delta=True)
    desk.stop_at = None
    left = counts(await desk.cancel())[4]
    tonight = await desk.submit(source, config, job="tonight", family="f", delta=True)
    assert (tonight.tally.created, tonight.tally.skipped) == (left, 60 - left)
    with pytest.raises(JobError, match="job 'tonight' of its family has sent records of it since it was canceled"):
        await desk.resume(reopen=True)
    assert desk.created() == once(60)


async def test_what_a_canceled_job_never_read_is_said_and_sent_when_it_goes_on(desk):
    desk = await desk()
    source = desk.source(tasks(5))
    async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:  # canceled before anything was read
        found = tuple(find_sources([str(source)], SourceSettings()))
        output = str(desk.folder / "out")
        await ledger.create_job(Job("j", "sama", desk.config().read_text(), found, output, JobState.CANCELED))
    with pytest.raises(JobCanceled) as caught:
        await desk.resume()
    assert str(caught.value) == (
        f"ledger {desk.ledger}: job 'j' was canceled: 0 records that it has read were not sent; what stands from byte "
        f"0 of {source} on was never read."
    )
    assert counts(await desk.resume(reopen=True)) == (5, 0, 0, 0, 0)


async def test_inline_cancel_leaves_a_batch_uncertain_whose_call_was_under_way(desk):
    desk = await desk()
    await stopped(desk, service='mode = "inline"')
    calls = desk.calls("create")
    async with SqliteLedger.open(desk.ledger, SystemClock()) as ledger:  # a process that died while it called
        async for batch, _ in ledger.batches("j", frozenset({State.FROZEN})):
            await ledger.move("j", Submission(batch.sequence, State.RELEASING), expected=State.FROZEN)
            break
    result = await desk.cancel()
    assert (result.state, result.exit_code, result.tally.uncertain) == ("canceled", Exit.SOME_UNCERTAIN, 10)
    assert desk.calls("create") == calls


async def test_cancel_of_a_finished_job_is_refused(desk):
    desk = await desk()
    await desk.submit(desk.source(tasks(1)))
    with pytest.raises(JobError, match="nothing left to cancel"):
        await desk.cancel()


@pytest.mark.parametrize(("kind", "created"), [("refuse", 0), ("refuse_after", 10)])
async def test_a_batch_whose_release_is_unclear_is_followed_if_it_was_started_and_kept_if_not(desk, kind, created):
    desk = await desk(faults=(Fault("continue", kind, nth=(1,), status=401),))
    await desk.submit(desk.source(tasks(10)))
    assert (await desk.status()).tally.states == {"releasing": 1}
    assert counts(await desk.cancel()) == (created, 0, 0, 0, 10 - created)
    assert sum(desk.created().values()) == created
    assert (await desk.audit()).holds


async def test_what_was_only_staged_is_canceled_at_the_service_too(desk):
    desk = await desk(faults=(Fault("put", "refuse", nth=(1,)),))
    await desk.submit(desk.source(tasks(10)), desk.config(send="give_up_seconds = 0.0"))
    assert (await desk.status()).tally.states == {"staged": 1}
    result = await desk.cancel()
    assert (counts(result), result.tally.states) == ((0, 0, 0, 0, 10), {"frozen": 1})
    assert desk.calls("cancel") == 1
    assert counts(await desk.resume(reopen=True)) == (10, 0, 0, 0, 0)


async def test_what_was_staged_and_cannot_be_canceled_stays_known(desk):
    desk = await desk(faults=(Fault("put", "refuse", nth=(1,)),), cancel="refuse")
    await desk.submit(desk.source(tasks(10)), desk.config(send="give_up_seconds = 0.0"))
    assert (await desk.cancel()).tally.states == {"staged": 1}
    assert counts(await desk.resume(reopen=True)) == (10, 0, 0, 0, 0)
    assert desk.created() == once(10)


async def test_a_cancel_without_the_right_key_says_so_and_can_be_repeated_with_it(desk, monkeypatch):
    desk = await desk(creation=CreationPace(tasks_per_second=0.5))
    await stopped(desk)
    monkeypatch.setenv("SAMA_ACCESS_KEY", "last-years-key")
    result = await desk.cancel()
    assert result.exit_code == Exit.MEND_FIRST
    assert "credentials" in result.message
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    assert (await desk.cancel()).tally.states.keys() == {"settled", "frozen"}


async def test_a_cancel_that_does_not_reach_the_service_can_be_repeated(desk):
    desk = await desk(creation=CreationPace(tasks_per_second=0.5), faults=(Fault("cancel", "refuse", nth=(1,)),))
    await stopped(desk, send="give_up_seconds = 0.0")
    first = await desk.cancel()
    assert (first.state, first.exit_code) == ("canceled", Exit.STOPPED_EARLY)
    assert first.message.startswith("cancel (POST")
    second = await desk.cancel()
    assert (second.exit_code, second.tally.states.keys()) == (Exit.ALL_CREATED, {"settled", "frozen"})


async def test_a_batch_that_is_released_late_and_cannot_be_canceled_tells_what_it_created(desk):
    late = Fault("continue", "drop_late", nth=(1,), seconds=0.15)
    desk = await desk(faults=(late, Fault("status", "refuse", nth=(1,), status=401)), busy_while_late=True)
    await desk.submit(desk.source(tasks(10)))
    assert (await desk.status()).tally.states == {"releasing": 1}
    assert counts(await desk.cancel()) == (10, 0, 0, 0, 0)
    assert desk.created() == once(10)


# What lost answers left at the service


async def extras_said(tmp_path, found, *, lost=True):
    """Return what is said at the end of a job of which an answer was lost, or none was."""
    async with a_bench(tmp_path, records=1, done_by="stage") as bench:

        async def extras(known):
            if isinstance(found, Exception):
                raise found
            assert (await known(7)) is None
            return found

        bench.service.find_extras = extras
        if lost:
            await bench.ledger.note_lost_stage("j")
        return await find_extras(bench.run())


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], ""),
        (["t1"], "1 task at the service has a mark of this job and belongs to no outcome: t1. An answer was lost"),
        (["t1", "t2"], "2 tasks at the service have a mark of this job and belong to no outcome: t1, t2. An answer"),
        (
            [f"t{number}" for number in range(MOST_SHOWN + 1)],
            "6 tasks at the service have a mark of this job and belong to no outcome: t0, t1, t2, t3, t4, …. An answer",
        ),
        (Unavailable("nobody answers"), "what they may have left at the service could not be listed (nobody answers)"),
    ],
)
async def test_what_calls_whose_answer_was_lost_have_left_there_is_told(tmp_path, found, said):
    whole = await extras_said(tmp_path, found)
    assert said in whole
    assert bool(whole) == bool(said)


async def test_where_no_answer_was_lost_nobody_looks(tmp_path):
    assert await extras_said(tmp_path, AssertionError("nobody looks"), lost=False) == ""
