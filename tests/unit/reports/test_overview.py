"""The facts of a job: what its runs did together, over time, and with whom it is related; bounded for any job."""

import msgspec
import pytest
from fakes.bench import a_bench
from fakes.fates import settle
from msgspec.structs import replace

from engine.model.batch import Limits
from engine.model.outcome import Settlement
from engine.model.runs import BatchTime, CallCounts, LimitStep, PastAudit, PastRun, RunCounts, Sample
from engine.progress.histogram import COARSE, Histogram
from engine.reports.overview import (
    MOST_POINTS,
    MOST_SLOWEST,
    MOST_STEPS,
    OTHERS,
    REASONS_TOLD,
    RUNS_TOLD,
    SeriesPoint,
    find_calls,
    overview,
    sum_of,
    thinned,
)


def times(*seconds):
    histogram = Histogram(COARSE)
    for one in seconds:
        histogram.record(one)
    return histogram.spread


def a_run(number, **counts):
    begun = 1_000.0 * number
    return PastRun(number, begun, "host", "1.0", begun + 100, 0, "", RunCounts(**counts))


@pytest.fixture
async def bench(tmp_path):
    async with a_bench(tmp_path, 10, limits=Limits(5, 1 << 20)) as bench:
        for batch in await bench.freeze():
            await settle(bench, batch, Settlement([f"t{batch.sequence}{at}" for at in range(5)]), f"r{batch.sequence}")
        yield bench


def facts_of(bench, job=None):
    return overview(job or bench.job, bench.ledger, bench.service.task_url, now=99_000.0)


def test_what_runs_did_is_added_up_and_of_many_reasons_the_most_frequent_are_told():
    runs = [
        a_run(1, created=5, sent_bytes=10, waits={"pace": 2.0, "down": 1.0}, seconds={"all": 9.0}),
        a_run(2, created=7, waits={"pace": 3.0}, retry_reasons={f"HTTP 500, {n}": n for n in range(1, 50)}),
    ]
    counts = sum_of(runs)
    assert (counts.created, counts.sent_bytes, counts.waits) == (12, 10, {"pace": 5.0, "down": 1.0})
    assert counts.seconds == {"all": 9.0}
    assert len(counts.retry_reasons) == REASONS_TOLD + 1
    assert sum(counts.retry_reasons.values()) == sum(range(1, 50))
    assert OTHERS in counts.retry_reasons


def test_calls_of_one_kind_are_told_together_over_all_runs():
    put = CallCounts(3, 30, {"200": 3}, times(0.1, 0.1, 0.1))
    runs = [
        a_run(1, calls={"put": put, "status": CallCounts(9, 0, {"200": 9}, times(*[0.01] * 9))}),
        a_run(2, calls={"put": CallCounts(1, 10, {"503": 1}, times(5.0))}),
    ]
    status, found = find_calls(runs)
    assert (status.kind, found.kind) == ("status", "put")
    assert (found.calls, found.sent_bytes, found.answers) == (4, 40, {"200": 3, "503": 1})
    assert found.seconds.p50 == pytest.approx(0.1, rel=0.11)
    assert found.seconds.longest == 5.0


def test_samples_side_by_side_are_taken_together_and_none_of_two_runs():
    points = [
        SeriesPoint(1 + (at >= 500), float(at), Sample(at, 1.0, float(at % 2), in_flight=at % 3, limit=at))
        for at in range(1_000)
    ]
    found = thinned(points, 240)
    assert 100 <= len(found) <= 240
    assert sum(point.sample.seconds for point in found) == pytest.approx(1_000)
    total = sum(point.sample.seconds * point.sample.tasks_per_second for point in found)
    assert total == pytest.approx(500)
    assert found[-1].sample.limit == 999
    assert {point.run for point in found} == {1, 2}
    edge = max(point.worked_seconds for point in found if point.run == 1)
    assert edge == 499.0


