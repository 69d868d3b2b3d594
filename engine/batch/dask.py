"""Plans on the workers of a Dask cluster, for `planning.plan_job`: each segment of the sources is one of its tasks.

The plans are joined by the code that joins those of child processes, so the batches are the same ones. Exactness never
depends on Dask: only the process that holds the job's lock freezes what was planned. A few segments are planned ahead;
what a worker made of one stays in its memory until it is taken here. A task whose worker dies is run again by Dask.

A cluster is somebody's, named by the address of its scheduler, or our own on this machine (`local:N`). Our own is one
process with N workers. It hears no signal of the terminal and gets no secret of the environment, as a child that plans,
and ends when its standard input does: with us, however we end.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack, suppress
from importlib import import_module
from importlib.util import find_spec
from threading import Event, Lock
from typing import Any

from engine import __version__
from engine.batch.children import Recipe, Segment, child_environment, told
from engine.batch.chunker import Plan
from engine.model.errors import RESUME, ConfigError, ReaderLost

EXTRA = "pip install 'bulksubmit[dask]'"

_LOCAL = re.compile(r"local:([1-9][0-9]{0,2})")
_ADDRESS = re.compile(r"[a-z]+://\S+:[0-9]+")

_CONNECT_SECONDS = 8.0
"""A scheduler that does not answer for so long is gone. Nobody can be stopped meanwhile, and SIGTERM leaves ten."""
_LOOK_SECONDS = 1.0
"""Whoever waits for plans is asked so often whether he still wants them."""
_MOST_ALONE_SECONDS = 60.0
"""A cluster without a worker for so long gets none: its own nannies begin a worker anew within seconds, unless it dies
while it starts up, after which Dask tries no more."""
_END_SECONDS = 10.0
"""For a cluster of our own to end in order; Dask itself gives a worker five."""
_LEAST_AT_ONCE = 4
"""Tasks at once for a cluster that is small or still starting up."""

_PROGRAM = "from engine.batch.dask import main; main()"
"""Not by `-m`, as in `children`; nor would its workers know a main module that they have to import again."""


def check_dask(named: str) -> None:
    """Check what a person named as the cluster: `tcp://host:port` or `local:N`.

    Raises:
        ConfigError: it is neither, or Dask is not installed.
    """
    if not (_LOCAL.fullmatch(named) or _ADDRESS.fullmatch(named)):
        raise ConfigError(f"--dask: {named!r} is neither the address of a scheduler (tcp://host:8786) nor local:N")
    if find_spec("distributed") is None:
        raise ConfigError(f"--dask needs a package that is not installed: {EXTRA}")


class DaskCluster(AbstractContextManager["DaskCluster"]):
    """The cluster that plans for one run, named as `check_dask` takes it. A `children.Crew`.

    Our own is started at once, and nobody waits for it before it is needed. `environment`: of our own; what a child
    gets that plans, where left out.
    """

    def __init__(self, named: str, environment: Mapping[str, str] | None = None) -> None:
        self._named = named
        self._client: Any = None
        self._connecting = Lock()
        """Who plans and who sends ask for the client at the same time; our own cluster tells its address once."""
        local = _LOCAL.fullmatch(named)
        self._own = LocalDask(int(local[1]), environment) if local else None

    @property
    def client(self) -> Any:
        """The client of `distributed`, connected.

        Raises:
            ReaderLost: the scheduler does not answer.
        """
        with self._connecting:
            if self._client is None:
                address = self._own.address() if self._own else self._named
                distributed = _distributed()
                for logger in ("distributed", "distributed.client"):
                    # What they would log of a lost connection we tell by an error. Its import has set their levels.
                    logging.getLogger(logger).setLevel(logging.CRITICAL)
                try:
                    self._client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
                except (OSError, ValueError) as error:
                    raise cluster_lost(f"the Dask scheduler at {address} cannot be reached ({error})") from error
        return self._client

    @property
    def size(self) -> int:
        """Segments that are planned at once: one for each thread of the workers."""
        threads: dict[str, int] = self.client.nthreads()
        return max(_LEAST_AT_ONCE, sum(threads.values()))

    def take(self) -> DaskPlanner:
        """Return one of those who plan; the caller has to end it."""
        return DaskPlanner(self.client)

    def dismiss(self) -> None:
        """Do nothing: a cluster stays as it is, whatever is wanted of it."""

    def __exit__(self, *_: object) -> None:
        with ExitStack() as last:
            if self._own:
                last.callback(self._own.end)
            if self._client is not None:
                self._client.close(timeout=_LOOK_SECONDS)


class DaskPlanner(AbstractContextManager["DaskPlanner"]):
    """Plans one segment after another as tasks of a cluster; a `children.PlanningWorker`."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._alone_since: float | None = None
        """When the cluster was first seen without a worker."""
        self._recipe = b""
        self._asked: deque[tuple[Any, Event, Segment]] = deque()

    def tell(self, order: Recipe | Segment) -> None:
        """Tell it how to plan, and then what: one segment after another."""
        if not isinstance(order, Segment):
            self._recipe = pickle.dumps(order, pickle.HIGHEST_PROTOCOL)  # once, for all segments
            return
        try:
            task = self._client.submit(plan_segment, self._recipe, order, __version__, pure=False)
        except _distributed().client.ClosedClientError as error:
            raise cluster_lost("the Dask scheduler is gone") from error
        done = Event()
        task.add_done_callback(lambda _: done.set())
        self._asked.append((task, done, order))

    def plans(self) -> Iterator[Plan]:
        """Yield the plans of the next segment that it was told of; while it waits for them, one that brings nothing."""
        task, done, segment = self._asked.popleft()
        try:
            while (answers := self._answers(task, done)) is None:
                yield Plan([], [], segment.start, last=False)
        finally:
            task.release()
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
            yield answer

    def _answers(self, task: Any, done: Event) -> Sequence[Plan | Exception] | None:
        """Wait a while for what a task returns; None if it is not there yet."""
        if done.wait(_LOOK_SECONDS):
            with suppress(TimeoutError):  # it was done, and was lost with its worker before it was fetched
                answers: Sequence[Plan | Exception] = task_result(task, _CONNECT_SECONDS)
                return answers
        self._check_workers()
        return None

    def _check_workers(self) -> None:
        try:
            alone = self._client.status == "running" and not self._client.nthreads()
        except (CancelledError, OSError):  # what is lost with the scheduler says so when it is asked for
            alone = False
        if not alone:
            self._alone_since = None
            return
        now = time.monotonic()
        self._alone_since = now if self._alone_since is None else self._alone_since
        if now - self._alone_since >= _MOST_ALONE_SECONDS:
            raise cluster_lost(f"the Dask cluster has had no worker for {_MOST_ALONE_SECONDS:.0f} s")

    def __exit__(self, *_: object) -> None:
        while self._asked:
            self._asked.popleft()[0].release()


