"""A run under way: its events, its result, its end; and runs beside each other in one process."""

import asyncio
import logging
import signal
import threading
import tomllib

import orjson
import pytest

import engine
from engine.commands import start as starting

from .desk import tasks, written


@pytest.fixture
def source(tmp_path):
    return written(tmp_path / "tasks.ndjson", tasks(50))


async def test_a_run_tells_what_happens_and_gives_its_result(serving, source):
    async with engine.start(engine.submit, source, config=serving(), job="j") as run:
        kinds = [type(event) async for event in run]
        result = await run.result()
    assert (kinds[0], kinds[-1]) == (engine.events.JobStarted, engine.events.JobEnded)
    assert kinds.count(engine.events.BatchSettled) == 5
    assert (result.state, result.tally.created) == ("finished", 50)
    outcomes = list(result.read_outcomes())
    assert [(one.index, one.state) for one in outcomes] == [(at, "created") for at in range(50)]
    assert outcomes[7].as_line() == orjson.loads(result.outcomes.read_bytes().splitlines()[7])


async def test_stop_ends_a_run_in_order_and_resume_goes_on(serving, source):
    async with engine.start(engine.submit, source, config=serving(send="max_in_flight = 1"), job="j") as run:
        async for event in run:
            if isinstance(event, engine.events.BatchSettled):
                run.stop()
        stopped = await run.result()
    assert (stopped.state, stopped.exit_code) == ("open", 5)
    assert "The program has ended the run" in stopped.message
    assert (await engine.resume("j")).tally.created == 50


@pytest.mark.parametrize("ending", ["canceled", "failed"])
async def test_a_block_that_ends_early_ends_its_run(ending, serving, source):
    async def listen():
        async with engine.start(engine.submit, source, config=serving(send="max_in_flight = 1"), job="j") as run:
            async for event in run:
                if isinstance(event, engine.events.BatchSettled):
                    if ending == "canceled":
                        asyncio.current_task().cancel()
                        await asyncio.sleep(60)
                    raise LookupError  # noqa: TRY004 - whatever a program raises

    with pytest.raises(asyncio.CancelledError if ending == "canceled" else LookupError):
        await asyncio.create_task(listen())
    (status,) = await engine.status("j")
    assert (status.running, status.killed, status.job.state) == (False, False, "open")
    assert (await engine.resume("j")).tally.created == 50
    assert (await engine.audit("j")).holds


async def test_what_an_operation_raises_comes_out_of_the_block_once(serving, source):
    with pytest.raises(engine.errors.JobError, match="no ledger"):
        async with engine.start(engine.resume, "nothing"):
            pass
    async with engine.start(engine.resume, "nothing") as run:
        with pytest.raises(engine.errors.JobError):
            await run.result()
    with pytest.raises(TypeError, match="sources"):
        engine.start(engine.submit, sauces="x")


async def test_a_slow_listener_delays_nothing_and_is_told_what_it_has_missed(monkeypatch, serving, source):
    monkeypatch.setattr(starting, "MOST_EVENTS", 20)
    heard = []
    async with engine.start(engine.submit, source, config=serving(), job="j", emit=heard.append) as run:
        await run.result()
        seen = [event async for event in run]
    assert len(seen) == 21
    assert seen[0] == engine.events.EventsDropped(len(heard) - 20)
    assert seen[1:] == heard[-20:]


async def test_two_runs_go_on_in_one_loop_with_secrets_of_their_own(serving, source):
    first, second = serving(), serving(name="other")

    def tables(config, secret):
        given = tomllib.loads(config.read_text())
        return {**given, "service": {**given["service"], "access_key": engine.SecretStr(secret)}}

    good, bad = await asyncio.gather(
        engine.submit(source, tables(first, "sandbox-key"), "a.db", job="a"),
        engine.submit(source, tables(second, "no-such-key"), "b.db", job="b"),
    )
    assert (good.state, good.tally.created) == ("finished", 50)
    assert (bad.state, bad.exit_code, bad.tally.created) == ("open", 9, 0)
    for result, ledger, secret in ((good, "a.db", "sandbox-key"), (bad, "b.db", "no-such-key")):
        (status,) = await engine.status(result.job, ledger)
        assert "${given:service.access_key}" in status.job.config
        assert secret not in status.job.config
    mended = await engine.resume("b", "b.db", config=tables(second, "sandbox-key"))
    assert mended.tally.created == 50


async def test_two_jobs_of_one_ledger_go_on_at_the_same_time_and_one_job_does_not(serving, source, tmp_path):
    config, other = serving(), written(tmp_path / "other.ndjson", tasks(50, start=50))
    results = await asyncio.gather(
        engine.submit(source, config, job="a"), engine.submit(other, config, job="b"), return_exceptions=True
    )
    assert [one.tally.created for one in results] == [50, 50]
    async with engine.start(engine.submit, source, config=config, job="c", again=True) as run:
        await run.next_events()
        with pytest.raises(engine.errors.JobLocked):
            await engine.resume("c")


def state_of_process():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    known = logging.root.manager.loggerDict.items()
    loggers = {name: (one.handlers, one.level) for name, one in known if isinstance(one, logging.Logger)}
    return handlers, list(logging.root.handlers), logging.root.level, loggers


async def test_a_run_leaves_signals_logging_and_standard_streams_alone(serving, source, capfd):
    config = serving()
    await engine.submit(source, config, job="a")  # whatever is loaded by now is
    before, threads = state_of_process(), threading.active_count()
    await engine.submit(source, config, job="b", again=True)
    assert state_of_process() == before
    assert threading.active_count() <= threads + 1
    assert capfd.readouterr() == ("", "")
