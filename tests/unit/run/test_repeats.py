"""A release that may be repeated: lost, refused, cut in two, killed, and with a key that has become too old."""

from itertools import pairwise

import pytest
from fakes.bench import a_bench
from fakes.repeatable import RepeatableService
from fakes.service import Fault, Killed, killed, lost, refused, unavailable
from msgspec.structs import replace

from engine.commands.cancel import cancel_batches, is_unsent
from engine.model.doubt import MOST_REPEATS, REPEATABLE, Again
from engine.model.error_hints import Blame
from engine.model.errors import JobRefused, RecordsSent, Unavailable
from engine.model.job import JobState
from engine.model.submission import State
from engine.run.recovery import FIRST_REPEAT_SECONDS, LONGEST_PAUSE_SECONDS

KINDS = sorted(REPEATABLE)
DAY = 86_400.0


def offering(bench, kept, **options):
    bench.service = RepeatableService(bench.clock, kept=kept, **options)
    return bench.service


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=4, stages=False) as opened:
        yield opened


async def batch_of(bench):
    (batch,) = await bench.freeze()
    return batch


def each_once(bench, records=4):
    return bench.service.ids() == {str(number): 1 for number in range(records)}


async def sent_at(bench):
    return [submission.sent_at for submission in await bench.submissions()]


@pytest.mark.parametrize("kept", KINDS)
@pytest.mark.parametrize("applied", [True, False])
async def test_a_lost_release_is_repeated_and_each_record_is_created_once(bench, kept, applied):
    service, batch = offering(bench, kept), await batch_of(bench)
    service.faults = {"release": [lost(applied=applied), lost(applied=applied)]}
    assert (await bench.submit(batch)).state is State.SETTLED
    assert service.sent == [("0", False), ("0", True), ("0", True)]
    settlement = await bench.ledger.settlement("j", 0)
    assert (settlement.created, settlement.errors) == (4, {})
    assert each_once(bench)


async def test_what_was_not_lost_is_there_already_by_somebody_else(bench):
    service, batch = offering(bench, Again.EXISTS), await batch_of(bench)
    service.there["0"] = "somebody"
    assert (await bench.submit(batch)).state is State.SETTLED
    assert (await bench.ledger.settlement("j", 0)).errors == {0: "it is there already"}


async def test_records_that_an_earlier_job_may_have_sent_count_as_sent(bench):
    service, batch = offering(bench, Again.EXISTS), await batch_of(bench)
    service.there["0"] = "the job that this one retries"
    run = bench.run
    bench.run = lambda: replace(run(), sent_before=True)
    await bench.submit(batch)
    assert (await bench.ledger.settlement("j", 0)).created == 4


async def test_repeats_come_ever_more_seldom_and_at_last_the_run_ends(bench):
    service, batch = offering(bench, Again.SAFE), await batch_of(bench)
    service.faults = {"release": [lost(applied=True)] * (MOST_REPEATS + 1)}
    times, release = [], service.release

    async def noting(*args, **said):
        times.append(bench.clock.monotonic())
        return await release(*args, **said)

    service.release = noting
    with pytest.raises(Unavailable, match="again and again"):
        await bench.submit(batch)
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == [min(FIRST_REPEAT_SECONDS * 2**number, LONGEST_PAUSE_SECONDS) for number in range(MOST_REPEATS)]
    assert await bench.states() == [State.RELEASING]
    assert (await bench.submit(batch)).state is State.SETTLED
    assert each_once(bench)


@pytest.mark.parametrize("kept", KINDS)
@pytest.mark.parametrize("applied", [True, False])
async def test_a_kill_costs_one_repeat(bench, kept, applied):
    service, batch = offering(bench, kept), await batch_of(bench)
    service.faults = {"release": [killed(applied=applied)]}
    went_out = bench.clock.now()
    with pytest.raises(Killed):
        await bench.submit(batch)
    assert await sent_at(bench) == [went_out]
    await bench.clock.sleep(3600.0)
    assert await bench.work() is None
    assert await bench.states() == [State.SETTLED]
    assert service.sent[-1] == ("0", True)
    assert each_once(bench)


async def test_a_call_that_certainly_did_nothing_is_unsent(bench):
    service, batch = offering(bench, Again.EXISTS), await batch_of(bench)
    service.faults = {"release": [unavailable()]}
    with pytest.raises(Unavailable):
        await bench.submit(batch)
    assert (await bench.states(), await sent_at(bench)) == ([State.FROZEN], [None])


