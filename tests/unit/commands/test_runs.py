"""Beside a run: samples that stay few, however long it takes, and metrics each minute; neither is the run's matter."""

from itertools import pairwise

import orjson
import pytest
from fakes.clock import FakeClock, Watched, under_way

from engine.adaptive.concurrency import LimitChanged
from engine.commands import runs, wiring
from engine.commands.result import Result
from engine.commands.runs import METRICS_SECONDS, SAMPLE_SECONDS, RunMemory
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import DeadlineReached, LedgerError, Unauthorized
from engine.model.job import Job
from engine.model.outcome import Tally
from engine.model.settings import SendSettings
from engine.progress.events import CallRetried, JobStarted, Noticed, Paused, Stopping, unheard
from engine.run.context import Stop
from engine.run.in_flight import InFlight


@pytest.fixture
def clock(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(wiring, "CLOCK", clock)
    return clock


@pytest.fixture
async def ledger(tmp_path, clock):
    async with SqliteLedger.open(tmp_path / "ledger.db", clock) as ledger:
        await ledger.create_job(Job("j", "sama", "", (), str(tmp_path)))
        yield Watched(ledger, clock)


async def followed(ledger, clock, seconds, textfile=None):
    """Let a run go on for so long."""
    async with RunMemory(await ledger.job("j"), ledger, unheard, Stop(), command="submit", textfile=textfile) as memory:
        memory.emit(JobStarted("j", 1_000))
        async with under_way(memory.follow(InFlight(SendSettings(), clock, unheard))):
            await clock.sleep(seconds)


async def test_a_run_is_sampled_every_ten_seconds_and_at_its_end(ledger, clock):
    await followed(ledger, clock, 35.0)
    samples = await ledger.samples("j", 1)
    assert [sample.at - clock._started for sample in samples] == pytest.approx([10.0, 20.0, 30.0, 35.0])
    assert [sample.seconds for sample in samples] == [*[SAMPLE_SECONDS] * 3, 5.0]


async def test_a_long_run_has_no_more_samples_and_they_cover_all_of_it(ledger, clock, monkeypatch):
    monkeypatch.setattr(runs, "MOST_SAMPLES", 8)
    await followed(ledger, clock, 1_005.0)
    samples = await ledger.samples("j", 1)
    assert len(samples) <= 8 + 1  # the last one is of its end
    at = [sample.at - clock._started for sample in samples[:-1]]
    gaps = {round(later - earlier) for earlier, later in pairwise(at)}
    assert len(gaps) == 1
    assert at[0] <= max(gaps)
    assert at[-1] > 1_005 - 2 * max(gaps)


async def test_samples_that_cannot_be_kept_are_no_matter_of_the_run(ledger, clock, monkeypatch):
    async def refused(*_):
        raise LedgerError

    monkeypatch.setattr(ledger._ledger, "add_sample", refused)
    await followed(ledger, clock, 25.0)
    assert (await ledger.runs("j"))[0].ended_at is not None


async def test_no_secret_is_kept_with_what_a_run_did(ledger, clock, monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "correct-horse")
    async with RunMemory(await ledger.job("j"), ledger, unheard, Stop(), command="submit") as memory:
        memory.emit(JobStarted("j", 1_000))
        for event in (
            CallRetried("put", 1, 0.5, "no correct-horse here"),
            Paused("correct-horse", 5.0),
            LimitChanged("max_in_flight", 1, 2, "correct-horse"),
        ):
            memory.emit(event)
    (run,) = await ledger.runs("j")
    assert (run.counts.waits, run.counts.retry_reasons) == ({"***": 5.0}, {"no *** here": 1})
    assert run.counts.limit_steps[0].reason == "***"
    assert "correct-horse" not in str(await ledger.samples("j", 1))


async def test_the_log_has_a_line_for_each_sample(ledger, clock, tmp_path):
    await followed(ledger, clock, 25.0)
    log = [orjson.loads(line) for line in (tmp_path / "log.ndjson").read_bytes().splitlines()]
    assert [line["event"] for line in log] == ["RunBegun", "JobStarted", "RunSampled", "RunSampled", "RunEnded"]


async def test_what_a_run_says_names_its_job_and_its_ledger(ledger, clock, tmp_path):
    told, stop = [], Stop()
    hint = f"`bulksubmit resume j --ledger {tmp_path / 'ledger.db'}`"
    memory = RunMemory(await ledger.job("j"), ledger, told.append, stop, command="submit")
    assert stop.goes_on == hint
    async with memory:
        memory.emit(Stopping(str(DeadlineReached())))
        memory.emit(Noticed("`bulksubmit validate` helps, and `bulksubmit status j` too"))

        async def failing():
            raise ExceptionGroup("of a task group", [Unauthorized()])

        with pytest.raises(ExceptionGroup) as caught:
            await memory.spelled(failing)

        async def ending():
            return Result("j", "open", Tally(), 1.0, 5, str(DeadlineReached()))

        assert f"{hint} goes on" in memory.end(await memory.spelled(ending)).message
    assert f"then run {hint}" in str(caught.value.exceptions[0])
    assert f"{hint} goes on" in told[0].reason
    assert told[1].text.startswith("`bulksubmit validate` helps, and `bulksubmit status j --ledger ")
    assert hint in (await ledger.runs("j"))[0].reason


@pytest.mark.parametrize("command", ["cancel", "undo", "refresh"])
async def test_a_command_that_loads_nothing_goes_on_by_itself_and_is_no_success_of_the_load(ledger, clock, command):
    stop = Stop()
    async with RunMemory(await ledger.job("j"), ledger, unheard, stop, command=command) as memory:
        assert await memory.beside(lambda: clock.sleep(25.0)) is None
        memory.end(Result("j", "canceled", Tally(), 1.0, 0))
    assert stop.goes_on.startswith(f"`bulksubmit {command} j ")
    assert (await ledger.standing("j")).last_completion == 0.0
    assert len(await ledger.samples("j", 1)) == 3


async def test_metrics_are_written_each_minute(ledger, clock, tmp_path, monkeypatch):
    told = []

    async def tell(textfile, *_):
        told.append(clock.elapsed)
        return ""

    monkeypatch.setattr(runs, "tell_metrics", tell)
    await followed(ledger, clock, 150.0, tmp_path / "j.prom")
    assert told == pytest.approx([0.0, METRICS_SECONDS, 2 * METRICS_SECONDS, 150.0])


async def test_a_ledger_that_takes_no_more_is_no_reason_to_look_good(ledger, clock, tmp_path, monkeypatch):
    job, textfile = await ledger.job("j"), tmp_path / "j.prom"
    async with RunMemory(job, ledger, unheard, Stop(), command="submit", textfile=textfile) as memory:
        memory.end(Result("j", "finished", Tally(), 1.0, 0))
    assert 'exit_code{job_name="j"} 0.0' in (tmp_path / "j.prom").read_text()

    async def refused(*_):
        raise LedgerError

    memory = RunMemory(job, ledger, unheard, Stop(), command="submit", textfile=textfile)
    await memory.__aenter__()
    monkeypatch.setattr(ledger._ledger, "set_run", refused)
    await memory.__aexit__(LedgerError, LedgerError(), None)
    told = (tmp_path / "j.prom").read_text()
    assert 'exit_code{job_name="j"} 9.0' in told
    assert 'last_success_timestamp_seconds{job_name="j"} 1.8e+09' in told
