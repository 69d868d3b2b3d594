import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager
from functools import partial

import orjson
import pytest
from fakes import bench as benches
from fakes.bench import write_records
from fakes.clock import under_way, until
from fakes.service import Fault, Killed, killed, lost, refused, unauthorized, unavailable

from engine.adaptive.concurrency import LimitChanged
from engine.adaptive.settle_time import SETTLE_SECONDS
from engine.ledger.writer import Hooks
from engine.model.batch import ROOTS, Limits
from engine.model.doubt import MOST_SILENT
from engine.model.error_hints import Blame
from engine.model.errors import (
    BulkSubmitError,
    Interrupted,
    LedgerError,
    Refused,
    SourceChanged,
    SourceError,
    StillWaiting,
    StrictRejects,
    Unauthorized,
    Unavailable,
)
from engine.model.job import JobState
from engine.model.submission import UNSENT, State, Submission
from engine.progress.events import BatchesFrozen, Stopping
from engine.reports.audit import audit
from engine.run.context import DRAIN_SECONDS
from engine.run.pipeline import MOST_IN_DOUBT
from engine.run.recovery import FIRST_QUESTION_SECONDS

SENDING = ("stage", "upload", "release")


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
def a_bench(request):
    """Open a job that one process sends alone, or that several may send."""
    return partial(benches.a_bench, shares_jobs=request.param)


def once(count):
    """Return the journal of a service that created each of some records once."""
    return {str(number): 1 for number in range(count)}


# From the first byte to the last outcome


async def test_every_record_of_a_job_is_created_once_and_settled(a_bench, tmp_path):
    async with a_bench(tmp_path, records=245) as bench:
        assert await bench.work() is None
        assert bench.service.ids() == once(245)
        assert await bench.states() == [State.SETTLED] * 25
        tally = await bench.ledger.tally("j")
        assert (tally.records, tally.created, tally.unresolved) == (245, 245, 0)
        assert (await bench.ledger.job("j")).read_complete


async def test_payloads_are_prepared_as_batches_are_frozen_or_as_their_shard_is_taken(a_bench, tmp_path):
    async with a_bench(tmp_path, records=245) as bench:
        assert await bench.work() is None
        assert bench.ahead_of == list(range(25))


async def test_no_payloads_are_prepared_while_all_is_read_first(tmp_path):
    async with benches.a_bench(tmp_path, records=245) as bench:
        assert await bench.work(strict=True) is None
        assert bench.ahead_of == []


async def test_a_job_may_run_over_several_files(a_bench, tmp_path):
    paths = [write_records(tmp_path / f"{name}.ndjson", 15, start=start) for name, start in (("a", 0), ("b", 15))]
    async with a_bench(tmp_path, sources=paths) as bench:
        assert await bench.work() is None
        assert bench.service.ids() == once(30)


async def test_an_empty_source_is_finished_at_once(a_bench, tmp_path):
    async with a_bench(tmp_path, records=0) as bench:
        assert await bench.work() is None
        assert bench.service.log == []
        assert (await bench.ledger.job("j")).read_complete


async def test_failed_records_are_settled_with_the_others(a_bench, tmp_path):
    async with a_bench(tmp_path, records=25, failing={"7": "no", "21": "no"}) as bench:
        assert await bench.work() is None
        tally = await bench.ledger.tally("j")
        assert (tally.created, tally.failed) == (23, 2)


async def test_records_that_are_not_fit_to_be_sent_stay_here(a_bench, tmp_path):
    path = write_records(tmp_path / "tasks.ndjson", 3)
    path.write_bytes(b"no json\n" + path.read_bytes() + b'{"input": 1}\n')
    async with a_bench(tmp_path, sources=[path]) as bench:
        assert await bench.work() is None
        assert bench.service.ids() == once(3)
        tally = await bench.ledger.tally("j")
        assert (tally.records, tally.created, tally.rejected) == (5, 3, 2)


@pytest.mark.parametrize("ways", [{}, {"stages": False}, {"stages": False, "marks": True}])
async def test_the_service_is_told_which_record_of_the_input_each_task_is(a_bench, tmp_path, ways):
    path = write_records(tmp_path / "tasks.ndjson", 40)
    lines = path.read_bytes().splitlines()
    bad = {0, 7, 8, 15, 39}
    path.write_bytes(b"\n".join(b"no json" if index in bad else line for index, line in enumerate(lines)))
    async with a_bench(tmp_path, sources=[path], most_records=6, **ways) as bench:
        searched, locate = [], bench.service.locate

        async def noting(batch, payload, since):
            searched.append(payload)
            return await locate(batch, payload, since)

        bench.service.locate = noting
        if "marks" in ways:
            bench.service.faults = {"release": [lost(applied=True)] * 8}
        assert await bench.work() is None
        assert bench.service.refused_as_too_large, "halves are among them"
        payloads = [remote.payload for remote in bench.service.remotes.values() if remote.payload is not None]
        assert bool(searched) == ("marks" in ways)
        for payload in [*payloads, *searched]:
            assert [orjson.loads(task)["data"]["id"] for task in payload.tasks] == list(map(str, payload.indexes))
        sent = sorted(index for payload in payloads for index in payload.indexes)
        assert sent == [index for index in range(40) if index not in bad]


