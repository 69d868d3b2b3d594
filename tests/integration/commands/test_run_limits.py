"""Limits of a run, as `submit` and `resume` take them and as `[window]` and `[limits]` have them."""

import time

import pytest

import engine
from engine.model.errors import ConfigError, Exit, WindowClosed
from engine.sandbox.behaviour import CreationPace, FailureRule

from .desk import counts, once, tasks

BROKEN = FailureRule(path="data.status", equals="broken", message="no")


def limits(**said):
    return engine.RunLimits(**said)


def hours_from_now(first, last):
    """Return a window that opens and closes so many hours from now, in UTC."""
    hour = time.gmtime().tm_hour
    return f"{(hour + first) % 24:02}:00-{(hour + last) % 24:02}:00"


async def test_run_after_run_sends_as_many_records_as_it_may(desk):
    desk = await desk()
    result = await desk.submit(desk.source(tasks(45)), limits=limits(max_records=17))
    assert (result.state, result.exit_code) == ("open", Exit.STOPPED_EARLY)
    assert len(desk.created()) == 17
    await desk.resume(limits=limits(max_records=1))
    assert len(desk.created()) == 18
    result = await desk.resume()
    assert (result.exit_code, counts(result)) == (Exit.ALL_CREATED, (45, 0, 0, 0, 0))
    assert desk.created() == once(45)
    assert (await desk.audit()).holds


async def test_the_limits_of_the_configuration_hold_unless_the_command_line_says_other_ones(desk):
    desk = await desk()
    config = desk.config(more="[limits]\nmax_records = 10")
    await desk.submit(desk.source(tasks(45)), config)
    assert len(desk.created()) == 10
    await desk.resume()
    assert len(desk.created()) == 20
    await desk.resume(limits=limits(max_records=5))
    assert len(desk.created()) == 25
    await desk.resume(config=desk.config(more="[limits]\nmax_records = 1000"))
    assert desk.created() == once(45)


async def test_too_many_failures_stop_a_job_and_another_limit_has_it_go_on(desk):
    desk = await desk(failures=(BROKEN,))
    source = desk.source([*tasks(20, status="broken"), *tasks(180, 20)])
    config = desk.config(send="max_in_flight = 1\nmax_open_batches = 1")
    result = await desk.submit(source, config, limits=limits(max_failed="9"))
    assert (result.state, result.exit_code) == ("open", Exit.LIMIT)
    assert result.tally.failed in {10, 20}
    assert len(desk.created()) < 180
    assert "9 may (max_failed)" in result.message
    sent, created = desk.calls("create"), len(desk.created())
    again = await desk.resume(limits=limits(max_failed="9"))
    assert (again.state, again.exit_code) == ("open", Exit.LIMIT)
    assert desk.calls("create") == sent
    assert len(desk.created()) == created
    again = await desk.resume(limits=limits(max_failed="20"))
    assert (again.state, again.exit_code) == ("finished", Exit.SOME_FAILED)
    assert counts(again) == (180, 20, 0, 0, 0)
    assert max(desk.created().values()) == 1


async def test_a_job_that_has_sent_all_is_finished_however_many_failed(desk):
    desk = await desk(failures=(BROKEN,))
    result = await desk.submit(desk.source(tasks(10, status="broken")), limits=limits(max_failed="0"))
    assert (result.state, result.exit_code, result.message) == ("finished", Exit.SOME_FAILED, "")


@pytest.mark.parametrize("asked", [False, True])
async def test_a_load_without_a_record_is_told_where_it_is_asked_for(desk, asked):
    desk = await desk()
    result = await desk.submit(desk.source([]), limits=limits(fail_if_empty=asked))
    assert (result.state, result.exit_code) == ("finished", Exit.NOTHING if asked else Exit.ALL_CREATED)


async def test_a_call_that_sends_nothing_is_an_empty_one_whatever_the_job_has_sent_before(desk):
    desk = await desk(failures=(BROKEN,))
    await desk.submit(desk.source(tasks(5)), limits=limits(fail_if_empty=True))
    assert (await desk.resume()).exit_code == Exit.ALL_CREATED
    assert (await desk.resume(limits=limits(fail_if_empty=True))).exit_code == Exit.NOTHING


async def test_a_load_of_nothing_but_bad_records_is_no_empty_one(desk):
    desk = await desk()
    source = desk.source([{"priority": "high"}])
    assert (await desk.submit(source, limits=limits(fail_if_empty=True))).exit_code == Exit.SOME_FAILED


async def test_a_deadline_leaves_time_for_what_is_under_way(desk):
    desk = await desk(creation=CreationPace(tasks_per_second=50))
    config = desk.config(send="max_in_flight = 1\nmax_open_batches = 2")
    result = await desk.submit(desk.source(tasks(500)), config, limits=limits(deadline="2s"))
    assert (result.state, result.exit_code) == ("open", Exit.STOPPED_EARLY)
    assert "the deadline, 2" in result.message
    assert set(result.tally.states) >= {"settled"}
    assert not result.tally.states.get("released")
    assert result.elapsed_seconds < 4


