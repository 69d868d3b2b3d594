"""Load what comes back each night: end what earlier nights have left open, then send what is new tonight.

The command `nightly` calls it, mostly from cron. While it works it holds the nights of the family, so no two of them
work at once. Tonight's job is begun only when every earlier one of the family has ended: what the service may still
create of it would be sent again otherwise, or be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count as numbers
from pathlib import Path

import anyio
import anyio.to_thread
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.cancel import cancel
from engine.commands.configuration import Config
from engine.commands.endings import tells_end
from engine.commands.intake import STANDARD_INPUT, look
from engine.commands.paths import ledger_path, open_ledger, path_names, spelled
from engine.commands.result import Result
from engine.commands.submit import family_lock, go_on, replace_config, submit
from engine.commands.taken import is_as_frozen
from engine.files import DEFAULT_LEDGER
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.model.errors import BulkSubmitError, ConfigError, Exit, JobError, Overwritten
from engine.model.job import Job, JobState
from engine.model.night import day_of, zone_of
from engine.model.outcome import Later, Tally
from engine.model.record import Source
from engine.model.settings import LimitSettings, RunLimits, WindowSettings
from engine.model.submission import State
from engine.progress.events import Listener, Noticed, unheard
from engine.run.bounds import Bounds, check_open, ending_of
from engine.run.context import Stop
from engine.source.sources import is_file_of, is_untouched

NIGHTLY = "nightly"
"""What a job remembers a run of ours by."""
_AT_THE_SERVICE = frozenset({State.RELEASING, State.RELEASED})
"""States of batches of which something may still be created."""


@tells_end
async def nightly(  # noqa: PLR0913 - what a person can say of a load
    sources: Path | str | Sequence[Path | str],
    config: Config,
    ledger: LedgerAddress | str = DEFAULT_LEDGER,
    emit: Listener = unheard,
    stop: Stop | None = None,
    *,
    family: str | None = None,
    format: str | None = None,  # noqa: A002 - as the option is called
    until: str = "",
    accept_new: bool = False,
    processes: int | None = None,
    limits: RunLimits | None = None,
    metrics_textfile: Path | str | None = None,
) -> Result:
    """End the open jobs of a family, oldest first, then send what is new in some files as tonight's job.

    An open job goes on to its end if its sources still are what they were. Else what was released of it is followed,
    and it is closed: its unsent records are found in tonight's files, where they still are. Tonight's job is called
    after the family and the day on which the night begins. Called again in the same night, it goes on with that job;
    once that is finished, nothing is sent, unless the files are other ones by now.

    Args:
        sources: a path or a glob, or several.
        config: TOML file, or its tables.
        ledger: file or URL of a database that remembers all jobs; made where there is none.
        emit: is told what happens.
        stop: ends the run early.
        family: name of the load; the configuration file's name where left out.
        format: how the sources are written; told by their names where left out.
        until: when a record counts as done, in the words of its service; its default where empty.
        accept_new: go on although more records are new to the family than `[delta]` allows.
        processes: that read beside this one; as configured where left out.
        limits: of this call, all its jobs together; what is left out is as configured.
        metrics_textfile: gets the metrics for Prometheus' node_exporter; the one of the configuration where left out.

    Returns:
        What came of tonight's job, or of the one before it that could not be ended.

    Raises:
        ConfigError, SourceError, JobError, WindowClosed: nothing was sent.
        JobLocked: another process works on the family.
    """
    stop = stop or Stop()
    family = wiring.family_name(config, family)
    if STANDARD_INPUT in path_names(sources):
        raise ConfigError("nightly reads files, for it may have to read them again; write standard input to one first")
    text = wiring.read_config(config)
    ledger = ledger_path(ledger, wiring.configured_ledger(config, text))
    setup = wiring.load(text, limits=limits, textfile=metrics_textfile)
    check_open(setup.settings.window, wiring.CLOCK.now())
    settings = wiring.source_settings(setup, format)
    # First: if tonight's files are not there, nothing is closed for the want of them.
    found = await look(path_names(sources), settings)
    limits = _for_all_jobs(setup)
    night = _Night(_name_of_night(family, setup.settings.window), text, setup, emit, stop, limits, processes)
    async with open_ledger(ledger, create=True) as opened:
        with opened.lock_nights(family):
            ended: list[Result] = []
            for job in await _left_open(family, opened):
                result = await night.end(job, opened, ledger)
                if result.state == JobState.OPEN or await _may_create(result.job, opened):
                    return night.not_begun(result, opened.address)
                ended.append(result)
            if ended and stop.sending_error is not None:
                return night.not_begun(ended[-1], opened.address)
            jobs = {job.name: job for job in await opened.jobs()}
            name, last = _names(night.name, jobs)
            if last is not None and await night.has_loaded(last, found, opened):
                result = await night.repeat(last, opened, ended)
            else:
                result = await submit(
                    sources,
                    config,
                    ledger,
                    emit,
                    stop,
                    job=name,
                    format=format,
                    until=until,
                    processes=processes,
                    delta=True,
                    family=family,
                    accept_new=accept_new,
                    limits=limits,
                    metrics_textfile=metrics_textfile,
                    command=NIGHTLY,
                )
            return _with_earlier(result, ended)


def _for_all_jobs(setup: wiring.Setup) -> RunLimits:
    """Return the limits of tonight, which hold for the jobs of earlier nights too; the deadline is one moment."""
    window, said = setup.settings.window, setup.settings.limits
    at = setup.deadline_at
    return RunLimits(
        deadline="" if at is None else datetime.fromtimestamp(at, UTC).isoformat(),
        window=f"{window.opens}-{window.closes}" if window.opens else "",
        zone=window.zone,
        max_records=said.max_records,
        max_failed=said.max_failed,
        fail_if_empty=said.fail_if_empty,
    )


def _name_of_night(family: str, settings: WindowSettings) -> str:
    """Return the name of tonight's job: after midnight a window belongs to the day on which it opened."""
    now, window = wiring.CLOCK.now(), settings.window
    day = window.at(now).day if window else day_of(now, zone_of(settings.zone))
    return f"{family}-{day.isoformat()}"


