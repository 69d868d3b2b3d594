import asyncio
import errno
import os
import signal
import time

import orjson
import pytest
from fakes.pages import Page

import engine
from engine.bench.loads import Knee
from engine.bench.results import BenchOrder
from engine.commands import bench as benching
from engine.model.errors import BulkSubmitError, ConfigError, Exit, Interrupted, SourceError
from engine.model.submission import State
from engine.progress.events import BatchMoved, JobStarted, fan_out
from engine.run.context import Stop
from engine.sandbox.behaviour import CreationPace, FailureRule, Fault, Latency, RateLimit

from .desk import lines, tasks


async def measured(desk, *, stop=None, config=None, heard=lambda _: None, **order):
    order = BenchOrder(config or desk.config(), **{"output": desk.folder / "out", "seed": 5, **order})
    return await benching.bench(order, fan_out(desk.emit, heard), stop or desk.new_stop())


def created_at(desk):
    """Return the ids of the tasks that the sandbox has created, each once."""
    created = desk.created()
    assert set(created.values()) <= {1}
    return set(created)


def told(bench):
    return orjson.loads((bench.folder / "bench.json").read_bytes())


async def test_everything_that_was_created_is_listed_and_the_counts_agree(desk):
    desk = await desk(latency={"all": Latency(0.005)})
    bench = await measured(desk, records=60, steps="1,2", seconds=30.0)
    assert bench.exit_code == Exit.ALL_CREATED
    assert [step.measure.created for step in bench.steps] == [60, 60]
    assert [(one.measure.records, one.measure.batches, one.measure.unfinished) for one in bench.steps] == [
        (60, 6, 0)
    ] * 2
    assert created_at(desk) == {f"bench-5-{number}" for number in range(120)}
    outcomes = lines(bench.outcomes)
    assert len(outcomes) == len({line["task_id"] for line in outcomes}) == 120
    assert {line["state"] for line in outcomes} == {"created"}
    assert (await engine.audit("bench-02", bench.ledger)).holds


async def test_the_documents_say_the_same_without_a_secret_and_stand_alone(desk, monkeypatch):
    desk = await desk(access_keys=("a-secret-of-ours",))
    monkeypatch.setenv("SAMA_ACCESS_KEY", "a-secret-of-ours")
    bench = await measured(desk, records=40, steps="1,2", seconds=30.0)
    page = (bench.folder / "bench.html").read_text()
    assert Page(page).stands_alone
    assert told(bench)["created"] == bench.tally.created == 80
    assert [step["created"] for step in told(bench)["steps"]] == [40, 40]
    for content in (page, (bench.folder / "bench.json").read_text()):
        assert "a-secret-of-ours" not in content
        assert "access_key" not in content
    assert {path.stat().st_mode & 0o777 for path in bench.folder.iterdir() if path.is_file()} == {0o600}


async def test_a_slow_service_is_measured_as_slow_as_it_is(desk):
    # A batch of ten tasks takes 0.1 s, and two are created side by side: 200 tasks a second, whatever is sent.
    desk = await desk(creation=CreationPace(tasks_per_second=100.0, parallel_batches=2))
    bench = await measured(desk, records=100, steps="1,8", seconds=30.0)
    for step in bench.steps:
        assert 5 < step.measure.throughput < 300
        assert 0.09 < step.measure.time_to_created.longest < 20.0
        assert step.measure.time_to_created.p50 <= step.measure.time_to_created.p90 <= step.measure.time_to_created.p99


async def test_a_place_is_held_until_the_service_has_created_its_batch(desk):
    # Whatever is sent is taken in at once; a batch of ten tasks then takes 0.1 s.
    desk = await desk(creation=CreationPace(tasks_per_second=100.0))
    under_way, most = set(), [0]

    def count(event):
        if isinstance(event, BatchMoved):
            (under_way.discard if event.after is State.SETTLED else under_way.add)(event.sequence)
            most[-1] = max(most[-1], len(under_way))
        elif isinstance(event, JobStarted):
            most.append(0)

    bench = await measured(desk, records=80, steps="1,4", seconds=30.0, heard=count)
    assert most == [0, 1, 4]
    assert bench.steps[0].measure.throughput < 101


async def test_it_stops_one_step_beyond_the_knee(desk, monkeypatch):
    monkeypatch.setattr(benching, "find_knee", lambda points: Knee(0, "so") if len(points) == 2 else None)
    desk = await desk()
    bench = await measured(desk, records=40, steps="1,2,3,4", seconds=30.0)
    assert [step.load.label for step in bench.steps] == ["1", "2"]
    assert bench.ended == "It ended one step beyond the knee, at 2."
    assert (told(bench)["knee"], len(created_at(desk))) == ({"step": "1", "reason": "so"}, 80)