async def test_a_closed_window_begins_nothing_and_an_open_job_is_left_as_it_is(desk):
    desk = await desk()
    source, closed = desk.source(tasks(45)), limits(window=hours_from_now(2, 3), zone="UTC")
    with pytest.raises(WindowClosed):
        await desk.submit(source, limits=closed)
    assert not desk.ledger.exists()
    await desk.submit(source, limits=limits(window=hours_from_now(-1, 3), zone="UTC", max_records=10))
    with pytest.raises(WindowClosed) as raised:
        await desk.resume(limits=closed)
    assert raised.value.exit_code == Exit.STOPPED_EARLY
    assert len(desk.created()) == 10
    await desk.resume()
    assert (await desk.resume(limits=closed)).exit_code == Exit.ALL_CREATED  # nothing is left to be done


async def test_a_window_may_change_while_a_job_goes_on(desk):
    desk = await desk()
    times = hours_from_now(-1, 3).split("-")
    window = f'[window]\nopens = "{times[0]}"\ncloses = "{times[1]}"\nzone = "UTC"'
    await desk.submit(desk.source(tasks(45)), desk.config(more=window), limits=limits(max_records=10))
    result = await desk.resume(config=desk.config())
    assert result.exit_code == Exit.ALL_CREATED


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"window": "22:00"}, "window: '22:00' has no two times; write it as 22:00-06:00"),
        ({"window": "22:00-"}, "closes: missing"),
        ({"window": "22:00-22:00"}, "closes: a window that closes when it opens is none"),
        ({"window": "22:00-25:00"}, "closes: '25:00' is no time of the day"),
        ({"window": "22:00-06:00", "zone": "Mars"}, "zone: this machine knows no time zone 'Mars'"),
        ({"deadline": "soon"}, "deadline: 'soon' is no duration"),
        ({"max_failed": "many"}, "max_failed: 'many' is neither a share nor a number"),
    ],
)
async def test_a_limit_that_cannot_be_read_is_an_error_of_usage(desk, said, words):
    desk = await desk()
    with pytest.raises(ConfigError, match=words) as raised:
        await desk.submit(desk.source(tasks(1)), limits=limits(**said))
    assert raised.value.exit_code == Exit.USAGE


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[window]\nopens = '22:00'", "window.closes: missing"),
        ("[window]\nopens = '22'\ncloses = '06:00'", "window.opens: '22' is no time of the day"),
        ("[limits]\nmax_records = 0", "limits.max_records: must be a whole number from 1 on"),
        ("[limits]\nmax_fail = '1%'", "limits.max_fail: unknown key; did you mean 'max_failed'"),
        ("[limits]\ndeadline = 'x'", "limits.deadline: 'x' is no duration"),
    ],
)
async def test_a_table_of_limits_that_is_wrong_names_the_key(desk, table, words):
    desk = await desk()
    with pytest.raises(ConfigError, match=words):
        await desk.submit(desk.source(tasks(1)), desk.config(more=table))


async def test_a_retry_has_the_same_limits(desk):
    desk = await desk(failures=(BROKEN,))
    rejects = (await desk.submit(desk.source(tasks(15, status="broken")))).rejects
    rejects.write_bytes(rejects.read_bytes().replace(b'"status":"broken"', b'"status":"mended"'))
    result = await desk.retry(limits=limits(max_records=7))
    assert (result.job, result.state, result.exit_code) == ("j.retry", "open", Exit.STOPPED_EARLY)
    assert len(desk.created()) == 7
    result = await desk.retry(limits=limits(max_records=2))  # which goes on with that first
    assert (result.exit_code, len(desk.created())) == (Exit.STOPPED_EARLY, 9)
    path = desk.folder / "j.prom"
    assert (await desk.retry(metrics_textfile=path)).exit_code == Exit.ALL_CREATED
    assert desk.created() == once(15)
    assert 'records{job_name="j.retry",state="created"} 15.0' in path.read_text()
    assert (await desk.retry(limits=limits(fail_if_empty=True))).exit_code == Exit.NOTHING


async def test_what_failed_is_sent_again_only_while_the_window_is_open(desk):
    desk = await desk(failures=(BROKEN,))
    closed = "[window]\nopens = '{}'\ncloses = '{}'\nzone = 'UTC'".format(*hours_from_now(2, 3).split("-"))
    open_now = limits(window=hours_from_now(-1, 3), zone="UTC")
    config = desk.config(more=closed)
    await desk.submit(desk.source(tasks(5, status="broken")), config, limits=open_now)
    with pytest.raises(WindowClosed):
        await desk.retry()
    assert [one.job.name for one in await engine.status(None, desk.ledger)] == ["j"]
