"""A release that is refused because the batch is not there: not yet, or not any more."""

import pytest
from fakes.bench import a_bench
from fakes.service import FakeService, lost

from engine.model.doubt import Again, RemoteStatus
from engine.model.errors import Refused, Unavailable
from engine.model.next_step import MOST_REPEATS
from engine.model.submission import State
from engine.services.base import no_intent

EACH_ONCE = {"0": 1, "1": 1, "2": 1}


class Shy(FakeService):
    """Does not know a batch for a while after it was staged: to release it, and to show it."""

    again = Again.REFUSED
    released_from = shown_from = 0.0

    async def release(self, batch, remote_id, payload, intent=no_intent, *, sent_before=False):
        if self.clock.monotonic() < self.released_from:
            self.log.append("release")
            refusal = Refused("no such batch", status=404)
            refusal.batch_not_found = True
            raise refusal
        return await super().release(batch, remote_id, payload, intent, sent_before=sent_before)

    async def remote_status(self, remote_id):
        remote_status = await super().remote_status(remote_id)
        return remote_status if self.clock.monotonic() >= self.shown_from else RemoteStatus.NOT_THERE


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=3) as bench:
        bench.service = Shy(bench.clock)
        yield bench


async def submitted(bench):
    (batch,) = await bench.freeze()
    return (await bench.submit(batch)).state


async def test_what_is_not_there_for_half_a_minute_is_released_once_it_is(bench):
    bench.service.released_from = bench.service.shown_from = 30.0
    assert await submitted(bench) is State.RELEASED
    assert bench.service.ids() == EACH_ONCE
    assert len(bench.service.calls("release")) == 2
    assert 30 <= bench.clock.elapsed < 65


async def test_what_is_gone_is_uncertain_after_the_settle_time_and_told_once(bench):
    bench.service.released_from = bench.service.shown_from = float("inf")
    assert await submitted(bench) is State.UNCERTAIN
    (submission,) = await bench.submissions()
    assert submission.note == "the service no longer knows it: no such batch"
    assert bench.service.calls("release") == ["release"]
    assert len(bench.service.calls("remote_status")) < 10
    assert 120 <= bench.clock.elapsed < 121


async def test_what_is_shown_and_cannot_be_released_is_told_ever_more_rarely(bench):
    bench.service.released_from = 30.0
    assert await submitted(bench) is State.RELEASED
    assert bench.service.ids() == EACH_ONCE
    assert len(bench.service.calls("release")) <= 6


async def test_what_is_shown_and_can_never_be_released_ends_the_run(bench):
    bench.service.released_from = float("inf")
    with pytest.raises(Unavailable):
        await submitted(bench)
    assert len(bench.service.calls("release")) == MOST_REPEATS + 1
    assert bench.clock.elapsed > 600


async def test_what_was_gone_when_an_earlier_run_ended_is_told_once_more_and_asked_about(bench):
    (batch,) = await bench.freeze()
    await bench.bring(batch, State.RELEASING)
    bench.service.released_from = bench.service.shown_from = float("inf")
    assert (await bench.submit(batch)).state is State.UNCERTAIN
    assert bench.service.calls("release") == ["release"]


async def test_what_was_released_before_it_was_not_there_is_followed(bench):
    bench.service.faults = {"release": [lost(applied=True)]}
    original = bench.service._create

    def then_hidden(remote_id):
        original(remote_id)
        bench.service.released_from = bench.service.shown_from = 5.0

    bench.service._create = then_hidden
    assert await submitted(bench) is State.RELEASED
    assert bench.service.ids() == EACH_ONCE
    assert len(bench.service.calls("release")) == 2