async def test_a_job_is_told_with_its_runs_its_calls_and_its_slowest_batches(bench):
    ledger = bench.ledger
    steps = [LimitStep(2.0, "max_in_flight", 1, 2, "it pays")]
    for number in (1, 2):
        slowest = [BatchTime(number - 1, 5, 50, 3.0 * number, 1.0)]
        run = a_run(number, created=5, limit_steps=steps, limits_changed=1, slowest=slowest, batch_seconds=times(3.0))
        await ledger.add_run("j", run)
        await ledger.add_sample("j", number, Sample(run.begun_at + 10, 10.0, 0.5))
    facts = await facts_of(bench)
    assert (facts.tally.created, facts.counts.created, facts.run_count, facts.worked_seconds) == (10, 10, 2, 200.0)
    assert [(point.run, point.worked_seconds) for point in facts.series] == [(1, 10.0), (2, 110.0)]
    assert [(change.run, change.at) for change in facts.limit_changes] == [(1, 1_002.0), (2, 2_002.0)]
    assert [(slow.name, slow.remote_id, slow.took.seconds) for slow in facts.slowest] == [
        ("1", "r1", 6.0),
        ("0", "r0", 3.0),
    ]
    assert facts.batch_seconds.count == 2
    assert (facts.causes.top, facts.audit, facts.running) == ([], None, False)


async def test_of_a_run_that_was_killed_the_time_until_its_last_sample_counts(bench):
    await bench.ledger.add_run("j", PastRun(1, 1_000.0, "host", "1.0"))
    await bench.ledger.add_sample("j", 1, Sample(1_040.0, 10.0))
    assert (await facts_of(bench)).worked_seconds == 40.0


async def test_an_audit_is_outdated_once_something_of_the_job_has_changed(bench):
    await bench.ledger.keep_audit("j", PastAudit(bench.clock.now() + 1, holds=True, records=10, batches=2))
    assert (await facts_of(bench)).audit.outdated is False
    await bench.ledger.keep_audit("j", PastAudit(1.0, holds=True, records=10, batches=2))
    assert (await facts_of(bench)).audit.outdated is True


async def test_a_job_is_told_with_its_family_its_parents_and_its_retries(bench):
    order = replace(bench.job, family="f", created_at=bench.job.created_at + 10)
    await bench.ledger.create_job(replace(order, name="night"))
    await bench.ledger.create_job(replace(order, name="night.retry", parent="night", family=""))
    await bench.ledger.create_job(replace(order, name="night.retry.retry", parent="night.retry", family=""))
    night = await facts_of(bench, await bench.ledger.job("night"))
    assert [one.name for one in night.nights] == ["night"]
    assert [one.name for one in night.lineage.retries] == ["night.retry"]
    last = await facts_of(bench, await bench.ledger.job("night.retry.retry"))
    assert [one.name for one in last.lineage.parents] == ["night.retry", "night"]
    assert last.nights == []


async def test_the_facts_of_a_job_of_a_thousand_runs_are_bounded(bench):
    steps = [LimitStep(float(at), "max_in_flight", at, at + 1, "it pays " * 10) for at in range(100)]
    slowest = [BatchTime(0, 5, 50, float(at), 1.0) for at in range(20)]
    calls = {f"kind {at}": CallCounts(1, 1, {"200": 1}, times(0.1)) for at in range(40)}
    run = RunCounts(limit_steps=steps, slowest=slowest, calls=calls)
    for number in range(1, 1_001):
        await bench.ledger.add_run("j", replace(a_run(number), counts=run))
        await bench.ledger.add_sample("j", number, Sample(1_000.0 * number + 10, 10.0, 0.5, limit_reason="so " * 50))
    facts = await facts_of(bench)
    assert (facts.run_count, len(facts.runs)) == (1_000, RUNS_TOLD)
    assert len(facts.series) <= MOST_POINTS
    assert (len(facts.limit_changes), len(facts.slowest)) == (MOST_STEPS, MOST_SLOWEST)
    assert len(msgspec.json.encode(facts)) < 200_000
