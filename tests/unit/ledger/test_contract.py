"""What every implementation of `Ledger` keeps. Another one is one more line in IMPLEMENTATIONS, and in SHARING."""

import asyncio
from functools import partial

import pytest
from msgspec.structs import replace

from engine.ledger.base import Ledger
from engine.ledger.sqlite import SqliteLedger
from engine.model.batch import decode_spans, encode_spans, part_sequences
from engine.model.errors import JobError, JobLocked, LeaseLost, LedgerError, NameTaken, OtherJobs
from engine.model.job import JobState
from engine.model.outcome import Kept, LaterFate, Settlement, Tally
from engine.model.runs import PastAudit, PastRun, RunCounts, Sample, Standing
from engine.model.shard import (
    MISSED_SECONDS,
    MOST_LOST_WORKERS,
    SHARD_BATCHES,
    LeaseTerms,
    ShardCounts,
    ShardState,
)
from engine.model.submission import TRANSITIONS, UNSENT, State, Submission

from .values import (
    RECORD_BYTES,
    ROADS,
    a_batch,
    a_job,
    a_reject,
    all_batches,
    bring,
    frozen,
    ids,
    one_failed,
    one_of_each,
    settle,
    submission,
)

IMPLEMENTATIONS = {"sqlite": SqliteLedger.open}
SHARING = {"sqlite": partial(SqliteLedger.open, shares_jobs=True)}
"""Those in which several processes send a job together."""


@pytest.fixture(params=IMPLEMENTATIONS)
def opened(request, path, clock):
    """Open the same ledger, again and again if need be."""
    return lambda: IMPLEMENTATIONS[request.param](path, clock)


@pytest.fixture
async def ledger(opened):
    async with opened() as ledger:
        yield ledger


# Jobs


async def test_a_job_comes_back_as_it_went_in(ledger):
    job = a_job(parent="before", attempt=2, config="schlüssel = '🔑'\n", slowest_start=1.5, lost_stages=2)
    await ledger.create_job(job)
    assert await ledger.job("j") == job


async def test_a_job_without_a_time_begins_now(ledger, clock):
    await ledger.create_job(a_job(created_at=0.0))
    assert (await ledger.job("j")).created_at == clock.now()


async def test_a_job_is_not_made_beside_one_that_its_maker_has_not_seen(ledger):
    await ledger.create_job(a_job("first"), seen=())
    with pytest.raises(OtherJobs):
        await ledger.create_job(a_job("second"), seen=())
    assert [job.name for job in await ledger.jobs()] == ["first"]
    await ledger.create_job(a_job("second"), seen={"first", "one that is gone"})
    assert [job.name for job in await ledger.jobs()] == ["second", "first"]


async def test_a_name_is_taken_once(ledger):
    await ledger.create_job(a_job())
    with pytest.raises(JobError, match="there is a job 'j' already"):
        await ledger.create_job(a_job(service="sevenbridges"))
    assert (await ledger.job("j")).service == "sama"


async def test_a_name_that_leaves_the_folder_is_refused(ledger):
    with pytest.raises(JobError, match=r"'\.\./j' cannot be used"):
        await ledger.create_job(a_job("../j"))
    with pytest.raises(JobError, match=r"'\.\./j' cannot be used"), ledger.lock("../j"):
        pass


async def test_an_unknown_job_is_answered_with_those_there_are(ledger):
    with pytest.raises(JobError, match="there is no job 'x'; there are no jobs yet"):
        await ledger.job("x")
    for number in range(12):
        await ledger.create_job(a_job(f"j{number}"))
    with pytest.raises(JobError, match=r"there is no job 'x'; there are: j11, j10, .*, j2, …"):
        await ledger.job("x")


@pytest.mark.parametrize(
    "call",
    [
        lambda ledger: ledger.set_job_state("x", JobState.FINISHED),
        lambda ledger: ledger.note_slowest_start("x", 1.5),
        lambda ledger: ledger.note_lost_stage("x"),
        lambda ledger: ledger.freeze("x", [a_batch(0)], [], last=False),
        lambda ledger: ledger.move("x", Submission(0, State.STAGING), expected=State.FROZEN),
        lambda ledger: settle(ledger, "x", 0, Settlement([])),
        lambda ledger: ledger.last_batch("x"),
        lambda ledger: all_batches(ledger, "x"),
        lambda ledger: ledger.settlement("x", 0),
        lambda ledger: ledger.settlements("x", [0]),
        lambda ledger: ledger.batch("x", 0),
        lambda ledger: ledger.rejects("x", 0, 9),
        lambda ledger: ledger.tally("x"),
        lambda ledger: ledger.orphans("x"),
        lambda ledger: ledger.add_run("x", PastRun(1, 5.0, "host", "1.0")),
        lambda ledger: ledger.runs("x"),
    ],
)
async def test_every_call_names_an_unknown_job(ledger, call):
    await ledger.create_job(a_job())
    with pytest.raises(JobError, match="there is no job 'x'; there are: j"):
        await call(ledger)


async def test_a_retry_remembers_where_its_records_come_from(ledger):
    await ledger.create_job(a_job())
    await ledger.create_job(a_job("j.retry", parent="j"), origins=[7, 3, 2**40])
    assert await ledger.origins("j.retry", 0, 2) == {0: 7, 1: 3}
    assert await ledger.parents("j.retry", [2, 1, 9]) == {1: 3, 2: 2**40}
    assert [await ledger.retried_as("j.retry", index) for index in (3, 2**40, 4)] == [1, 2, None]
    assert await ledger.origins("j", 0, 9) == {}


async def test_a_retry_that_holds_a_record_twice_is_not_made(ledger):
    await ledger.create_job(a_job())
    with pytest.raises(LedgerError):
        await ledger.create_job(a_job("j.retry", parent="j"), origins=[7, 7])
    assert [job.name for job in await ledger.jobs()] == ["j"]


async def test_nothing_became_of_a_task_later_that_nobody_has_told(ledger):
    await ledger.create_job(a_job())
    assert await ledger.later_fates("j", 0, 9) == {}


async def test_jobs_are_listed_newest_first(ledger):
    assert await ledger.jobs() == []
    for name in "abc":
        await ledger.create_job(a_job(name))
    assert [job.name for job in await ledger.jobs()] == ["c", "b", "a"]


@pytest.mark.parametrize("state", [JobState.OPEN, JobState.FINISHED, JobState.CANCELED])
async def test_a_job_keeps_its_state(ledger, state):
    await ledger.create_job(a_job())
    await ledger.set_job_state("j", state)
    assert (await ledger.job("j")).state is state


async def test_a_state_that_is_not_the_expected_one_any_more_stays(ledger):
    await ledger.create_job(a_job())
    await ledger.set_job_state("j", JobState.CANCELED, expected=JobState.OPEN)
    assert (await ledger.job("j")).state is JobState.CANCELED
    await ledger.set_job_state("j", JobState.FINISHED, expected=JobState.OPEN)
    assert (await ledger.job("j")).state is JobState.CANCELED


# Runs

RUN = PastRun(1, 5.0, "host", "1.0")
ENDED = replace(RUN, ended_at=9.5, exit_code=5, reason="down", counts=RunCounts(7, 3, sent_bytes=9, seconds={"all": 4}))


async def test_runs_come_back_as_they_went_in_oldest_first(ledger):
    await ledger.create_job(a_job())
    assert await ledger.runs("j") == []
    for run in (RUN, replace(RUN, number=2, begun_at=20.0), ENDED):
        await (ledger.set_run if run is ENDED else ledger.add_run)("j", run)
    assert await ledger.runs("j") == [ENDED, replace(RUN, number=2, begun_at=20.0)]


