"""A batch in doubt: asked about, released again only when that is safe, and never called failed while it may exist."""

from itertools import pairwise

import pytest
from fakes.bench import a_bench
from fakes.service import Fault, Killed, killed, lost, refused, unauthorized, unavailable
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.adaptive.settle_time import SETTLE_SECONDS, SettleTime
from engine.model.doubt import MOST_REPEATS, MOST_SILENT, Again, RemoteStatus
from engine.model.errors import BulkSubmitError, Refused, Unauthorized, Unavailable, UnexpectedAnswer
from engine.model.outcome import Settlement
from engine.model.submission import UNSENT, State, Submission
from engine.progress.events import Spaced
from engine.run.recovery import FIRST_QUESTION_SECONDS
from engine.services.base import Located

EACH_ONCE = {"0": 1, "1": 1, "2": 1}


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=3) as bench:
        yield bench


@pytest.fixture
async def inline(tmp_path):
    async with a_bench(tmp_path, records=3, stages=False) as bench:
        yield bench


@pytest.fixture
async def marked(tmp_path):
    async with a_bench(tmp_path, records=13, stages=False, marks=True) as bench:
        yield bench


async def one_batch(bench):
    (batch,) = await bench.freeze()
    return batch


async def fate(bench):
    """Return the only batch's submission and settlement, as the ledger has them."""
    (submission,) = await bench.submissions()
    return submission, await bench.ledger.settlement(bench.job.name, 0)


def lagging(bench, seconds):
    """Have the service's word on a batch be what was true so long ago."""
    service, shown = bench.service, {}
    create, remote_status = service._create, service.remote_status

    def noting(remote_id):
        create(remote_id)
        shown.setdefault(remote_id, bench.clock.monotonic() + seconds)

    async def late(remote_id):
        now = await remote_status(remote_id)
        return RemoteStatus.WAITING if bench.clock.monotonic() < shown.get(remote_id, 0) else now

    service._create, service.remote_status = noting, late


# After a kill


async def released_before(bench, *, applied):
    """Have a process die while its release is under way; return the batch."""
    batch = await one_batch(bench)
    bench.service.faults = {"release": [killed(applied=applied)]}
    with pytest.raises(Killed):
        await bench.submit(batch)
    assert await bench.states() == [State.RELEASING]
    bench.service.log.clear()
    return batch


async def test_a_batch_found_releasing_is_told_again_once_it_has_waited_for_all_of_the_settle_time(bench):
    batch = await released_before(bench, applied=False)
    began = bench.clock.monotonic()
    assert (await bench.submit(batch)).state is State.RELEASED
    assert bench.clock.monotonic() - began == pytest.approx(SETTLE_SECONDS, abs=0.1)
    assert bench.service.calls("release") == ["release"]
    assert bench.service.ids() == EACH_ONCE


async def test_long_after_the_kill_one_fresh_reading_is_enough(bench):
    batch = await released_before(bench, applied=False)
    await bench.clock.sleep(SETTLE_SECONDS)
    assert (await bench.submit(batch)).state is State.RELEASED
    assert bench.service.log == ["remote_status", "release"]


async def test_a_batch_found_releasing_that_was_started_is_adopted(bench):
    batch = await released_before(bench, applied=True)
    submission = await bench.submit(batch)
    assert (submission.state, submission.remote_id) == (State.RELEASED, "r1")
    assert "adopted" in submission.note
    assert bench.service.log == ["remote_status"]
    assert bench.service.ids() == EACH_ONCE


async def test_a_release_that_a_lagging_status_hides_after_a_kill_is_not_told_again(bench):
    bench.service.release_again = "duplicate"
    lagging(bench, SETTLE_SECONDS - 1)
    batch = await released_before(bench, applied=True)
    assert (await bench.submit(batch)).state is State.RELEASED
    assert bench.service.calls("release") == []
    assert bench.service.ids() == EACH_ONCE


async def test_a_batch_found_releasing_that_the_service_does_not_know_for_all_of_the_settle_time_is_uncertain(bench):
    batch = await one_batch(bench)
    await bench.bring(batch, State.RELEASING, "forgotten")
    submission = await bench.submit(batch)
    assert submission.state is State.UNCERTAIN
    assert "no longer knows it" in submission.note
    assert set(bench.service.log) == {"remote_status"}
    assert await bench.states() == [State.UNCERTAIN]


