"""A job and its checked configuration enter, what decides over its records leaves: which are fit, and how they are cut.

Nothing here needs the network, and little has to be imported for it: a process that only plans begins with this module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Protocol, cast

from pydantic import SecretStr

from engine.batch.child import Planner, Segment
from engine.batch.children import Standby, plan_in_children
from engine.batch.mapping import Mapper
from engine.batch.plan import Plan, plan_batches
from engine.clock import Clock, SystemClock
from engine.model.batch import Batch
from engine.model.errors import Unavailable
from engine.model.job import Job
from engine.model.record import Format, Position
from engine.model.settings import BatchSettings, ServiceSettings, Settings
from engine.progress.events import Listener, unheard
from engine.services.base import Answer, Call, Caller, Service

CHILD_BYTES = 1 << 23
"""From here on a process of its own reads beside the sending. It starts up in 0.15 s of a second core, while this one
opens the way to the service, and saves this one 70 ms at 10 MiB, 0.15 s at 20 and 0.45 s at 40.
"""
ALONE_BYTES = 1 << 27
"""Likewise where nothing else goes on: then several read, one for each core, and have to make up for their start."""
_MOST_ALONE = 4
"""More than this process can take plans from."""


class ServiceModule(Protocol):
    """What a module named in SERVICES offers."""

    SETTINGS: type[ServiceSettings]

    def build(
        self,
        settings: Any,
        batch: BatchSettings,
        job: Job,
        caller: Caller,
        clock: Clock,
        emit: Listener = unheard,
    ) -> Service:
        """Return the service; it emits what it has `Noticed` of the service that a person should know."""
        ...


class NoCalls:
    """A caller for work that needs a service's rules but sends nothing."""

    async def call(self, call: Call) -> Answer:
        """Refuse."""
        raise Unavailable(f"{call.kind}: nothing is sent here", call=call.kind)


@dataclass(frozen=True, slots=True)
class PlanningRecipe:
    """All that a process needs to plan a job; without its secrets."""

    job: Job
    settings: Settings
    service: ServiceSettings
    module: str

    @property
    def has_references(self) -> bool:
        """Whether payloads depend on the sequence of their batch."""
        return self._service().reference(0) is not None

    def _service(self) -> Service:
        module = cast("ServiceModule", import_module(self.module))
        return module.build(self.service, self.settings.batch, self.job, NoCalls(), SystemClock())

    def __call__(self) -> Planner:
        """Join the parts."""
        service = self._service()
        mapper = Mapper(self.settings.mapping, service.check)

        def plan(segment: Segment) -> Iterator[Plan]:
            return plan_batches(
                self.job.sources,
                self.settings.source,
                mapper,
                service.limits,
                start=segment.start,
                sequence=segment.sequence,
                reference=service.reference,
                stop=segment.stop,
            )

        return plan


def planning_recipe(job: Job, settings: Settings, service: ServiceSettings, module: str) -> PlanningRecipe:
    """Return what makes the planner of `job`, here or elsewhere: with stars in place of secrets."""
    hidden = {name: SecretStr("********") for name, value in service if isinstance(value, SecretStr)}
    return PlanningRecipe(replace(job, config=""), settings, service.model_copy(update=hidden), module)


def standby_for(recipe: PlanningRecipe, last: Batch | None) -> Standby:
    """Start the processes that a run will want which goes on behind the batch frozen `last`; none, if it wants none."""
    unread_bytes = recipe.job.size_bytes - (last.end.offset if last else 0)
    children = 0 if recipe.job.read_complete else _children(recipe, unread_bytes, alone=False)
    return Standby(children, (__name__, recipe.module))


def plan_job(recipe: PlanningRecipe, last: Batch | None, standby: Standby | None) -> Iterator[Plan]:
    """Cut the sources of a job into batches, from where the batch frozen `last` ends: here, or in other processes.

    Without `standby`, nothing else goes on beside, and every core may read.
    """
    start, sequence = (last.end, last.sequence + 1) if last else (Position(), 0)
    whole = Segment(start, sequence, recipe.job.size_bytes)
    children = _children(recipe, whole.stop - start.offset, alone=standby is None)
    if recipe.has_references:  # only one that begins at the beginning knows the sequences
        children = min(children, 1)
    if not children:
        return recipe()(whole)
    return plan_in_children(recipe, recipe.job.sources, whole, children=children, standby=standby or Standby())


def _children(recipe: PlanningRecipe, unread_bytes: int, *, alone: bool) -> int:
    configured = recipe.settings.source.processes
    if configured is not None:
        return configured
    cores = len(os.sched_getaffinity(0)) if sys.executable else 1
    if cores == 1 or unread_bytes < (ALONE_BYTES if alone else CHILD_BYTES):
        return 0
    if not alone:
        return 1
    sources = recipe.job.sources
    divisible = len(sources) > 1 or sources[0].format is Format.NDJSON
    return min(cores, _MOST_ALONE) if divisible else 0
