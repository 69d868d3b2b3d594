"""The first records of a load, as tasks, held against what the service says itself; `submit` and `check` ask for it.

A service whose drafts people see makes one of a misspelt input, too: its rules are asked for before anything is sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.to_thread
from msgspec import Struct

from engine.commands import wiring
from engine.ledger.base import Ledger
from engine.model.errors import CallFailed, ConfigError
from engine.model.job import Job
from engine.model.record import Position, Reject, Row
from engine.progress.events import Listener, Noticed, unheard
from engine.progress.text import count
from engine.run.context import Stop, unless_stopped
from engine.services.base import Service
from engine.source.reader import read_blocks

MOST_RECORDS = 1000
"""Records that are looked at."""
_MOST_BYTES = 32 << 20
"""Likewise, where each of them is long."""
ASKING_SECONDS = 10.0
"""Longest time for which a load waits for what the service says."""


class FirstRecords(Struct, frozen=True):
    """The first records of some sources."""

    records: int
    """That were read."""
    indexes: Sequence[int]
    """Of those that can be sent."""
    raws: Sequence[bytes]
    """These records, as JSON."""
    tasks: Sequence[Row]
    """What goes up for them."""
    rejects: Sequence[Reject]
    """Those that cannot be sent, as far as that is known without the service."""
    size_bytes: int
    """Of all of them, in the source."""


def read_first(offline: wiring.Offline, job: Job, most: int = MOST_RECORDS) -> FirstRecords:
    """Read and map the first records of a job.

    Raises:
        SourceError: a file cannot be read.
    """
    indexes: list[int] = []
    raws: list[bytes] = []
    tasks: list[Row] = []
    rejects: list[Reject] = []
    size_bytes = 0
    for block in read_blocks(job.sources, Position(), offline.setup.settings.source):
        mapped = offline.mapper.apply(block)
        own = dict(zip(block.indexes, block.raws, strict=True))
        indexes += mapped.indexes
        raws += [own[index] for index in mapped.indexes]
        tasks += mapped.rows or ()
        rejects += mapped.rejects
        size_bytes += sum(block.lengths)
        if len(indexes) + len(rejects) >= most or size_bytes >= _MOST_BYTES:
            break
    kept = slice(max(0, most - len(rejects)))
    records = len(indexes[kept]) + len(rejects)
    return FirstRecords(records, indexes[kept], raws[kept], tasks[kept], rejects, size_bytes)


async def check_drafts(
    new: Job, setup: wiring.Setup, ledger: Ledger, emit: Listener, stop: Stop, *, thorough: bool
) -> None:
    """Hold the first records of a new job against what the service says of itself, if what it stages are drafts.

    Nothing is sent for it. Where the service does not answer, the load goes on: its own calls tell why.

    Raises:
        ConfigError: none of them fits (with `thorough`: one does not); says which, and why.
    """
    offline = wiring.offline(setup, new)
    if offline.service.drafting is None or offline.service.checking is None:
        return
    first = await anyio.to_thread.run_sync(read_first, offline, new)
    flaws: Sequence[str | None] | None = None
    with anyio.move_on_after(ASKING_SECONDS):
        async with wiring.online(setup, new, unheard, ledger) as service:
            flaws = await unless_stopped(stop, lambda: _flaws(service, first.tasks))
    found = [(index, flaw) for index, flaw in zip(first.indexes, flaws or (), strict=False) if flaw]
    if not found:
        return
    index, flaw = found[0]
    if len(found) == len(first.tasks) or thorough:
        which = "none" if len(found) == len(first.tasks) else f"not each one ({count(len(found))} do not)"
        raise ConfigError(
            f"{which} of the first {count(len(first.tasks), 'record')} would become a task that can be run. "
            f"Record {index}: {flaw}"
        )
    emit(Noticed(f"{count(len(found))} of the first {count(len(first.tasks), 'record')} do not fit. {index}: {flaw}"))


async def _flaws(service: Service, tasks: Sequence[Row]) -> Sequence[str | None]:
    try:
        return await service.checking.flaws(tasks) if service.checking else ()
    except CallFailed:
        return ()
