"""One long task on each worker of a Dask cluster, which takes shards of a job from the ledger and sends them.

Dask starts the tasks, and no more: which batches a worker may send, and that none goes twice, is the ledger's work
alone. A worker that dies takes its task with it, and its leases expire; one that comes gets a task of its own. A task
is told to end in order by a call to its worker, so that it can give its leases back. No signal is touched there.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
from msgspec import Struct

from engine.batch.dask import DaskCluster, cluster_lost, task_result
from engine.clock import Clock
from engine.commands import wiring
from engine.commands.work import WorkDone, work
from engine.ledger.base import Ledger
from engine.model.errors import BulkSubmitError, ReaderLost, Stopped
from engine.model.job import Job
from engine.progress.events import Listener, Noticed
from engine.run.context import DRAIN_SECONDS, Stop, pause_unless_stopped

LongWork: TypeAlias = Callable[[Stop], Awaitable[Any]]
"""What each worker does until it is done or stopped. Pickled, so it holds values and no secrets."""

_LOOK_SECONDS = 1.0
"""Between two looks at which workers there are."""


class WorkEnded(Struct, frozen=True):
    """How the task of one worker ended."""

    worker: str
    """Address."""
    result: Any = None
    error: BulkSubmitError | None = None


async def send_on_workers(client: Any, work: LongWork, stop: Stop, clock: Clock) -> Sequence[WorkEnded]:
    """Do `work` on each worker that there is or that comes, until each has ended; return how those ended that did.

    `client`: of `distributed`. `stop` ends all of them in order; they get `DRAIN_SECONDS` for it.

    Raises:
        ReaderLost: the scheduler is gone.
    """
    tasks = _WorkerTasks(client, work)
    try:
        while await anyio.to_thread.run_sync(tasks.renew):
            if not await pause_unless_stopped(stop, clock, _LOOK_SECONDS):
                break
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(tasks.end)
    return tasks.ended


async def send_on(cluster: DaskCluster, job: Job, ledger: Ledger, stop: Stop, emit: Listener) -> None:
    """Have each worker of a cluster take part in sending a job, as `bulksubmit work` does.

    A cluster that is lost ends nothing: this process sends on, and another cluster helps the next run.
    """
    try:
        client = await anyio.to_thread.run_sync(lambda: cluster.client)
        ended = await send_on_workers(client, partial(take_part, job.name, str(ledger.address)), stop, wiring.CLOCK)
    except ReaderLost as error:
        emit(Noticed(f"{error}. This process sends on alone"))
        return
    for one in ended:
        why = one.error or (one.result.message if isinstance(one.result, WorkDone) else "")
        if why and stop.error is None:
            emit(Noticed(f"the Dask worker {one.worker} ended: {why}"))


async def take_part(job: str, ledger: str, stop: Stop) -> WorkDone:
    """Do on a worker what `bulksubmit work` does."""
    return await work(job, ledger, stop=stop)


class _WorkerTasks:
    """The tasks of one `send_on_workers`. Its methods block; one thread at a time calls them."""

    def __init__(self, client: Any, work: LongWork) -> None:
        self._client = client
        self._work = pickle.dumps(work, pickle.HIGHEST_PROTOCOL)
        self._tasks: dict[str, Any] = {}
        """By the address of the worker."""
        self.ended: list[WorkEnded] = []

    def renew(self) -> bool:
        """Begin a task on each new worker, and forget those that are gone; return whether there is more to wait for."""
        if self._client.status != "running":
            raise cluster_lost("the Dask scheduler is gone")
        try:
            workers = self._client.nthreads()
            for worker in [worker for worker in self._tasks if worker not in workers]:
                self._tasks.pop(worker).release()
            for worker in workers.keys() - self._tasks.keys():
                self._tasks[worker] = self._begun(worker)
            self._collect()
        except (CancelledError, OSError) as error:
            raise cluster_lost("the Dask scheduler is gone") from error
        return not self._tasks or any(task is not None for task in self._tasks.values())

    def _begun(self, worker: str) -> Any:
        only_there = {"workers": [worker], "allow_other_workers": False, "pure": False}
        return self._client.submit(work_here, self._work, **only_there)

    def _collect(self) -> None:
        for worker, task in self._tasks.items():
            if task is not None and task.done():
                self._tasks[worker] = None  # it has had its turn
                self.ended.append(_ended(worker, task))

    def end(self) -> None:
        """Have the tasks that go on end in order, and forget what has not ended by then."""
        until = time.monotonic() + DRAIN_SECONDS
        going_on = {worker: task for worker, task in self._tasks.items() if task is not None}
        while going_on and self._client.status == "running" and time.monotonic() < until:
            try:
                keys = [task.key for task in going_on.values()]
                self._client.run(end_here, keys, on_error="ignore")
                going_on = {worker: task for worker, task in going_on.items() if not task.done()}
                self._collect()
            except (CancelledError, OSError):
                break
            time.sleep(0.1 if going_on else 0)
        for task in going_on.values():
            task.release()


def _ended(worker: str, task: Any) -> WorkEnded:
    answer = task_result(task)
    task.release()
    return WorkEnded(worker, error=answer) if isinstance(answer, BulkSubmitError) else WorkEnded(worker, answer)


# What runs on a worker

_endings: dict[str, Callable[[], object]] = {}
"""Key of a task that goes on here → what ends it in order, from any thread."""


def work_here(work: bytes) -> Any:
    """Do the work in an event loop of this thread; return what it returns, or its error."""
    distributed: Any = import_module("distributed")  # the extra dask, which a worker has
    key = distributed.get_worker().get_current_task()
    distributed.secede()  # or a worker with one thread could read no sources meanwhile
    return anyio.run(_done, key, work, backend_options={"use_uvloop": find_spec("uvloop") is not None})


async def _done(key: str, work: bytes) -> Any:
    do: LongWork = pickle.loads(work)  # noqa: S301 - written by the process that the work is for
    stop, loop = Stop(), asyncio.get_running_loop()
    _endings[key] = partial(loop.call_soon_threadsafe, stop.request, Stopped())
    try:
        return await do(stop)
    except BulkSubmitError as error:
        return error
    finally:
        del _endings[key]


def end_here(keys: Sequence[str]) -> None:
    """Have those of the tasks that go on here end in order."""
    for key in keys:
        if end := _endings.get(key):
            end()