async def test_a_closed_loop_ends_after_its_seconds_and_nothing_is_left_to_send(desk):
    desk = await desk(latency={"create": Latency(0.05)})
    bench = await measured(desk, records=5000, steps="1", seconds=0.5)
    (step,) = bench.steps
    assert 10 <= step.measure.created < 1000
    assert bench.exit_code == Exit.ALL_CREATED
    assert bench.tally.records == bench.tally.created == len(created_at(desk))


async def test_a_schedule_shows_a_stall_that_whoever_sends_does_not_see(desk):
    # With one place, the answer that comes after 1.5 s holds up all that was due meanwhile.
    desk = await desk(faults=(Fault("create", "hang", nth=(3,), seconds=1.5),))
    config = desk.config(send="max_in_flight = 1")
    bench = await measured(desk, config=config, records=200, rates=["100"], seconds=2.0)
    measure = bench.steps[0].measure
    assert (measure.created, measure.batches, measure.unfinished) == (200, 20, 0)
    assert measure.time_to_created.longest >= 1.4
    # Half of the batches were due during the stall. The sender saw one slow batch; who waits saw all of them.
    assert measure.time_to_created.p90 > 0.9
    assert measure.time_to_created_uncorrected.p90 < measure.time_to_created.p90
    assert measure.time_to_created.p50 > measure.time_to_created_uncorrected.p50


async def test_a_rate_that_is_kept_up_with_is_reached_and_batches_come_in_time(desk):
    desk = await desk()
    heard = []
    bench = await measured(desk, records=10_000, rates=["100"], seconds=1.0, heard=heard.append)
    (step,) = bench.steps
    assert step.measure.created == 100
    assert 10 < step.measure.throughput <= 101
    assert step.measure.seconds >= 1.0  # the last record was due after a second
    assert sum(isinstance(event, BatchMoved) and event.before == "frozen" for event in heard) == 10


async def test_push_back_and_errors_are_counted(desk):
    desk = await desk(
        rate_limits=(RateLimit(2, 0.3, "create"),), faults=(Fault("status", "refuse", nth=(1,), status=503),)
    )
    bench = await measured(desk, records=40, steps="4", seconds=30.0)
    measure = bench.steps[0].measure
    assert measure.created == 40
    assert measure.answers_429 >= 1
    assert measure.errors == 1
    assert measure.retries >= 2
    assert told(bench)["steps"][0]["answers_429"] == measure.answers_429


async def test_a_step_that_creates_nothing_is_the_last_and_says_why(desk):
    desk = await desk(failures=(FailureRule(share=1.0, message="The project is full."),))
    bench = await measured(desk, records=20, steps="1,2", seconds=30.0)
    assert len(bench.steps) == 1
    assert "The project is full." in bench.ended
    assert (bench.exit_code, bench.tally.failed) == (Exit.SOME_FAILED, 20)


async def test_an_interrupted_bench_writes_what_it_measured_and_resume_settles_the_rest(desk):
    desk = await desk(creation=CreationPace(tasks_per_second=50.0))
    stop = Stop()

    def interrupt(event):
        if isinstance(event, BatchMoved) and event.after == "released" and event.sequence == 4:
            stop.request(Interrupted(signal.SIGINT))

    bench = await measured(desk, stop=stop, records=500, steps="1,2", seconds=30.0, heard=interrupt)
    assert bench.exit_code == 128 + signal.SIGINT
    assert len(bench.steps) == 1
    assert told(bench)["exit_code"] == bench.exit_code
    assert "bulksubmit resume bench-01 --ledger" in bench.ended
    assert "interrupted" in (bench.folder / "bench.html").read_text()
    result = await engine.resume("bench-01", bench.ledger, desk.emit, desk.new_stop())
    assert (result.state, result.exit_code) == ("finished", Exit.ALL_CREATED)
    assert result.tally.records == result.tally.created == len(created_at(desk)) < 500


async def test_a_service_that_does_not_finish_is_not_waited_for_without_end(desk, monkeypatch):
    monkeypatch.setattr(benching, "LEAST_LATE_SECONDS", 0.5)
    monkeypatch.setattr(benching, "LATE_STEPS", 0.0)
    desk = await desk(creation=CreationPace(tasks_per_second=0.5))
    bench = await measured(desk, records=20, steps="1,2", seconds=0.5)
    (step,) = bench.steps
    assert bench.exit_code == Exit.STOPPED_EARLY
    assert step.measure.unfinished == step.measure.records - step.measure.created > 0
    assert step.measure.time_to_created.longest >= 0.5  # of those that are not created yet, too
    assert "not settled within 1 s" in bench.ended
    assert {line["state"] for line in lines(bench.outcomes)} == {"unresolved"}


async def test_an_interruption_ends_the_wait_for_a_batch_that_is_not_due_yet(desk):
    desk = await desk()
    stop = Stop()

    def interrupt(event):
        if isinstance(event, JobStarted):
            asyncio.get_running_loop().call_later(0.2, stop.request, Interrupted(signal.SIGTERM))

    began = time.monotonic()
    bench = await measured(desk, stop=stop, records=500, rates=["0.02"], seconds=300.0, heard=interrupt)
    assert time.monotonic() - began < 25  # the first record is due after 50 s
    assert (bench.exit_code, bench.tally.records) == (128 + signal.SIGTERM, 0)
    assert told(bench)["steps"][0]["records"] == 0
    assert Page((bench.folder / "bench.html").read_text()).stands_alone


