"""Opens what paths name, for every operation: the ledger that is there, an output folder that is no other job's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryFile

from engine.commands import wiring
from engine.files import DEFAULT_LEDGER, find_ledger, make_private_folder
from engine.ledger.base import Ledger
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import JobError, JobLocked
from engine.reports.outcomes import OUTCOMES, REJECTS, SPREADSHEET


def path_names(paths: Path | str | Sequence[Path | str]) -> list[str]:
    """Return one path or several as a list of text."""
    return [str(path) for path in ([paths] if isinstance(paths, Path | str) else paths)]


def ledger_path(named: Path | str, configured: Path | None = None) -> Path:
    """Return where a ledger is; if nobody has named it, it may be `configured`."""
    return find_ledger(configured) if named is DEFAULT_LEDGER else Path(named)


@asynccontextmanager
async def open_ledger(named: Path | str, *, create: bool = False) -> AsyncIterator[Ledger]:
    """Open a ledger. This is the one place that chooses the store; `create`: make one where there is none, to `submit`.

    What is said of a job says of which ledger: who stands in another folder sees why it is not found.

    Raises:
        JobError: there is none, so there are no jobs.
    """
    path = ledger_path(named)
    if not create and not os.path.exists(path):  # noqa: ASYNC240, PTH110 - one stat before anything else goes on
        raise JobError(f"there is no ledger at {path}: check --ledger and the working folder, or submit a first job")
    async with SqliteLedger.open(path, wiring.CLOCK) as ledger:
        try:
            yield ledger
        except (JobError, JobLocked) as error:
            if not str(error).startswith(of := f"ledger {path}: "):  # the operation may be a part of another one
                error.args = (f"{of}{error}",)
            raise


async def claim_output(folder: Path, ledger: Ledger) -> None:
    """Make the folder for a new job's reports, and see that it can be written, before anything is sent.

    Raises:
        JobError: it cannot be written, or it is another job's: reports would overwrite each other.
    """
    if any(job.output == str(folder) for job in await ledger.jobs()) or _has_reports(folder):
        raise JobError(f"{folder} holds the reports of another job; choose another --output or --job")
    try:
        _probe(folder)
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError, too
        why = getattr(error, "strerror", None) or error
        raise JobError(f"{folder} cannot hold the reports ({why}); choose another --output") from error


def _has_reports(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in (OUTCOMES, REJECTS, SPREADSHEET))


def _probe(folder: Path) -> None:
    str(folder).encode()  # the ledger remembers it: a name that is not UTF-8 is a ValueError
    make_private_folder(folder)
    with TemporaryFile(dir=folder):  # has no name, so it meets no link that somebody has put there
        pass
