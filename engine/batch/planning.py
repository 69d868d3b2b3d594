"""Plans a job: reads its sources, decides which records are fit to be sent, and cuts them into frozen batches.

`commands.wiring` calls `plan_job`, which plans here or in processes of their own. Such a process begins with this
module, so it imports nothing of the network, and little else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from importlib import import_module
from typing import TYPE_CHECKING, cast

from msgspec import Struct
from msgspec.structs import replace

from engine.batch.children import Crew, Planner, Segment, Standby, plan_in_children
from engine.batch.chunker import Chunker, Plan, ReferenceOf, no_reference
from engine.batch.mapping import Mapper
from engine.clock import SystemClock
from engine.ledger.address import LedgerAddress, PostgresAddress
from engine.model.batch import Batch, Limits
from engine.model.errors import Unavailable
from engine.model.job import Job
from engine.model.record import LINE_FORMATS, Position, Source, source_at
from engine.model.settings import ServiceSettings, Settings, SourceSettings, without_secrets_in
from engine.services.base import Answer, Call, Service, ServiceModule
from engine.source.reader import SEGMENT_BYTES, WINDOW_BYTES, read_blocks, segment_stops

if TYPE_CHECKING:
    from engine.batch.known import FamilyMemory

CHILD_BYTES = 1 << 24
"""From here on a process of its own reads beside the sending. It starts up in 0.12 s of a second core, while this one
opens the way to the service, and saves this one 18 ms at 8 MiB, 39 ms at 16 and 74 ms at 32.
"""
ALONE_BYTES = 1 << 27
"""Likewise where nothing else goes on: then several read, one for each core, and have to make up for their start."""
_MOST_ALONE = 4
"""More than this process can take plans from."""
_QUIET_BLOCKS = 32
"""Blocks, or 4 MiB, without a batch before a step ends all the same: each step costs a change of threads."""


def reference_of(service: Service) -> ReferenceOf:
    """Return what gives the tasks of a service their client references."""
    return service.referencing.reference if service.referencing else no_reference


class NoCalls:
    """A caller for work that needs a service's rules but sends nothing."""

    async def call(self, call: Call) -> Answer:
        """Refuse."""
        raise Unavailable(f"{call.kind}: nothing is sent here", call=call.kind)


class PlanningRecipe(Struct, frozen=True):
    """All that a process needs to plan a job; without its secrets."""

    job: Job
    settings: Settings
    service: ServiceSettings
    module: str
    """As an entry point says it: `package.module`, or `package.module:object`."""
    ledger: LedgerAddress | None = None
    """Where it stands what the family of the job knows; nothing is looked up without it."""
    segment_bytes: int = SEGMENT_BYTES
    """About the part of the sources that is planned by itself."""

    @property
    def here(self) -> bool:
        """Whether only this process can plan: it may ask a database what the family knows.

        A child has none of the variables and files by which the password of a database is given; they are secrets.
        """
        return self.job.family != "" and isinstance(self.ledger, PostgresAddress)

    @property
    def in_turn(self) -> bool:
        """Whether what is planned depends on what was planned before: sequences, or what a family knows."""
        return self.job.family != "" or reference_of(self._service())(0) is not None

    def _service(self) -> Service:
        return service_at(self.module).build(self.service, self.settings.batch, self.job, NoCalls(), SystemClock())

    def __call__(self) -> Planner:
        """Join the parts."""
        service = self._service()
        most = service.limits.task_bytes
        mapper = Mapper(self.settings.mapping, service.check, service.plain_task, task_bytes=most)

        def plan(segment: Segment) -> Iterator[Plan]:
            with ExitStack() as opened:
                yield from plan_batches(
                    self.job.sources,
                    self.settings.source,
                    mapper,
                    service.limits,
                    start=segment.start,
                    sequence=segment.sequence,
                    reference=reference_of(service),
                    stop=segment.stop,
                    segment_bytes=self.segment_bytes,
                    known=self._known(opened),
                )

        return plan

    def _known(self, opened: ExitStack) -> FamilyMemory | None:
        if not self.job.family or self.ledger is None:
            return None
        from engine.batch.known import FamilyMemory  # noqa: PLC0415 - with SQLite, which other jobs do not need to plan
        from engine.ledger.known import KnownRecords  # noqa: PLC0415 - likewise

        return FamilyMemory(opened.enter_context(KnownRecords(self.ledger)), self.job, self.settings.delta)


def service_at(place: str) -> ServiceModule:
    """Return what makes a service, from where an entry point says that it is. Raises: ImportError, AttributeError."""
    if all(name.isidentifier() for name in place.split(".")):  # a whole module, as each of ours is
        return cast("ServiceModule", import_module(place))
    from importlib.metadata import EntryPoint  # noqa: PLC0415 - slow, and only packages of others say more

    return cast("ServiceModule", EntryPoint("", place, "").load())


def planning_recipe(
    job: Job, settings: Settings, service: ServiceSettings, module: str, ledger: LedgerAddress | None = None
) -> PlanningRecipe:
    """Return what makes the planner of `job`, in this process or another: with stars in place of secrets."""
    return PlanningRecipe(replace(job, config=""), settings, without_secrets(service), module, ledger)