async def test_inline_a_batch_found_releasing_is_uncertain_and_not_sent(inline):
    batch = await released_before(inline, applied=True)
    assert (await inline.submit(batch)).state is State.UNCERTAIN
    assert inline.service.log == []


async def test_an_intent_that_waited_for_its_call_is_written_again_so_that_the_settle_time_counts_from_the_call(bench):
    batch = await one_batch(bench)
    release = bench.service.release

    async def after_a_pause(batch, remote_id, payload, intent, **said):
        await bench.clock.sleep(500.0)  # told 429, say, and sent later
        return await release(batch, remote_id, payload, intent, **said)

    bench.service.release = after_a_pause
    bench.service.faults = {"release": [killed(applied=False)]}
    with pytest.raises(Killed):
        await bench.submit(batch)
    (submission,) = await bench.submissions()
    assert submission.changed_at == bench.clock.now()


async def test_so_is_the_intent_to_stage_what_people_see(tmp_path):
    async with a_bench(tmp_path, records=3, done_by="stage") as bench:
        batch, stage = await one_batch(bench), bench.service.stage

        async def after_a_pause(batch, payload, *, earlier_id=None, intent):
            await bench.clock.sleep(500.0)
            return await stage(batch, payload, earlier_id=earlier_id, intent=intent)

        bench.service.stage = after_a_pause
        bench.service.faults = {"stage": [killed(applied=True)]}
        with pytest.raises(Killed):
            await bench.submit(batch)
        (submission,) = await bench.submissions()
        assert (submission.state, submission.changed_at) == (State.STAGING, bench.clock.now())


# Uncertain batches that have a name at the service


async def uncertain(bench, *, applied):
    """Have a batch be given up while its release is unclear; return it."""
    batch = await released_before(bench, applied=applied)
    given_up = Submission(0, State.UNCERTAIN, "r1", note="nobody knew it")
    await bench.ledger.move("j", given_up, expected=State.RELEASING)
    return batch


async def test_an_uncertain_batch_that_was_started_after_all_is_followed(bench):
    batch = await uncertain(bench, applied=True)
    assert (await bench.submit(batch)).state is State.RELEASED
    assert bench.service.log == ["remote_status"]


async def test_an_uncertain_batch_that_waits_is_left_to_a_person(bench):
    batch = await uncertain(bench, applied=False)
    assert (await bench.submit(batch)).state is State.UNCERTAIN
    assert bench.service.log == ["remote_status"]


async def test_an_uncertain_batch_that_is_still_not_known_stays_as_it_is(bench):
    batch = await uncertain(bench, applied=True)
    bench.service.remotes.clear()
    assert (await bench.submit(batch)).state is State.UNCERTAIN
    (submission,) = await bench.submissions()
    assert (submission.state, submission.remote_id, submission.note) == (State.UNCERTAIN, "r1", "nobody knew it")


# Answers that are lost


@pytest.mark.parametrize("applied", [False, True])
async def test_after_a_lost_answer_exactly_one_release_is_applied(bench, applied):
    bench.service.release_again = "duplicate"
    bench.service.faults = {"release": [lost(applied=applied)]}
    batch = await one_batch(bench)
    assert (await bench.submit(batch)).state is State.RELEASED
    assert bench.service.remotes["r1"].releases == 1
    assert bench.service.ids() == EACH_ONCE


async def test_before_each_further_release_the_service_has_said_waiting_for_all_of_the_settle_time(bench):
    bench.service.release_again = "duplicate"
    bench.service.faults = {"release": [lost(applied=False), lost(applied=False), lost(applied=True)]}
    times, release = [], bench.service.release

    async def noting(*args, **said):
        times.append(bench.clock.monotonic())
        return await release(*args, **said)

    bench.service.release = noting
    assert (await bench.submit(await one_batch(bench))).state is State.RELEASED
    assert [round(after - before) for before, after in pairwise(times)] == [120, 120]
    assert bench.service.ids() == EACH_ONCE