async def test_nothing_is_sent_of_a_source_of_nothing_but_rejects(a_bench, tmp_path):
    path = tmp_path / "tasks.ndjson"
    path.write_bytes(b"{no json\n" * 40)
    async with a_bench(tmp_path, sources=[path]) as bench:
        assert await bench.work() is None
        assert bench.service.log == []
        assert (await bench.ledger.tally("j")).rejected == 40


async def test_a_batch_that_is_refused_leaves_the_others_alone(a_bench, tmp_path):
    faults = {"upload": [refused("too large", status=413)]}
    async with a_bench(tmp_path, records=30, faults=faults) as bench:
        assert await bench.work() is None
        tally = await bench.ledger.tally("j")
        assert (tally.created, tally.failed) == (20, 10)


@pytest.mark.parametrize("done_by", ["stage", "release"])
async def test_nothing_is_followed_where_the_fate_is_known_at_once(a_bench, tmp_path, done_by):
    async with a_bench(tmp_path, records=45, done_by=done_by) as bench:
        assert await bench.work() is None
        assert bench.service.polled == []
        assert bench.service.ids() == once(45)
        assert await bench.states() == [State.SETTLED] * 5


async def test_inline_a_lost_answer_leaves_one_batch_uncertain_and_no_run_sends_it_again(a_bench, tmp_path):
    faults = {"release": [None, lost(applied=False)]}
    async with a_bench(tmp_path, records=30, stages=False, faults=faults) as bench:
        assert await bench.work() is None
        assert sorted(await bench.states()) == [State.SETTLED, State.SETTLED, State.UNCERTAIN]
        assert await bench.work() is None
        assert bench.service.calls("release") == ["release"] * 3
        assert (await bench.ledger.tally("j")).uncertain == 10


async def test_a_batch_is_frozen_before_anything_of_it_is_sent(a_bench, tmp_path):
    durable = []
    async with a_bench(tmp_path, records=45, hooks=noting(durable)) as bench:
        bench.service.log = durable
        await bench.work()
    assert durable.index(("freeze", 0)) < durable.index("stage")
    for sequence in range(5):
        assert durable.index(("freeze", sequence)) < durable.index(("move", sequence))


def noting(durable):
    """Note what becomes durable, beside the calls of the service."""
    return Hooks(on_commit=lambda changes: durable.extend((change.operation, change.sequence) for change in changes))


async def test_what_was_read_is_told_with_its_bytes(a_bench, tmp_path):
    async with a_bench(tmp_path, records=45) as bench:
        await bench.work()
        frozen = [event for event in bench.events if isinstance(event, BatchesFrozen)]
        assert sum(event.records for event in frozen) == 45
        assert frozen[-1].last
        assert frozen[-1].read_bytes == bench.job.size_bytes


async def test_an_uncertain_batch_is_asked_about_again_by_the_next_run(a_bench, tmp_path):
    bad = [refused("what batch?")] * MOST_SILENT
    async with a_bench(tmp_path, records=10, faults={"progress": bad}) as bench:
        assert await bench.work() is None
        assert await bench.states() == [State.UNCERTAIN]
        assert await bench.work() is None
        assert await bench.states() == [State.SETTLED]
        assert bench.service.ids() == once(10)


# Bounds


@pytest.mark.parametrize("most", [1, 4])
async def test_no_more_batches_are_sent_at_once_than_allowed(a_bench, tmp_path, most):
    async with a_bench(tmp_path, records=200, call_seconds=0.1) as bench:
        assert await bench.work(max_in_flight=most) is None
        assert bench.service.peaks["send"] == most
        assert bench.service.ids() == once(200)


@pytest.mark.parametrize("most", [1, 4])
async def test_a_crash_leaves_no_more_batches_unknown_than_may_be_sent_at_once(a_bench, tmp_path, most):
    steps, unknown = [], [0]
    hooks = Hooks(on_commit=lambda changes: steps.extend(str(change.state) for change in changes))
    async with a_bench(tmp_path, records=200, call_seconds=0.1, stages=False, hooks=hooks) as bench:
        bench.service.log = steps
        assert await bench.work(max_in_flight=most) is None
    for step in steps:  # an answer gives the place away before it is on disk; what takes the place is behind it there
        unknown.append(unknown[-1] + (step == "release") - (step == "released"))
    assert max(unknown) == most


@pytest.mark.parametrize("most", [1, 3, 10])
async def test_no_more_batches_are_open_at_the_service_than_allowed(a_bench, tmp_path, most):
    async with a_bench(tmp_path, records=200, tasks_per_second=5.0, call_seconds=0.1) as bench:
        assert await bench.work(max_open_batches=most, max_in_flight=4) is None
        assert bench.service.peaks["open"] == most
        assert bench.service.ids() == once(200)