async def _left_open(family: str, ledger: Ledger) -> Sequence[Job]:
    """Return the jobs of a family that have not ended, oldest first; a canceled one may have been left half-way."""
    jobs = [job for job in await ledger.jobs() if job.family == family]
    return [
        job
        for job in reversed(jobs)
        if job.state is JobState.OPEN or (job.state is JobState.CANCELED and await _may_create(job.name, ledger))
    ]


async def _has_more(job: Job, config: str, ledger: Ledger) -> bool:
    """Return whether files that a finished job has loaded may hold more to send: failed, taken back, or mapped anew."""
    if job.state is not JobState.FINISHED:
        return False
    undone = (await ledger.count_later(job.name)).get(Later.UNDONE, 0)
    return bool((await ledger.tally(job.name)).failed or undone or job.config != config)


async def _may_create(name: str, ledger: Ledger) -> bool:
    states = (await ledger.tally(name)).states
    return any(states.get(state) for state in _AT_THE_SERVICE)


def _names(night: str, jobs: dict[str, Job]) -> tuple[str, Job | None]:
    """Return a name for one more job of a night, and the job of it that there was last, if any."""
    last = None
    for name in _candidates(night):
        if name not in jobs:
            return name, last
        last = jobs[name]
    raise AssertionError("numbers do not end")


def _candidates(night: str) -> Iterator[str]:
    yield night
    for number in numbers(2):
        yield f"{night}.{number}"


def _with_earlier(result: Result, ended: Sequence[Result]) -> Result:
    """Return the result of tonight's job with what is to be known of the jobs that were ended before it."""
    others = [one for one in ended if one.job != result.job]
    said = [_said_of(one) for one in others]
    codes = [one.exit_code for one in others if one.state == JobState.FINISHED]
    failed = [code for code in codes if code not in {Exit.ALL_CREATED, Exit.NOTHING}]
    code = result.exit_code or next(iter(failed), Exit.ALL_CREATED)
    return replace(result, message="; ".join(filter(None, [result.message, *said])), exit_code=code)


def _said_of(ended: Result) -> str:
    if ended.state == JobState.FINISHED:
        return f"job {ended.job} was ended first: {ended.tally.created:,} of {ended.tally.records:,} created"
    return (
        f"job {ended.job} was closed first, for its files were written anew: {ended.tally.created:,} of "
        f"{ended.tally.records:,} created; the others are sent if they are in tonight's files"
    )


