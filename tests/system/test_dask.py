"""Reading on a Dask cluster of real processes: the same batches as of one process, whatever dies meanwhile."""

import hashlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice

import anyio
import pytest
from fakes.inputs import sources_of
from fakes.long_work import at_once, failing, handlers, until_stopped
from fakes.processes import children

import engine
import engine.batch.dask
from engine.batch.children import Segment, plan_in_children
from engine.batch.dask import DaskCluster
from engine.clock import SystemClock
from engine.commands.dask_work import send_on_workers
from engine.commands.paths import open_ledger
from engine.model.batch import Limits
from engine.model.errors import ConfigError, Interrupted, ReaderLost, SourceChanged, Unavailable
from engine.model.record import Position
from engine.model.settings import SourceSettings
from engine.run.context import Stop
from engine.sandbox.behaviour import Behaviour, JournalSettings
from engine.sandbox.server import running_sandbox
from tests.unit.batch.crews import Broken, Killed, Recipe, Told

pytestmark = pytest.mark.slow

LINES = [b'{"a":%d}\n' % number for number in range(40_000)]
LINES[1000:1500] = [b'{"a":"bad"}\n'] * 500
CONTENTS = [b"".join(LINES), b"", b'{"a":1}\n', b"".join(LINES[:20_000])]
SHAPE = SourceSettings(), Limits(1000, 1 << 22), 1 << 14, 1 << 16


@pytest.fixture(scope="module")
def cluster():
    with DaskCluster("local:2") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sources():
    return sources_of(*CONTENTS)


def planned(recipe, cluster, last=None):
    start, sequence = (last.end, last.sequence + 1) if last else (Position(), 0)
    whole = Segment(start, sequence, recipe.sources[-1].end)
    return plan_in_children(
        recipe,
        recipe.sources,
        whole,
        children=cluster.size,
        standby=cluster,
        segment_bytes=recipe.segment_bytes,
    )


def batches(plans):
    return [batch for plan in plans for batch in plan.batches]


def digest(found):
    """Return one digest of all that is frozen: sequences, places and payloads."""
    return hashlib.sha256(repr(found).encode()).hexdigest()


@pytest.fixture(scope="module")
def expected(sources):
    """What one process freezes."""
    recipe = Recipe(sources, *SHAPE)
    return batches(recipe.plan(Segment(Position(), 0, sources[-1].end)))


def test_a_cluster_freezes_what_one_process_would_cold_and_warm(cluster, sources, expected):
    assert len(expected) > 50
    for _ in ("cold", "warm"):
        assert digest(batches(planned(Recipe(sources, *SHAPE), cluster))) == digest(expected)
    for last in expected[::17]:
        assert batches(planned(Recipe(sources, *SHAPE), cluster, last)) == expected[last.sequence + 1 :]


def test_who_plans_and_who_sends_may_ask_for_the_cluster_at_the_same_time():
    with DaskCluster("local:1") as cluster, ThreadPoolExecutor(2) as two:
        first, second = two.map(lambda _: cluster.client, range(2), timeout=30)
        assert first is second


def test_a_worker_that_is_killed_in_a_segment_is_missed_by_nobody(cluster, sources, expected, tmp_path):
    recipe = Killed(sources, *SHAPE, folder=str(tmp_path), times=1)
    assert digest(batches(planned(recipe, cluster))) == digest(expected)
    assert len(list(tmp_path.iterdir())) >= 1


ENDED = r"(died one after the other|has had no worker).*resume"
"""Dask begins no worker anew that has died while it started up: whether one did is luck."""


def test_a_segment_that_kills_each_worker_is_told(sources, tmp_path):
    recipe = Killed(sources, *SHAPE, folder=str(tmp_path), times=99)
    with DaskCluster("local:1") as cluster, pytest.raises(ReaderLost, match=ENDED):
        batches(planned(recipe, cluster))