async def test_where_the_settings_do_not_say_the_service_knows_how_many_batches_may_be_open(a_bench, tmp_path):
    slow = {"tasks_per_second": 5.0, "call_seconds": 0.1}
    async with a_bench(tmp_path, records=100, open_batches=2, **slow) as bench:
        assert await bench.work(max_in_flight=4) is None
        assert bench.service.peaks["open"] == 2


async def test_a_batch_that_is_refused_makes_room_for_the_next(a_bench, tmp_path):
    faults = {"stage": [refused()] * 5}
    async with a_bench(tmp_path, records=60, faults=faults) as bench:
        assert await bench.work(max_open_batches=1, max_in_flight=1) is None
        assert (await bench.ledger.tally("j")).created == 10


async def test_no_more_polls_are_made_at_once_than_allowed(a_bench, tmp_path):
    slow = {"tasks_per_second": 5.0, "call_seconds": 1.0}
    async with a_bench(tmp_path, records=200, **slow) as bench:
        assert await bench.work(polls_in_flight=2, polls_per_second=100.0, max_in_flight=20) is None
        assert bench.service.peaks["poll"] == 2


async def test_reading_does_not_run_ahead_of_sending(a_bench, tmp_path):
    gate = asyncio.Event()
    async with (
        a_bench(tmp_path, records=400, gates={"upload": gate}) as bench,
        under_way(bench.work(max_in_flight=2)) as running,
    ):
        await until(lambda: bench.service.calls("upload") == ["upload"] * 2)
        frozen = [0]
        while len(await bench.states()) > frozen[-1]:  # until reading has come to rest
            frozen.append(len(await bench.states()))
            await asyncio.sleep(0)
        # Two sent, two waiting, what the last block held, and two plans, of a batch each, that gathered meanwhile.
        assert frozen[-1] <= 12 + 2
        gate.set()
        assert await running is None
        assert bench.service.ids() == once(400)


# An early end


async def test_a_stop_lets_calls_under_way_finish_and_begins_nothing_new(a_bench, tmp_path):
    gate = asyncio.Event()
    async with (
        a_bench(tmp_path, records=200, gates={"upload": gate}) as bench,
        under_way(bench.work(max_in_flight=3)) as running,
    ):
        await until(lambda: bench.service.calls("upload") == ["upload"] * 3)
        bench.end(Interrupted(15))
        gate.set()
        assert isinstance(await running, Interrupted)
        assert Counter(bench.service.log) == {"stage": 3, "upload": 3, "release": 3}
        states = await bench.states()
        assert states[:3] == [State.RELEASED] * 3
        assert set(states[3:]) <= {State.FROZEN}


async def test_the_room_that_a_failed_upload_leaves_is_not_used_any_more(a_bench, tmp_path):
    async with a_bench(tmp_path, records=60, faults={"upload": [unavailable()]}) as bench:
        assert isinstance(await bench.work(max_in_flight=1), Unavailable)
        assert bench.service.log == ["stage", "upload"]


async def test_calls_that_do_not_finish_in_time_are_left_to_the_next_run(a_bench, tmp_path):
    gate = asyncio.Event()
    async with (
        a_bench(tmp_path, records=60, gates={"upload": gate}) as bench,
        under_way(bench.work(max_in_flight=3)) as running,
    ):
        await until(lambda: bench.service.calls("upload") == ["upload"] * 3)
        stopped_at = bench.clock.elapsed
        bench.end()
        assert await running is not None
        assert bench.clock.elapsed - stopped_at == DRAIN_SECONDS
        assert (await bench.states())[:3] == [State.STAGED] * 3
        gate.set()
        assert await bench.work() is None
        assert bench.service.ids() == once(60)


async def test_a_stopped_run_goes_on_in_a_second_one_and_each_record_is_created_once(a_bench, tmp_path):
    async with (
        a_bench(tmp_path, records=200, call_seconds=0.1, tasks_per_second=5.0) as bench,
        under_way(bench.work(max_in_flight=3)) as running,
    ):
        await until(lambda: len(bench.service.calls("release")) >= 7)
        bench.end()
        assert await running is bench.stop.error
        assert len(bench.service.journal) < 200
        assert await bench.work() is None
        assert bench.service.ids() == once(200)
        assert set(await bench.states()) == {State.SETTLED}


async def test_a_finished_job_sends_nothing_when_it_is_run_again(a_bench, tmp_path):
    async with a_bench(tmp_path, records=25) as bench:
        await bench.work()
        bench.service.log.clear()
        assert await bench.work() is None
        assert bench.service.log == []


async def test_a_run_that_was_to_end_before_it_began_sends_nothing(a_bench, tmp_path):
    async with a_bench(tmp_path, records=25) as bench:
        pipeline = bench.pipeline()
        bench.end(Interrupted(2))
        assert isinstance(await pipeline.work(), Interrupted)
        assert bench.service.log == []


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("stage", unavailable()),
        ("upload", unavailable()),
        ("release", unauthorized()),
        ("progress", unauthorized()),
        ("settlement", unavailable()),
    ],
)
async def test_a_service_that_is_not_to_be_had_ends_the_run_in_order(a_bench, tmp_path, call, fault):
    faults = {call: [None, fault]}
    async with a_bench(tmp_path, records=60, call_seconds=0.1, faults=faults) as bench:
        assert await bench.work(max_in_flight=2) is fault.error
        assert [event.reason for event in bench.events if isinstance(event, Stopping)] == [str(fault.error)]
        assert await bench.work() is None
        assert bench.service.ids() == once(60)