async def test_of_the_samples_of_a_run_every_second_one_is_forgotten_and_the_newest_stays(ledger):
    await ledger.create_job(a_job())
    samples = [Sample(at, 10.0, 1.5, limit_reason="push-back", waits={"maintenance": 3.0}) for at in (10.0, 20.0, 30.0)]
    for run in (RUN, replace(RUN, number=2)):
        await ledger.add_run("j", run)
        for sample in samples:
            await ledger.add_sample("j", run.number, sample)
    await ledger.thin_samples("j", 1)
    assert await ledger.samples("j", 1) == [samples[0], samples[2]]
    assert await ledger.samples("j", 2) == samples


async def test_the_last_audit_of_a_job_is_kept_and_goes_with_it(ledger):
    await ledger.create_job(a_job())
    await ledger.create_job(a_job("other"))
    assert await ledger.last_audit("j") is None
    for found in (
        PastAudit(5.0, holds=True, records=7, batches=1),
        PastAudit(6.0, holds=False, records=7, batches=1, findings=["a gap"], found=1, reports="absent"),
    ):
        await ledger.keep_audit("j", found)
        assert await ledger.last_audit("j") == found
    assert await ledger.last_audit("other") is None
    await ledger.set_job_state("j", JobState.REMOVED)
    while not await ledger.remove("j"):
        pass
    assert [job.name for job in await ledger.jobs()] == ["other"]


async def test_a_batch_whose_tasks_failed_later_is_among_those_with_failures_if_asked_for(ledger):
    await frozen(ledger, batches=3)
    later = {1: {"later": "failed", "later_reason": "out of memory"}}
    for sequence, fates in enumerate(
        (Settlement(["a", "b"]), Settlement(["c", None], {1: "no"}), Settlement(["d", "e"], details=later))
    ):
        await settle(ledger, "j", sequence, fates, expected=State.FROZEN)
    assert [batch.sequence async for batch, _ in ledger.partly_created("j")] == [1]
    assert [batch.sequence async for batch, _ in ledger.partly_created("j", failed_later=True)] == [1, 2]


async def test_a_failed_run_of_a_load_does_not_hide_when_one_succeeded_last(ledger):
    assert await ledger.standing("f") == Standing()
    for name, ended_at, code in (("a", 7.0, 0), ("b", 9.5, 5), ("c", None, None), ("f", 3.0, 0)):
        await ledger.create_job(a_job(name, family="" if name == "f" else "f"))
        await ledger.add_run(name, replace(RUN, ended_at=ended_at, exit_code=code))
    assert await ledger.standing("f") == Standing(7.0, 9.5, 5)
    assert await ledger.standing("a") == Standing()  # of a family: told by that


# Freezing


async def test_frozen_batches_come_back_as_they_went_in(ledger, clock):
    await ledger.create_job(a_job())
    batches = [a_batch(0, rejected=1), a_batch(1, rejected=1)]
    await ledger.freeze("j", batches, [a_reject(0), a_reject(3)], last=False)
    assert await all_batches(ledger, "j") == [
        (batch, Submission(batch.sequence, State.FROZEN, None, clock.now())) for batch in batches
    ]
    assert await ledger.last_batch("j") == batches[1]
    assert await ledger.rejects("j", 0, 100) == [a_reject(0), a_reject(3)]


async def test_a_job_without_batches_has_no_last_one(ledger):
    await ledger.create_job(a_job())
    assert await ledger.last_batch("j") is None
    assert await all_batches(ledger, "j") == []
    assert await ledger.tally("j") == Tally()


@pytest.mark.parametrize("batches", [[], [a_batch(0)]])
async def test_the_last_freeze_ends_the_reading(ledger, batches):
    await ledger.create_job(a_job())
    assert not (await ledger.job("j")).read_complete
    await ledger.freeze("j", batches, [], last=True)
    assert (await ledger.job("j")).read_complete
    with pytest.raises(LedgerError, match="job 'j' is read to its end"):
        await ledger.freeze("j", [a_batch(len(batches))], [], last=False)


async def test_a_batch_of_no_records_is_settled_with_nothing(ledger):
    await ledger.create_job(a_job())
    await ledger.freeze("j", [a_batch(0, 0, rejected=3)], [a_reject(index) for index in range(3)], last=True)
    assert (await submission(ledger, "j", 0)).state is State.SETTLED
    assert await ledger.settlement("j", 0) == Settlement([])
    assert await ledger.tally("j") == Tally(records=3, batches=1, rejected=3, states={"settled": 1})


@pytest.mark.parametrize(
    ("batches", "due"),
    [
        pytest.param([a_batch(1)], "batch 0 at offset 0, record 0", id="does not begin with 0"),
        pytest.param([a_batch(0, at=1)], "batch 0 at offset 0, record 0", id="does not begin at the beginning"),
        pytest.param([a_batch(0), a_batch(2)], "batch 1 at offset 200, record 2", id="a number is missing"),
        pytest.param([a_batch(0), a_batch(1, at=3)], "batch 1 at offset 200, record 2", id="a record is missing"),
        pytest.param([a_batch(0), a_batch(1, at=1)], "batch 1 at offset 200, record 2", id="a record comes twice"),
        pytest.param([a_batch(0), a_batch(0)], "batch 1 at offset 200, record 2", id="a batch comes twice"),
    ],
)
async def test_batches_that_do_not_join_are_refused_whole(ledger, batches, due):
    await ledger.create_job(a_job())
    with pytest.raises(LedgerError, match=f"job 'j': {due} is due"):
        await ledger.freeze("j", batches, [a_reject(0)], last=True)
    assert await ledger.last_batch("j") is None
    assert await ledger.rejects("j", 0, 9) == []
    assert not (await ledger.job("j")).read_complete


async def test_batches_join_those_frozen_before(ledger):
    await ledger.create_job(a_job())
    await ledger.freeze("j", [a_batch(0), a_batch(1)], [], last=False)
    with pytest.raises(LedgerError, match="batch 2 at offset 400, record 4 is due, not batch 1"):
        await ledger.freeze("j", [a_batch(1)], [], last=False)
    await ledger.freeze("j", [a_batch(2)], [], last=True)
    assert (await ledger.last_batch("j")).sequence == 2


async def test_lines_may_begin_anew_with_a_source(ledger):
    await ledger.create_job(a_job())
    first, second = a_batch(0), a_batch(1)
    second = replace(second, start=replace(second.start, line=1))
    await ledger.freeze("j", [first, second], [], last=True)
    assert await ledger.last_batch("j") == second


async def test_a_reject_is_kept_once(ledger):
    await ledger.create_job(a_job())
    with pytest.raises(LedgerError, match="already holds"):
        await ledger.freeze("j", [a_batch(0, rejected=2)], [a_reject(0), a_reject(0)], last=True)
    assert await ledger.last_batch("j") is None


async def test_rejects_are_read_by_range(ledger):
    await ledger.create_job(a_job())
    await ledger.freeze(
        "j", [a_batch(0, rejected=5)], [a_reject(index, f"no {index}") for index in range(5)], last=True
    )
    assert [reject.index for reject in await ledger.rejects("j", 1, 4)] == [1, 2, 3]
    assert await ledger.rejects("j", 5, 9) == []


# Steps


ENDS = {State.SETTLED, State.SPLIT}
STEPS = [(before, after) for before in ROADS for after in State if after not in ENDS]


@pytest.mark.parametrize(("before", "after"), [step for step in STEPS if step[1] in TRANSITIONS[step[0]]])
async def test_a_step_of_the_table_is_taken(ledger, clock, before, after):
    job = await frozen(ledger)
    await bring(ledger, job, 0, before)
    clock.time = 2_000.5
    await ledger.move(job, Submission(0, after, "new", 0.0, "because"), expected=before)
    assert await submission(ledger, job, 0) == Submission(0, after, "new", 2_000.5, "because")


