# ruff: noqa: D102 - what each method does stands once, in base.py
"""The `Ledger` in one SQLite file, as `async with SqliteLedger.open(path, clock) as ledger`.

`commands/` opens it; all others know the `Ledger` of base.py. Two connections to one file, which WAL allows without
waiting; locks are files beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Self

from engine.clock import Clock
from engine.files import has_disk_room
from engine.ledger.database import SqliteReader, SqliteWriter, copy_ledger, mapped_errors, open_connections
from engine.ledger.files import hold, is_held
from engine.ledger.sql import SqlLedger
from engine.ledger.writer import Hooks, Writer
from engine.model.job import check_job_name
from engine.model.runs import Sample

_NO_HOOKS = Hooks()
_BUSY_SECONDS = 10.0
"""The longest group of another job is some MB: well below a second on any disk."""


class SqliteLedger(SqlLedger):
    """The durable memory of jobs in one SQLite file."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        writing: SqliteWriter,
        reading: SqliteReader,
        hooks: Hooks = _NO_HOOKS,
        *,
        shares_jobs: bool = False,
    ) -> None:
        super().__init__(clock, Writer(str(path), writing, hooks), reading)
        self._path = path
        self._shares_jobs = shares_jobs
        self._file = reading

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path,
        clock: Clock,
        *,
        hooks: Hooks = _NO_HOOKS,
        busy_seconds: float = _BUSY_SECONDS,
        vfs: str | None = None,
        shares_jobs: bool = False,
    ) -> AsyncIterator[Self]:
        """Open the ledger at `path` until the block ends; it is created, with its folder, for its owner only.

        `busy_seconds` is how long it may be held by another process; `vfs` names a file system registered with apsw.
        `shares_jobs`: several processes of this machine send a job together.

        Raises:
            LedgerError: it cannot be opened, is not a ledger, or was written by a newer bulksubmit.
        """
        real, writing, reading = await asyncio.to_thread(open_connections, path, busy_seconds, vfs)
        ledger = cls(real, clock, writing, reading, hooks, shares_jobs=shares_jobs)
        try:
            yield ledger
        finally:
            await ledger.close()

    @property
    def address(self) -> Path:
        return self._path

    @property
    def shares_jobs(self) -> bool:
        return self._shares_jobs

    def lock(self, name: str) -> AbstractContextManager[None]:
        return self._held(self._lock_path(name), f"job {name!r}")

    def lock_family(self, family: str) -> AbstractContextManager[None]:
        # No job has a plus sign in its name.
        path = self._path.with_name(f"{self._path.name}.{check_job_name(family)}+family.lock")
        return self._held(path, f"a job of family {family!r}")

    def lock_nights(self, family: str) -> AbstractContextManager[None]:
        # No job has a plus sign in its name.
        path = self._path.with_name(f"{self._path.name}.{check_job_name(family)}+nights.lock")
        return self._held(path, f"the nightly load of family {family!r}")

    @contextmanager
    def _held(self, path: Path, what: str) -> Iterator[None]:
        with ExitStack() as held:
            with mapped_errors(self._path):  # errors of taking it, not of the work done meanwhile
                held.enter_context(hold(path, what))
            yield

    def is_locked(self, name: str) -> bool:
        with mapped_errors(self._path):
            return is_held(self._lock_path(name))

    def _lock_path(self, job: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{check_job_name(job)}.lock")

    async def add_sample(self, job: str, run: int, sample: Sample) -> None:
        if has_disk_room(self._path.parent):  # a disk that is full for this would end the run
            await super().add_sample(job, run, sample)

    async def free_bytes(self) -> int:
        return await self._ask(lambda _: self._file.free_bytes())

    async def back_up(self, to: Path) -> None:
        await self._ask(lambda _: copy_ledger(self._file.raw, to))
