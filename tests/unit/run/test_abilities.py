"""What the run does where a service lacks an ability."""

import pytest
from fakes.bench import a_bench
from fakes.service import FakeService, refused

from engine.commands.cancel import cancel_orphans
from engine.model.error_hints import Blame
from engine.model.errors import UnexpectedAnswer
from engine.model.submission import State
from engine.services.base import Released


class Bare(FakeService):
    """It can be neither asked nor told to stop."""

    polling = canceling = None


class Mute(Bare):
    """And its release says nothing."""

    async def release(self, batch, remote_id, payload, intent=None, *, sent_before=False):
        await super().release(batch, remote_id, payload, intent)
        return Released(None)


async def test_a_service_that_settles_at_once_needs_no_polls(tmp_path):
    async with a_bench(tmp_path, records=30) as bench:
        bench.service = Bare(bench.clock, stages=False, done_by="release")
        assert await bench.work() is None
        assert set(await bench.states()) == {State.SETTLED}
        assert len(bench.service.ids()) == 30


async def test_a_release_that_neither_names_nor_settles_a_batch_leaves_it_uncertain(tmp_path):
    async with a_bench(tmp_path, records=3) as bench:
        bench.service = Mute(bench.clock, stages=False)
        (batch,) = await bench.freeze()
        submission = await bench.submit(batch)
        assert (submission.state, "neither names" in submission.note) == (State.UNCERTAIN, True)


async def test_what_was_staged_and_cannot_be_canceled_stays(tmp_path):
    async with a_bench(tmp_path, records=4) as bench:
        bench.service = Bare(bench.clock, done_by="poll")
        bench.service.faults = {"upload": [refused("no", blame=Blame.PAYLOAD)]}
        (batch,) = await bench.freeze()
        assert (await bench.submit(batch)).state is State.SPLIT
        await cancel_orphans(bench.run())
        assert bench.service.calls("cancel") == []


async def test_a_batch_that_cannot_be_asked_about_is_an_error_of_its_own(tmp_path):
    async with a_bench(tmp_path, records=1) as bench:
        bench.service = Bare(bench.clock)
        with pytest.raises(UnexpectedAnswer, match="fake cannot be asked"):
            assert bench.run().polling