def test_when_the_scheduler_is_killed_another_cluster_goes_on(sources, expected):
    frozen = []
    with DaskCluster("local:2") as cluster:
        plans = planned(Recipe(sources, *SHAPE), cluster)
        while not frozen:
            frozen += next(plans).batches
        os.kill(cluster._own._process.pid, signal.SIGKILL)
        with pytest.raises(ReaderLost, match=r"scheduler is gone.*resume.*the cluster may be started anew"):
            frozen.extend(batch for plan in plans for batch in plan.batches)
    assert len(frozen) < len(expected)
    with DaskCluster("local:2") as cluster:
        frozen += batches(planned(Recipe(sources, *SHAPE), cluster, frozen[-1]))
    assert digest(frozen) == digest(expected)


def test_errors_of_the_sources_arrive_as_they_were_raised(cluster, sources):
    plans = planned(Broken(sources, *SHAPE, way="changed"), cluster)
    with pytest.raises(SourceChanged, match="ends at byte 5"):
        batches(plans)
    with pytest.raises(RuntimeError, match=r"(?s)crews\.py.*ZeroDivisionError: a mistake"):
        batches(planned(Broken(sources, *SHAPE), cluster))


def test_a_cluster_of_our_own_gets_no_secret_and_no_signal_of_the_terminal(sources, monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    before = children()
    with DaskCluster("local:1") as cluster:
        with pytest.raises(SourceChanged) as told:
            batches(planned(Told(sources, *SHAPE), cluster))
        assert "PYTHONPATH" in str(told.value)
        assert "SAMA_ACCESS_KEY" not in str(told.value)
        groups = {os.getpgid(pid) for pid in cluster.client.run(os.getpid).values()}
        assert os.getpgid(0) not in groups
        assert groups == children() - before
    assert children() == before


PARENT = """
import sys
from engine.batch.dask import DaskCluster
cluster = DaskCluster("local:1")
print(sorted(cluster.client.nthreads().values()), flush=True)
sys.stdin.read()
"""


def test_no_cluster_of_our_own_outlives_its_parent():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # The cluster inherits standard error, so its end is heard when the last of its processes is gone.
    with subprocess.Popen([sys.executable, "-c", PARENT], **pipes) as parent:
        assert parent.stdout.readline() == b"[1]\n"
        parent.send_signal(signal.SIGKILL)
        assert parent.stderr.read() == b""
    assert parent.returncode == -signal.SIGKILL


def test_whoever_takes_no_more_plans_leaves_nothing_on_the_cluster(cluster, sources):
    with closing(planned(Recipe(sources, *SHAPE), cluster)) as plans:
        assert len(list(islice(plans, 3))) == 3
    cluster.client.nthreads()  # a call that comes after what was released
    assert not cluster.client.futures


def test_a_worker_of_another_version_is_refused(cluster, sources, monkeypatch):
    monkeypatch.setattr(engine.batch.dask, "__version__", "9.9.9")
    with pytest.raises(ConfigError, match=r"has bulksubmit .*, and this is 9\.9\.9: .*bulksubmit\[dask\]"):
        batches(planned(Recipe(sources, *SHAPE), cluster))


FOREIGN = """
import os, sys
sys.path[:] = [path for path in sys.path if not os.path.exists(os.path.join(path, "engine", "batch"))]
from distributed import LocalCluster
free = "127.0.0.1:0"
with LocalCluster(n_workers=1, host="127.0.0.1", dashboard_address=free, silence_logs=60) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


def test_a_cluster_without_the_engine_is_refused(sources):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-P", "-c", FOREIGN], **pipes) as process:
        cluster = DaskCluster(process.stdout.readline().decode().strip())
        with cluster, pytest.raises(ConfigError, match=r"cannot run a task of bulksubmit.*bulksubmit\[dask\]"):
            batches(planned(Recipe(sources, *SHAPE), cluster))
        process.stdin.close()


def test_a_scheduler_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(engine.batch.dask, "_CONNECT_SECONDS", 0.2)
    with DaskCluster("tcp://127.0.0.1:9") as cluster, pytest.raises(ReaderLost, match=r"127\.0\.0\.1:9 cannot be"):
        cluster.take()


CONFIG = """
[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"

[batch]
max_records = 100

[send]
poll_seconds = 0.01
polls_per_second = 1000
"""


async def test_a_job_that_is_read_on_a_cluster_has_the_batches_of_one_that_is_read_here(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMA_ACCESS_KEY", "sandbox-key")
    (tmp_path / "tasks.ndjson").write_text("".join(f'{{"data":{{"n":{number}}}}}\n' for number in range(1050)))
    jobs, ledger = {"here": "", "there": "local:1"}, tmp_path / "ledger.db"
    frozen = {}
    async with running_sandbox(Behaviour(journal=JournalSettings(tmp_path / "journal"))) as server:
        (tmp_path / "sama.toml").write_text(CONFIG.format(url=server.url))
        for job, dask in jobs.items():
            options = {"job": job, "dask": dask, "again": True}
            result = await engine.submit(tmp_path / "tasks.ndjson", tmp_path / "sama.toml", ledger, **options)
            assert result.tally.created == 1050
            async with open_ledger(ledger) as opened:
                frozen[job] = [batch async for batch, _ in opened.batches(job)]
    assert len(frozen["here"]) == 11
    assert frozen["here"] == frozen["there"]


# Long tasks, one on each worker


async def doing(client, work, folder, stop):
    return await send_on_workers(client, partial(work, str(folder)), stop, SystemClock())


async def begun(folder, count):
    """Return the processes in which work began, once there are so many."""
    with anyio.fail_after(20):
        while len(found := {int(path.name) for path in folder.iterdir()}) < count:  # noqa: ASYNC110 - other processes
            await anyio.sleep(0.02)
    return found


async def test_each_worker_does_the_work_once_and_signals_are_left_alone(cluster, tmp_path):
    ended = await doing(cluster.client, at_once, tmp_path, Stop())
    assert len(ended) == 2
    assert {each.worker: each.result for each in ended} == cluster.client.run(handlers)


async def test_work_ends_in_order_when_it_is_stopped_and_sources_are_read_meanwhile(
    cluster, sources, expected, tmp_path
):
    stop, ended = Stop(), []

    async def work():
        ended.extend(await doing(cluster.client, until_stopped, tmp_path, stop))

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await begun(tmp_path, 2)
        found = await anyio.to_thread.run_sync(lambda: batches(planned(Recipe(sources, *SHAPE), cluster)))
        stop.request(Interrupted(signal.SIGTERM))
    assert digest(found) == digest(expected)
    assert [each.result for each in ended] == ["Stopped", "Stopped"]


async def test_the_work_of_a_worker_that_is_killed_begins_anew_on_the_next_one(tmp_path):
    stop, ended = Stop(), []

    async def work(client):
        ended.extend(await doing(client, until_stopped, tmp_path, stop))

    with DaskCluster("local:2") as own:
        client = await anyio.to_thread.run_sync(lambda: own.client)
        async with anyio.create_task_group() as group:
            group.start_soon(work, client)
            os.kill(min(await begun(tmp_path, 2)), signal.SIGKILL)
            await begun(tmp_path, 3)
            stop.request(Interrupted(signal.SIGTERM))
    assert [each.result for each in ended] == ["Stopped", "Stopped"]


async def test_an_error_of_the_work_is_returned(cluster, tmp_path):
    ended = await doing(cluster.client, failing, tmp_path, Stop())
    assert [(type(each.error), each.error.call) for each in ended] == [(Unavailable, "release")] * 2


async def test_work_ends_when_the_scheduler_is_killed(tmp_path):
    with DaskCluster("local:1") as own:
        client = await anyio.to_thread.run_sync(lambda: own.client)
        async with anyio.create_task_group() as group:
            group.start_soon(killed_when_begun, own, tmp_path)
            with pytest.raises(ReaderLost, match=r"scheduler is gone"):
                await doing(client, until_stopped, tmp_path, Stop())


async def killed_when_begun(own, folder):
    await begun(folder, 1)
    os.kill(own._own._process.pid, signal.SIGKILL)
