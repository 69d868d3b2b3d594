"""Seven nights of a load that comes back, each with its own trouble; the clocks are set back in the sixth."""

import asyncio
import os
from collections import Counter

import pytest

from engine.model.errors import Exit, JobLocked, TooManyNew, WindowClosed

from .week import Week, content

SLOW = "requests_per_second = 0.005"
"""A batch takes a quarter of an hour."""


class Export:
    """The rows of the file, as they change from day to day, and all that ever stood in it."""

    def __init__(self):
        self.rows = {}
        self.ever = set()

    def day(self, *, new=0, changed=0, gone=0):
        """Add rows at the end, change some and remove some others."""
        keys = list(self.rows)
        for key in keys[:gone]:
            del self.rows[key]
        for key in keys[gone : gone + changed]:
            self.rows[key] += 1
        first = len({key for key, _ in self.ever})
        self.rows |= {str(number): 0 for number in range(first, first + new)}
        self.ever |= set(self.rows.items())
        return self.rows


TORTURE = os.environ.get("BULKSUBMIT_TORTURE") == "1"
DEATHS = [*range(1, 60, 1 if TORTURE else 7)]
DELTAS = {"content": "", "key, changed skipped": 'key = "id"\nchanged = "skip"'}
if TORTURE:
    DELTAS["key, changed sent"] = 'key = "id"'


@pytest.mark.parametrize("delta", DELTAS.values(), ids=DELTAS.keys())
async def test_a_week_of_nights(tmp_path, monkeypatch, delta):  # noqa: PLR0915 - seven nights
    week, export = Week(tmp_path, monkeypatch, begins="2026-10-20 12:00", delta=delta), Export()
    skips = "skip" in delta

    # Tuesday: the first load; before ten nothing is begun
    week.export(export.day(new=200))
    with pytest.raises(WindowClosed, match="opens 2026-10-20 22:00 Europe/Berlin"):
        await week.night()
    await week.until("2026-10-20 22:00")
    result = await week.night()
    assert (result.job, result.exit_code, result.tally.created) == ("load-2026-10-20", Exit.ALL_CREATED, 200)

    # Wednesday: it grows, some rows change, some are gone; the process is killed in the middle
    await week.until("2026-10-21 22:00")
    week.export(export.day(new=30, changed=10, gone=5))
    assert await week.killed_night(requests=12)
    assert (await week.status("load-2026-10-21")).job.state == "open"

    # Thursday: the file is another one, so Wednesday's job is closed, and what it had not sent goes tonight
    await week.until("2026-10-22 22:00")
    week.export(export.day(new=5, changed=5))
    result = await week.night()
    assert (result.job, result.exit_code) == ("load-2026-10-22", Exit.ALL_CREATED)
    assert "job load-2026-10-21 was closed first" in result.message
    assert result.tally.created > 5
    again = await week.night()  # cron was not told that it had ended well
    assert (again.job, again.exit_code, again.tally) == (result.job, Exit.ALL_CREATED, result.tally)

    # Friday: maintenance all night, tried three times
    await week.until("2026-10-23 22:00")
    week.export(export.day(new=20, changed=5))
    week.maintenance = True
    for hour in ("22:30", "23:30", "23:59"):
        await week.until(f"2026-10-23 {hour}")
        result = await week.night()
        assert (result.job, result.state, result.exit_code) == ("load-2026-10-23", "open", Exit.STOPPED_EARLY)
    week.maintenance = False

    # Saturday: too much for one night. It ends in time, an hour later than the clocks say, which are set back
    await week.until("2026-10-24 22:00")
    week.export(export.day(new=600, gone=10))
    result = await week.night(send=SLOW, accept_new=True)  # somebody knows that it is much
    assert (result.job, result.state, result.exit_code) == ("load-2026-10-24", "open", Exit.STOPPED_EARLY)
    assert "the window closes 2026-10-25 06:00 Europe/Berlin" in result.message
    assert result.tally.states.keys() - {"settled", "frozen"} == {s for s, n in result.tally.states.items() if not n}
    assert 5 < result.elapsed_seconds / 3600 <= 9
    assert 100 < result.tally.created < 500
    await week.until("2026-10-25 06:00")
    with pytest.raises(WindowClosed):
        await week.night()

    # Sunday: the file is the same, so the job of Saturday goes on first; it is started twice
    await week.until("2026-10-25 22:00")
    first, second = asyncio.create_task(week.night()), asyncio.create_task(week.night())
    await asyncio.wait([first, second])
    refused = [one.exception() for one in (first, second) if one.exception()]
    assert [type(one) for one in refused] == [JobLocked]
    (result,) = [one.result() for one in (first, second) if not one.exception()]
    assert (result.job, result.exit_code) == ("load-2026-10-25", Exit.ALL_CREATED)
    assert "job load-2026-10-24 was ended first" in result.message
    assert result.tally.created == 0

    # Monday: somebody has changed the mapping, and every task is another one
    await week.until("2026-10-26 22:00")
    week.export(export.day(new=10))
    changed, more = "defaults = { priority = 5 }", {"priority": 5}
    if skips:
        result = await week.night(mapping=changed)
        assert (result.exit_code, result.tally.created) == (Exit.ALL_CREATED, 10)
    else:
        with pytest.raises(TooManyNew) as raised:
            await week.night(mapping=changed)
        assert raised.value.exit_code == Exit.LIMIT
        assert "load-2026-10-26" not in await week.jobs()
        result = await week.night(mapping=changed, accept_new=True)
        assert (result.exit_code, result.tally.created) == (Exit.ALL_CREATED, len(export.rows))

    # The journal judges
    keys, contents = await week.created()
    last = {content(row, **more) for row in export.rows.items()}
    assert set(contents.values()) == {1}
    if skips:
        assert set(keys.values()) == {1}
        assert export.rows.keys() <= keys.keys()
    else:
        assert last <= contents.keys()
    assert contents.keys() <= {content(row) for row in export.ever} | last
    assert Counter((await week.jobs()).values()) == {"finished": 5, "canceled": 2}


@pytest.mark.parametrize("number", DEATHS)
@pytest.mark.parametrize("what", ["requests", "steps"])
async def test_a_night_that_is_killed_anywhere_is_made_up_for(tmp_path, monkeypatch, what, number):
    week, export = Week(tmp_path, monkeypatch, begins="2026-10-20 22:00", delta="most_new = 1"), Export()
    week.export(export.day(new=40))
    assert await week.killed_night(requests=9)
    await week.until("2026-10-21 22:00")
    week.export(export.day(new=10, changed=3, gone=3))
    await week.killed_night(**{what: number})
    await week.until("2026-10-22 22:00")
    week.export(export.day(new=10))
    result = await week.night()
    assert (result.job, result.exit_code) == ("load-2026-10-22", Exit.ALL_CREATED), result
    _, contents = await week.created()
    assert set(contents.values()) == {1}
    assert {content(row) for row in export.rows.items()} <= contents.keys()
    assert set((await week.jobs()).values()) <= {"finished", "canceled"}
