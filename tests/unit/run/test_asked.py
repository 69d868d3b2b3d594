"""What goes with a poll, and what a poll may say: a word that nobody knows, or that a batch is not done after all."""

import orjson
import pytest
from fakes.bench import a_bench
from msgspec.structs import replace

from engine.adaptive.settle_time import SETTLE_SECONDS
from engine.model.errors import SourceChanged, SourceError, StillWaiting
from engine.model.settings import SendSettings
from engine.model.submission import State
from engine.progress.events import Noticed
from engine.run.poller import Poller


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=30) as opened:
        yield opened


def notices(bench):
    return [event.text for event in bench.events if isinstance(event, Noticed)]


def saying(service, words, *, done=lambda asked: False, **more):
    """Have polls say of a batch the next of some words, and the last one from then on."""
    asked_about, left = [], list(words)

    async def progress(followed):
        asked_about.extend(followed)
        word = left.pop(0) if len(left) > 1 else left[0]
        answers = [service._progress(one) for one in followed]
        return [
            replace(answer, created=0, finished=done(one), said=word, understood=word == "processing", **more)
            for answer, one in zip(answers, followed, strict=True)
        ]

    service.progress = progress
    return asked_about


async def test_a_word_that_nobody_knows_is_said_once_whatever_number_of_batches_is_called_so(bench):
    saying(bench.service, ["Erledigt"], done=lambda asked: True)
    assert await bench.work(max_in_flight=1) is None
    (notice,) = notices(bench)
    assert "'Erledigt'" in notice
    assert await bench.states() == [State.SETTLED] * 3


async def test_a_batch_that_is_called_something_unknown_for_good_ends_the_run_and_names_the_word(bench):
    saying(bench.service, ["what?"])
    error = await bench.work(give_up_seconds=900)
    assert isinstance(error, StillWaiting)
    assert "the service still says what? of 3 batches" in str(error)
    assert bench.clock.monotonic() == pytest.approx(900, abs=60)
    assert await bench.states() == [State.RELEASED] * 3


async def test_a_batch_is_still_once_nothing_of_it_has_moved_for_the_settle_time(bench):
    asked = saying(bench.service, ["processing", "processing", "processing", "queued"])
    await bench.work(give_up_seconds=600)
    assert not asked[0].unmoved
    assert asked[-1].unmoved
    moments = [at for at, one in enumerate(asked) if one.unmoved]
    assert moments[0] > 0
    assert bench.clock.monotonic() > SETTLE_SECONDS
    assert {one.count for one in asked} == {10}


async def test_a_batch_that_is_not_done_by_a_closer_look_is_asked_about_again(bench):
    looks, settlement = [], bench.service.settlement

    async def closer(asked):
        looks.append(asked.remote_id)
        return None if len(looks) < 5 else await settlement(asked)

    bench.service.settlement = closer
    assert await bench.work() is None
    assert await bench.states() == [State.SETTLED] * 3
    assert len(looks) == 4 + 3
    assert set(bench.service.ids().values()) == {1}


async def test_what_a_batch_holds_can_be_read_again_by_its_question(bench):
    batch, *_ = await bench.freeze()
    submission = await bench.bring(batch, State.RELEASED)
    poller = Poller(bench.run(), SendSettings(), bench)
    poller.add(batch, submission)
    asked = poller._asked(poller._open[0], 0.0)
    payload = await asked.payload()
    assert [orjson.loads(task)["data"]["id"] for task in payload.tasks] == list(map(str, payload.indexes))
    assert payload.indexes == range(10)
    with pytest.raises(SourceChanged):
        await Poller(bench.run(), SendSettings())._payload(0)


@pytest.mark.parametrize("error", [SourceChanged("it changed"), SourceError("it is gone")])
async def test_a_batch_whose_fates_need_a_source_that_is_gone_is_uncertain_and_the_others_are_followed(bench, error):
    settlement, missing = bench.service.settlement, [error]

    async def needs_records(asked):
        if asked.sequence == 1 and missing:
            raise missing[0]
        return await settlement(asked)

    bench.service.settlement = needs_records
    assert await bench.work() is None
    submissions = await bench.submissions()
    assert [one.state for one in submissions] == [State.SETTLED, State.UNCERTAIN, State.SETTLED]
    assert str(error) in submissions[1].note
    missing.clear()
    assert await bench.work() is None
    assert await bench.states() == [State.SETTLED] * 3
    assert set(bench.service.ids().values()) == {1}