async def test_questions_come_ever_more_seldom_and_the_last_one_at_the_end_of_the_settle_time(bench):
    bench.service.faults = {"release": [lost(applied=False)]}
    await bench.submit(await one_batch(bench))
    waits = [seconds for seconds in bench.clock.slept if seconds]
    assert waits[:6] == [FIRST_QUESTION_SECONDS * 2**number for number in range(6)]
    assert sum(waits) == pytest.approx(SETTLE_SECONDS, abs=0.1)
    assert bench.service.calls("remote_status") == ["remote_status"] * 7
    told = [event for event in bench.events if isinstance(event, Spaced)]
    assert [event.wait_seconds for event in told] == [seconds for seconds in waits if seconds > 1]
    assert {event.reason for event in told} == {"an answer was lost, and the service is asked what became of it"}


async def test_a_service_that_was_seen_to_be_slow_is_given_twice_that_time(tmp_path):
    async with a_bench(tmp_path, records=3) as bench:
        run = bench.run
        bench.run = lambda: _slow(run())
        bench.service.faults = {"release": [lost(applied=False)]}
        await bench.submit(await one_batch(bench))
        assert bench.clock.monotonic() == pytest.approx(600.0, abs=0.1)


def _slow(run):
    run.settle_time.saw_start(300.0)
    return run


def test_the_settle_time_grows_only_when_twice_the_slowest_start_is_longer():
    settle_time = SettleTime(120.0)
    assert [settle_time.saw_start(seconds) for seconds in (10.0, 60.0, 61.0, 30.0)] == [False, False, True, False]
    assert settle_time.seconds == 122.0


@pytest.mark.parametrize("applied", [False, True])
async def test_an_answer_without_sense_to_our_question_is_no_answer_and_we_ask_again(bench, applied):
    bench.service.release_again = "duplicate"
    bench.service.faults = {
        "release": [lost(applied=applied)],
        "remote_status": [Fault(UnexpectedAnswer("<html>"))] * 2,
    }
    assert (await bench.submit(await one_batch(bench))).state is State.RELEASED
    assert bench.service.ids() == EACH_ONCE


async def test_a_service_that_never_answers_our_question_with_sense_stops_the_job(bench):
    answers = [Fault(UnexpectedAnswer("<html>"))] * MOST_SILENT
    bench.service.faults = {"release": [lost(applied=True)], "remote_status": answers}
    batch = await one_batch(bench)
    with pytest.raises(Unavailable, match="does not say"):
        await bench.submit(batch)
    assert await bench.states() == [State.RELEASING]
    assert (await bench.submit(batch)).state is State.RELEASED
    assert bench.service.ids() == EACH_ONCE


async def test_a_service_that_never_answers_a_release_stops_the_job_and_a_later_run_goes_on(bench):
    bench.service.faults = {"release": [lost(applied=False)] * (MOST_REPEATS + 1)}
    batch = await one_batch(bench)
    with pytest.raises(Unavailable, match="resume"):
        await bench.submit(batch)
    assert await bench.states() == [State.RELEASING]
    assert (await bench.submit(batch)).state is State.RELEASED
    assert bench.service.ids() == EACH_ONCE


async def test_a_wait_ends_at_once_when_the_run_ends_and_leaves_the_batch_as_it_is(bench):
    bench.service.faults = {"release": [lost(applied=False)]}
    batch = await one_batch(bench)
    remote_status = bench.service.remote_status

    async def and_then_a_signal(remote_id):
        bench.end()
        return await remote_status(remote_id)

    bench.service.remote_status = and_then_a_signal
    assert (await bench.submit(batch)).state is State.RELEASING
    assert bench.clock.monotonic() == FIRST_QUESTION_SECONDS
    assert await bench.states() == [State.RELEASING]


# A repeat that is refused


async def test_a_refused_repeat_is_the_evidence_that_the_first_release_arrived(bench):
    """The status is behind for longer than it should be, so it is released again, and refused for the first one."""
    lagging(bench, 3 * SETTLE_SECONDS)
    bench.service.faults = {"release": [lost(applied=True)]}
    submission = await bench.submit(await one_batch(bench))
    assert submission.state is State.RELEASED
    assert "the first one arrived" in submission.note
    assert bench.service.calls("release", "cancel") == ["release", "release"]
    assert bench.service.ids() == EACH_ONCE