def task_result(task: Any, most_seconds: float | None = None) -> Any:
    """Return what a task returned that is done; wait `most_seconds` for it, or without end.

    Raises:
        ReaderLost: the scheduler is gone, or the task killed one worker after the other.
        ConfigError: the cluster cannot run a task of ours.
        TimeoutError: it was not there in time.
    """
    distributed = _distributed()
    try:
        return task.result(timeout=most_seconds)
    except TimeoutError:
        raise
    except (CancelledError, OSError) as error:  # OSError: while the result was fetched
        raise cluster_lost("the Dask scheduler is gone") from error
    except distributed.KilledWorker as error:
        raise cluster_lost(
            f"workers of the Dask cluster died one after the other of the same task ({error})"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"the Dask cluster cannot run a task of bulksubmit: its scheduler and its workers need bulksubmit "
            f"{__version__} with its extra: {EXTRA}. It said: {' '.join(str(error).split())}"
        ) from error


def cluster_lost(what: str) -> ReaderLost:
    """Return the error for a cluster that is gone, or that cannot go on."""
    return ReaderLost(f"{what}. Nothing is lost: {RESUME} goes on; the cluster may be started anew")


def _distributed() -> Any:
    return import_module("distributed")


class LocalDask:
    """A cluster of our own: a process with a scheduler, and `workers` processes of one thread each, on loopback."""

    def __init__(self, workers: int, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-c", _PROGRAM, str(workers)],
            env=environment or child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )

    def address(self) -> str:
        """Return where its scheduler is, as soon as all its workers are there.

        Raises:
            ReaderLost: it ended before that.
        """
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        address = self._process.stdout.readline().decode().strip()
        if not address:
            raise cluster_lost(f"the Dask cluster of our own ended while it started up (status {self._process.wait()})")
        return address

    def end(self) -> None:
        """End it in order, or else by force. Its workers end with it in any case."""
        try:
            self._process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


# What runs elsewhere


def plan_segment(recipe: bytes, segment: Segment, version: str) -> Sequence[Plan | Exception]:
    """Return the plans of a segment, and at last the error, if there was one: what a worker does."""
    return list(told(_planned(recipe, segment, version)))


def _planned(recipe: bytes, segment: Segment, version: str) -> Iterator[Plan]:
    if version != __version__:
        raise ConfigError(
            f"a worker of the Dask cluster has bulksubmit {__version__}, and this is {version}: install the same "
            f"there, with its extra: {EXTRA}"
        )
    make: Recipe = pickle.loads(recipe)  # noqa: S301 - written by the process that planning is for
    yield from make()(segment)


def main() -> None:
    """Be a cluster of our own, of as many workers as the argument says, until standard input ends."""
    distributed = _distributed()
    free = "127.0.0.1:0"  # not None: its servers would take a fixed port, on all addresses
    with distributed.LocalCluster(
        n_workers=int(sys.argv[1]),
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=free,
        worker_dashboard_address=free,
        silence_logs=logging.CRITICAL,
    ) as cluster:
        sys.stdout.write(f"{cluster.scheduler_address}\n")
        sys.stdout.flush()
        sys.stdin.read()