async def test_tasks_of_files_are_sent_each_once_until_they_are_used_up(desk):
    desk = await desk()
    pretty = desk.folder / "tasks.json"
    pretty.write_bytes(orjson.dumps(tasks(25), option=orjson.OPT_INDENT_2))
    more = desk.source(tasks(10, start=25))
    bench = await measured(desk, sources=[str(pretty), str(more)], records=15, steps="1,2,4,8", seconds=30.0)
    assert created_at(desk) == {str(number) for number in range(sum(step.measure.created for step in bench.steps))}
    assert bench.seed is None
    if bench.knee is None:
        assert len(created_at(desk)) == 35
        assert bench.ended == "The sources hold no more records."


async def test_tasks_of_files_for_which_a_step_had_no_time_are_left_to_the_next(desk):
    desk = await desk(latency={"create": Latency(0.05)})
    source = desk.source(tasks(3000))
    bench = await measured(desk, sources=[str(source)], records=2900, steps="1,2", seconds=0.3)
    first, second = (step.measure.records for step in bench.steps)
    assert 0 < first < 2000  # what was read ahead when the time was over is sent, too
    assert second >= 10
    assert created_at(desk) == {str(number) for number in range(first + second)}


async def test_tasks_that_are_not_fit_are_refused_before_anything_is_sent(desk):
    desk = await desk()
    config = desk.config(more='[mapping]\nwrap = "input"')
    with pytest.raises(ConfigError, match="the tasks are not fit to be sent: input: not a key of a task"):
        await measured(desk, config=config)
    assert desk.calls("create") == 0
    assert not (desk.folder / "out").exists()  # once the mapping is mended, the same command does it


async def test_sources_without_records_are_refused(desk):
    desk = await desk()
    with pytest.raises(SourceError, match="no record"):
        await measured(desk, sources=[str(desk.source([]))])
    assert not (desk.folder / "out").exists()


async def test_a_full_disk_is_named(desk, monkeypatch):
    desk = await desk()

    def full(path, flags):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(benching, "private", full)
    with pytest.raises(BulkSubmitError, match=r"cannot be written \(No space left on device\)"):
        await measured(desk)


async def test_a_folder_that_holds_something_is_refused(desk):
    desk = await desk()
    await measured(desk, records=10, steps="1", seconds=30.0)
    before = (desk.folder / "out" / "outcomes.ndjson").read_bytes()
    with pytest.raises(ConfigError, match="--output"):
        await measured(desk, records=10, steps="1", seconds=30.0)
    assert (desk.folder / "out" / "outcomes.ndjson").read_bytes() == before


async def test_the_same_seed_sends_the_same_tasks(desk):
    desk = await desk()
    first = await measured(desk, records=10, steps="1", seconds=30.0)
    second = await measured(desk, records=10, steps="1", seconds=30.0, output=desk.folder / "again")
    sent = [(bench.folder / "bench-01" / "tasks.ndjson").read_bytes() for bench in (first, second)]
    assert sent[0] == sent[1]


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ({"steps": "1", "rates": ["5"]}, ConfigError),
        ({"sources": ["-"]}, SourceError),
        ({"steps": "two"}, ConfigError),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(desk, order, error):
    desk = await desk()
    with pytest.raises(error):
        await benching.bench_plan(BenchOrder(desk.config(), **order))


async def test_the_plan_says_where_and_how_many(desk, monkeypatch):
    desk = await desk()
    plan = await benching.bench_plan(BenchOrder(desk.config(), records=100, steps="1,2,auto"))
    assert (plan.kind, plan.host, plan.local, plan.project, plan.most_tasks) == ("sama", "127.0.0.1", True, "42", 300)
    away = desk.config(url="https://api.example.com/v2")
    plan = await benching.bench_plan(BenchOrder(away, records=40))
    assert (plan.host, plan.local, plan.most_tasks) == ("api.example.com", False, 120)


async def test_tasks_of_seven_bridges_come_from_files_or_a_template(tmp_path, monkeypatch):
    monkeypatch.setenv("SB_AUTH_TOKEN", os.urandom(8).hex())
    config = tmp_path / "sb.toml"
    config.write_text('[service]\nkind = "sevenbridges"\nauth_token = "${env:SB_AUTH_TOKEN}"\nproject = "a/b"\n')
    with pytest.raises(ConfigError, match="name a SOURCE"):
        await benching.bench_plan(BenchOrder(config))
    config.write_text(config.read_text() + '[mapping.template]\nname = "${row.sample}"\n')
    assert (await benching.bench_plan(BenchOrder(config))).project == "a/b"