async def test_where_the_vendor_documents_that_a_repeat_is_refused_it_is_told_again_at_once(bench, monkeypatch):
    monkeypatch.setattr(type(bench.service), "again", Again.REFUSED)
    bench.service.faults = {"release": [lost(applied=True)]}
    assert (await bench.submit(await one_batch(bench))).state is State.RELEASED
    assert bench.service.calls("release", "remote_status") == ["release", "release"]
    assert bench.clock.monotonic() == 0.0
    assert bench.service.ids() == EACH_ONCE


@pytest.mark.parametrize("again", [Again.REFUSED, Again.ASK])
async def test_a_release_that_something_in_between_keeps_turning_away_is_asked_about_first(bench, monkeypatch, again):
    monkeypatch.setattr(type(bench.service), "again", again)
    page = Unavailable("a page instead of an answer")
    page.by_proxy = True
    bench.service.faults = {"release": [Fault(page, applied=True)]}
    assert (await bench.submit(await one_batch(bench))).state is State.RELEASED
    assert bench.service.calls("release", "remote_status") == ["release", "remote_status"]
    assert bench.service.ids() == EACH_ONCE


@pytest.mark.parametrize(("look", "ends"), [([], False), ([Fault(Unavailable("nobody answers"))], True)])
async def test_a_page_in_place_of_what_became_of_a_batch_is_no_answer_while_the_service_is_there(bench, look, ends):
    page = Unavailable("a page instead of an answer")
    page.by_proxy = True
    bench.service.faults = {"release": [lost(applied=True)], "remote_status": [Fault(page)], "look": look}
    submitting = bench.submit(await one_batch(bench))
    if ends:
        with pytest.raises(Unavailable, match="nobody answers"):
            await submitting
    else:
        assert (await submitting).state is State.RELEASED
        assert bench.service.calls("remote_status") == ["remote_status"] * 2
    assert bench.service.ids() == EACH_ONCE


async def test_a_release_that_is_refused_at_first_and_waits_is_the_plain_no_of_the_service(bench):
    bench.service.faults = {"release": [refused("not this one")]}
    assert (await bench.submit(await one_batch(bench))).state is State.SETTLED
    assert bench.service.calls("release", "remote_status", "cancel") == ["release", "remote_status", "cancel"]


def poisoned(folder, **service):
    return a_bench(folder, records=2, poison=frozenset("0"), **service)


async def test_after_a_lost_release_a_refused_batch_is_halved_once_its_cancel_is_confirmed_and_nothing_shows(tmp_path):
    async with poisoned(tmp_path) as bench:
        (batch,) = await bench.freeze()
        bench.service.faults["release"] = [lost(applied=False)]
        carried = await bench.carry(batch)
        assert carried.submission.state is State.SPLIT
        assert bench.service.remotes["r1"].canceled
        assert bench.clock.monotonic() == pytest.approx(3 * SETTLE_SECONDS, abs=1)  # told, refused, canceled
        assert await bench.ledger.orphans("j") == []


async def test_after_a_lost_release_a_refused_batch_that_cannot_be_canceled_is_uncertain_and_never_failed(tmp_path):
    async with poisoned(tmp_path) as bench:
        (batch,) = await bench.freeze()
        bench.service.faults["release"] = [lost(applied=False)]
        bench.service.faults["cancel"] = [refused("busy", status=409)]
        assert (await bench.submit(batch)).state is State.UNCERTAIN


async def test_what_shows_up_after_a_confirmed_cancel_is_followed(tmp_path):
    async with poisoned(tmp_path) as bench:
        (batch,) = await bench.freeze()
        bench.service.faults["release"] = [lost(applied=False)]
        cancel = bench.service.cancel

        async def and_then_it_arrives(remote_id):
            await cancel(remote_id)
            bench.service.remotes[remote_id].releases = 1

        bench.service.cancel = and_then_it_arrives
        assert (await bench.submit(batch)).state is State.RELEASED


