import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise
from types import SimpleNamespace

import pytest
from fakes.bench import a_bench
from fakes.clock import under_way, until
from fakes.service import Fault, refused, unauthorized, unavailable
from msgspec.structs import replace

from engine.adaptive.settle_time import SETTLE_SECONDS
from engine.model.doubt import MOST_SILENT
from engine.model.errors import Exit, StillWaiting, Unavailable, UnexpectedAnswer
from engine.model.settings import SendSettings
from engine.model.submission import State
from engine.progress.events import BatchesWaiting, BatchMoved, BatchProgressed, BatchSettled, Noticed, Spaced
from engine.run.poller import Poller

NONSENSE = Fault(UnexpectedAnswer("not JSON"))


class Chase:
    """Batches of one job at the service, and a poller of them."""

    def __init__(self, bench, batches, run, settings):
        self.bench, self.batches, self.run = bench, batches, run
        self.poller = Poller(run, settings)
        self.service, self.clock = bench.service, bench.clock

    async def release(self, batch):
        """Upload a batch and follow it."""
        self.poller.add(batch, await self.bench.submit(batch))

    async def poll(self, times=1):
        for _ in range(times):
            await self.poller.poll(await self.poller.next_group())

    async def to_the_end(self):
        """Poll until all is settled."""
        self.poller.finish()
        while group := await self.poller.next_group():
            await self.poller.poll(group)

    @property
    def poll_times(self):
        return [at for at, _ in self.service.polled]

    @property
    def poll_order(self):
        return [sequence for _, group in self.service.polled for sequence in group]


@pytest.fixture
async def chase(tmp_path):
    """Cut a job into batches of ten, release some of them (all, if not told) and follow those."""
    async with AsyncExitStack() as stack:

        async def begin(batches=1, *, released=None, service=None, **settings):
            bench = a_bench(tmp_path, batches * 10, **(service or {}))
            bench = await stack.enter_async_context(bench)
            begun = Chase(bench, await bench.freeze(), bench.run(), SendSettings(**settings))
            for batch in begun.batches[:released]:
                await begun.release(batch)
            return begun

        yield begin


QUIET = {"tasks_per_second": 0.0}
"""A service that creates nothing."""


# Room


async def test_what_a_service_answers_at_once_is_never_open_so_requests_under_way_leave_room(chase):
    chase = await chase(released=0)
    answering = Poller(replace(chase.run, service=SimpleNamespace(polling=None)), SendSettings())
    assert answering.has_room(uploads=64)
    assert not Poller(chase.run, SendSettings(max_open_batches=64)).has_room(uploads=64)


# Settling


async def test_a_finished_batch_is_settled_with_the_fate_of_each_record(chase):
    chase = await chase(service={"failing": {"3": "data.id: too odd"}})
    await chase.to_the_end()
    settlement = await chase.bench.ledger.settlement("j", 0)
    assert settlement.task_ids == [None if at == 3 else f"r1-{at}" for at in range(10)]
    assert settlement.errors == {3: "data.id: too odd"}
    assert await chase.bench.states() == [State.SETTLED]
    assert BatchSettled(0, 9, 1, "data.id: too odd") in chase.bench.events


async def test_a_settlement_is_fetched_and_written_once(chase):
    chase = await chase(batches=3)
    await chase.to_the_end()
    assert chase.service.calls("settlement") == ["settlement"] * 3
    assert [event.sequence for event in chase.bench.events if isinstance(event, BatchSettled)] == [0, 1, 2]
    assert chase.poller.open_batches == 0


async def test_what_a_settlement_notes_stands_with_the_batch(chase):
    chase = await chase()
    plain = chase.service.settlement

    async def noted(asked):
        settlement = await plain(asked)
        return type(settlement)(settlement.task_ids, settlement.errors, "the service lists more")

    chase.service.settlement = noted
    await chase.to_the_end()
    assert (await chase.bench.submissions())[0].note == "the service lists more"


async def test_progress_is_told_as_it_is_seen(chase):
    chase = await chase(service={"tasks_per_second": 1.0})
    await chase.to_the_end()
    seen = [(event.before, event.created) for event in chase.bench.events if isinstance(event, BatchProgressed)]
    assert seen[0][0] == 0
    assert seen[-1][1] == 10
    assert [created for _, created in seen[:-1]] == [before for before, _ in seen[1:]]


# When a batch is asked about


