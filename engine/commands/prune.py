"""Remove old jobs from the ledger, and the files that we wrote for them.

A load and its retries go together, or stay together. What a policy would let go stays all the same, with the reason
said, as long as somebody may need it: it is open, uncertain, being worked on, the newest of the ledger or of its
family, or its family knows records by it. Of the last kind the reports and the log go, and the ledger keeps the rest.

Invariant: whoever is killed in the midst leaves a ledger that is whole for every other job. A job that is half removed
is in state *removed*, by which the next `prune` knows it, whatever its policy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import anyio.to_thread
from msgspec import Struct
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.again import SOURCE as TASKS_SOURCE
from engine.commands.intake import SPOOLED
from engine.commands.lineage import SOURCE, UNCERTAIN_SOURCE
from engine.commands.paths import open_ledger
from engine.files import DEFAULT_LEDGER, refuse_foreign
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.model.errors import BulkSubmitError, ConfigError, JobLocked
from engine.model.job import Job, JobState
from engine.progress.events import Listener, unheard
from engine.progress.log_file import LOG_FILE
from engine.progress.text import count
from engine.reports.missing import MISSING
from engine.reports.outcomes import OUTCOMES, REJECTS, SPREADSHEET
from engine.run.context import Stop

_WRITTEN = "|".join(map(re.escape, (OUTCOMES, REJECTS, SPREADSHEET, MISSING)))
REPORTS = re.compile(rf"\.?({_WRITTEN})(\.partial)?|{re.escape(LOG_FILE)}(\.\d+)?")
"""Files of a job's folder that can be written again, or that nobody needs, while the ledger has the job."""
ALL_FILES = re.compile(
    f"{REPORTS.pattern}|{SPOOLED.pattern}|" + "|".join(map(re.escape, (SOURCE, UNCERTAIN_SOURCE, TASKS_SOURCE)))
)
"""Those, and what it was read from, if we have written that."""


class Fall(StrEnum):
    """What becomes of a job."""

    REMOVED = "removed"
    REPORTS = "reports removed"
    KEPT = "kept"


class JobFall(Struct, frozen=True):
    """What becomes of a job, and why."""

    job: str
    family: str
    state: str
    last_at: float
    """Unix seconds of its last step."""
    fall: Fall
    reason: str


class Pruned(Struct, frozen=True):
    """What was removed, or would be."""

    verdicts: Sequence[JobFall]
    """Of every job, newest first."""
    file_bytes: int = 0
    """Of the files that were removed."""
    free_bytes: int = 0
    """Of the ledger: later jobs use them again."""
    error: BulkSubmitError | None = None
    """Why it ended early."""

    def of(self, fall: Fall) -> Sequence[str]:
        """Return the names of the jobs of which this becomes."""
        return [verdict.job for verdict in self.verdicts if verdict.fall is fall]


class Policy(Struct, frozen=True):
    """What may go: what is older, and not among the newest loads of its family; at least one of the two is said."""

    older_than_seconds: float | None = None
    keep_last: int | None = None

    def objection(self, age_seconds: float, place: int, group: str) -> str:
        """Return why a load of this age, the so many-th newest of its group from 0, must stay; "" if it may go."""
        if self.older_than_seconds is not None and age_seconds < self.older_than_seconds:
            return f"younger than {_age(self.older_than_seconds)}"
        if self.keep_last is not None and place < self.keep_last:
            return f"one of the {count(self.keep_last)} newest {group}"
        return ""

    @property
    def reason(self) -> str:
        """Why what may go goes."""
        old = self.older_than_seconds
        parts = [f"older than {_age(old)}"] if old is not None else []
        parts += [f"not one of the {count(self.keep_last)} newest"] if self.keep_last is not None else []
        return ", and ".join(parts)


def _age(seconds: float) -> str:
    days, rest = divmod(round(seconds), 86_400)
    return count(round(seconds / 3600), "hour") if rest else count(days, "day")