@pytest.mark.parametrize(("before", "after"), [step for step in STEPS if step[1] not in TRANSITIONS[step[0]]])
async def test_a_step_outside_the_table_is_refused(ledger, before, after):
    job = await frozen(ledger)
    await bring(ledger, job, 0, before)
    was = await submission(ledger, job, 0)
    with pytest.raises(LedgerError, match=f"job 'j', batch 0: the step from {before} to {after} does not exist"):
        await ledger.move(job, Submission(0, after, "new"), expected=before)
    assert await submission(ledger, job, 0) == was


async def test_the_fates_of_several_batches_are_read_at_once(ledger):
    job = await frozen(ledger, batches=4)
    for sequence in (0, 3):
        await settle(ledger, job, sequence, one_failed(2, sequence), State.FROZEN)
    assert await ledger.settlements(job, [3, 0, 2, 9]) == {3: one_failed(2, 3), 0: one_failed(2, 0)}
    assert await ledger.settlements(job, []) == {}


@pytest.mark.parametrize("state", State)
async def test_nothing_leaves_settled(ledger, state):
    job = await frozen(ledger)
    await settle(ledger, job, 0, Settlement(ids(2)), State.FROZEN)
    with pytest.raises(LedgerError, match=f"the step from settled to {state}"):
        await ledger.move(job, Submission(0, state), expected=State.SETTLED)
    with pytest.raises(LedgerError, match="the step from settled to settled does not exist"):
        await settle(ledger, job, 0, Settlement(ids(2, 1)), State.SETTLED)
    assert await ledger.settlement(job, 0) == Settlement(ids(2))


async def test_a_step_from_another_state_is_refused(ledger):
    job = await frozen(ledger)
    with pytest.raises(
        LedgerError, match=r"job 'j', batch 0: the step from staged to releasing .* it is in state frozen"
    ):
        await ledger.move(job, Submission(0, State.RELEASING), expected=State.STAGED)
    assert (await submission(ledger, job, 0)).state is State.FROZEN


async def test_a_step_of_an_unknown_batch_is_refused(ledger):
    job = await frozen(ledger)
    with pytest.raises(LedgerError, match=r"job 'j', batch 7: .* there is no such batch"):
        await ledger.move(job, Submission(7, State.STAGING), expected=State.FROZEN)


async def test_what_is_given_up_by_staging_again_is_an_orphan(ledger):
    job = await frozen(ledger, batches=2)
    assert await ledger.orphans(job) == []
    for sequence, remote_id in [(1, "b"), (0, "a")]:
        await bring(ledger, job, sequence, State.STAGED, remote_id)
        await ledger.move(job, Submission(sequence, State.STAGING), expected=State.STAGED)
    assert await ledger.orphans(job) == ["a", "b"]
    assert (await submission(ledger, job, 0)).remote_id is None
    await ledger.move(job, Submission(0, State.STAGED, "c"), expected=State.STAGING)
    await ledger.move(job, Submission(0, State.STAGING), expected=State.STAGED)
    assert sorted(await ledger.orphans(job)) == ["a", "b", "c"]
    await ledger.move(job, Submission(0, State.STAGED, "c"), expected=State.STAGING)
    await ledger.move(job, Submission(0, State.STAGING), expected=State.STAGED)
    assert sorted(await ledger.orphans(job)) == ["a", "b", "c"]


async def test_what_is_kept_while_staging_again_is_no_orphan(ledger):
    job = await frozen(ledger)
    await bring(ledger, job, 0, State.STAGED, "a")
    await ledger.move(job, Submission(0, State.STAGING, "a"), expected=State.STAGED)
    assert await ledger.orphans(job) == []


async def test_a_refused_step_makes_no_orphan(ledger):
    job = await frozen(ledger)
    await bring(ledger, job, 0, State.STAGED, "a")
    with pytest.raises(LedgerError):
        await ledger.move(job, Submission(0, State.STAGING), expected=State.FROZEN)
    assert await ledger.orphans(job) == []


# Settling


@pytest.mark.parametrize("before", [state for state in ROADS if State.SETTLED in TRANSITIONS[state]])
async def test_a_batch_settles_with_the_fate_of_its_records(ledger, clock, before):
    job = await frozen(ledger, records=3)
    await bring(ledger, job, 0, before)
    assert await ledger.settlement(job, 0) is None
    clock.time = 3_000.0
    await ledger.settle(job, Submission(0, State.SETTLED, "r", note="done"), one_failed(3), expected=before)
    assert await ledger.settlement(job, 0) == one_failed(3)
    assert await submission(ledger, job, 0) == Submission(0, State.SETTLED, "r", 3_000.0, "done")


@pytest.mark.parametrize(
    ("settlement", "words"),
    [
        (Settlement(ids(1)), "2 records went up, but 1 are to be settled"),
        (Settlement(ids(3)), "2 records went up, but 3 are to be settled"),
        (Settlement(["a", None]), "position 1 must have either"),
        (Settlement(["a", "b"], {1: "no"}), "position 1 must have either"),
        (Settlement(["a", "b"], {2: "no"}), "position 2 must have either"),
        (Settlement(["a", None], {0: "no"}), "position 0 must have either"),
        (Settlement(["a", "b"], uncertain={1: "lost"}), "position 1 must have either"),
        (Settlement(["a", None], {1: "no"}, uncertain={1: "lost"}), "position 1 must have either"),
        (Settlement(["a", "b"], {0: "no"}, uncertain={0: "lost"}), "position 0 must have either"),
        (Settlement(["a", "b"], uncertain={2: "lost"}), "position 2 must have either"),
    ],
)
async def test_a_settlement_that_does_not_fit_is_refused(ledger, settlement, words):
    job = await frozen(ledger)
    await bring(ledger, job, 0, State.RELEASED)
    with pytest.raises(LedgerError, match=f"job 'j', batch 0: .*{words}"):
        await settle(ledger, job, 0, settlement)
    assert (await submission(ledger, job, 0)).state is State.RELEASED
    assert await ledger.settlement(job, 0) is None
    assert (await ledger.tally(job)).created == 0


async def test_a_settlement_may_leave_records_uncertain_and_the_others_keep_their_fate(ledger):
    job = await frozen(ledger, records=3)
    await bring(ledger, job, 0, State.RELEASED)
    await settle(ledger, job, 0, one_of_each())
    assert (await submission(ledger, job, 0)).state is State.SETTLED
    assert await ledger.settlement(job, 0) == one_of_each()
    assert await ledger.tally(job) == Tally(3, 1, created=1, failed=1, uncertain=1, states={"settled": 1})
    assert await ledger.stored_fates(job, 0) == Kept(1, 1, 1, one_of_each())


async def test_created_records_whose_ids_are_not_proven_are_counted(ledger):
    job = await frozen(ledger, records=3)
    await bring(ledger, job, 0, State.RELEASED)
    details = {0: {"id_proven": False}, 1: {"status": "RUNNING", "id_proven": False}, 2: {"status": "DRAFT"}}
    assert await ledger.count_unproven(job) == 0
    await settle(ledger, job, 0, Settlement(ids(3), details=details))
    assert await ledger.count_unproven(job) == 2


async def test_a_name_that_another_batch_of_the_job_has_is_refused_where_it_must_be_unique(ledger):
    job = await frozen(ledger, batches=3)
    await bring(ledger, job, 0, State.STAGED)
    await bring(ledger, job, 1, State.STAGING)
    await ledger.move(job, Submission(2, State.STAGING), expected=State.FROZEN, wait=False)
    for sequence in (1, 2):
        with pytest.raises(NameTaken, match=f"batch {sequence}: .* another batch has the name r"):
            await ledger.move(job, Submission(sequence, State.STAGED, "r"), expected=State.STAGING, unique=True)
    await ledger.move(job, Submission(1, State.STAGED, "r1"), expected=State.STAGING, unique=True)
    assert (await ledger.tally(job)).states == {"staged": 2, "staging": 1}