class _Night:
    """What all jobs of one call share."""

    def __init__(  # noqa: PLR0913, PLR0917 - what they share
        self,
        name: str,
        config: str,
        setup: wiring.Setup,
        emit: Listener,
        stop: Stop,
        limits: RunLimits,
        processes: int | None,
    ) -> None:
        """Join it."""
        self.name = name
        self._config = config
        self._setup = setup
        self._emit = emit
        self._stop = stop
        self._limits = limits
        self._processes = processes

    async def end(self, job: Job, opened: Ledger, ledger: LedgerAddress | str) -> Result:
        """Work on an open job to its end, or close it if its sources are other ones by now."""
        self._emit(Noticed(f"job {job.name} of the same family is open: it is ended first"))
        with opened.lock(job.name), family_lock(job, opened):
            job = await opened.job(job.name)
            changed = await anyio.to_thread.run_sync(_overwritten, job)
            if changed is None and not await self._holds_frozen(job, opened):
                changed = Overwritten(f"{job.sources[0].path} was written anew, and given its old time again")
            if job.state is JobState.OPEN:
                with suppress(ConfigError):  # with another mapping, say, it ends as it began
                    job = await replace_config(job, self._config, opened, self._emit, self._stop)
                result = await self._go_on(job, opened, changed)
                if result.state == JobState.FINISHED or changed is None or self._stop.sending_error is not None:
                    return result
        return await self._close(job.name, ledger)

    async def has_loaded(self, job: Job, found: Sequence[Source], opened: Ledger) -> bool:
        """Return whether a job was made of the very files that were found, and nothing more can come of them."""
        same = _same_named(job.sources, found)
        same = same and await anyio.to_thread.run_sync(_overwritten, job) is None
        return same and await self._holds_frozen(job, opened) and not await _has_more(job, self._config, opened)

    async def _holds_frozen(self, job: Job, opened: Ledger) -> bool:
        """Return whether files that were not written anew, by their times, have the content that a job has frozen.

        They are read only if the kernel knows of a change: be it `chmod`, or a program that set the time back.
        """
        if await anyio.to_thread.run_sync(_untouched, job):
            return True
        self._emit(Noticed(f"the files of job {job.name} were touched: what it has frozen is compared with them first"))
        return await is_as_frozen(job, opened)

    async def _close(self, name: str, ledger: LedgerAddress | str) -> Result:
        """Cancel a job, in no more time than there is."""
        ending = ending_of(self._setup.settings.window, self._setup.deadline_at, wiring.CLOCK.now())
        if ending is not None:  # what goes on is the night, and no single job of it
            ending.error.args = (spelled(str(ending.error), ledger_path(ledger)),)
        bounds = Bounds(LimitSettings(), ending, Tally(), wiring.CLOCK, self._stop, self._emit)
        canceled: Result | BulkSubmitError
        async with anyio.create_task_group() as group:
            group.start_soon(bounds.watch)
            try:
                canceled = await cancel(name, ledger, self._emit, self._stop)
            except BulkSubmitError as error:  # raised below: a task group would wrap it
                canceled = error
            group.cancel_scope.cancel()
        if isinstance(canceled, BulkSubmitError):
            raise canceled
        return canceled

    async def repeat(self, job: Job, opened: Ledger, ended: Sequence[Result]) -> Result:
        """Return what came of a job of this night that was made of the very files of now; nothing new is in them.

        Raises:
            JobError: a person has canceled it.
        """
        for result in ended:
            if result.job == job.name:
                return result
        if job.state is JobState.CANCELED:
            raise JobError(
                f"job {job.name!r} of this night was canceled, and its files have not changed: nothing is sent. "
                f"`bulksubmit resume {job.name}` may go on with it; the next night sends what it has not"
            )
        with opened.lock(job.name), family_lock(job, opened):
            result = await self._go_on(await opened.job(job.name), opened, None)
        said = f"job {job.name} has loaded these files already, and they have not changed since: there is nothing new"
        return replace(result, message="; ".join(filter(None, [said, result.message])))

    async def _go_on(self, job: Job, opened: Ledger, changed: Overwritten | None) -> Result:
        # Of files that are other ones by now nothing more is sent, so a limit of failures has nothing to hold back.
        limits = self._limits if changed is None else replace(self._limits, max_failed="100%")
        return await go_on(
            job,
            opened,
            self._emit,
            self._stop,
            command=NIGHTLY,
            processes=self._processes,
            limits=limits,
            overwritten=changed,
            textfile=self._setup.textfile,
        )

    def not_begun(self, result: Result, ledger: LedgerAddress) -> Result:
        """Return the result of a job after which tonight's cannot begin; when it is tonight's, nothing is added."""
        if result.job.startswith(self.name):
            return result
        why, code = result.message, result.exit_code
        if result.state != JobState.OPEN and (over := self._stop.sending_error) is not None:
            why, code = spelled(str(over), ledger), over.exit_status
        why = "; ".join(filter(None, [why, f"so tonight's job {self.name} is not begun"]))
        return replace(result, message=why, exit_code=code or Exit.STOPPED_EARLY)


def _overwritten(job: Job) -> Overwritten | None:
    """Return how the files of a job have changed, be it only that they were written anew; None if they have not."""
    for source in job.sources:
        try:
            status = Path(source.path).stat()
        except OSError as error:
            return Overwritten(f"{source.path} cannot be read any more: {error.strerror}")
        if not is_file_of(source, status):
            return Overwritten(f"{source.path} was written anew since job {job.name} began to read it")
    return None


def _same_named(before: Sequence[Source], now: Sequence[Source]) -> bool:
    """Return whether sources have the same names, and those that are copied certainly the same version."""
    return [one.shown for one in before] == [one.shown for one in now] and all(
        old.version == new.version != "" for old, new in zip(before, now, strict=True) if new.name
    )


def _untouched(job: Job) -> bool:
    return all(map(is_untouched, job.sources))
