"""Programs without an event loop, and with one that runs already."""

import threading
import time

import pytest

import engine
import engine.sync

from .commands.desk import tasks, written


@pytest.fixture
def source(tmp_path):
    return written(tmp_path / "tasks.ndjson", tasks(30))


def test_a_program_without_a_loop_submits_looks_and_audits(serving, source):
    result = engine.sync.submit(source, config=serving(), job="j")
    assert (result.state, result.tally.created) == ("finished", 30)
    (status,) = engine.sync.status("j")
    assert status.job.name == "j"
    assert engine.sync.audit("j").holds
    with pytest.raises(engine.errors.JobError, match="'nothing'"):
        engine.sync.report("nothing")


async def test_it_works_where_a_loop_runs_already_as_in_a_notebook(serving, source):
    assert engine.sync.submit(source, config=serving(), job="j").tally.created == 30


def test_two_threads_submit_at_the_same_time(serving, source, tmp_path):
    config, results = serving(), {}

    def work(name):
        own = written(tmp_path / f"{name}.ndjson", tasks(30, start=100 * int(name)))
        results[name] = engine.sync.submit(own, config=config, job=f"job-{name}")

    threads = [threading.Thread(target=work, args=[name]) for name in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {name: result.tally.created for name, result in results.items()} == {"1": 30, "2": 30}


def test_a_run_under_way_tells_its_events_and_is_stopped(serving, source):
    config = serving(send="max_in_flight = 1")
    with engine.sync.start(engine.sync.submit, source, config=config, job="j") as run:
        for event in run:
            if isinstance(event, engine.events.BatchSettled):
                run.stop()
    assert run.result().state == "open"
    with engine.sync.start(engine.sync.resume, "j") as run:
        assert run.result().tally.created == 30


def test_a_listener_that_holds_up_its_thread_holds_up_no_run(serving, source):
    with engine.sync.start(engine.sync.submit, source, config=serving(), job="j") as run:
        first = next(iter(run))
        until = time.monotonic() + 30
        while engine.sync.status("j")[0].job.state != "finished":  # nobody listens meanwhile
            assert time.monotonic() < until
    assert isinstance(first, engine.events.JobStarted)


def test_an_interrupt_cancels_the_run_and_resume_goes_on(serving, source):
    def interrupted():
        config = serving(send="max_in_flight = 1")
        with engine.sync.start(engine.sync.submit, source, config=config, job="j") as run:
            for event in run:
                if isinstance(event, engine.events.BatchSettled):
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert engine.sync.resume("j").tally.created == 30


def test_what_is_no_operation_is_refused():
    with pytest.raises(TypeError, match=r"engine\.sync\.submit is one"):
        engine.sync.start(print)
    with pytest.raises(AttributeError, match="errors"):
        _ = engine.sync.errors