async def test_a_step_that_nobody_waits_for_is_written_before_the_next_one_and_seen_by_every_read(ledger):
    job = await frozen(ledger, batches=2)
    await ledger.move(job, Submission(0, State.STAGING), expected=State.FROZEN, wait=False)
    await ledger.move(job, Submission(0, State.STAGED, "a"), expected=State.STAGING)
    await ledger.move(job, Submission(0, State.STAGING), expected=State.STAGED, wait=False)
    await ledger.move(job, Submission(0, State.STAGED, "b"), expected=State.STAGING, wait=False)
    await ledger.move(job, Submission(0, State.STAGING), expected=State.STAGED, wait=False)
    assert (await submission(ledger, job, 0)).state is State.STAGING
    assert await ledger.orphans(job) == ["a", "b"]
    await ledger.written()


async def test_a_step_that_nobody_waits_for_and_that_is_refused_is_told_by_written(ledger):
    job = await frozen(ledger, batches=3)
    await ledger.move(job, Submission(0, State.STAGED, "r"), expected=State.STAGING, wait=False)
    await ledger.move(job, Submission(1, State.STAGING), expected=State.FROZEN)
    with pytest.raises(LedgerError, match="it is in state frozen"):
        await ledger.move(job, Submission(0, State.RELEASING), expected=State.STAGED)
    for _ in range(2):
        with pytest.raises(LedgerError, match="batch 0: the step from staging to staged cannot be taken"):
            await ledger.written()
    assert (await ledger.tally(job)).states == {"frozen": 2, "staging": 1}  # it can be read all the same


async def test_when_a_batch_was_settled_last_is_known(ledger):
    job = await frozen(ledger, records=3)
    assert await ledger.last_settled_at(job) == 0
    await bring(ledger, job, 0, State.RELEASED)
    await settle(ledger, job, 0, Settlement(ids(3)))
    assert await ledger.last_settled_at(job) > 0


async def test_a_settlement_needs_the_expected_state(ledger):
    job = await frozen(ledger)
    with pytest.raises(LedgerError, match=r"batch 0: the step from released to settled .* it is in state frozen"):
        await settle(ledger, job, 0, Settlement(ids(2)))


async def test_move_does_not_settle_and_settle_does_nothing_else(ledger):
    job = await frozen(ledger)
    with pytest.raises(LedgerError, match="from frozen to settled needs the fate"):
        await ledger.move(job, Submission(0, State.SETTLED), expected=State.FROZEN)
    with pytest.raises(LedgerError, match="from frozen to staging does not settle"):
        await ledger.settle(job, Submission(0, State.STAGING), Settlement(ids(2)), expected=State.FROZEN)


# Reading


async def test_batches_are_read_by_state(ledger):
    job = await frozen(ledger, batches=len(ROADS))
    for sequence, state in enumerate(ROADS):
        await bring(ledger, job, sequence, state)
    for state in ROADS:
        assert [found.state for _, found in await all_batches(ledger, job, frozenset({state}))] == [state]
    assert {found.state for _, found in await all_batches(ledger, job, UNSENT)} == UNSENT
    assert await all_batches(ledger, job, frozenset()) == []


async def test_many_batches_are_read_in_order_across_pages(ledger):
    job = await frozen(ledger, batches=1_001, records=1)
    assert [batch.sequence for batch, _ in await all_batches(ledger, job)] == list(range(1_001))


async def test_batches_are_read_from_one_of_them_on(ledger):
    job = await frozen(ledger, batches=3)
    parts = await split(ledger, job, 1)
    found = [batch.sequence async for batch, _ in ledger.batches(job, after=0)]
    assert found == [*(part.sequence for part in parts), 2]
    assert [batch async for batch in ledger.batches(job, after=2)] == []


async def test_batches_may_move_while_they_are_read(ledger):
    job = await frozen(ledger, batches=450, records=1)
    seen = []
    async for batch, found in ledger.batches(job, frozenset({State.FROZEN})):
        seen.append(batch.sequence)
        await ledger.move(job, Submission(batch.sequence, State.STAGING), expected=found.state)
    assert seen == list(range(450))
    assert (await ledger.tally(job)).states == {"staging": 450}


async def test_a_batch_is_read_by_its_sequence_with_where_it_stands(ledger):
    job = await frozen(ledger, batches=3)
    await bring(ledger, job, 1, State.RELEASED, "r7")
    batch, found = await ledger.batch(job, 1)
    assert batch == a_batch(1)
    assert (found.sequence, found.state, found.remote_id) == (1, State.RELEASED, "r7")
    assert [await ledger.batch(job, sequence) for sequence in range(3)] == await all_batches(ledger, job)
    assert await ledger.batch(job, 3) is None


async def test_jobs_do_not_mix(ledger):
    for name in "ab":
        await frozen(ledger, name=name)
    await bring(ledger, "a", 0, State.STAGED, "x")
    await ledger.move("a", Submission(0, State.STAGING), expected=State.STAGED)
    await settle(ledger, "b", 0, Settlement(ids(2)), State.FROZEN)
    assert (await ledger.orphans("a"), await ledger.orphans("b")) == (["x"], [])
    assert (await ledger.tally("a")).states == {"staging": 1}
    assert (await ledger.tally("b")).states == {"settled": 1}
    assert await ledger.settlement("a", 0) is None


async def test_the_tally_has_every_fate(ledger):
    await ledger.create_job(a_job())
    batches = [a_batch(sequence, 4, rejected=1) for sequence in range(6)]
    await ledger.freeze("j", batches, [a_reject(5 * sequence) for sequence in range(6)], last=True)
    await bring(ledger, "j", 1, State.UNCERTAIN)
    await bring(ledger, "j", 2, State.RELEASED)
    await settle(ledger, "j", 3, Settlement(ids(4)), State.FROZEN)
    await settle(ledger, "j", 4, one_failed(4), State.FROZEN)
    await settle(ledger, "j", 5, Settlement([*ids(2, 5), None, None], uncertain={2: "lost", 3: "lost"}), State.FROZEN)
    tally = await ledger.tally("j")
    states = {"frozen": 1, "uncertain": 1, "released": 1, "settled": 3}
    assert tally == Tally(30, 6, created=9, failed=1, rejected=6, uncertain=6, states=states)
    assert tally.unresolved == 8


async def test_settled_batches_of_which_a_record_was_not_created_are_found_again(ledger):
    job = await frozen(ledger, batches=450, records=3)
    partly = {sequence: one_of_each(sequence) for sequence in (0, 7, *range(100, 400))} | {8: one_failed(3, 8)}
    for sequence, settlement in {**partly, 9: Settlement(ids(3, 9))}.items():
        await settle(ledger, job, sequence, settlement, State.FROZEN)
    await bring(ledger, job, 10, State.UNCERTAIN)
    found = [pair async for pair in ledger.partly_created(job)]
    assert {batch.sequence: settlement for batch, settlement in found} == partly
    assert found[1][0] == (await all_batches(ledger, job))[7][0]
    await frozen(ledger, name="k")
    assert [pair async for pair in ledger.partly_created("k")] == []


async def test_what_is_not_settled_keeps_no_fate(ledger):
    job = await frozen(ledger)
    await bring(ledger, job, 0, State.UNCERTAIN)
    assert await ledger.stored_fates(job, 0) == Kept()


# Holding and closing


async def test_a_job_is_held_once(ledger):
    await ledger.create_job(a_job())
    assert not ledger.is_locked("j")
    with ledger.lock("j"):
        assert ledger.is_locked("j")
        assert not ledger.is_locked("k")
        with pytest.raises(JobLocked), ledger.lock("j"):
            pass
        assert ledger.is_locked("j")
    assert not ledger.is_locked("j")
    with ledger.lock("j"):
        pass


async def test_what_was_awaited_is_there_after_opening_again(opened):
    async with opened() as ledger:
        job = await frozen(ledger, batches=2)
        await bring(ledger, job, 0, State.RELEASED)
        await settle(ledger, job, 0, one_failed(2))
        before = (await ledger.job(job), await all_batches(ledger, job), await ledger.tally(job))
    async with opened() as ledger:
        assert (await ledger.job(job), await all_batches(ledger, job), await ledger.tally(job)) == before
        assert await ledger.settlement(job, 0) == one_failed(2)


