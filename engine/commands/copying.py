"""Copies a ledger into another one, of whatever store: from a file to a database, and back."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import anyio.to_thread
from msgspec import Struct

from engine.commands.paths import ledger_path, open_ledger
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.ledger.copying import CopiedTable, copy_rows
from engine.model.errors import JobLocked
from engine.model.job import Job
from engine.progress.text import count

_OTHER_FILES = 64
"""That this process may have open beside the locks."""


class LedgerCopy(Struct, frozen=True):
    """A ledger that was copied, and compared."""

    jobs: Sequence[str]
    """Newest first."""
    tables: Mapping[str, CopiedTable]
    """What each holds, on both sides."""


async def copy_ledger(source: LedgerAddress | str, to: LedgerAddress | str) -> LedgerCopy:
    """Copy a ledger, with the numbers of its jobs and all that is known of them, while nobody works on any of them.

    Args:
        source: file or URL of a database.
        to: likewise; empty, or not there.

    Raises:
        NoLedger: there is nothing to copy.
        JobLocked: a process works on one of the jobs.
        LedgerError: `to` is not empty, cannot be written, or differs from the source afterwards. Nothing was copied.
    """
    async with open_ledger(source) as opened:
        with ExitStack() as held:
            jobs = await opened.jobs()
            _make_room(2 * len(jobs))
            for job in jobs:
                await _hold(job, opened, held)
            for family in {job.family for job in jobs if job.family}:
                held.enter_context(opened.lock_family(family))
                held.enter_context(opened.lock_nights(family))
            names = [job.name for job in jobs]
            tables = await anyio.to_thread.run_sync(copy_rows, opened.address, ledger_path(to), names)
    return LedgerCopy(names, tables)


async def _hold(job: Job, ledger: Ledger, held: ExitStack) -> None:
    held.enter_context(ledger.lock(job.name))
    await ledger.end_leases(job.name)
    counts = await ledger.count_shards(job.name, "")
    if leased := counts.others + counts.others_settling:
        raise JobLocked(
            f"workers have {count(leased, 'shard')} of job {job.name!r}. Wait until they end, or stop them first."
        )


def _make_room(locks: int) -> None:
    """Let this process have a file open for each lock, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < locks + _OTHER_FILES:
        most = locks + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(locks + _OTHER_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