@pytest.mark.parametrize("kept", KINDS)
async def test_a_call_of_which_an_earlier_attempt_was_lost_is_not(bench, kept):
    service, batch = offering(bench, kept), await batch_of(bench)
    gave_up = Unavailable("nobody answers")
    gave_up.earlier_lost = True
    service.faults = {"release": [Fault(gave_up, applied=True)]}
    with pytest.raises(Unavailable):
        await bench.submit(batch)
    assert await bench.states() == [State.RELEASING]
    service.faults = {"release": [unavailable()]}  # and it stays so
    with pytest.raises(Unavailable):
        await bench.submit(batch)
    assert await bench.states() == [State.RELEASING]
    assert (await bench.submit(batch)).state is State.SETTLED
    assert each_once(bench)


@pytest.mark.parametrize("kept", KINDS)
async def test_a_job_that_is_refused_after_a_loss_knows_that_the_batch_may_be_there(bench, kept):
    service, batch = offering(bench, kept), await batch_of(bench)
    service.faults = {"release": [lost(applied=True), refused("no such project", 404, Blame.JOB)]}
    with pytest.raises(JobRefused):
        await bench.submit(batch)
    assert await bench.states() == [State.RELEASING]
    assert not await is_unsent(replace(bench.job), bench.ledger, drafts=False)


# Keys that get too old


async def too_old(bench):
    service, batch = offering(bench, Again.KEY, key_seconds=DAY), await batch_of(bench)
    service.faults = {"release": [killed(applied=True)]}
    with pytest.raises(Killed):
        await bench.submit(batch)
    await bench.clock.sleep(DAY - bench.run().settle_time.seconds)
    return batch


async def test_a_key_that_is_too_old_makes_the_batch_uncertain_and_nothing_is_sent(bench):
    await too_old(bench)
    for _ in range(2):
        assert await bench.work() is None
        (submission,) = await bench.submissions()
        assert submission.state is State.UNCERTAIN
        assert "key is too old" in submission.note
    assert len(bench.service.sent) == 1


async def test_a_key_is_good_until_the_settle_time_before_its_end(bench):
    batch = await too_old(bench)
    bench.service.key_seconds += 2 * FIRST_REPEAT_SECONDS
    assert (await bench.submit(batch)).state is State.SETTLED
    assert each_once(bench)


async def test_a_person_has_it_sent_again_and_its_key_counts_as_new(bench):
    await too_old(bench)
    assert await bench.work() is None
    bench.service.answers.clear()  # the service has forgotten it
    bench.service.faults = {"release": [unavailable()]}
    assert isinstance(await bench.work(released_again_by_user=[0]), Unavailable)
    assert await bench.states() == [State.RELEASING], "nobody calls it unsent: it may be there"
    assert await bench.work() is None
    assert await bench.states() == [State.SETTLED]
    assert set(bench.service.ids().values()) == {2}


async def test_a_call_that_waits_for_its_turn_does_not_go_out_with_a_key_that_is_too_old(bench):
    service, batch = offering(bench, Again.KEY, key_seconds=DAY), await batch_of(bench)
    service.faults = {"release": [lost(applied=True)]}
    release = service.release

    async def waiting(batch, remote_id, payload, intent, *, sent_before=False):
        await bench.clock.sleep(DAY if sent_before else 0.0)
        return await release(batch, remote_id, payload, intent, sent_before=sent_before)

    service.release = waiting
    assert (await bench.submit(batch)).state is State.UNCERTAIN
    assert len(service.sent) == 1


async def test_the_first_attempt_goes_out_however_short_a_key_lives(bench):
    offering(bench, Again.KEY, key_seconds=1.0)
    assert (await bench.submit(await batch_of(bench))).state is State.SETTLED


# Refused after a loss


async def test_halves_of_what_may_be_there_remember_it(bench):
    service, batch = offering(bench, Again.EXISTS, refuses_whole=True), await batch_of(bench)
    service.faults = {"release": [lost(applied=True)]}
    assert await bench.work() is None
    assert set(await bench.states()) == {State.SETTLED}
    assert all(sent_before for name, sent_before in service.sent if name != "0")
    tally = await bench.ledger.tally("j")
    assert (tally.created, tally.failed) == (4, 0)
    assert each_once(bench)
    assert batch.count == 4


async def halves_left_by_a_kill(bench):
    """Have a process die once the halves of a lost batch are frozen."""
    service = offering(bench, Again.EXISTS, refuses_whole=True)
    await batch_of(bench)
    service.faults = {"release": [lost(applied=True), None, killed(applied=False)]}
    with pytest.raises(ExceptionGroup):
        await bench.work(max_in_flight=1)
    assert State.FROZEN in await bench.states()
    return service