def without_secrets(service: ServiceSettings) -> ServiceSettings:
    """Return the settings of a service with stars in place of its secrets, wherever in them they stand."""
    return cast("ServiceSettings", without_secrets_in(service))


def standby_for(
    recipe: PlanningRecipe, last: Batch | None, dask: str = "", environment: Mapping[str, str] | None = None
) -> Crew:
    """Start the processes that will plan for a run that goes on after the batch `last`; none, if it needs none.

    `dask` names a cluster that plans in their place, unless what is planned depends on what was planned before;
    `environment`: as of `DaskCluster`.
    """
    if dask and not recipe.job.read_complete and not recipe.in_turn:
        from engine.batch.dask import DaskCluster  # noqa: PLC0415 - only where one is asked for

        return DaskCluster(dask, environment)
    unread_bytes = recipe.job.size_bytes - (last.end.offset if last else 0)
    children = 0 if recipe.job.read_complete else _child_count(recipe, unread_bytes, alone=False)
    return Standby(children, (__name__, recipe.module.partition(":")[0]))


def plan_job(recipe: PlanningRecipe, last: Batch | None, standby: Crew | None) -> Iterator[Plan]:
    """Cut the sources of a job into batches, from where the batch frozen `last` ends: here, or in other processes.

    Without `standby`, nothing else goes on beside, and every core may read.
    """
    start, sequence = (last.end, last.sequence + 1) if last else (Position(), 0)
    whole = Segment(start, sequence, recipe.job.size_bytes)
    crew_size = standby.size if standby else 0
    children = crew_size or _child_count(recipe, whole.stop - start.offset, alone=standby is None)
    if children > 1 and recipe.in_turn:  # only a child that begins where the last batch ends knows what was before
        children = 1
    if not children:
        return recipe()(whole)
    standby = standby or Standby()
    segment_bytes = recipe.segment_bytes
    return plan_in_children(
        recipe, recipe.job.sources, whole, children=children, standby=standby, segment_bytes=segment_bytes
    )


def _child_count(recipe: PlanningRecipe, unread_bytes: int, *, alone: bool) -> int:
    if recipe.here:
        return 0
    configured = recipe.settings.source.processes
    if configured is not None:
        return configured
    cores = len(os.sched_getaffinity(0)) if sys.executable else 1
    if cores == 1 or unread_bytes < (ALONE_BYTES if alone else CHILD_BYTES):
        return 0
    if not alone:
        return 1
    sources = recipe.job.sources
    divisible = len(sources) > 1 or sources[0].format in LINE_FORMATS
    return min(cores, _MOST_ALONE) if divisible else 0


def plan_batches(  # noqa: PLR0913 - everything that boundaries depend on
    sources: Sequence[Source],
    settings: SourceSettings,
    mapper: Mapper,
    limits: Limits,
    *,
    start: Position | None = None,
    sequence: int = 0,
    reference: ReferenceOf = no_reference,
    stop: int | None = None,
    window_bytes: int = WINDOW_BYTES,
    segment_bytes: int = SEGMENT_BYTES,
    known: FamilyMemory | None = None,
) -> Iterator[Plan]:
    """Yield batches from `start` up to `stop`, numbered from `sequence` on; the last step, and only that, says so.

    A batch ends wherever `segment_stops` cuts the sources, so that whoever plans them in segments makes the same
    batches. To go on after a batch, pass its `end` and its sequence + 1. A step blocks for some milliseconds: iterate
    it in a worker thread.

    Raises:
        SourceError: a source cannot be read, or changed while it was.
    """
    reached = start or Position()
    chunker = Chunker(limits, reached, sequence, reference, lambda at: source_at(sources, at).format in LINE_FORMATS)
    quiet = 0
    proof = None if known and known.marker.needs_rows else mapper.proof
    for cut in segment_stops(sources, reached.offset, segment_bytes, stop=stop):
        for block in read_blocks(sources, reached, settings, window_bytes, stop=cut, proof=proof):
            tasks = mapper.apply(block)
            plan = chunker.feed(known.apply(block, tasks) if known else tasks)
            reached = plan.reached
            quiet = 0 if plan.batches else (quiet + 1) % _QUIET_BLOCKS
            if not quiet:
                yield plan
        chunker.close()
    yield chunker.finish()


def replanned(
    plans: Callable[[Batch | None, int], Generator[Plan, None, None]], last: Batch | None, most_bytes: Callable[[], int]
) -> Iterator[Plan]:
    """Yield plans from the end of the batch `last` on, of batches of at most as many bytes as `most_bytes` returns.

    Whenever `most_bytes` returns another number, planning begins anew behind the batch yielded last, as it does when a
    job is resumed: what was read beyond is read again. `plans` takes the last batch and the bytes.
    """
    while True:
        limit = most_bytes()
        with closing(plans(last, limit)) as steps:
            for step in steps:
                yield step
                last = step.batches[-1] if step.batches else last
                if most_bytes() != limit and not step.last:
                    break
            else:
                return