async def test_a_source_that_changes_ends_the_run_and_nothing_wrong_is_sent(a_bench, tmp_path):
    async with a_bench(tmp_path, records=60) as bench:
        await bench.freeze()
        write_records(tmp_path / "tasks.ndjson", 60, start=10)
        assert isinstance(await bench.work(), SourceChanged)
        assert bench.service.journal == []


async def test_a_source_that_cannot_be_read_ends_the_run(a_bench, tmp_path):
    async with a_bench(tmp_path, records=60) as bench:
        (tmp_path / "tasks.ndjson").unlink()
        assert isinstance(await bench.work(), SourceError)


async def test_a_ledger_that_cannot_be_written_ends_the_run(a_bench, tmp_path):
    def full_disk(changes):
        if any(change.state is State.STAGED for change in changes):
            raise OSError(28, "No space left on device")

    async with a_bench(tmp_path, records=60, hooks=Hooks(before_commit=full_disk)) as bench:
        assert isinstance(await bench.work(max_in_flight=1), LedgerError)
        assert bench.service.calls("upload", "release") == []


async def test_the_first_reason_stands(a_bench, tmp_path):
    faults = {"upload": [unavailable(), unauthorized()]}
    async with a_bench(tmp_path, records=60, faults=faults) as bench:
        assert isinstance(await bench.work(), Unavailable)
        assert len([event for event in bench.events if isinstance(event, Stopping)]) == 1


@pytest.mark.parametrize("call", ["stage", "upload", "release", "progress", "settlement"])
async def test_a_mistake_of_ours_is_not_swallowed(a_bench, tmp_path, call):
    async with a_bench(tmp_path, records=60, faults={call: [Fault(ZeroDivisionError())]}) as bench:
        with pytest.raises(ExceptionGroup) as raised:
            await bench.work()
        assert raised.value.subgroup(ZeroDivisionError) is not None


# Nothing but the whole


async def test_a_strict_run_sends_nothing_if_any_record_is_not_fit(a_bench, tmp_path):
    path = write_records(tmp_path / "tasks.ndjson", 60)
    path.write_bytes(path.read_bytes() + b'{"input": 1}\n')
    async with a_bench(tmp_path, sources=[path]) as bench:
        error = await bench.work(strict=True)
        assert isinstance(error, StrictRejects)
        assert "record 60, line 61: data: missing" in str(error)
        assert bench.service.log == []


async def test_a_strict_run_that_died_at_a_reject_sends_nothing_when_it_goes_on(a_bench, tmp_path):
    source = write_records(tmp_path / "tasks.ndjson", 10)
    source.write_bytes(source.read_bytes() + b"no json\n")
    async with a_bench(tmp_path, sources=[source]) as bench:
        for plan in bench.plans():  # and then it is killed
            await bench.ledger.freeze("j", plan.batches, plan.rejects, last=plan.last)
        assert isinstance(await bench.work(strict=True), StrictRejects)
        assert bench.service.log == []


async def test_a_strict_run_without_rejects_sends_everything(a_bench, tmp_path):
    async with a_bench(tmp_path, records=60) as bench:
        assert await bench.work(strict=True) is None
        assert bench.service.ids() == once(60)


async def test_a_strict_run_reads_everything_before_it_sends_anything(a_bench, tmp_path):
    durable = []
    async with a_bench(tmp_path, records=60, hooks=noting(durable)) as bench:
        bench.service.log = durable
        await bench.work(strict=True)
    assert durable.index(("freeze", 5)) < durable.index("stage")


# The process dies


CALLS = [(kind, nth, applied) for kind in SENDING for nth in range(3) for applied in (False, True)]
CALLS += [(kind, 0, applied) for kind in ("progress", "settlement") for applied in (False, True)]


@pytest.mark.parametrize(("kind", "nth", "applied"), CALLS)
async def test_a_job_killed_at_any_call_is_finished_by_the_next_run(a_bench, tmp_path, kind, nth, applied):
    faults = {kind: [*[None] * nth, killed(applied=applied)]}
    async with a_bench(tmp_path, records=30, release_again="duplicate", faults=faults) as bench:
        with pytest.raises(ExceptionGroup) as raised:
            await bench.work(max_in_flight=2)
        assert raised.value.subgroup(Killed) is not None
        assert await bench.work() is None
        assert bench.service.ids() == once(30)
        assert await bench.states() == [State.SETTLED] * 3


