"""Paths in, places that may be used out: the ledger that is there, an output folder that is nobody else's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import JobError
from engine.operations.finishing import CLOCK
from engine.ports import Ledger
from engine.reporting import OUTCOMES, REJECTS


@asynccontextmanager
async def open_ledger(path: Path) -> AsyncIterator[SqliteLedger]:
    """Open a ledger that is there; only `submit` makes one.

    Raises:
        JobError: there is none, so there are no jobs.
    """
    if not os.path.exists(path):  # noqa: ASYNC240, PTH110 - one stat before anything else goes on
        raise JobError(f"there is no ledger at {path}: check --ledger and the working folder, or submit a first job")
    async with SqliteLedger.open(path, CLOCK) as ledger:
        yield ledger


async def claim_output(folder: Path, ledger: Ledger) -> None:
    """Make the folder for a new job's reports, and see that it can be written, before anything is sent.

    Raises:
        JobError: it cannot be written, or it is another job's: reports would overwrite each other.
    """
    if any(job.output == str(folder) for job in await ledger.jobs()) or _has_reports(folder):
        raise JobError(f"{folder} holds the reports of another job; choose another --output or --job")
    try:
        _probe(folder)
    except OSError as error:
        raise JobError(f"{folder} cannot hold the reports ({error.strerror}); choose another --output") from error


def _has_reports(folder: Path) -> bool:
    return any((folder / name).exists() for name in (OUTCOMES, REJECTS))


def _probe(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    probe = folder / ".probe"
    probe.touch(mode=0o600)
    probe.unlink()
