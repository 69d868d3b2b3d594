"""Tasks are followed to their end in no more time than there is, and with patience where people work on them."""

from itertools import pairwise

import pytest
from fakes.bench import a_bench

from engine.commands import wiring
from engine.commands.later import PEOPLE_SECONDS, _look_until_the_end
from engine.model.errors import DeadlineReached, Unavailable
from engine.model.outcome import Later, Settlement
from engine.model.settings import RunLimits
from engine.model.submission import State, Submission
from engine.progress.events import Noticed
from engine.run.context import Stop
from engine.services.created import TaskState

WORKED_ON = TaskState("in progress")
DONE = TaskState("delivered", ended=True, later=Later.COMPLETED)


class Shown:
    """A service that shows ten tasks, all in the same state; they end after so many looks."""

    kind, settle_seconds, polls_together, counting = "shown", 5.0, 1, None

    def __init__(self, clock, *, by_people, looks=10**9, look_seconds=1.0):
        self.refreshing, self.by_people = self, by_people
        self.clock, self.looks, self.look_seconds = clock, looks, look_seconds
        self.asked_at = []

    async def task_states(self, batches):
        self.asked_at.append(self.clock.elapsed)
        await self.clock.sleep(self.look_seconds)
        state = DONE if len(self.asked_at) >= self.looks else WORKED_ON
        return {one: state for asked in batches for one in asked.task_ids}


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, records=10) as bench:
        (batch,) = await bench.freeze()
        await bench.bring(batch, State.RELEASED)
        settled = Submission(0, State.SETTLED, "r1")
        ids = [f"t{number}" for number in range(10)]
        await bench.ledger.settle("j", settled, Settlement(ids), expected=State.RELEASED)
        yield bench


CONFIG = """
[service]
kind = "sama"
project_id = 42
access_key = "${{env:KEY}}"

[send]
{send}
"""


@pytest.fixture
def follow(bench, monkeypatch):
    """Follow ten tasks to their end; return what was said."""
    monkeypatch.setattr(wiring, "CLOCK", bench.clock)
    monkeypatch.setenv("KEY", "a-key")

    async def following(service, send="", **limits):
        said = []
        setup = wiring.load(CONFIG.format(send=send), limits=RunLimits(**limits))
        await _look_until_the_end(bench.job, setup, bench.ledger, service, Stop(), said.append)
        return [event.text for event in said if isinstance(event, Noticed)]

    return following


async def test_people_are_given_time_and_whoever_waits_is_told_once_that_it_takes_weeks(bench, follow):
    service = Shown(bench.clock, by_people=True, looks=20)
    (said,) = await follow(service)
    assert "people work on 10 tasks that have not ended: it can take weeks" in said
    pauses = [later - earlier for earlier, later in pairwise(service.asked_at)]
    assert max(pauses) == PEOPLE_SECONDS + service.look_seconds
    assert await bench.ledger.count_later("j") == {"completed": 10}


async def test_machines_are_asked_as_often_as_is_configured(bench, follow):
    service = Shown(bench.clock, by_people=False, looks=20)
    assert await follow(service, "max_poll_seconds = 8.0") == []
    pauses = [later - earlier for earlier, later in pairwise(service.asked_at)]
    assert max(pauses) == 8.0 + service.look_seconds


@pytest.mark.parametrize("send", ["", "deadline_seconds = 3600.0"])
async def test_a_look_that_takes_hours_is_broken_off_when_the_time_is_over(bench, follow, send):
    service = Shown(bench.clock, by_people=True, look_seconds=10 * 3600.0)
    with pytest.raises(DeadlineReached):
        await follow(service, send, **({} if send else {"deadline": "1h"}))
    assert bench.clock.elapsed == pytest.approx(3600.0)


async def test_a_pause_beyond_the_deadline_is_not_begun(bench, follow):
    with pytest.raises(DeadlineReached):
        await follow(Shown(bench.clock, by_people=True), deadline="10m")
    assert bench.clock.elapsed < 600.0


async def test_what_fails_while_it_is_looked_is_told_as_it_is(bench, follow):
    service = Shown(bench.clock, by_people=True)
    service.task_states = unavailable
    with pytest.raises(Unavailable, match="nobody answers"):
        await follow(service, deadline="10m")


async def unavailable(_):
    raise Unavailable("nobody answers")