async def test_a_closed_ledger_says_so(opened):
    async with opened() as ledger:
        job = await frozen(ledger)
    await ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        await ledger.set_job_state(job, JobState.FINISHED)
    with pytest.raises(LedgerError, match="is closed"):
        await ledger.tally(job)


def test_it_has_every_method_of_its_own():
    methods = {name for name in vars(Ledger) if not name.startswith("_")}
    for kind in (SqliteLedger,):
        own = {name for one in kind.mro() if one not in {Ledger, *Ledger.mro()} for name in vars(one)}
        assert methods <= own


# Parts


async def halves_of(ledger, job, batch, rejected=0):
    """Split a batch of the ledger after its first record and the rejects before the second; return the parts."""
    first, second = part_sequences(batch.sequence)
    border = replace(batch.end, offset=batch.end.offset - RECORD_BYTES, index=batch.end.index - 1)
    offsets, lengths = decode_spans(batch.start.offset, batch.spans)
    parts = (
        replace(batch, sequence=first, end=border, count=batch.count - 1),
        replace(batch, sequence=second, start=border, count=1),
    )
    spans = (
        encode_spans(batch.start.offset, offsets[:-1], lengths[:-1]),
        encode_spans(border.offset, offsets[-1:], lengths[-1:]),
    )
    return tuple(replace(part, spans=packed) for part, packed in zip(parts, spans, strict=True))


async def split(ledger, job, sequence):
    """Bring a batch to RELEASING and split it; return the parts."""
    batch = next(batch for batch, _ in await all_batches(ledger, job) if batch.sequence == sequence)
    await ledger.move(job, Submission(sequence, State.RELEASING), expected=State.FROZEN)
    parts = await halves_of(ledger, job, batch)
    await ledger.split(job, Submission(sequence, State.SPLIT, note="too large"), parts, expected=State.RELEASING)
    return parts


async def test_parts_stand_in_the_place_of_what_is_split(ledger):
    job = await frozen(ledger, batches=3, records=4)
    first, second = await split(ledger, job, 1)
    third, fourth = await split(ledger, job, first.sequence)
    found = await all_batches(ledger, job)
    assert [batch.sequence for batch, _ in found] == [0, third.sequence, fourth.sequence, second.sequence, 2]
    assert [batch for batch, _ in found][1:4] == [third, fourth, second]
    assert {part.state for _, part in found} == {State.FROZEN}
    assert [batch.start.index for batch, _ in found] == [0, 4, 6, 7, 8]
    assert (await ledger.last_batch(job)).sequence == 2


async def test_parts_are_found_by_their_states(ledger):
    job = await frozen(ledger, batches=2, records=3)
    _, second = await split(ledger, job, 0)
    await ledger.move(job, Submission(second.sequence, State.STAGING), expected=State.FROZEN)
    assert [batch.sequence for batch, _ in await all_batches(ledger, job, frozenset({State.STAGING}))] == [
        second.sequence
    ]
    assert await all_batches(ledger, job, frozenset({State.SPLIT})) == []


async def test_what_is_split_and_its_parts_are_read_by_their_sequences(ledger):
    job = await frozen(ledger, batches=2)
    parts = await split(ledger, job, 1)
    assert [(await ledger.batch(job, part.sequence))[0] for part in parts] == list(parts)
    whole, found = await ledger.batch(job, 1)
    assert (whole.sequence, found.state) == (1, State.SPLIT)


async def test_that_a_release_may_have_arrived_is_kept_and_passed_on_to_parts(ledger):
    job = await frozen(ledger, batches=1, records=4)
    assert (await submission(ledger, job, 0)).sent_at is None
    await ledger.move(job, Submission(0, State.RELEASING, sent_at=7.5), expected=State.FROZEN)
    assert (await submission(ledger, job, 0)).sent_at == 7.5
    assert not await ledger.may_have_arrived(job), "it is under way, and nobody takes it for unsent"
    whole, _ = await ledger.batch(job, 0)
    parts = await halves_of(ledger, job, whole)
    await ledger.split(job, Submission(0, State.SPLIT, sent_at=7.5), parts, expected=State.RELEASING)
    assert [found.sent_at for _, found in await all_batches(ledger, job)] == [7.5, 7.5]
    assert len(parts) == 2
    assert await ledger.may_have_arrived(job)


async def test_a_split_batch_is_counted_by_its_parts(ledger):
    job = await frozen(ledger, batches=2, records=3)
    first, second = await split(ledger, job, 0)
    await settle(ledger, job, first.sequence, Settlement(ids(2)), State.FROZEN)
    await settle(ledger, job, second.sequence, one_failed(1), State.FROZEN)
    assert await ledger.tally(job) == Tally(6, 3, created=2, failed=1, states={"frozen": 1, "settled": 2})
    assert await ledger.settlement(job, first.sequence) == Settlement(ids(2))


async def test_reading_goes_on_behind_the_last_batch_whatever_was_split(ledger):
    await ledger.create_job(a_job())
    await ledger.freeze("j", [a_batch(0)], [], last=False)
    await split(ledger, "j", 0)
    await ledger.freeze("j", [a_batch(1)], [], last=True)
    assert len(await all_batches(ledger, "j")) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        lambda first, second: (second, first),
        lambda first, second: (first, replace(second, count=2)),
        lambda first, second: (replace(first, sequence=5), second),
        lambda first, second: (first, replace(second, end=replace(second.end, offset=0))),
        lambda first, second: (replace(first, start=replace(first.start, index=1)), second),
        lambda first, second: (replace(first, end=replace(first.end, index=2)), second),
        lambda first, second: (replace(first, count=0), replace(second, count=4)),
    ],
)
async def test_parts_cover_exactly_what_the_batch_covers(ledger, wrong):
    job = await frozen(ledger, records=4)
    ((batch, _),) = await all_batches(ledger, job)
    await bring(ledger, job, 0, State.RELEASING)
    parts = wrong(*await halves_of(ledger, job, batch))
    with pytest.raises(LedgerError, match="its halves do not cover it"):
        await ledger.split(job, Submission(0, State.SPLIT), parts, expected=State.RELEASING)
    assert [state.state for _, state in await all_batches(ledger, job)] == [State.RELEASING]


async def test_only_a_split_splits_and_a_split_needs_parts(ledger):
    job = await frozen(ledger, records=4)
    ((batch, _),) = await all_batches(ledger, job)
    parts = await halves_of(ledger, job, batch)
    with pytest.raises(LedgerError, match="does not split it"):
        await ledger.split(job, Submission(0, State.STAGING), parts, expected=State.FROZEN)
    with pytest.raises(LedgerError, match="the step from staging to split does not exist"):
        await ledger.split(job, Submission(0, State.SPLIT), parts, expected=State.STAGING)
    await bring(ledger, job, 0, State.STAGED)
    with pytest.raises(LedgerError, match="needs halves"):
        await ledger.move(job, Submission(0, State.SPLIT), expected=State.STAGED)


async def test_what_was_never_sent_leaves_no_orphan_when_it_is_split(ledger):
    job = await frozen(ledger, records=4)
    ((batch, _),) = await all_batches(ledger, job)
    await ledger.split(job, Submission(0, State.SPLIT), await halves_of(ledger, job, batch), expected=State.FROZEN)
    assert [state.state for _, state in await all_batches(ledger, job)] == [State.FROZEN] * 2
    assert await ledger.orphans(job) == []


async def test_what_a_service_told_is_remembered(ledger):
    await ledger.create_job(a_job())
    await ledger.set_learnt("j", "marked")
    assert (await ledger.job("j")).learnt == "marked"