@pytest.mark.parametrize("seed", range(8))
async def test_a_job_that_meets_one_trouble_after_the_other_ends_with_each_record_created_once(a_bench, tmp_path, seed):
    chance = random.Random(seed)
    troubles = [unavailable(), unauthorized(), killed(applied=False), killed(applied=True)]
    releases = [*troubles, lost(applied=False), lost(applied=True)]
    uploads = [*troubles, Fault(Refused("Request has expired", status=403, blame=Blame.URL))]

    def drawn(faults):
        return [chance.choice(faults) if chance.random() < 0.2 else None for _ in range(40)]

    async with a_bench(tmp_path, records=120, release_again="duplicate", tasks_per_second=20.0) as bench:
        service = bench.service
        service.faults = {"stage": drawn(troubles), "upload": drawn(uploads), "release": drawn(releases)}
        service.faults |= {"remote_status": drawn(troubles), "progress": drawn(troubles), "settlement": drawn(troubles)}
        while not await finished(bench):
            assert max(service.ids().values(), default=0) <= 1
        assert service.ids() == once(120)
        assert await bench.states() == [State.SETTLED] * 12


async def finished(bench):
    """Run the job as one more process; tell whether it came to the end."""
    try:
        error = await bench.work(max_in_flight=3)
    except ExceptionGroup as group:
        if group.split(Killed)[1] is not None:
            raise
        return False
    assert not UNSENT.intersection(await bench.states()) or isinstance(error, BulkSubmitError)
    return error is None


async def test_unauthorized_is_not_taken_for_a_refusal_of_the_batch(a_bench, tmp_path):
    async with a_bench(tmp_path, records=10, faults={"stage": [unauthorized()]}) as bench:
        assert isinstance(await bench.work(), Unauthorized)
        assert (await bench.ledger.tally("j")).failed == 0


# Batches in doubt


def timed(bench, call):
    """Note when each call of a kind came in."""
    times, plain = [], getattr(bench.service, call)

    async def noting(*args, **options):
        times.append(bench.clock.monotonic())
        return await plain(*args, **options)

    setattr(bench.service, call, noting)
    return times


async def test_batches_in_doubt_take_no_place_and_the_others_go_on(a_bench, tmp_path):
    faults = {"release": [lost(applied=False)] * 4}
    async with a_bench(tmp_path, records=100, faults=faults) as bench:
        releases = timed(bench, "release")
        assert await bench.work(max_in_flight=2, max_open_batches=1) is None
        assert len([at for at in releases if at < SETTLE_SECONDS]) == 10
        assert len([at for at in releases if at >= SETTLE_SECONDS]) == 4
        settled = [sequences for at, sequences in bench.service.polled if at < SETTLE_SECONDS]
        assert len(settled) == 6
        assert bench.service.ids() == once(100)


async def test_no_more_batches_are_in_doubt_at_once_than_memory_allows(a_bench, tmp_path):
    extra, sending = 20, 4
    faults = {"release": [lost(applied=False)] * (MOST_IN_DOUBT + extra)}
    async with a_bench(tmp_path, records=MOST_IN_DOUBT + extra, limits=Limits(1, 1 << 20), faults=faults) as bench:
        releases = timed(bench, "release")
        assert await bench.work(max_in_flight=sending) is None
        at_first = [at for at in releases if at < SETTLE_SECONDS]
        assert MOST_IN_DOUBT <= len(at_first) <= MOST_IN_DOUBT + sending
        assert bench.service.ids() == once(MOST_IN_DOUBT + extra)


@asynccontextmanager
async def frozen(bench):
    """Read all of the sources first: the made-up time does not wait for the thread that reads beside a run."""
    await bench.freeze()
    yield


async def test_a_signal_ends_the_wait_of_batches_in_doubt_at_once_and_the_next_run_takes_them_up(a_bench, tmp_path):
    faults = {"release": [lost(applied=False), lost(applied=True), lost(applied=False)]}
    async with a_bench(tmp_path, records=30, faults=faults) as bench, frozen(bench), under_way(bench.work()) as running:
        await until(lambda: bench.clock.elapsed > SETTLE_SECONDS / 2)
        bench.end(Interrupted(15))
        stopped_at = bench.clock.elapsed
        assert isinstance(await running, Interrupted)
        assert bench.clock.elapsed - stopped_at < 1
        assert sorted(await bench.states()) == [State.RELEASING, State.RELEASING, State.SETTLED]
        releases = timed(bench, "release")
        assert await bench.work() is None
        assert len(releases) == 2
        assert min(releases) >= SETTLE_SECONDS, "the settle time has gone on from the lost answers"
        assert max(releases) < 2 * SETTLE_SECONDS
        assert bench.service.ids() == once(30)


async def test_that_what_was_staged_may_have_been_left_there_is_remembered_with_the_job(a_bench, tmp_path):
    faults = {"stage": [None, lost(applied=True), lost(applied=False)]}
    async with a_bench(tmp_path, records=30, done_by="stage", faults=faults) as bench:
        assert await bench.work() is None
        assert (await bench.ledger.job("j")).lost_stages == 2
        assert bench.service.ids() == once(30)