async def test_a_batch_in_which_nothing_happens_is_asked_about_ever_more_rarely(chase):
    chase = await chase(service=QUIET, poll_seconds=0.5, max_poll_seconds=30.0)
    await chase.poll(8)
    assert chase.poll_times == pytest.approx([0.05 * 1.25**number for number in range(8)])


async def test_a_batch_under_way_is_asked_about_when_the_rest_should_be_done(chase):
    chase = await chase(service={"tasks_per_second": 1.0}, poll_seconds=0.5)
    await chase.to_the_end()
    assert 10.0 <= chase.poll_times[-1] <= 12.0  # ten tasks in whole numbers do not tell it better
    assert len([at for at in chase.poll_times if at > 2.0]) <= 4


async def test_what_earlier_batches_showed_tells_when_a_later_one_is_done(chase):
    chase = await chase(batches=12, service={"tasks_per_second": 2.0, "in_turn": True})
    await chase.to_the_end()
    last_poll = {sequence: at for at, (sequence,) in chase.service.polled}
    late = [last_poll[sequence] - 5.0 * (sequence + 1) for sequence in range(2, 12)]
    assert 0.0 <= sorted(late)[len(late) // 2] <= 2.75  # of 5 s, by chance more or less: likewise
    assert len([at for at in chase.poll_times if at > 15.0]) <= 9 * 3  # nothing is known of the service before


async def test_no_batch_starves_where_polls_are_scarce(chase):
    chase = await chase(batches=12, service=QUIET, polls_per_second=1.0, max_poll_seconds=30.0)
    await chase.poll(120)
    times = {number: [at for at, group in chase.service.polled if group == [number]] for number in range(12)}
    for looks in times.values():
        assert max(after - before for before, after in pairwise([0.0, *looks, 120.0])) <= 30.0 + 12 * 1.0


async def test_new_batches_do_not_push_back_an_old_one(chase):
    chase = await chase(batches=24, released=3, service=QUIET, polls_per_second=1.0)
    for batch in chase.batches[3:]:
        await chase.poll()
        await chase.release(batch)
    assert chase.poll_order.count(0) >= 3
    assert chase.poll_order[:3] == [0, 0, 0], "nothing is known: the oldest tells most"


async def test_no_batch_in_a_long_queue_is_found_finished_later_than_the_longest_wait(chase):
    chase = await chase(batches=20, service={"tasks_per_second": 2.0, "in_turn": True}, max_poll_seconds=30.0)
    await chase.to_the_end()
    ends = {sequence: 5.0 * (sequence + 1) for sequence in range(20)}
    last_poll = {sequence: at for at, (sequence,) in chase.service.polled}
    late = [last_poll[sequence] - ends[sequence] for sequence in ends]
    assert 0.0 <= min(late) <= max(late) <= 30.0
    assert len(chase.service.polled) < 20 * 10  # asking each of them every second would take 1,050


async def test_polls_keep_the_pace(chase):
    chase = await chase(batches=5, polls_per_second=2.0)
    await chase.to_the_end()
    assert chase.poll_times == pytest.approx([0.05, 0.55, 1.05, 1.55, 2.05])


@pytest.mark.parametrize(
    ("polls_per_second", "told"),
    [(0.3, [Spaced("polls_per_second is 0.3", pytest.approx(10 / 3, abs=0.1))] * 4), (2.0, [])],
)
async def test_a_poll_that_waits_over_a_second_for_its_turn_says_why(chase, polls_per_second, told):
    chase = await chase(batches=5, polls_per_second=polls_per_second)
    await chase.to_the_end()
    assert [event for event in chase.bench.events if isinstance(event, Spaced)] == told


async def test_a_new_batch_is_asked_about_soon_even_while_the_next_poll_is_far_away(chase):
    chase = await chase(batches=2, released=1, service=QUIET, poll_seconds=0.5, max_poll_seconds=30.0)
    await chase.poll(25)  # the next is seconds away
    async with under_way(chase.poller.next_group()) as waiting:
        await asyncio.sleep(0)
        released_at = chase.clock.elapsed
        await chase.release(chase.batches[1])
        assert await waiting == [1]
    assert chase.clock.elapsed - released_at <= 1.0


async def test_next_group_waits_while_a_batch_is_open_and_ends_when_all_are_settled(chase):
    gate = asyncio.Event()
    chase = await chase(service={"gates": {"progress": gate}})
    async with under_way(chase.poll()), under_way(chase.poller.next_group()) as waiting:
        await until(lambda: chase.service.polled)
        chase.poller.finish()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        gate.set()
        assert await waiting == []


async def test_next_group_waits_for_the_first_batch(chase):
    chase = await chase(released=0)
    async with under_way(chase.poller.next_group()) as waiting:
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        await chase.release(chase.batches[0])
        assert await waiting == [0]


async def test_next_group_ends_when_it_is_told_that_there_is_nothing_to_wait_for(chase):
    chase = await chase(released=0)
    async with under_way(chase.poller.next_group()) as waiting:
        await asyncio.sleep(0)
        chase.poller.finish()
        assert await waiting == []


async def test_there_is_nothing_to_follow_once_nothing_was_released(chase):
    chase = await chase(released=0)
    chase.poller.finish()
    assert await chase.poller.next_group() == []


# Polls that go wrong


BUSY = refused("try later", status=409)
GONE = refused("no such batch", status=404)
SILENCES = [pytest.param(BUSY, id="refused"), pytest.param(NONSENSE, id="nonsense")]
FOR_EVER = 1000


@pytest.mark.parametrize("fault", SILENCES)
@pytest.mark.parametrize("call", ["progress", "settlement"])
async def test_bad_answers_are_excused_until_they_are_many(chase, call, fault):
    chase = await chase(service={"faults": {call: [fault] * (MOST_SILENT - 1)}})
    await chase.to_the_end()
    assert await chase.bench.states() == [State.SETTLED]


@pytest.mark.parametrize("fault", SILENCES)
@pytest.mark.parametrize("call", ["progress", "settlement"])
async def test_a_batch_of_which_only_bad_answers_come_is_parked_as_uncertain(chase, call, fault):
    chase = await chase(service={"faults": {call: [fault] * FOR_EVER}})
    await chase.to_the_end()
    (submission,) = await chase.bench.submissions()
    note = f"the service says nothing of it that makes sense: {fault.error}"
    assert (submission.state, submission.note) == (State.UNCERTAIN, note)
    assert chase.service.calls("progress") == ["progress"] * MOST_SILENT
    assert chase.poller.open_batches == 0
    moved = BatchMoved(0, State.RELEASED, State.UNCERTAIN, 10, chase.batches[0].size_bytes, note)
    assert moved in chase.bench.events


async def test_only_bad_answers_in_a_row_count(chase):
    bad = [BUSY] * (MOST_SILENT - 1)
    chase = await chase(service={"tasks_per_second": 0.01, "faults": {"progress": [*bad, None, *bad]}})
    await chase.to_the_end()
    assert await chase.bench.states() == [State.SETTLED]


@pytest.mark.parametrize("call", ["progress", "settlement"])
async def test_a_batch_that_the_service_does_not_know_yet_is_asked_about_on(chase, call):
    chase = await chase(service={"faults": {call: [GONE] * 6}})
    await chase.to_the_end()
    assert chase.poll_times[-1] < chase.run.settle_time.seconds
    assert await chase.bench.states() == [State.SETTLED]


@pytest.mark.parametrize("call", ["progress", "settlement"])
async def test_a_batch_that_the_service_has_not_known_for_all_of_the_settle_time_is_parked(chase, call):
    chase = await chase(service={"faults": {call: [GONE] * FOR_EVER}})
    await chase.to_the_end()
    (submission,) = await chase.bench.submissions()
    assert submission.state is State.UNCERTAIN
    assert submission.note == "the service no longer says anything of it: no such batch"
    first, last = chase.poll_times[0], chase.poll_times[-1]
    assert last - first >= chase.run.settle_time.seconds
    assert chase.poll_times[-2] - first < chase.run.settle_time.seconds


async def test_the_settle_time_of_a_batch_that_is_not_known_begins_when_that_is_said(chase):
    bad = [NONSENSE] * 9  # in two minutes
    chase = await chase(service={"faults": {"progress": [*bad, GONE]}})
    await chase.to_the_end()
    assert chase.poll_times[len(bad)] > chase.run.settle_time.seconds
    assert await chase.bench.states() == [State.SETTLED]


async def test_after_a_bad_answer_we_wait_longer_each_time(chase):
    chase = await chase(service={"faults": {"progress": [NONSENSE] * 4}}, poll_seconds=0.5)
    await chase.to_the_end()
    assert chase.poll_times == pytest.approx([0.05, 1.05, 3.05, 7.05, 15.05])


async def test_a_parked_batch_leaves_the_others_alone(chase):
    chase = await chase(batches=3)
    plain = chase.service.progress

    async def not_the_first(followed):
        if followed[0].sequence == 0:
            raise refused("what batch?").error
        return await plain(followed)

    chase.service.progress = not_the_first
    await chase.to_the_end()
    assert await chase.bench.states() == [State.UNCERTAIN, State.SETTLED, State.SETTLED]


@pytest.mark.parametrize("call", ["progress", "settlement"])
@pytest.mark.parametrize("fault", [unauthorized(), unavailable()], ids=["unauthorized", "unavailable"])
async def test_a_service_that_is_not_to_be_had_stops_the_job_and_the_batch_stays_open(chase, call, fault):
    chase = await chase(service={"faults": {call: [fault]}})
    with pytest.raises(type(fault.error)):
        await chase.poll()
    assert await chase.bench.states() == [State.RELEASED]


def a_page():
    page = Unavailable("status 404: a page", status=404)
    page.by_proxy = True
    return page


async def test_a_page_in_place_of_an_answer_holds_up_no_other_batch_while_the_service_itself_is_there(chase):
    chase = await chase(batches=8, give_up_seconds=60.0)
    plain, known_at = chase.service.progress, {}

    async def with_pages(followed):
        if followed[0].sequence < 5:
            raise a_page()
        known_at[followed[0].sequence] = chase.clock.elapsed
        return await plain(followed)

    chase.service.progress = with_pages
    await chase.to_the_end()
    assert await chase.bench.states() == [State.UNCERTAIN] * 5 + [State.SETTLED] * 3
    assert max(known_at.values()) < 3.0


@pytest.mark.parametrize("give_up_seconds", [10.0, 1000.0])
async def test_a_batch_of_which_only_pages_tell_is_given_the_time_of_any_trouble_at_least(chase, give_up_seconds):
    chase = await chase(service={"faults": {"progress": [Fault(a_page())] * FOR_EVER}}, give_up_seconds=give_up_seconds)
    await chase.to_the_end()
    assert await chase.bench.states() == [State.UNCERTAIN]
    asked = len(chase.poll_times)
    assert chase.poll_times[-1] - chase.poll_times[0] >= give_up_seconds or asked == MOST_SILENT
    assert asked == MOST_SILENT or chase.poll_times[-2] - chase.poll_times[0] < give_up_seconds


async def test_polls_that_fail_for_ever_so_long_are_made_on(chase):
    service = {"faults": {"progress": [Fault(a_page())] * 1500}}
    chase = await chase(service=service, give_up_seconds=1e6, max_poll_seconds=1.0)
    await chase.to_the_end()
    assert await chase.bench.states() == [State.SETTLED]


async def test_a_page_ends_the_run_if_the_service_itself_is_not_to_be_had(chase):
    chase = await chase(service={"faults": {"progress": [Fault(a_page())], "look": [unavailable()]}})
    with pytest.raises(Unavailable, match="nobody answers"):
        await chase.poll()
    assert await chase.bench.states() == [State.RELEASED]


# What is said of polls that go wrong, and of a service that stands still


def noticed(chase):
    return [event.text for event in chase.bench.events if isinstance(event, Noticed)]


@pytest.mark.parametrize("fault", SILENCES)
@pytest.mark.parametrize("call", ["progress", "settlement"])
async def test_the_first_poll_that_fails_is_told_at_once_with_its_words(chase, call, fault):
    chase = await chase(service={"faults": {call: [fault]}})
    await chase.poll()
    assert noticed(chase) == [f"polls of batch 0 fail, and are made again: {fault.error}"]


async def test_of_many_batches_whose_polls_fail_a_line_now_and_then_tells_how_many(chase):
    chase = await chase(batches=50, service={"faults": {"progress": [NONSENSE] * FOR_EVER}})
    await chase.to_the_end()
    said = noticed(chase)
    assert said[0].startswith("polls of batch 0 fail")
    assert "and 49 other batches fail" in said[1] or "and 48 other batches fail" in said[1]
    assert len(said) == 2


async def test_that_a_batch_is_not_there_yet_is_said_only_if_it_lasts(chase):
    chase = await chase(service={"faults": {"progress": [GONE] * 3}})
    await chase.to_the_end()
    assert noticed(chase) == []


async def test_that_polls_of_a_batch_fail_is_said_whatever_came_first_and_anew_after_an_answer(chase):
    faults = [GONE, NONSENSE, NONSENSE, *[None] * 9, NONSENSE]
    chase = await chase(service={"tasks_per_second": 0.01, "faults": {"progress": faults}})
    await chase.to_the_end()
    assert noticed(chase) == [f"polls of batch 0 fail, and are made again: {NONSENSE.error}"] * 2


async def test_that_a_batch_stays_gone_is_said(chase):
    chase = await chase(service={"faults": {"progress": [GONE] * 5}})
    await chase.to_the_end()
    assert noticed(chase) == ["polls of batch 0 fail, and are made again: no such batch"]


async def test_that_nothing_moves_is_said_ever_more_rarely_with_the_word_of_the_service(chase):
    chase = await chase(batches=2, service=QUIET)
    plain = chase.service.progress

    async def working(followed):
        return [replace(one, said="WORKING", waiting=False) for one in await plain(followed)]

    chase.service.progress = working
    while chase.clock.elapsed < 3600:
        await chase.poll()
    said = noticed(chase)
    assert all("2 batches open. The oldest is batch 0: the service says 'WORKING' of it" in line for line in said)
    assert said[0].startswith("nothing has moved for 2 min")
    assert len(said) == 5  # after 2, 4, 8, 16 and 32 minutes


async def test_a_batch_that_was_not_asked_about_for_long_is_not_said_to_stand_still(chase):
    chase = await chase(batches=3, service={"tasks_per_second": 0.01, "in_turn": True})
    await chase.to_the_end()
    looks = [after - before for before, after in pairwise(chase.poll_times)]
    assert max(looks) > 2 * SETTLE_SECONDS, "else nothing is shown"
    assert noticed(chase) == []


async def test_after_something_moved_that_nothing_does_is_said_anew(chase):
    chase = await chase(service=QUIET)
    plain = chase.service.progress

    async def working(followed):
        word = "WORKING" if chase.clock.elapsed < 1000 else "STILL WORKING"
        return [replace(one, said=word, waiting=False) for one in await plain(followed)]

    chase.service.progress = working
    while chase.clock.elapsed < 1300:
        await chase.poll()
    waits = [line.removeprefix("nothing has moved for ").split(" ")[0] for line in noticed(chase)]
    assert (waits[:2], waits[-2:]) == (["2", "4"], ["2", "4"])


# Services that are asked about several batches at once


TOGETHER = {"polls_together": 3}


async def test_one_poll_covers_as_many_batches_as_the_service_allows(chase):
    chase = await chase(batches=7, service=TOGETHER)
    await chase.to_the_end()
    assert [sequences for _, sequences in chase.service.polled] == [[0, 1, 2], [3, 4, 5], [6]]
    assert await chase.bench.states() == [State.SETTLED] * 7


async def test_a_poll_takes_batches_along_that_are_not_due_yet(chase):
    chase = await chase(batches=2, released=1, service=TOGETHER | QUIET)
    await chase.poll(25)
    await chase.release(chase.batches[1])
    await chase.poll()
    assert chase.service.polled[-1][1] == [1, 0]


async def test_a_poll_that_brings_the_settlement_saves_fetching_it(chase):
    chase = await chase(batches=3, service=TOGETHER | {"polls_settle": True})
    await chase.to_the_end()
    assert await chase.bench.states() == [State.SETTLED] * 3
    assert (await chase.bench.ledger.settlement("j", 2)).task_ids == [f"r3-{at}" for at in range(10)]
    assert chase.service.calls("settlement") == []


async def test_trouble_with_one_batch_of_a_group_does_not_touch_the_others(chase):
    chase = await chase(batches=3, service=TOGETHER | {"speeds": {"r1": 0.01, "r3": 0.01}})
    chase.service.faults = {"settlement": [refused("in a moment", status=409)]}
    await chase.poll()
    assert chase.poller.open_batches == 3
    await chase.to_the_end()
    assert await chase.bench.states() == [State.SETTLED] * 3
    assert chase.service.calls("settlement") == ["settlement"] * 4


async def test_a_batch_that_an_answer_leaves_out_is_asked_about_again(chase):
    chase = await chase(batches=3, service=TOGETHER)
    plain, silences = chase.service.progress, [1, 1]

    async def without_the_second(followed):
        answer = await plain(followed)
        return [one for one in answer if one.sequence != (silences.pop() if silences else None)]

    chase.service.progress = without_the_second
    await chase.to_the_end()
    assert await chase.bench.states() == [State.SETTLED] * 3


async def test_a_batch_of_which_nothing_is_ever_said_is_parked(chase):
    chase = await chase(batches=2, service=TOGETHER)
    plain = chase.service.progress

    async def without_the_second(followed):
        return [one for one in await plain(followed) if one.sequence != 1]

    chase.service.progress = without_the_second
    await chase.to_the_end()
    assert await chase.bench.states() == [State.SETTLED, State.UNCERTAIN]
    assert "nothing was said of batch r2" in (await chase.bench.submissions())[1].note


async def test_two_polls_about_the_same_batches_settle_and_tell_each_of_them_once(chase):
    chase = await chase(batches=3, service=TOGETHER)
    written, polls = asyncio.Event(), []

    async def slowly():
        polls.append(1)
        await written.wait()

    chase.run.ledger.written = slowly
    open_batches = [chase.poller._open[sequence] for sequence in range(3)]
    async with under_way(chase.poll()):
        await until(lambda: polls)  # the fates are handed to the ledger, and not on disk yet
        async with under_way(chase.poller._close_settled(open_batches)) as second:
            await until(second.done)  # it finds nothing that is left to close
            assert chase.poller.open_batches == 3
            written.set()
            await until(lambda: not chase.poller.open_batches)
    settled = [event.sequence for event in chase.bench.events if isinstance(event, BatchSettled)]
    assert (settled, len(polls)) == ([0, 1, 2], 1)


# Accepted, and not begun


GIVE_UP_SECONDS = 900.0


def not_begun(*remote_ids, until=float("inf")):
    """Return how long the service says waiting of some batches: until a time, for ever if not said."""
    return {"starts": dict.fromkeys(remote_ids, until)}


def told(chase):
    return [event for event in chase.bench.events if isinstance(event, BatchesWaiting)]


async def to_the_stop(chase):
    """Poll until all is settled or the run is to end; return why."""
    chase.poller.finish()
    while chase.run.stop.error is None and (group := await chase.poller.next_group()):
        await chase.poller.poll(group)
    return chase.run.stop.error


async def test_that_the_service_does_not_begin_is_said_once_each_settle_time(chase):
    chase = await chase(batches=3, service=not_begun("r1", "r2", "r3", until=500.0))
    assert await to_the_stop(chase) is None
    assert {(event.batches, event.names) for event in told(chase)} == {(3, "0, 1, 2")}
    assert [event.seconds // SETTLE_SECONDS for event in told(chase)] == [1, 2, 3, 4]


async def test_of_many_that_wait_the_first_are_named(chase):
    chase = await chase(batches=7, service=not_begun(*(f"r{number}" for number in range(1, 8)), until=160.0))
    assert await to_the_stop(chase) is None
    assert [(event.batches, event.names) for event in told(chase)] == [(7, "0, 1, 2, 3, 4, …")]


async def test_nothing_is_said_of_a_service_that_begins_within_the_settle_time(chase):
    chase = await chase(batches=3, service=not_begun("r1", "r2", "r3", until=100.0))
    assert await to_the_stop(chase) is None
    assert told(chase) == []


async def test_nothing_is_said_while_others_are_done_one_after_the_other(chase):
    service = {"tasks_per_second": 0.5, "in_turn": True, **not_begun("r20", until=400.0)}
    chase = await chase(batches=20, service=service)
    assert await to_the_stop(chase) is None
    assert chase.clock.elapsed > 3 * SETTLE_SECONDS
    assert told(chase) == []


async def test_a_batch_that_the_service_never_begins_ends_the_run_which_names_it(chase):
    chase = await chase(batches=3, service=not_begun("r2"), give_up_seconds=GIVE_UP_SECONDS)
    error = await to_the_stop(chase)
    assert isinstance(error, StillWaiting)
    assert error.exit_status == Exit.STOPPED_EARLY
    assert "still says waiting of 1 batch that it has accepted: 1. No record is lost" in str(error)
    assert "`bulksubmit resume` follows them on" in str(error)
    assert "`bulksubmit retry j --uncertain`" in str(error)
    assert GIVE_UP_SECONDS <= chase.clock.elapsed < GIVE_UP_SECONDS + 60
    assert await chase.bench.states() == [State.SETTLED, State.RELEASED, State.SETTLED]
    assert chase.service.calls("release") == ["release"] * 3, "it is not released again"


async def test_the_run_is_given_the_settle_time_at_least(chase):
    chase = await chase(service=not_begun("r1"), give_up_seconds=0.0)
    assert isinstance(await to_the_stop(chase), StillWaiting)
    assert chase.run.settle_time.seconds <= chase.clock.elapsed < chase.run.settle_time.seconds + 60


async def test_a_run_goes_on_while_the_service_works_on_anything(chase):
    service = {"tasks_per_second": 0.005, **not_begun("r2", until=1900.0)}
    chase = await chase(batches=2, service=service, give_up_seconds=300.0)
    assert await to_the_stop(chase) is None
    assert await chase.bench.states() == [State.SETTLED] * 2


async def test_a_batch_whose_tasks_are_all_there_is_at_work_for_as_long_as_it_takes(chase):
    chase = await chase(batches=2, service=not_begun("r2", until=3000.0), give_up_seconds=300.0)
    plain = chase.service.progress

    async def with_work_to_do(followed):
        """Say of the first batch that people have yet to work on its tasks, until an hour has passed."""
        answers = await plain(followed)
        busy = chase.clock.elapsed < 2900.0
        return [replace(one, finished=False) if one.sequence == 0 and busy else one for one in answers]

    chase.service.progress = with_work_to_do
    assert await to_the_stop(chase) is None
    assert await chase.bench.states() == [State.SETTLED] * 2


# What is learnt of slow starts


async def test_the_slowest_start_is_learnt_and_kept_with_the_job(chase):
    chase = await chase(batches=2, service={"starts": {"r1": 90.0, "r2": 20.0}})
    await chase.to_the_end()
    slowest = (await chase.bench.ledger.job("j")).slowest_start
    assert 90.0 <= slowest < 125.0, "when it was seen, which is when it was asked about"
    assert chase.run.settle_time.seconds == pytest.approx(max(120.0, 2 * slowest))


async def test_a_start_that_changes_nothing_is_not_written(chase):
    chase = await chase(batches=2, service={"starts": {"r1": 10.0, "r2": 20.0}})
    await chase.to_the_end()
    assert (await chase.bench.ledger.job("j")).slowest_start == 0.0
    assert chase.run.settle_time.seconds == 120.0


# Callbacks


SLOW = {"tasks_per_second": 1.0}
"""Ten seconds a batch."""


async def test_when_all_tasks_of_a_batch_are_told_it_is_asked_about_at_once_even_before_its_release_was_answered(chase):
    chase = await chase(2, released=0, service=SLOW, poll_seconds=600.0)
    chase.poller.hear("r1", 10)
    await chase.release(chase.batches[0])
    group = await chase.poller.next_group()
    assert (group, chase.clock.elapsed) == ([0], pytest.approx(0.0, abs=0.1))


async def test_a_callback_wakes_whoever_waits_for_the_next_poll(chase):
    chase = await chase(service=SLOW, poll_seconds=600.0)
    async with under_way(chase.poller.next_group()) as waiting:
        await asyncio.sleep(0)
        for _ in range(10):
            chase.poller.hear("r1", 1)
        assert await waiting == [0]
    assert chase.clock.elapsed < 1


async def test_one_without_a_name_counts_for_the_oldest_open_batch(chase):
    chase = await chase(2, service=SLOW, poll_seconds=600.0)
    chase.poller.hear("", 10)
    assert await chase.poller.next_group() == [0]


async def test_what_is_told_of_batches_that_are_not_ours_costs_no_memory_to_speak_of_and_no_poll(chase):
    chase = await chase(service=SLOW, poll_seconds=600.0)
    for number in range(5_000):
        chase.poller.hear(f"foreign-{number}", 1)
    assert len(chase.poller._told_early) == 1_000
    await chase.poller.next_group()
    assert chase.clock.elapsed > 10


async def test_a_late_callback_of_a_batch_that_is_settled_does_nothing(chase):
    chase = await chase()
    await chase.to_the_end()
    chase.poller.hear("r1", 10)
    chase.poller.hear("", 10)
    assert await chase.poller.next_group() == []


async def test_others_may_ask_while_the_fates_of_a_poll_are_written(chase):
    chase = await chase()
    group = await chase.poller.next_group()
    chase.clock.move_to(chase.clock.now() + 60)
    states = []

    def note():
        states.append(chase.poller.open_batches)

    await chase.poller.poll(group, note)
    assert (states, chase.poller.open_batches) == ([1], 0)