class Known(Struct, frozen=True):
    """A job, and what decides over it."""

    job: Job
    last_at: float
    must_stay: str
    """Why it must stay whatever the policy; "" if it need not."""
    needed: str
    """Why its rows must stay; "" if they need not."""


async def prune(
    ledger: LedgerAddress | str = DEFAULT_LEDGER,
    emit: Listener = unheard,
    stop: Stop | None = None,
    *,
    older_than_seconds: float | None = None,
    keep_last: int | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Remove old jobs and what we wrote for them; `dry_run` tells only what would be.

    Args:
        ledger: file or URL of a database that remembers the jobs.
        emit: is told nothing so far.
        stop: ends it early, between two jobs.
        older_than_seconds: only loads whose last step is so long ago.
        keep_last: as many of the newest loads of each family stay, and of those without a family.
        dry_run: remove nothing.

    Raises:
        ConfigError: neither limit is said.
        JobError: there is no ledger.
    """
    del emit
    if older_than_seconds is None and keep_last is None:
        raise ConfigError("nothing says which jobs may go: give --older-than 90d, --keep-last 7, or both")
    policy, stop = Policy(older_than_seconds, keep_last), stop or Stop()
    async with open_ledger(ledger) as opened:
        verdicts = judged(await _looked_at(opened), policy, wiring.CLOCK.now())
        if dry_run:
            return Pruned(verdicts, free_bytes=await opened.free_bytes())
        done, file_bytes = [], 0
        kept_sources = await _sources_of(verdicts, opened)
        for verdict in verdicts:  # newest first: a retry goes before what it retries
            fallen, size_bytes = await _carry_out(verdict, opened, kept_sources, stop)
            done.append(fallen)
            file_bytes += size_bytes
        return Pruned(done, file_bytes=file_bytes, free_bytes=await opened.free_bytes(), error=stop.error)


async def _sources_of(verdicts: Sequence[JobFall], ledger: Ledger) -> frozenset[str]:
    """Return the files from which the jobs that stay were read: they may stand in the folder of one that goes."""
    staying = {verdict.job for verdict in verdicts if verdict.fall is not Fall.REMOVED}
    return frozenset(source.path for job in await ledger.jobs() if job.name in staying for source in job.sources)


async def _carry_out(verdict: JobFall, ledger: Ledger, kept_sources: frozenset[str], stop: Stop) -> tuple[JobFall, int]:
    """Do what was judged, unless the job has moved meanwhile; return what became of it, and the bytes of its files."""
    if verdict.fall is Fall.KEPT:
        return verdict, 0
    if stop.error is not None:
        return replace(verdict, fall=Fall.KEPT, reason="prune was interrupted before it"), 0
    try:
        with ledger.lock(verdict.job):
            job = next((job for job in await ledger.jobs() if job.name == verdict.job), None)
            if job is None or (str(job.state), await ledger.last_step_at(job.name)) != (verdict.state, verdict.last_at):
                return replace(verdict, fall=Fall.KEPT, reason="somebody has worked on it meanwhile"), 0
            return verdict, await _remove(job, verdict.fall, ledger, kept_sources)
    except JobLocked:
        return replace(verdict, fall=Fall.KEPT, reason="a process works on it"), 0


# Judging


async def _looked_at(ledger: Ledger) -> Sequence[Known]:
    needed = await ledger.needed()
    return [
        Known(job, await ledger.last_step_at(job.name), await _must_stay(job, ledger), needed.get(job.name, ""))
        for job in await ledger.jobs()
    ]


async def _must_stay(job: Job, ledger: Ledger) -> str:
    if job.state is JobState.REMOVED:
        return ""
    if ledger.is_locked(job.name):
        return "a process works on it"
    if job.state is JobState.OPEN:
        return "it is open: `resume` goes on with it"
    tally = await ledger.tally(job.name)
    return f"{count(tally.uncertain, 'record')} of it uncertain" if tally.uncertain else ""


def judged(known: Sequence[Known], policy: Policy, now: float) -> Sequence[JobFall]:
    """Return what becomes of each job; `known`: all jobs of the ledger, newest first. Pure."""
    roots = _roots(known)
    loads: dict[str, list[Known]] = {}
    for one in known:
        loads.setdefault(roots[one.job.name], []).append(one)
    # In the order of the loads themselves: a retry of last night makes no newer load of an old one.
    begun = [one.job for one in known if roots[one.job.name] == one.job.name]
    places: dict[str, int] = {}
    begun_of: Counter[str] = Counter()
    for job in begun:
        places[job.name] = begun_of[job.family]
        begun_of[job.family] += 1
    falls: dict[str, tuple[Fall, str]] = {}
    for job in begun:
        falls[job.name] = _fall_of(
            loads[job.name], policy, now, places[job.name], newest=job.name == roots[known[0].job.name]
        )
    return [
        JobFall(one.job.name, one.job.family, str(one.job.state), one.last_at, *_own(one, falls[roots[one.job.name]]))
        for one in known
    ]


def _own(one: Known, fall: tuple[Fall, str]) -> tuple[Fall, str]:
    """Return what becomes of a job itself: one that is half removed cannot stay."""
    if one.job.state is JobState.REMOVED:
        return Fall.REMOVED, "an earlier prune has begun with it"
    return fall


def _fall_of(load: Sequence[Known], policy: Policy, now: float, place: int, *, newest: bool) -> tuple[Fall, str]:
    """Return what becomes of a load and its retries."""
    whole = [one for one in load if one.job.state is not JobState.REMOVED]
    for one in whole:
        if one.must_stay:
            return Fall.KEPT, one.must_stay if one is load[-1] else f"{one.must_stay} ({one.job.name})"
    family = load[-1].job.family
    if newest:  # its number in the ledger must not be given out again
        return Fall.KEPT, "the newest of the ledger"
    if place == 0:
        return Fall.KEPT, f"the newest {_group(family)}"
    age = now - max((one.last_at for one in whole), default=0.0)
    if objection := policy.objection(age, place, _group(family)):
        return Fall.KEPT, objection
    if needed := next((one.needed for one in whole if one.needed), ""):
        return Fall.REPORTS, f"{policy.reason}; the ledger keeps it, for {needed}"
    return Fall.REMOVED, policy.reason


def _group(family: str) -> str:
    return f"of family {family}" if family else "without a family"


def _roots(known: Sequence[Known]) -> Mapping[str, str]:
    """Return, for each job, the job of whose records it is a retry, over all retries; itself if it is none."""
    parents = {one.job.name: one.job.parent for one in known}
    roots: dict[str, str] = {}
    for name in parents:
        root = name
        while (parent := parents[root]) is not None and parent in parents:
            root = parent
        roots[name] = root
    return roots


# Removing


async def _remove(job: Job, fall: Fall, ledger: Ledger, kept_sources: frozenset[str]) -> int:
    """Remove a job, or what it has of files, its lock held; return the bytes of the files."""
    if fall is Fall.REPORTS:
        return await anyio.to_thread.run_sync(_remove_files, job, REPORTS, kept_sources)
    # First: what is half removed must not be taken for a job of which there is less.
    await ledger.set_job_state(job.name, JobState.REMOVED)
    size_bytes = await anyio.to_thread.run_sync(_remove_files, job, ALL_FILES, kept_sources)
    while not await ledger.remove(job.name):
        pass
    return size_bytes


def _remove_files(job: Job, ours: re.Pattern[str], kept_sources: frozenset[str]) -> int:
    """Remove the files with our names that are ours, and the folder if it is empty then; return their bytes."""
    folder, size_bytes = Path(job.output), 0
    with suppress(OSError):  # it is gone
        for path in [path for path in folder.iterdir() if ours.fullmatch(path.name) and str(path) not in kept_sources]:
            with suppress(OSError):  # somebody else's: refused
                refuse_foreign(path)
                size = path.stat().st_size
                path.unlink()
                size_bytes += size
        folder.rmdir()  # or other things are in it
    return size_bytes