async def test_so_it_is_where_what_was_sent_again_is_lost(a_bench, tmp_path):
    async with a_bench(tmp_path, records=10, done_by="stage", faults={"stage": [lost(applied=True)]}) as bench:
        (batch,) = await bench.freeze()
        await bench.bring(batch, State.RELEASED, "forgotten")
        await bench.ledger.move("j", Submission(0, State.UNCERTAIN, "forgotten"), expected=State.RELEASED)
        assert await bench.work(released_again_by_user=[0]) is None
        assert (await bench.ledger.job("j")).lost_stages == 1
        assert bench.service.ids() == once(10)


async def test_an_empty_batch_whose_answer_was_lost_is_nothing_to_remember(a_bench, tmp_path):
    async with a_bench(tmp_path, records=30, faults={"stage": [lost(applied=True)]}) as bench:
        assert await bench.work() is None
        assert (await bench.ledger.job("j")).lost_stages == 0


# Accepted, and not begun


async def test_what_the_service_has_accepted_is_never_told_again_by_a_run(a_bench, tmp_path):
    async with a_bench(tmp_path, records=30, release_again="duplicate", swallows=Counter(r2=1)) as bench:
        for _ in range(2):
            error = await bench.work()
            assert isinstance(error, StillWaiting)
            assert [event.reason for event in bench.events if isinstance(event, Stopping)][-1] == str(error)
        assert bench.service.calls("release") == ["release"] * 3
        assert sorted(await bench.states()) == [State.RELEASED, State.SETTLED, State.SETTLED]
        assert bench.service.ids().total() == 20


async def test_a_person_may_have_told_again_what_the_service_does_not_begin_with(a_bench, tmp_path):
    async with a_bench(tmp_path, records=10, swallows=Counter(r1=1)) as bench:
        assert isinstance(await bench.work(), StillWaiting)
        assert await bench.work(released_again_by_user=[0]) is None
        assert bench.service.calls("release") == ["release"] * 2
        assert bench.service.ids() == once(10)
        assert await bench.states() == [State.SETTLED]


async def test_what_was_begun_before_the_word_of_the_person_came_is_only_followed(a_bench, tmp_path):
    async with a_bench(tmp_path, records=10, release_again="duplicate", starts={"r1": 2000.0}) as bench:
        assert isinstance(await bench.work(), StillWaiting)
        await bench.clock.sleep(2000.0)
        assert await bench.work(released_again_by_user=[0]) is None
        assert bench.service.calls("release") == ["release"]
        assert bench.service.ids() == once(10)


async def test_what_is_uncertain_goes_again_where_a_person_says_so_and_nowhere_else(a_bench, tmp_path):
    faults = {"release": [lost(applied=False), lost(applied=False)]}
    async with a_bench(tmp_path, records=30, stages=False, faults=faults) as bench:
        assert await bench.work(max_in_flight=1) is None
        uncertain = [one.sequence for one in await bench.submissions() if one.state is State.UNCERTAIN]
        assert uncertain == [0, 1]
        assert await bench.work(released_again_by_user=[0]) is None
        assert await bench.states() == [State.SETTLED, State.UNCERTAIN, State.SETTLED]
        assert bench.service.ids() == {str(number): 1 for number in range(30) if number not in range(10, 20)}


async def test_a_refusal_of_what_a_person_has_told_again_says_nothing_about_the_first_time(a_bench, tmp_path):
    async with a_bench(tmp_path, records=10, starts={"r1": 2500.0}) as bench:
        assert isinstance(await bench.work(), StillWaiting)
        bench.service.faults = {"release": [refused()], "cancel": [refused()]}
        await bench.work(released_again_by_user=[0])
        assert await bench.states() == [State.UNCERTAIN], "it was accepted before: it may begin at any time"
        assert bench.service.ids() == once(10)


# A canceled job


async def canceled(bench):
    """Have a person cancel the job; its next run is to end it."""
    await bench.ledger.set_job_state("j", JobState.CANCELED)
    bench.job = await bench.ledger.job("j")
    bench.service.log.clear()


async def cut_off(bench, call, *, applied):
    """Have a process die at a call, its first batch being the only one of which anything was told."""
    bench.service.faults = {call: [killed(applied=applied)]}
    with pytest.raises(ExceptionGroup):
        await bench.work(max_in_flight=1)
    await canceled(bench)


async def test_a_canceled_job_sends_nothing_more_and_follows_what_was_released(a_bench, tmp_path):
    async with a_bench(tmp_path, records=30) as bench:
        await cut_off(bench, "release", applied=True)
        assert await bench.work() is None
        assert (await bench.states())[0] is State.SETTLED
        assert bench.service.calls("stage", "upload", "release") == []
        assert (await bench.ledger.tally("j")).created == 10


async def test_of_a_canceled_job_a_batch_is_unsent_again_once_nothing_of_it_shows_for_all_of_the_settle_time(
    a_bench, tmp_path
):
    async with a_bench(tmp_path, records=10) as bench:
        await cut_off(bench, "release", applied=False)
        began = bench.clock.elapsed
        assert await bench.work() is None
        assert bench.clock.elapsed - began >= SETTLE_SECONDS
        assert bench.service.calls("release", "cancel") == ["cancel"]
        (submission,) = await bench.submissions()
        assert (submission.state, submission.note) == (State.FROZEN, "it is canceled, and nothing was created")