async def test_the_slowest_start_of_a_job_is_kept(ledger):
    for name in "jk":
        await ledger.create_job(a_job(name))
    assert (await ledger.job("j")).slowest_start == 0
    kept = []
    for seconds in (0.25, 31.5, 2.0):
        await ledger.note_slowest_start("j", seconds)
        kept.append((await ledger.job("j")).slowest_start)
    assert kept == [0.25, 31.5, 31.5]
    assert (await ledger.job("k")).slowest_start == 0


async def test_lost_stages_are_counted_for_each_job(ledger):
    for name in "jk":
        await ledger.create_job(a_job(name))
    for _ in range(3):
        await ledger.note_lost_stage("j")
    assert [(await ledger.job(name)).lost_stages for name in "jk"] == [3, 0]


async def test_what_became_of_tasks_afterwards_is_kept_replaced_and_forgotten_record_by_record(ledger):
    for name in "jk":
        await ledger.create_job(a_job(name))
    failed, undone = LaterFate("failed", "out of memory", 5.0), LaterFate("undone", "", 7.0)
    await ledger.note_later("j", {3: failed, 4: failed, 9: undone})
    await ledger.note_later("j", {4: None, 3: undone})
    assert await ledger.later_fates("j", 0, 9) == {3: undone}
    assert await ledger.count_later("j") == {"undone": 2}
    assert await ledger.last_later_at("j") == 7.0
    assert (await ledger.count_later("k"), await ledger.last_later_at("k")) == ({}, 0)


async def test_tasks_that_had_failed_when_their_records_were_settled_are_counted_as_well(ledger):
    job = await frozen(ledger, records=2)
    await bring(ledger, job, 0, State.RELEASED)
    details = {1: {"status": "FAILED", "later": "failed"}}
    settlement = Settlement(["a", "b"], details=details)
    await ledger.settle(job, Submission(0, State.SETTLED, "r"), settlement, expected=State.RELEASED)
    assert await ledger.count_later(job) == {"failed": 1}


# Removing


async def removed(ledger, name="j"):
    """Remove a job; return in how many transactions."""
    await ledger.set_job_state(name, JobState.REMOVED)
    times = 1
    while not await ledger.remove(name):
        times += 1
    return times


async def test_a_job_is_removed_with_all_that_hangs_on_it_and_no_other_one(ledger):
    await frozen(ledger, name="other")
    await ledger.create_job(a_job())
    await ledger.freeze("j", [a_batch(0), a_batch(1, rejected=1, at=2)], [a_reject(2)], last=True)
    await bring(ledger, "j", 0, State.RELEASED)
    await settle(ledger, "j", 0, Settlement(ids(2)))
    assert await removed(ledger) > 1
    assert [job.name for job in await ledger.jobs()] == ["other"]
    assert await all_batches(ledger, "other")
    assert not await ledger.inconsistent_rows("other")
    with pytest.raises(JobError, match="there is no job 'j'"):
        await ledger.remove("j")


async def test_only_a_job_that_is_called_removed_is_removed(ledger):
    await ledger.create_job(a_job())
    with pytest.raises(LedgerError, match="is not in state removed"):
        await ledger.remove("j")
    assert (await ledger.job("j")).state is JobState.OPEN


async def test_a_half_removed_job_is_no_job_any_more_but_for_the_list(ledger):
    await ledger.create_job(a_job())
    await ledger.set_job_state("j", JobState.REMOVED)
    with pytest.raises(JobError, match="'j' is being removed"):
        await ledger.job("j")
    assert [job.state for job in await ledger.jobs()] == [JobState.REMOVED]


async def test_its_last_step_is_the_newest_of_the_job_and_its_batches(ledger, clock):
    await ledger.create_job(a_job(created_at=5.0))
    assert await ledger.last_step_at("j") == 5.0
    await ledger.freeze("j", [a_batch(0)], [], last=True)
    clock.time += 10
    await ledger.move("j", Submission(0, State.RELEASING), expected=State.FROZEN)
    assert await ledger.last_step_at("j") == max(found.changed_at for _, found in await all_batches(ledger, "j"))


async def test_what_is_empty_of_the_store_is_counted(ledger):
    await ledger.create_job(a_job())
    await ledger.freeze("j", [a_batch(sequence, 50) for sequence in range(100)], [], last=True)
    before = await ledger.free_bytes()
    await removed(ledger)
    assert await ledger.free_bytes() > before


# Shards: what several processes send together


A, B = (LeaseTerms(worker, 60.0, 20.0) for worker in "AB")
"""How two workers have their leases."""


def brief(terms):
    """Return terms by which a lease has ended as soon as it is taken."""
    return replace(terms, seconds=0.0)


@pytest.fixture(params=SHARING)
def sharing(request, path, clock):
    """Open the same ledger as a process that shares jobs, again and again."""
    return lambda: SHARING[request.param](path, clock)


@pytest.fixture
async def ours(sharing):
    async with sharing() as ledger:
        yield ledger


@pytest.fixture
async def theirs(sharing, ours):
    """The same ledger, as another process has it."""
    async with sharing() as ledger:
        yield ledger


async def shard_lines(ledger):
    return [f"{shard.first}-{shard.last} {shard.state} {shard.holder}".strip() for shard in await ledger.shards("j")]


async def to_staging(ledger, sequence):
    await ledger.move("j", Submission(sequence, State.STAGING), expected=State.FROZEN)


async def settle_all(ledger, *sequences):
    for sequence in sequences:
        await bring(ledger, "j", sequence, State.RELEASED, f"r{sequence}")
        await settle(ledger, "j", sequence, Settlement(ids(2, sequence)))


async def test_what_is_frozen_becomes_shards(ours):
    await frozen(ours, SHARD_BATCHES + 3)
    last = SHARD_BATCHES - 1
    assert await shard_lines(ours) == [f"0-{last} open", f"{last + 1}-{last + 3} open"]
    assert (await ours.shards("j"))[0].token == 0


async def test_a_batch_of_one_process_alone_is_in_no_shard_until_the_job_is_shared(opened, sharing):
    async with opened() as alone:
        await frozen(alone, 3)
        assert await alone.shards("j") == []
        await bring(alone, "j", 0, State.RELEASED)
    async with sharing() as shared:
        await shared.open_shards("j")
        await shared.open_shards("j")
        assert await shard_lines(shared) == ["0-2 open"]


async def test_shards_are_taken_in_their_order_and_by_one_worker_each(ours, theirs):
    await frozen(ours, 3 * SHARD_BATCHES)
    first, *_ = await ours.take_shards("j", A, 1)
    second, third = await theirs.take_shards("j", B, 5)
    assert [first.first, second.first, third.first] == [0, SHARD_BATCHES, 2 * SHARD_BATCHES]
    assert (first.token, first.holder, second.holder) == (1, "A", "B")
    assert await ours.take_shards("j", A, 1) == []