async def test_credentials_that_do_not_hold_for_a_question_stop_the_job_and_new_ones_go_on(bench):
    bench.service.faults = {"release": [lost(applied=True)], "remote_status": [unauthorized()]}
    batch = await one_batch(bench)
    with pytest.raises(Unauthorized):
        await bench.submit(batch)
    assert (await bench.states())[0] in UNSENT
    assert (await bench.submit(batch)).state is State.RELEASED
    assert bench.service.ids() == EACH_ONCE


async def test_credentials_that_do_not_hold_for_a_second_release_stop_the_job(bench):
    bench.service.faults = {"release": [lost(applied=False), unauthorized()]}
    batch = await one_batch(bench)
    with pytest.raises(Unauthorized):
        await bench.submit(batch)
    assert await bench.states() == [State.RELEASING]


# What staging makes


@pytest.mark.parametrize("applied", [False, True])
async def test_after_a_lost_answer_to_its_stage_what_it_made_is_looked_for(tmp_path, applied):
    faults = {"stage": [lost(applied=applied)]}
    async with a_bench(tmp_path, records=3, done_by="stage", faults=faults) as bench:
        assert (await bench.submit(await one_batch(bench))).state is State.SETTLED
        assert bench.service.ids() == EACH_ONCE
        assert bench.service.calls("stage") == ["stage"] * 2
        assert bench.clock.monotonic() == pytest.approx(1.0 if applied else SETTLE_SECONDS, abs=0.1)
        assert (await bench.ledger.job("j")).lost_stages == 1


async def test_what_a_list_shows_late_is_not_made_twice(tmp_path):
    faults = {"stage": [lost(applied=True)]}
    async with a_bench(tmp_path, records=3, done_by="stage", faults=faults) as bench:
        find = bench.service.find

        async def late(batch, payload):
            found = await find(batch, payload)
            return found if bench.clock.monotonic() > SETTLE_SECONDS - 1 else None

        bench.service.find = late
        assert (await bench.submit(await one_batch(bench))).state is State.SETTLED
        assert bench.service.ids() == EACH_ONCE


async def test_a_harmless_stage_whose_answer_is_lost_is_made_again_at_once(bench):
    bench.service.faults = {"stage": [lost(applied=True)] * (MOST_REPEATS - 1)}
    assert (await bench.submit(await one_batch(bench))).state is State.RELEASED
    assert bench.clock.monotonic() == 0.0
    assert (await bench.ledger.job("j")).lost_stages == 0


async def test_a_stage_of_which_every_answer_is_lost_stops_the_job_and_a_later_run_goes_on(bench):
    bench.service.faults = {"stage": [lost(applied=True)] * (MOST_REPEATS + 1)}
    batch = await one_batch(bench)
    with pytest.raises(Unavailable, match="again and again"):
        await bench.submit(batch)
    assert await bench.states() == [State.STAGING]
    assert (await bench.submit(batch)).state is State.RELEASED


async def test_a_refused_stage_takes_back_what_a_lost_one_made(tmp_path):
    faults = {"stage": [lost(applied=False), refused("no such app")], "find": []}
    async with a_bench(tmp_path, records=3, done_by="stage", faults=faults) as bench:
        assert (await bench.submit(await one_batch(bench))).state is State.SETTLED
        _, settlement = await fate(bench)
        assert set(settlement.errors.values()) == {"no such app"}
        assert bench.service.ids() == {}


# Inline


async def test_inline_a_lost_answer_makes_the_batch_uncertain(inline):
    inline.service.faults = {"release": [lost(applied=True)]}
    submission = await inline.submit(await one_batch(inline))
    assert submission.state is State.UNCERTAIN
    assert submission.note == "no answer tells what became of it: the answer was lost"
    assert inline.service.log == ["release"]
    assert State.UNCERTAIN not in UNSENT  # so no run takes it up again


async def test_inline_an_answer_without_sense_makes_the_batch_uncertain(inline):
    inline.service.faults = {"release": [Fault(UnexpectedAnswer("no batch_id"), applied=True)]}
    assert (await inline.submit(await one_batch(inline))).state is State.UNCERTAIN