async def test_of_a_canceled_job_a_batch_that_cannot_be_canceled_and_is_not_known_is_uncertain(a_bench, tmp_path):
    async with a_bench(tmp_path, records=10) as bench:
        (batch,) = await bench.freeze()
        await bench.bring(batch, State.RELEASING, "forgotten")
        await canceled(bench)
        assert await bench.work() is None
        assert await bench.states() == [State.UNCERTAIN]
        assert bench.service.calls("release") == []


async def test_of_a_canceled_job_an_empty_batch_is_unsent_at_once(a_bench, tmp_path):
    async with a_bench(tmp_path, records=10) as bench:
        await cut_off(bench, "stage", applied=True)
        assert await bench.work() is None
        assert bench.service.log == []
        assert await bench.states() == [State.FROZEN]


async def test_a_canceled_job_does_not_send_what_no_search_finds_and_does_not_call_it_failed_unproven(
    a_bench, tmp_path
):
    async with a_bench(tmp_path, records=10, stages=False, marks=True) as bench:
        await cut_off(bench, "release", applied=False)
        assert await bench.work() is None
        assert bench.service.calls("release") == []
        assert "locate" in bench.service.log
        assert (await bench.ledger.tally("j")).uncertain == 10


# Parts, and batches that are searched for


async def test_halves_of_a_refused_batch_are_sent_and_followed_to_their_end(a_bench, tmp_path):
    async with a_bench(tmp_path, records=20, poison=frozenset({"3", "17"})) as bench:
        assert await bench.work() is None
        assert bench.service.ids() == {str(number): 1 for number in range(20) if number not in {3, 17}}
        tally = await bench.ledger.tally("j")
        assert (tally.records, tally.created, tally.failed, tally.unresolved) == (20, 18, 2, 0)


def heavy(folder, count):
    """Write records of which ten make 3 KB."""
    return write_records(folder / "tasks.ndjson", count, text="x" * 300)


def sizes_told(bench):
    return [
        (event.before, event.after)
        for event in bench.events
        if isinstance(event, LimitChanged) and event.name == "max_batch_bytes"
    ]


@pytest.mark.parametrize("stages", [True, False])
async def test_after_a_few_refusals_batches_are_cut_as_the_service_takes_them(a_bench, tmp_path, stages):
    path = heavy(tmp_path, 2000)
    async with a_bench(tmp_path, sources=[path], stages=stages, most_bytes=2000, call_seconds=0.1) as bench:
        assert await bench.work() is None
        assert bench.service.ids() == once(2000)
        assert 1 <= bench.service.refused_as_too_large <= 4
        before, after = sizes_told(bench)[0]
        assert (before, after) == (1 << 20, 1650)
        batches = [batch for batch, _ in await bench.batches()]
        whole = [batch for batch in batches if batch.sequence < ROOTS]
        assert len(whole) > 0.8 * len(batches)  # the rest are halves of what was frozen before
        assert max(batch.size_bytes for batch in whole) <= 2000
        held = await audit(bench.job, bench.ledger, bench.evidence)
        assert (held.findings, held.records) == ([], 2000)


async def test_where_the_number_in_flight_is_fixed_so_is_the_size_of_batches(a_bench, tmp_path):
    async with a_bench(tmp_path, sources=[heavy(tmp_path, 100)], most_bytes=2000) as bench:
        assert await bench.work(max_in_flight=2) is None
        assert bench.service.refused_as_too_large == 10
        assert sizes_told(bench) == []


async def test_few_open_batches_are_no_reason_to_upload_few_at_once(a_bench, tmp_path):
    slow = {"call_seconds": 1.0, "tasks_per_second": 1000.0}  # the service is soon done with what it gets
    async with a_bench(tmp_path, records=3000, **slow) as bench:
        assert await bench.work() is None
        told = [event for event in bench.events if isinstance(event, LimitChanged)]
        assert min(event.after for event in told if event.name == "max_open_batches") < 10
        assert bench.service.peaks["send"] > 20


async def test_a_job_that_is_killed_while_it_learns_the_size_of_batches_creates_each_record_once(a_bench, tmp_path):
    for at in (1, 4, 9):
        folder = tmp_path / str(at)
        folder.mkdir()
        async with a_bench(folder, sources=[heavy(folder, 300)], most_bytes=2000, call_seconds=0.1) as bench:
            bench.service.faults["upload"] = [*[None] * at, killed(applied=at % 4 == 1)]
            with pytest.raises(BaseExceptionGroup):
                await bench.work()
            assert await bench.work() is None
            assert bench.service.ids() == once(300)
            assert not {State.UNCERTAIN, *UNSENT} & set(await bench.states())
            held = await audit(bench.job, bench.ledger, bench.evidence)
            assert (held.findings, held.records) == ([], 300)


async def test_a_strict_run_halves_what_it_has_frozen_before_it_could_learn(a_bench, tmp_path):
    async with a_bench(tmp_path, sources=[heavy(tmp_path, 300)], most_bytes=2000) as bench:
        assert await bench.work(strict=True) is None
        assert bench.service.ids() == once(300)
        assert bench.service.refused_as_too_large <= 4


