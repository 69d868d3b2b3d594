"""What is told of the workers of a Dask cluster; that they do the work, tests/system/test_dask.py shows."""

import pytest

from engine.commands import dask_work
from engine.commands.dask_work import WorkEnded, send_on
from engine.commands.work import WorkDone
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import ReaderLost, SourceError, Stopped
from engine.model.job import Job
from engine.progress.events import Noticed
from engine.run.context import Stop

JOB = Job("j", "sama", "", (), "")


class Cluster:
    client = "a client"


@pytest.fixture
def told(monkeypatch, tmp_path):
    """Return what is told of workers that ended so, or of the error with which they were waited for."""

    async def sent(ended, *, stop=None):
        async def workers(client, work, given, clock):
            assert client == Cluster.client
            assert work.args == ("j", str(tmp_path / "ledger.db"))
            if isinstance(ended, Exception):
                raise ended
            return ended

        monkeypatch.setattr(dask_work, "send_on_workers", workers)
        events = []
        async with SqliteLedger.open(tmp_path / "ledger.db", dask_work.wiring.CLOCK) as ledger:
            await send_on(Cluster(), JOB, ledger, stop or Stop(), events.append)
        return events

    return sent


async def test_a_cluster_that_is_lost_ends_nothing(told):
    (event,) = await told(ReaderLost("the Dask scheduler is gone"))
    assert event == Noticed("the Dask scheduler is gone. This process sends on alone")


async def test_a_worker_that_could_not_go_on_is_told_with_its_reason(told):
    ended = [
        WorkEnded("tcp://a", WorkDone(["j"], 5, 0, 0)),
        WorkEnded("tcp://b", WorkDone(["j"], 0, 0, 9, "job j: the key is wrong")),
        WorkEnded("tcp://c", error=SourceError("there is no such file")),
    ]
    assert await told(ended) == [
        Noticed("the Dask worker tcp://b ended: job j: the key is wrong"),
        Noticed("the Dask worker tcp://c ended: there is no such file"),
    ]


async def test_workers_that_were_told_to_end_are_no_news(told):
    stop = Stop()
    stop.request(Stopped())
    assert await told([WorkEnded("tcp://a", error=Stopped())], stop=stop) == []