@pytest.mark.parametrize("fault", [unavailable(), unauthorized()], ids=["unavailable", "unauthorized"])
async def test_inline_a_call_that_was_certainly_not_applied_is_frozen_again_and_can_be_sent_later(inline, fault):
    inline.service.faults = {"release": [fault]}
    batch = await one_batch(inline)
    with pytest.raises(type(fault.error)):
        await inline.submit(batch)
    assert await inline.states() == [State.FROZEN]
    assert (await inline.submit(batch)).state is State.RELEASED
    assert inline.service.ids() == EACH_ONCE


async def settled(bench, batch):
    """Send a batch and settle it: by it a search shows that it finds what is there."""
    submission = await bench.submit(batch)
    ids = [f"{submission.remote_id}-{at}" for at in range(batch.count)]
    done = replace(submission, state=State.SETTLED)
    await bench.ledger.settle("j", done, Settlement(ids), expected=State.RELEASED)


async def unanswered(bench, *, applied):
    """Lose the answer to the last batch of two; the other one is settled."""
    first, last = await bench.freeze()
    await settled(bench, first)
    bench.service.faults["release"] = [lost(applied=applied)]
    assert (await bench.submit(last)).state is State.UNCERTAIN
    bench.service.log.clear()
    return last


async def test_a_batch_that_arrived_is_found_by_its_mark_and_followed(marked):
    batch = await unanswered(marked, applied=True)
    submission = await marked.submit(batch)
    assert (submission.state, submission.remote_id) == (State.RELEASED, "r2")
    assert set(marked.service.ids().values()) == {1}


async def test_the_name_of_another_batch_proves_nothing(tmp_path):
    async with a_bench(tmp_path, records=20, stages=False, marks=True) as bench:
        second = await unanswered(bench, applied=False)

        async def always_the_first(batch, payload, since):
            return Located(["r1"])

        bench.service.locate = always_the_first
        assert (await bench.submit(second)).remote_id == "r2"
        assert set(bench.service.ids().values()) == {1}


async def test_a_batch_that_no_search_finds_for_all_of_the_settle_time_is_sent_again(marked):
    batch = await unanswered(marked, applied=False)
    submission = await marked.submit(batch)
    assert submission.state is State.RELEASED
    assert marked.service.calls("release") == ["release"]
    assert marked.clock.monotonic() == pytest.approx(SETTLE_SECONDS, abs=0.1)
    assert set(marked.service.ids().values()) == {1}


async def test_a_batch_that_is_seen_late_is_not_sent_again(tmp_path):
    async with a_bench(tmp_path, records=13, stages=False, marks=True, seen_after=SETTLE_SECONDS - 1) as bench:
        batch = await unanswered(bench, applied=True)
        assert (await bench.submit(batch)).remote_id == "r2"
        assert set(bench.service.ids().values()) == {1}


async def test_a_search_that_tells_nothing_counts_for_nothing(marked):
    batch = await unanswered(marked, applied=False)
    marked.service.faults["locate"] = [Fault(UnexpectedAnswer("a page of nonsense"))] * 5
    began = marked.clock.monotonic()
    assert (await marked.submit(batch)).state is State.RELEASED
    assert marked.clock.monotonic() - began >= SETTLE_SECONDS
    assert set(marked.service.ids().values()) == {1}


async def test_where_no_search_tells_anything_the_batch_stays_uncertain(marked):
    batch = await unanswered(marked, applied=False)
    marked.service.faults["locate"] = [Fault(UnexpectedAnswer("a page of nonsense"))] * (MOST_SILENT + 1)
    assert (await marked.submit(batch)).state is State.UNCERTAIN
    assert await marked.states() == [State.SETTLED, State.UNCERTAIN]
    assert marked.service.calls("release") == []


# Whatever happens

FAULTS = {
    "stage": [
        None,
        refused(),
        unauthorized(),
        unavailable(),
        Fault(Unavailable("lost"), applied=True),
        Fault(UnexpectedAnswer("?"), applied=True),
        lost(applied=False),
        lost(applied=True),
        killed(applied=False),
        killed(applied=True),
    ],
    "cancel": [None, unauthorized(), unavailable(), refused(), killed(applied=False), killed(applied=True)],
    "upload": [
        None,
        refused(),
        refused(status=403),
        Fault(UnexpectedAnswer("?"), applied=True),
        Fault(Unavailable("lost"), applied=True),
        killed(applied=False),
        killed(applied=True),
    ],
    "release": [
        None,
        None,
        refused(),
        unauthorized(),
        unavailable(),
        lost(applied=False),
        lost(applied=True),
        killed(applied=False),
        killed(applied=True),
    ],
    "remote_status": [
        None,
        None,
        refused("what?", status=400),
        Fault(UnexpectedAnswer("?")),
        unavailable(),
        unauthorized(),
        killed(applied=False),
    ],
}
SCRIPTS = st.fixed_dictionaries(
    {kind: st.lists(st.sampled_from(faults), max_size=6) for kind, faults in FAULTS.items()}
)