async def test_parts_left_by_a_killed_process_go_on(a_bench, tmp_path):
    async with a_bench(tmp_path, records=8, stages=False, poison=frozenset({"3"})) as bench:
        bench.service.faults["release"] = [None, None, killed(applied=False)]
        with pytest.raises(BaseExceptionGroup):
            await bench.work()
        bench.service.faults.clear()
        assert await bench.work() is None
        tally = await bench.ledger.tally("j")
        assert (tally.created + tally.uncertain, tally.failed) == (7, 1)
        assert max(bench.service.ids().values()) == 1


@pytest.mark.parametrize("applied", [True, False])
async def test_inline_batches_whose_answer_was_lost_are_settled_by_their_marks(a_bench, tmp_path, applied):
    async with a_bench(tmp_path, records=50, stages=False, marks=True) as bench:
        bench.service.faults["release"] = [None, lost(applied=applied), None, lost(applied=not applied)]
        assert await bench.work() is None
        assert bench.service.ids() == {str(number): 1 for number in range(50)}
        assert (await bench.ledger.tally("j")).created == 50


async def test_the_search_begins_when_the_service_is_done_with_the_rest(a_bench, tmp_path):
    async with a_bench(tmp_path, records=30, stages=False, marks=True, tasks_per_second=1.0) as bench:
        bench.service.faults["release"] = [lost(applied=True)]
        assert await bench.work() is None
        assert bench.service.log.index("locate") > max(
            at for at, kind in enumerate(bench.service.log) if kind == "settlement" and at < len(bench.service.log) - 3
        )
        assert bench.service.ids() == {str(number): 1 for number in range(30)}


def times_of(bench, kind):
    """Note from now on when calls of a kind are made."""
    times, call = [], getattr(bench.service, kind)

    async def noting(*args, **said):
        times.append(bench.clock.monotonic())
        return await call(*args, **said)

    setattr(bench.service, kind, noting)
    return times


async def test_each_batch_is_searched_for_a_whole_settle_time_after_the_rest_has_ended(a_bench, tmp_path):
    """What was accepted and not begun cannot be seen: its turn may come with the end of the others."""
    async with a_bench(tmp_path, records=40, stages=False, marks=True, tasks_per_second=0.01) as bench:
        bench.service.faults["release"] = [lost(applied=False), lost(applied=False)]
        ended, sent = times_of(bench, "settlement"), times_of(bench, "release")
        assert await bench.work() is None
        assert bench.service.ids() == once(40)
        assert len(sent) == 6
        assert all(at - ended[1] >= bench.service.settle_seconds for at in sent[4:])


async def test_so_is_one_whose_run_died_when_the_rest_had_ended(a_bench, tmp_path):
    async with a_bench(tmp_path, records=20, stages=False, marks=True, tasks_per_second=0.01) as bench:
        bench.service.faults = {"release": [lost(applied=False)], "locate": [killed(applied=False)]}
        with pytest.raises(ExceptionGroup):
            await bench.work()
        ended_by, sent = bench.clock.monotonic(), times_of(bench, "release")
        assert ended_by > bench.service.settle_seconds
        assert await bench.work() is None
        assert len(sent) == 1
        assert sent[0] - ended_by >= bench.service.settle_seconds - FIRST_QUESTION_SECONDS
        assert bench.service.ids() == once(20)


async def test_a_signal_ends_the_wait_for_the_rest_at_once(a_bench, tmp_path):
    async with a_bench(tmp_path, records=20, stages=False, marks=True, tasks_per_second=0.001) as bench, frozen(bench):
        bench.service.faults["release"] = [lost(applied=True)]
        async with under_way(bench.work()) as running:
            await until(lambda: bench.clock.elapsed > SETTLE_SECONDS)
            bench.end()
            stopped_at = bench.clock.elapsed
            await running
        assert bench.clock.elapsed - stopped_at < 1
        assert bench.service.calls("locate") == []
        assert sorted(await bench.states()) == [State.RELEASED, State.UNCERTAIN]


async def test_a_signal_ends_the_wait_of_halves_for_room_at_once(a_bench, tmp_path):
    poison = frozenset({"12"})
    async with a_bench(tmp_path, records=20, tasks_per_second=0.001, poison=poison) as bench, frozen(bench):
        async with under_way(bench.work(max_in_flight=2, max_open_batches=2)) as running:
            await until(lambda: bench.clock.elapsed > SETTLE_SECONDS)
            bench.end()
            stopped_at = bench.clock.elapsed
            await running
        assert bench.clock.elapsed - stopped_at < 1
        assert State.FROZEN in await bench.states()


async def test_without_a_mark_nobody_searches(a_bench, tmp_path):
    async with a_bench(tmp_path, records=20, stages=False) as bench:
        bench.service.faults["release"] = [lost(applied=True)]
        assert await bench.work() is None
        assert (await bench.ledger.tally("j")).uncertain == 10
        assert bench.service.calls("locate") == []