async def test_halves_remember_it_over_a_kill(bench):
    service = await halves_left_by_a_kill(bench)
    assert None not in await sent_at(bench)
    assert await bench.work() is None
    tally = await bench.ledger.tally("j")
    assert (tally.created, tally.failed) == (4, 0)
    assert each_once(bench)
    assert service.sent[-1][1]


async def test_halves_that_may_be_there_are_not_unsent_when_the_job_is_canceled(bench):
    service = await halves_left_by_a_kill(bench)
    assert not await is_unsent(bench.job, bench.ledger, drafts=False)
    await bench.ledger.set_job_state("j", JobState.CANCELED)
    bench.job = replace(bench.job, state=JobState.CANCELED)
    await cancel_batches(bench.run())
    before = len(service.sent)
    assert await bench.work() is None
    assert set(await bench.states()) == {State.UNCERTAIN}
    assert len(service.sent) == before
    await bench.ledger.set_job_state("j", JobState.OPEN)  # and `resume` goes on with it
    bench.job = replace(bench.job, state=JobState.OPEN)
    assert await bench.work() is None
    assert set(await bench.states()) == {State.SETTLED}
    assert each_once(bench)


async def test_with_keys_a_refusal_says_that_nothing_was_made_so_halves_begin_anew(bench):
    service, batch = offering(bench, Again.KEY, poison=frozenset({"3"})), await batch_of(bench)
    service.faults = {"release": [lost(applied=False)]}
    carried = await bench.carry(batch)
    assert carried.submission.state is State.SPLIT
    assert carried.submission.sent_at is None
    assert await bench.work() is None
    tally = await bench.ledger.tally("j")
    assert (tally.created, tally.failed) == (3, 1)


async def test_a_page_of_a_proxy_is_no_word_on_a_call_with_a_key_that_was_lost(bench):
    service, batch = offering(bench, Again.KEY), await batch_of(bench)
    service.faults = {"release": [lost(applied=True)]}
    service.blocked = frozenset()
    assert batch.count == 4
    answered = service._turn_away

    def after_the_first(payload, blame):
        service.blocked = frozenset({"0"}) if len(service.sent) > 1 else frozenset()
        answered(payload, blame)

    service._turn_away = after_the_first
    submission = await bench.submit(batch)
    assert submission.state is State.UNCERTAIN
    assert "a proxy turns it away" in submission.note
    assert len(service.sent) == MOST_REPEATS + 2 - 1
    assert each_once(bench)


async def test_a_refusal_while_an_earlier_attempt_is_at_work_is_waited_for(bench):
    service, batch = offering(bench, Again.KEY), await batch_of(bench)
    at_work = refused("in progress", 409, Blame.PAYLOAD)
    at_work.error.released_before = True
    service.faults = {"release": [lost(applied=True), at_work]}
    assert (await bench.submit(batch)).state is State.SETTLED
    assert each_once(bench)


async def test_a_batch_with_a_key_is_not_cut_once_it_may_be_there(bench):
    service = offering(bench, Again.KEY)
    await batch_of(bench)
    service.faults = {"release": [killed(applied=True)]}
    with pytest.raises(ExceptionGroup):
        await bench.work(max_in_flight=1)
    assert isinstance(await bench.work(most_records=2), RecordsSent)
    assert await bench.states() == [State.RELEASING]
    assert await bench.work() is None
    assert each_once(bench)


@pytest.mark.parametrize("kept", KINDS)
async def test_a_canceled_job_repeats_nothing(bench, kept):
    service = offering(bench, kept)
    await batch_of(bench)
    service.faults = {"release": [killed(applied=True)]}
    with pytest.raises(ExceptionGroup):
        await bench.work(max_in_flight=1)
    await bench.ledger.set_job_state("j", JobState.CANCELED)
    bench.job = replace(bench.job, state=JobState.CANCELED)
    assert await bench.work() is None
    assert (await bench.states(), len(service.sent)) == ([State.UNCERTAIN], 1)


@pytest.mark.parametrize("whole", [False, True])
async def test_what_a_person_has_sent_again_and_is_there_already_is_no_failure(bench, whole):
    service = offering(bench, Again.NEVER)
    (batch,) = await bench.freeze()
    service.faults = {"release": [lost(applied=True), *([refused(blame=Blame.PAYLOAD)] if whole else [])]}
    assert await bench.work() is None
    assert await bench.states() == [State.UNCERTAIN]
    assert await bench.work(released_again_by_user=[batch.sequence]) is None
    tally = await bench.ledger.tally("j")
    assert (tally.created, tally.failed) == (4, 0)
    assert all(sent_before for _, sent_before in service.sent[1:])
    assert each_once(bench)
