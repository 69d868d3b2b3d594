import asyncio
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from fakes.clock import under_way, until
from msgspec.structs import replace

from engine.model.errors import DeadlineReached, Exit, TooManyFailed, WindowClosed
from engine.model.outcome import Tally
from engine.model.settings import LimitSettings, WindowSettings
from engine.model.submission import State
from engine.progress.events import BatchesFrozen, BatchMoved, BatchSettled, Stopping
from engine.run.bounds import LEAST_DRAIN_SECONDS, Bounds, Ending, check_open, ending_of
from engine.run.context import Stop

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = WindowSettings(opens="22:00", closes="06:00", zone="Europe/Berlin")


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


class Scene:
    """Bounds, and what they do."""

    def __init__(self, clock, *, seconds=None, before=None, **limits):
        self.clock, self.stop, self.events = clock, Stop(), []
        ending = None if seconds is None else Ending(clock.now() + seconds, DeadlineReached("over"))
        self.bounds = Bounds(LimitSettings(**limits), ending, before or Tally(), clock, self.stop, self.events.append)

    def settle(self, created=0, failed=0, uncertain=0):
        self.bounds.hear(BatchSettled(0, created, failed, "", uncertain))

    def move(self, sequence, before, after):
        self.bounds.hear(BatchMoved(sequence, before, after, 10, 100))


# Windows and deadlines


def test_outside_of_the_window_nothing_is_begun_and_it_is_said_when_it_opens():
    check_open(NIGHT, at("2026-11-28 23:00"))
    check_open(WindowSettings(), at("2026-11-28 12:00"))
    with pytest.raises(WindowClosed, match="opens 2026-11-28 22:00 Europe/Berlin") as raised:
        check_open(NIGHT, at("2026-11-28 12:00"))
    assert raised.value.exit_code == Exit.STOPPED_EARLY


def test_a_run_ends_when_its_window_closes_or_at_its_deadline_whichever_is_first():
    now, closes = at("2026-11-28 23:00"), at("2026-11-29 06:00")
    assert ending_of(WindowSettings(), None, now) is None
    by_window = ending_of(NIGHT, closes + 1, now)
    assert (by_window.at, type(by_window.error)) == (closes, WindowClosed)
    by_deadline = ending_of(NIGHT, closes - 1, now)
    assert (by_deadline.at, type(by_deadline.error)) == (closes - 1, DeadlineReached)


async def test_sending_ends_before_the_time_is_over_and_then_the_run(clock):
    scene = Scene(clock, seconds=3600)
    async with under_way(scene.bounds.watch()) as watch:
        await until(lambda: scene.stop.sending_error)
        assert scene.clock.elapsed == pytest.approx(3600 - LEAST_DRAIN_SECONDS)
        assert scene.stop.error is None
        await watch
    assert scene.clock.elapsed == pytest.approx(3600)
    assert str(scene.stop.error) == "over"
    assert [event.reason for event in scene.events] == ["over"]


async def test_what_batches_have_needed_so_far_decides_how_early_sending_ends(clock):
    scene = Scene(clock, seconds=3600)
    scene.move(0, State.FROZEN, State.STAGING)
    await clock.sleep(100)
    scene.move(0, State.STAGING, State.STAGED)
    await clock.sleep(50)
    scene.move(0, State.RELEASED, State.SETTLED)
    assert scene.bounds.drain_seconds == 300
    scene.move(1, State.FROZEN, State.RELEASING)
    await clock.sleep(200)
    assert scene.bounds.drain_seconds == 400  # one that is still under way
    await clock.sleep(1800)
    assert scene.bounds.drain_seconds == 900  # a quarter of the time at most


def test_a_batch_that_is_not_sent_after_all_counts_no_more(clock):
    scene = Scene(clock, seconds=3600)
    for end in (State.FROZEN, State.SPLIT, State.UNCERTAIN):
        scene.move(0, State.FROZEN, State.STAGING)
        scene.move(0, State.STAGING, end)
    clock.move_to(clock.now() + 1000)
    assert scene.bounds.drain_seconds == LEAST_DRAIN_SECONDS


async def test_where_nothing_says_so_time_ends_no_run(clock):
    scene = Scene(clock)
    await asyncio.wait_for(scene.bounds.watch(), 1)
    assert scene.stop.sending_error is None


# Failures


def test_a_share_of_failures_is_judged_from_a_thousand_records_on(clock):
    scene = Scene(clock, max_failed="1%")
    scene.settle(created=900, failed=99)
    assert scene.stop.sending_error is None
    scene.settle(created=1)
    error = scene.stop.sending_error
    assert isinstance(error, TooManyFailed)
    assert error.exit_code == Exit.LIMIT
    assert "99 of 1,000 records failed or were rejected, and 1% may" in str(error)
    assert "`bulksubmit resume --max-failed LIMIT` goes on" in str(error)
    assert scene.stop.error is None
    assert [type(event) for event in scene.events] == [Stopping]


def test_as_many_as_may_fail_are_no_reason_to_stop(clock):
    scene = Scene(clock, max_failed="1%")
    scene.settle(created=990, failed=10)
    assert scene.stop.sending_error is None
    scene.settle(failed=1)
    assert scene.stop.sending_error is not None


def test_a_number_of_failures_is_judged_at_once(clock):
    scene = Scene(clock, max_failed="2")
    scene.settle(failed=2)
    assert scene.stop.sending_error is None
    scene.settle(failed=1)
    assert scene.stop.sending_error is not None


def test_what_is_rejected_here_counts_and_so_does_what_earlier_runs_have_seen(clock):
    before = Tally(records=1000, created=985, failed=5, rejected=5, uncertain=5)
    scene = Scene(clock, max_failed="1%", before=before)
    scene.bounds.hear(BatchesFrozen(0, 1, 1, 0, last=False))
    assert "11 of 1,001" in str(scene.stop.sending_error)


def test_the_uncertain_are_judged_and_have_not_failed(clock):
    scene = Scene(clock, max_failed="0", before=replace(Tally(), records=5000, created=5000))
    scene.settle(uncertain=500)
    assert scene.stop.sending_error is None
