"""The checks that need no network: disk, ledger, output folder, source and its first records. `check` makes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import ClassVar

import anyio.to_thread
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.columns import check_columns
from engine.commands.first_records import FirstRecords, read_first
from engine.commands.intake import STANDARD_INPUT, look
from engine.commands.paths import folder_beside, has_reports, open_ledger
from engine.files import DISK_ROOM_BYTES
from engine.ledger.address import LedgerAddress, PostgresAddress, require_postgres
from engine.ledger.database import examine
from engine.model.errors import JobError
from engine.model.job import Job
from engine.model.record import Source
from engine.progress.text import count, duration, size
from engine.services.checks import Checking, CheckVerdict, Finding, ServiceCheck

KEPT_BYTES = 300
"""What a record takes on disk by the end, its line in outcomes.ndjson and its part of the ledger: 274 bytes were
measured (Sama, 20,000 records)."""
KEPT_ALONE_BYTES = 750
"""The same where each record is a batch of its own: 722 (Seven Bridges, 2,000)."""
_MOST_JOBS = 200
"""Newest jobs whose locks are looked at."""
_SHOWN = 3
_CLOCK_SECONDS = 2.0
"""By which the clock of a database may differ. Leases end by it; times that people see are those of this machine."""


class Here:
    """What a load finds on this machine."""

    NAMES: ClassVar[Sequence[str]] = ("source", "records", "disk", "ledger", "output")

    def __init__(
        self,
        setup: wiring.Setup,
        sources: Sequence[str],
        ledger: LedgerAddress,
        output: Path | str | None,
        format_: str | None,
    ) -> None:
        self._setup = setup
        self._named = sources
        self._ledger = ledger if isinstance(ledger, PostgresAddress) else ledger.absolute()
        self._output = Path(output).absolute() if output else None
        self._beside = folder_beside(self._ledger).absolute()
        self._settings = wiring.source_settings(setup, format_)
        self._found: tuple[Source, ...] = ()
        self._first: FirstRecords | None = None
        self._flawed: frozenset[int] = frozenset()

    def checks(self) -> Sequence[ServiceCheck]:
        """Return them, in an order in which each knows what it needs."""
        path = "check the path, and name a format by --format where the file's name does not tell"
        ledger = "see what it says; --ledger names another file"
        if isinstance(self._ledger, PostgresAddress):
            ledger = "see what it says; PGPASSWORD or PGPASSFILE has the password, --ledger names another database"
        return [
            ServiceCheck("source", self._source, path),
            ServiceCheck("records", self._records, "mend what [mapping] or [source] says, or the file", ("source",)),
            ServiceCheck("disk", partial(_in_thread, self._disk), "make room, or name folders on another disk"),
            ServiceCheck("ledger", self._opens, ledger),
            ServiceCheck("output", partial(_in_thread, self._folder), "name another folder by --output"),
        ]

    async def _source(self) -> Finding:
        if not self._named:
            return Finding("no SOURCE is named", CheckVerdict.UNCHECKED)
        if self._named == [STANDARD_INPUT]:
            return Finding("standard input can be read only once: name a file", CheckVerdict.UNCHECKED)
        found = await look(self._named, self._settings)
        if copied := [one.name for one in found if one.name]:
            return Finding(
                f"{copied[0]} is copied before it is read: `bulksubmit validate` does", CheckVerdict.UNCHECKED
            )
        self._found = tuple(found)
        formats = ", ".join(dict.fromkeys(str(one.format) for one in self._found))
        names = Path(self._found[0].path).name if len(self._found) == 1 else count(len(self._found), "file")
        return Finding(f"{names}, {size(self._job.size_bytes)}, {formats}")

    @property
    def _job(self) -> Job:
        return Job("check", self._setup.service.kind, "", self._found, "", created_at=wiring.CLOCK.now())

    async def _records(self) -> Finding:
        if not self._found:
            return Finding("they are not read here" if self._named else "no SOURCE is named", CheckVerdict.UNCHECKED)
        unmet = await check_columns(self._found, self._setup.settings, self._settings, thorough=False)
        first = await anyio.to_thread.run_sync(read_first, self._offline(), self._job, abandon_on_cancel=True)
        self._first = first
        if not first.records:
            return Finding("there is none", CheckVerdict.FAILED, "ask whoever writes the file")
        said = f"{count(len(first.tasks))} of the first {count(first.records, 'record')} can be sent"
        if first.rejects:
            bad = first.rejects[0]
            said += f"; line {bad.line}: {bad.reason}"
            cure = "`bulksubmit validate` names all of them"
            return Finding(said, CheckVerdict.WARNING if first.tasks else CheckVerdict.FAILED, cure)
        if unmet:
            return Finding(unmet, CheckVerdict.WARNING, "mend the name of the column in [mapping]")
        return Finding(said)

    def _offline(self) -> wiring.Offline:
        setup = replace(self._setup, settings=replace(self._setup.settings, source=self._settings))
        return wiring.offline(setup, self._job)

    @property
    def good(self) -> Sequence[int]:
        """Indexes of the first records that can be sent, as far as it is known."""
        return [index for index in self._first.indexes if index not in self._flawed] if self._first else ()

    async def tasks(self, checking: Checking) -> Finding:
        """Hold the first tasks against what the service says of its own rules."""
        first = self._first
        if first is None or not first.tasks:
            return Finding("no SOURCE is named" if first is None else "there is none", CheckVerdict.UNCHECKED)
        flaws = await checking.flaws(first.tasks)
        found = [(index, flaw) for index, flaw in zip(first.indexes, flaws, strict=True) if flaw]
        which = f"the first {count(len(first.tasks), 'task')}"
        if not found:
            return Finding(f"{which} fit what the service says of itself")
        self._flawed = frozenset(index for index, _ in found)
        index, flaw = found[0]
        more = sum(other == flaw for _, other in found) - 1
        also = f" ({count(more)} more like it)" if more else ""
        cure = "mend the records, [mapping] or [service]; `bulksubmit validate` shows the first tasks"
        said = f"{count(len(found))} of {which} do not fit; record {index}: {flaw}{also}"
        return Finding(said, CheckVerdict.WARNING if self.good else CheckVerdict.FAILED, cure)

    def _disk(self) -> Finding:
        """Compare what is free with what the ledger and the reports will take."""
        size_bytes, records = self._job.size_bytes, self._expected_records()
        alone = self._offline().service.limits.records == 1
        needs = records * (KEPT_ALONE_BYTES if alone else KEPT_BYTES)
        places = {one.stat().st_dev: one for one in map(_nearest, [self._beside, self._output or self._beside])}
        said = []
        worst = CheckVerdict.OK
        for place in places.values():
            disk = os.statvfs(place)
            free = disk.f_bavail * disk.f_frsize
            said.append(f"{size(free)} free at {place}")
            if free < DISK_ROOM_BYTES + needs:
                worst = CheckVerdict.FAILED
            elif free < DISK_ROOM_BYTES + needs + size_bytes and worst is CheckVerdict.OK:
                worst = CheckVerdict.WARNING
        about = f"; about {count(records, 'record')} take {size(needs)}" if records else ""
        if worst is CheckVerdict.WARNING:
            about += f", and rejects.ndjson up to {size(size_bytes)}"
        cure = "make room, or name folders on another disk (--ledger, --output)" if worst is not CheckVerdict.OK else ""
        return Finding("; ".join(said) + about, worst, cure)

    def _expected_records(self) -> int:
        """Return how many records there are, judged by the length of the first ones."""
        if self._first is None or not self._first.size_bytes:
            return 0
        read = max(self._first.records, 1)
        return max(read, round(self._job.size_bytes * read / self._first.size_bytes)) if read else 0

    async def _opens(self) -> Finding:
        if isinstance(self._ledger, PostgresAddress):
            return await self._in_database(self._ledger)
        if not os.path.lexists(self._ledger):  # noqa: ASYNC240 - one look before anything else
            _try_to_write(_nearest(self._ledger))
            return Finding(f"there is none yet; it will be {self._ledger}")
        version, newest = await anyio.to_thread.run_sync(examine, self._ledger, abandon_on_cancel=True)
        if version < newest:
            said = f"{self._ledger} is of an older version ({version}; now {newest}): the next command brings it up"
            return Finding(
                said, CheckVerdict.WARNING, "`bulksubmit backup` first, if an older bulksubmit shall read it again"
            )
        return Finding(f"{self._ledger}, version {version}, {await self._jobs()}")

    async def _in_database(self, address: PostgresAddress) -> Finding:
        require_postgres()
        from engine.ledger import postgres_connection  # noqa: PLC0415 - an extra

        seen = await anyio.to_thread.run_sync(postgres_connection.examine, address, abandon_on_cancel=True)
        newest = len(postgres_connection.STEPS)
        if seen.lacking:
            more = ", …" if len(seen.lacking) > _SHOWN else ""
            said = f"{address}: user {seen.user} lacks {', '.join(seen.lacking[:_SHOWN])}{more}"
            cure = "have the owner grant them, as docs/many-machines.md says"
            if any(right.startswith("CREATE") for right in seen.lacking):
                cure = "there are no tables yet, and this user may not make them: have their owner submit the first job"
            return Finding(said, CheckVerdict.FAILED, cure)
        if 0 < seen.version < newest:
            said = f"{address} is of an older version ({seen.version}; now {newest}): the next command brings it up"
            return Finding(said, CheckVerdict.WARNING, "pg_dump first, if an older bulksubmit shall read it again")
        said = f"there is none yet in {address}, PostgreSQL {seen.server}; the first job makes it"
        if seen.version:
            said = f"{address}, PostgreSQL {seen.server}, version {seen.version}, {await self._jobs()}"
        differs = abs(seen.ahead_seconds)
        if differs > _CLOCK_SECONDS:
            said += f"; its clock is {duration(differs)} {'ahead of' if seen.ahead_seconds > 0 else 'behind'} this one"
            return Finding(said, CheckVerdict.WARNING, "set both clocks, by NTP (timedatectl set-ntp true)")
        return Finding(said)

    async def _jobs(self) -> str:
        async with open_ledger(self._ledger) as opened:
            jobs = await opened.jobs()
            running = [job.name for job in jobs[:_MOST_JOBS] if opened.is_locked(job.name)]
        working = f"; just now at work: {', '.join(running[:_SHOWN])}" if running else ", none at work"
        return f"{count(len(jobs), 'job')}{working if jobs else ''}"

    def _folder(self) -> Finding:
        folder = self._output or self._beside
        if self._output is not None and has_reports(self._output):
            raise JobError(f"{folder} holds the reports of another job")
        _try_to_write(_nearest(folder))
        return Finding(f"{folder}{'' if self._output else '/JOB'} can be written")


async def _in_thread(work: Callable[[], Finding]) -> Finding:
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


def _nearest(path: Path) -> Path:
    """Return the folder of a path that is there, or the one in which it would be made."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _try_to_write(folder: Path) -> None:
    """Write a file without a name into a folder. Raises: JobError."""
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise JobError(f"{folder} cannot be written: {error.strerror}") from None