async def carry(bench, batch):
    """Submit a batch as one process after the other would, until one of them does not stop early."""
    while True:
        try:
            return await bench.submit(batch)
        except (BulkSubmitError, Killed):
            assert max(bench.service.ids().values(), default=0) <= 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(script=SCRIPTS)
async def test_whatever_goes_wrong_a_batch_is_created_once_if_released_and_never_if_refused(tmp_path_factory, script):
    async with a_bench(tmp_path_factory.mktemp("j"), records=3, release_again="duplicate") as bench:
        bench.service.faults = {kind: list(faults) for kind, faults in script.items()}
        batch = await one_batch(bench)
        submission = await carry(bench, batch)
        assert max(bench.service.ids().values(), default=0) <= 1
        if submission.state is State.RELEASED:
            # Canceled: refused, and the process died before it knew that what it had staged is tidied up.
            canceled = bench.service.remotes[submission.remote_id].canceled
            assert bench.service.ids() == ({} if canceled else EACH_ONCE)
        elif submission.state is State.SETTLED:
            assert bench.service.ids() == {}
        else:
            assert submission.state is State.UNCERTAIN
        assert await bench.states() == [submission.state]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(faults=st.lists(st.sampled_from(FAULTS["stage"]), max_size=8))
async def test_whatever_goes_wrong_tasks_that_are_made_by_staging_are_made_once(tmp_path_factory, faults):
    async with a_bench(tmp_path_factory.mktemp("j"), records=3, done_by="stage") as bench:
        bench.service.faults = {"stage": list(faults)}
        submission = await carry(bench, await one_batch(bench))
        assert submission.state is State.SETTLED
        _, settlement = await fate(bench)
        assert max(bench.service.ids().values(), default=0) <= 1
        if settlement.created:
            assert bench.service.ids() == EACH_ONCE


@settings(max_examples=40, deadline=None, derandomize=True)
@given(faults=st.lists(st.sampled_from(FAULTS["release"]), max_size=6))
async def test_inline_whatever_goes_wrong_a_batch_is_never_created_twice(tmp_path_factory, faults):
    async with a_bench(tmp_path_factory.mktemp("j"), records=3, stages=False) as bench:
        bench.service.faults = {"release": list(faults)}
        submission = await carry(bench, await one_batch(bench))
        created = bench.service.ids()
        if submission.state is State.RELEASED:
            assert created == EACH_ONCE
        elif submission.state is State.SETTLED:
            assert created == {}
        else:
            assert submission.state is State.UNCERTAIN
            assert max(created.values(), default=0) <= 1


async def test_a_refusal_of_a_question_is_no_word_on_the_batch(bench):
    bench.service.faults = {"release": [lost(applied=True)], "remote_status": [Fault(Refused("busy", status=409))]}
    assert (await bench.submit(await one_batch(bench))).state is State.RELEASED
    assert bench.service.calls("remote_status") == ["remote_status"] * 2


async def test_what_a_dead_process_has_sent_is_searched_for_from_the_beginning_of_the_job(marked):
    """The step by which the next run parks it may be hours younger than its tasks."""
    marked.service.faults = {"release": [killed(applied=True)]}
    with pytest.raises(ExceptionGroup):
        await marked.work(max_in_flight=1)
    sent_by = marked.clock.now()
    await marked.clock.sleep(10 * 3600.0)
    asked, locate = [], marked.service.locate

    async def noting(batch, payload, since):
        asked.append(since)
        return await locate(batch, payload, since)

    marked.service.locate = noting
    assert await marked.work() is None
    assert asked
    assert max(asked) <= sent_by
    assert set(marked.service.ids().values()) == {1}