async def test_two_workers_that_take_at_once_get_different_shards(ours, theirs):
    await frozen(ours, 4 * SHARD_BATCHES)
    taken = await asyncio.gather(*(who.take_shards("j", terms, 2) for who, terms in ((ours, A), (theirs, B))))
    assert sorted(shard.first // SHARD_BATCHES for shards in taken for shard in shards) == [0, 1, 2, 3]


async def test_what_a_worker_has_lost_another_one_takes_with_the_next_token(ours, theirs):
    await frozen(ours)
    await ours.take_shards("j", brief(A), 1)
    (taken,) = await theirs.take_shards("j", B, 1)
    assert (taken.token, taken.holder, taken.losses, taken.lost.split()) == (2, "B", 1, ["A"])


async def test_who_does_not_take_over_takes_only_what_nobody_has(ours, theirs):
    await frozen(ours, 2 * SHARD_BATCHES)
    await ours.take_shards("j", brief(A), 1)
    assert [shard.first for shard in await theirs.take_shards("j", B, 2, over=False)] == [SHARD_BATCHES]
    assert [shard.first for shard in await theirs.take_shards("j", B, 2)] == [0]


async def test_a_worker_renews_what_has_ended_and_nobody_took_and_never_takes_it_anew(ours):
    await frozen(ours)
    await ours.take_shards("j", brief(A), 1)
    assert await ours.take_shards("j", A, 1) == []
    await ours.renew_shards("j", A)
    await to_staging(ours, 0)
    assert [(shard.token, shard.losses) for shard in await ours.shards("j")] == [(1, 0)]


async def test_what_was_had_by_others_meanwhile_is_not_taken_for_what_it_was(ours, theirs):
    await frozen(ours)
    await ours.take_shards("j", brief(A), 1)
    await theirs.take_shards("j", B, 1)
    await theirs.give_back_shards("j", B, left=False)
    with pytest.raises(LeaseLost):
        await ours.take_shards("j", A, 1)


async def test_a_renewal_tells_that_another_worker_has_taken_over(ours, theirs):
    await frozen(ours, 2 * SHARD_BATCHES)
    await ours.take_shards("j", A, 1)
    await ours.take_shards("j", brief(A), 1)
    await theirs.take_shards("j", B, 1)
    with pytest.raises(LeaseLost, match=f"shard from batch {SHARD_BATCHES} on"):
        await ours.renew_shards("j", A)


async def test_two_renewals_at_once_of_which_the_first_ends_a_shard_find_nothing_lost(ours):
    await frozen(ours)
    await ours.take_shards("j", A, 1)
    await settle_all(ours, 0)
    await asyncio.gather(*(ours.renew_shards("j", A) for _ in range(3)))
    assert await shard_lines(ours) == ["0-0 done"]


async def test_a_shard_ends_once_every_record_of_it_is_settled(ours):
    await frozen(ours, 2)
    await ours.take_shards("j", A, 1)
    await settle_all(ours, 0)
    await ours.renew_shards("j", A)
    assert await shard_lines(ours) == ["0-1 open A"]
    await settle_all(ours, 1)
    await ours.renew_shards("j", A)
    assert await shard_lines(ours) == ["0-1 done"]


async def test_parts_belong_to_the_shard_of_their_batch(ours):
    await frozen(ours, 1, records=3)
    await ours.take_shards("j", A, 1)
    parts = await split(ours, "j", 0)
    for part in parts:
        await ours.renew_shards("j", A)
        assert await shard_lines(ours) == ["0-0 open A"]
        await bring(ours, "j", part.sequence, State.RELEASED, f"r{part.sequence}")
        await settle(ours, "j", part.sequence, Settlement(ids(part.count, part.sequence)))
    await ours.renew_shards("j", A)
    assert await shard_lines(ours) == ["0-0 done"]


async def test_a_shard_of_which_only_lost_answers_are_left_settles(ours, theirs):
    await frozen(ours, 2)
    await ours.take_shards("j", A, 1)
    await settle_all(ours, 0)
    await bring(ours, "j", 1, State.UNCERTAIN)
    assert await theirs.count_shards("j", "B") == ShardCounts(0, 1, 0)
    await ours.renew_shards("j", A)
    assert await shard_lines(ours) == ["0-1 settling A"]
    assert await theirs.count_shards("j", "B") == ShardCounts(0, 0, 1)


async def test_shards_are_counted_as_a_worker_sees_them(ours, theirs):
    await frozen(ours, 4 * SHARD_BATCHES)
    await ours.take_shards("j", A, 1)
    await ours.take_shards("j", brief(A), 1)
    assert await theirs.count_shards("j", "B") == ShardCounts(3, 1, 0)
    await theirs.take_shards("j", B, 3)
    assert await theirs.count_shards("j", "B") == ShardCounts(0, 1, 0)


@pytest.mark.parametrize(("left", "taken"), [(False, 1), (True, 0)])
async def test_what_is_given_back_is_for_others_at_once_or_for_the_next_run(ours, theirs, left, taken):
    await frozen(ours)
    await ours.take_shards("j", A, 1)
    await ours.give_back_shards("j", A, left=left)
    assert await shard_lines(ours) == ["0-0 left" if left else "0-0 open"]
    assert len(await theirs.take_shards("j", B, 1)) == taken
    await theirs.open_shards("j")
    assert len(await theirs.take_shards("j", B, 1)) == 1 - taken


async def test_what_is_done_is_given_back_as_done(ours):
    await frozen(ours)
    await ours.take_shards("j", A, 1)
    await settle_all(ours, 0)
    await ours.give_back_shards("j", A, left=False)
    assert await shard_lines(ours) == ["0-0 done"]


async def test_only_a_worker_s_own_leases_end_when_it_goes(ours, theirs):
    await frozen(ours, 2 * SHARD_BATCHES)
    await ours.take_shards("j", A, 1)
    await theirs.take_shards("j", B, 1)
    await ours.give_back_shards("j", A, left=False)
    await to_staging(theirs, SHARD_BATCHES)


async def test_a_shard_that_many_workers_have_lost_is_parked_until_a_person_opens_it(sharing):
    async with sharing() as ledger:
        await frozen(ledger)
    for number in range(MOST_LOST_WORKERS):
        async with sharing() as ledger:
            assert len(await ledger.take_shards("j", LeaseTerms(f"W{number}", 0.0, 0.0), 1)) == 1
    async with sharing() as ledger:
        assert await ledger.take_shards("j", A, 1) == []
        (shard,) = await ledger.shards("j")
        assert (shard.state, shard.holder, shard.losses) == (ShardState.PARKED, "", MOST_LOST_WORKERS)
        assert shard.lost.split() == ["W0", "W1", "W2"]
        assert await ledger.count_shards("j", "A") == ShardCounts(0, 0, 0)
        await ledger.open_shards("j")
        assert await ledger.take_shards("j", A, 1) == []
        await ledger.open_shards("j", parked=True)
        (opened_again,) = await ledger.take_shards("j", A, 1)
        assert (opened_again.losses, opened_again.lost) == (0, "")


async def test_what_is_given_back_is_not_lost(sharing):
    async with sharing() as ledger:
        await frozen(ledger)
        for number in range(MOST_LOST_WORKERS + 1):
            worker = LeaseTerms(f"W{number}", 60.0, 20.0)
            (shard,) = await ledger.take_shards("j", worker, 1)
            assert shard.losses == 0
            await ledger.give_back_shards("j", worker, left=False)


REFUSED_STEPS = {
    "move": to_staging,
    "settle": lambda ledger, sequence: settle(ledger, "j", sequence, Settlement(ids(2)), State.FROZEN),
}


async def unchanged(ledger, sequence=0):
    found = await ledger.batch("j", sequence)
    return found[1].state is State.FROZEN and await ledger.settlement("j", sequence) is None


@pytest.mark.parametrize("step", REFUSED_STEPS.values(), ids=REFUSED_STEPS)
async def test_a_step_under_a_lease_that_was_taken_over_is_refused_and_the_other_s_is_written(ours, theirs, step):
    await frozen(ours)
    await ours.take_shards("j", brief(A), 1)
    await theirs.take_shards("j", B, 1)
    with pytest.raises(LeaseLost, match="shard from batch 0 on has ended"):
        await step(ours, 0)
    assert await unchanged(theirs)
    await to_staging(theirs, 0)


async def test_a_lease_that_is_over_is_its_worker_s_own_until_somebody_ends_it(ours, theirs):
    await frozen(ours, 2)
    await ours.take_shards("j", brief(A), 1)
    await to_staging(ours, 0)
    await ours.renew_shards("j", brief(A))
    await theirs.end_leases("j")
    assert await shard_lines(ours) == ["0-1 open"]
    assert [(shard.token, shard.losses, shard.lost.split()) for shard in await ours.shards("j")] == [(2, 1, ["A"])]
    with pytest.raises(LeaseLost):
        await to_staging(ours, 1)
    with pytest.raises(LeaseLost):
        await ours.renew_shards("j", A)


async def test_leases_that_last_are_not_ended_by_others(ours, theirs):
    await frozen(ours)
    await ours.take_shards("j", A, 1)
    await theirs.end_leases("j")
    await to_staging(ours, 0)


async def test_a_lease_that_was_given_back_is_nobody_s_own_although_nobody_took_it(ours):
    await frozen(ours)
    await ours.take_shards("j", A, 1)
    late = ours.move("j", Submission(0, State.STAGING), expected=State.FROZEN)  # it has the token already
    results = await asyncio.gather(ours.give_back_shards("j", A, left=False), late, return_exceptions=True)
    assert isinstance(results[1], LeaseLost)
    assert await unchanged(ours)


async def test_a_split_under_a_lost_lease_makes_no_parts(ours, theirs):
    await frozen(ours, records=3)
    ((batch, _),) = await all_batches(ours, "j")
    await ours.take_shards("j", brief(A), 1)
    await theirs.take_shards("j", B, 1)
    halves = await halves_of(ours, "j", batch)
    with pytest.raises(LeaseLost):
        await ours.split("j", Submission(0, State.SPLIT), halves, expected=State.FROZEN)
    assert [one.sequence for one, _ in await all_batches(theirs, "j")] == [0]


async def test_of_steps_written_together_only_those_of_the_lost_shard_are_refused(ours, theirs):
    await frozen(ours, 2 * SHARD_BATCHES)
    await ours.take_shards("j", A, 1)
    await ours.take_shards("j", brief(A), 1)
    await theirs.take_shards("j", B, 1)
    steps = [to_staging(ours, sequence) for sequence in (0, SHARD_BATCHES, 1)]
    results = await asyncio.gather(*steps, return_exceptions=True)
    assert [isinstance(result, LeaseLost) for result in results] == [False, True, False]
    states = [at.state for _, at in await all_batches(theirs, "j")]
    assert [states[sequence] for sequence in (0, 1, SHARD_BATCHES)] == [State.STAGING, State.STAGING, State.FROZEN]


async def test_a_worker_steps_in_no_shard_but_its_own(ours):
    await frozen(ours, 2 * SHARD_BATCHES)
    await ours.take_shards("j", A, 1)
    with pytest.raises(LeaseLost):
        await to_staging(ours, SHARD_BATCHES)
    assert await unchanged(ours, SHARD_BATCHES)


async def test_a_step_without_a_lease_is_refused_while_a_worker_has_the_shard(ours, theirs):
    await frozen(ours)
    await theirs.take_shards("j", B, 1)
    with pytest.raises(LeaseLost, match="worker B has batch 0; stop it first"):
        await to_staging(ours, 0)
    await theirs.give_back_shards("j", B, left=False)
    await to_staging(ours, 0)


async def test_a_step_without_a_lease_ends_the_one_of_a_worker_that_is_over(ours, theirs):
    await frozen(ours, 2)
    await theirs.take_shards("j", brief(B), 1)
    await to_staging(ours, 0)
    with pytest.raises(LeaseLost):
        await to_staging(theirs, 1)
    with pytest.raises(LeaseLost):
        await theirs.renew_shards("j", B)


async def test_a_refusal_for_a_lost_lease_is_told_until_the_leases_are_given_back(ours, theirs):
    await frozen(ours)
    await ours.take_shards("j", brief(A), 1)
    await theirs.take_shards("j", B, 1)
    await ours.move("j", Submission(0, State.STAGING), expected=State.FROZEN, wait=False)
    for _ in range(2):
        with pytest.raises(LeaseLost):
            await ours.written()
    await ours.give_back_shards("j", A, left=False)
    await ours.written()
    assert await shard_lines(ours) == ["0-0 open B"]


async def test_a_step_after_one_that_was_refused_for_a_lost_lease_is_refused_for_it_too(ours, theirs):
    await frozen(ours)
    await ours.take_shards("j", brief(A), 1)
    await theirs.end_leases("j")
    await ours.move("j", Submission(0, State.STAGING), expected=State.FROZEN, wait=False)
    with pytest.raises(LeaseLost):
        await ours.move("j", Submission(0, State.STAGED, "r"), expected=State.STAGING)


async def test_a_call_is_refused_that_could_end_after_the_lease_by_this_process_s_clock(ours, clock):
    await frozen(ours, 2 * SHARD_BATCHES)
    ours.check_lease("j", 0)  # nobody shares it here
    await ours.take_shards("j", A, 1)
    await clock.sleep(A.seconds - A.call_seconds)
    ours.check_lease("j", 0)
    await ours.take_shards("j", A, 1)  # a new lease makes no older one longer
    await clock.sleep(0.5)
    with pytest.raises(LeaseLost):
        ours.check_lease("j", 0)
    await ours.renew_shards("j", A)
    ours.check_lease("j", 0)


async def test_what_was_asked_before_a_lease_was_taken_renews_it_not(ours, clock):
    await frozen(ours)
    await asyncio.gather(ours.renew_shards("j", A), ours.take_shards("j", A, 1))
    await clock.sleep(A.seconds)
    with pytest.raises(LeaseLost):
        ours.check_lease("j", 0)


async def test_workers_are_known_from_their_first_renewal_until_they_go(ours, theirs, clock):
    await frozen(ours)
    await ours.renew_shards("j", A)
    await clock.sleep(5)
    await theirs.renew_shards("j", B)
    await ours.renew_shards("j", A)
    first, second = await ours.workers("j")
    assert (first.name, second.name) == ("A", "B")
    assert first.begun_at < second.begun_at <= first.seen_at
    await ours.give_back_shards("j", A, left=False)
    assert [worker.name for worker in await ours.workers("j")] == ["B"]


async def test_of_a_worker_is_known_how_long_it_is_silent_and_until_when_it_has_its_shards(ours, theirs, clock):
    await frozen(ours, 2 * SHARD_BATCHES)
    await ours.take_shards("j", A, 1)
    await ours.renew_shards("j", A)
    await theirs.renew_shards("j", B)
    first, second = await theirs.workers("j")
    assert first.silent_seconds == pytest.approx(0, abs=5)
    assert first.lease_seconds == pytest.approx(A.seconds, abs=5)
    assert second.lease_seconds is None
    assert not first.is_missed
    assert replace(first, silent_seconds=MISSED_SECONDS + 1).is_missed
    assert not replace(second, silent_seconds=MISSED_SECONDS + 1).is_missed, "nobody waits for what it has"


async def test_a_worker_that_is_silent_for_longer_than_a_lease_is_forgotten_once_it_has_no_shard(ours, theirs, clock):
    await frozen(ours)
    await ours.take_shards("j", A, 1)
    await ours.renew_shards("j", A)
    await clock.sleep(A.seconds + 1)
    await theirs.renew_shards("j", B)
    assert [worker.name for worker in await theirs.workers("j")] == ["A", "B"]
    await theirs.take_shards("j", B, 1)
    await theirs.renew_shards("j", B)
    assert [worker.name for worker in await theirs.workers("j")] == ["B"]


async def test_a_budget_is_changed_by_one_after_the_other(ours, theirs):
    seen = []

    def add(text, now):
        seen.append(text)
        return str(int(text or 0) + 1)

    await asyncio.gather(*(who.revise("limits", add) for who in [ours, theirs] * 10))
    assert sorted(seen[1:], key=int) == [str(number) for number in range(1, 20)]
    assert seen[0] is None


async def test_a_change_of_a_budget_that_fails_leaves_it(ours):
    def fail(text, now):
        raise LedgerError("no")

    await ours.revise("limits", lambda text, now: "1")
    with pytest.raises(LedgerError):
        await ours.revise("limits", fail)
    await ours.revise("limits", lambda text, now: text + "2")
    seen = []
    await ours.revise("limits", lambda text, now: seen.append(text) or text)
    assert seen == ["12"]
