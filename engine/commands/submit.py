"""Submit and resume jobs; `retry` and `bench` work on theirs by it, too.

Whoever works on a job holds its lock. A new job is in the ledger, and all that it needs was found to fit together,
before anything is sent. The module is a long one: from the order of a person to the end of the run it is one path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from functools import partial
from itertools import count as count_from
from pathlib import Path
from typing import Any

import anyio
from msgspec.structs import replace

from engine.batch.known import check_new
from engine.commands import wiring
from engine.commands.cancel import cancel_batches, cancel_orphans, find_extras, is_unsent, take_back
from engine.commands.columns import check_columns
from engine.commands.configuration import Config
from engine.commands.endings import tells_end
from engine.commands.first_records import check_drafts
from engine.commands.hooks import check_hooks
from engine.commands.intake import is_left_off, left_off, remove_copies, take_in
from engine.commands.later import UNTIL_THE_END, follow_to_the_end, refreshing_of
from engine.commands.lineage import UNCERTAIN_SOURCE, source_name
from engine.commands.paths import claim_output, folder_beside, ledger_path, open_ledger, unless_made_in_vain
from engine.commands.result import Result, nothing_sent, report_writer, summarize
from engine.commands.runs import RunMemory, remember_refusal, remembered
from engine.commands.taken import refuse_taken
from engine.files import DEFAULT_LEDGER
from engine.ledger.address import LedgerAddress
from engine.ledger.base import Ledger
from engine.model.batch import Batch
from engine.model.errors import (
    BulkSubmitError,
    ConfigError,
    DeadlineReached,
    JobCanceled,
    JobError,
    JobLocked,
    OtherJobs,
    ShardsParked,
    SourceChanged,
    StrictRejects,
)
from engine.model.job import Job, JobState, check_job_name
from engine.model.outcome import Tally
from engine.model.record import source_at
from engine.model.settings import RunLimits
from engine.model.shard import ShardState
from engine.model.submission import UNSENT, State
from engine.progress.events import JobEnded, JobStarted, Listener, Noticed, fan_out, unheard
from engine.progress.text import count
from engine.run.bounds import Bounds, check_open, ending_of
from engine.run.context import Run, Stop, unless_stopped
from engine.run.in_flight import InFlight
from engine.run.pipeline import Pipeline
from engine.run.shards import tallied, tell_tally
from engine.source.given import Sources, names_of
from engine.source.sources import check_unchanged

TAKES_OVER = "work"
"""The command whose runs begin where the one before was killed or stopped: no person has said how they shall be."""


@tells_end
async def submit(  # noqa: PLR0913 - what a person can say of a job
    sources: Sources,
    config: Config,
    ledger: LedgerAddress | str = DEFAULT_LEDGER,
    emit: Listener = unheard,
    stop: Stop | None = None,
    *,
    job: str | None = None,
    output: Path | str | None = None,
    format: str | None = None,  # noqa: A002 - as the option is called
    until: str = "",
    strict: bool = False,
    again: bool = False,
    processes: int | None = None,
    dask: str = "",
    delta: bool = False,
    family: str | None = None,
    accept_new: bool = False,
    limits: RunLimits | None = None,
    metrics_textfile: Path | str | None = None,
    command: str = "submit",
) -> Result:
    """Make a job of the records in some files and work on it until it is finished or stopped.

    Args:
        sources: a path, a glob or a URL (https, s3), or several; "-" is standard input. Or records: any iterable or
            async iterable of dicts. What is no plain file is copied to the folder of the reports first.
        config: TOML file, or its tables, in which a secret may be a `SecretStr`.
        ledger: file or URL of a database that remembers all jobs; made where there is none.
        emit: is told what happens.
        stop: ends the run early.
        job: name of the job; the configuration file's name and the time where left out, with a number if it is taken.
        output: folder of the reports; one of the job's name beside the ledger where left out.
        format: how the sources are written; told by their names where left out.
        until: when a record counts as done, in the words of its service; its default where empty.
        strict: send nothing if any record is not fit to be sent.
        again: send the records even if a job of this ledger has taken them already.
        processes: that read beside this one; as configured where left out.
        dask: cluster on which the sources are read: "tcp://host:port", or "local:N" for one of N processes here. Its
            workers must find the sources under the same paths. Records of a family are read here all the same.
        delta: skip the records that an earlier job of the family has created.
        family: the load that comes back, which the job is one of; with `delta` the configuration file's name where left
            out, otherwise none. Whatever the job sends, its family knows from then on.
        accept_new: go on although more records are new to the family than `[delta]` allows.
        limits: of this run; what is left out is as configured.
        metrics_textfile: gets the metrics for Prometheus' node_exporter; the one of the configuration where left out.
        command: what the job remembers its run by.

    Raises:
        ConfigError, SourceError, JobError, WindowClosed: nothing was sent.
        TooManyNew: likewise, and there is no job.
        AlreadyTaken: a job has taken the same records. Nothing was sent.
        JobLocked: another process works on a job of that name, or on the same records.
        Interrupted: while sources were copied; there is no job.
    """
    stop = stop or Stop()
    text = wiring.read_config(config)
    ledger = ledger_path(ledger, wiring.configured_ledger(config, text))
    setup = wiring.load(text, processes=processes, dask=dask, limits=limits, textfile=metrics_textfile)
    check_open(setup.settings.window, wiring.CLOCK.now())
    named = names_of(sources)
    begun = left_off(named, folder_beside(ledger)) if named is not None and job is None and output is None else ""
    name = check_job_name(job or begun or f"{wiring.config_name(config, text)}-{time.strftime('%Y%m%d-%H%M%S')}")
    now = wiring.CLOCK.now()
    new = Job(name, setup.service.kind, text, (), "", until=until, strict=strict, created_at=now)
    if delta or family:
        new = replace(new, family=wiring.family_name(config, family), delta=delta)
    wiring.check_parts(setup, new)
    check_hooks(setup)
    async with open_ledger(ledger, create=True) as opened:
        with ExitStack() as held:
            name = await take_name(name, opened, held, given=job is not None)
            held.enter_context(family_lock(new, opened))
            folder = Path(output or folder_beside(ledger, name)).absolute()  # noqa: ASYNC240 - reads no disk
            held.enter_context(unless_made_in_vain(folder))
            await claim_output(folder, opened, held)
            settings = wiring.source_settings(setup, format)
            found = await take_in(sources, settings, folder, emit, stop)
            new = replace(new, name=name, output=str(folder), sources=found)
            try:
                if unmet := await check_columns(found, setup.settings, settings, thorough=strict, stop=stop):
                    emit(Noticed(unmet))
                await check_drafts(new, setup, opened, emit, stop, thorough=strict)
                if new.family:
                    await _check_destination(new, opened, accept_new=accept_new)
                if delta and not accept_new:
                    await _check_new(new, setup, opened)
                await _make(new, opened, emit, stop, again=again)
            except BulkSubmitError:  # there will be no job, so nobody comes back for what was spooled for it
                remove_copies(found, folder)
                raise
            return await work_on(new, opened, setup, emit, stop, command=command)


def family_lock(job: Job, ledger: Ledger) -> AbstractContextManager[None]:
    """Hold the family of a job, if it is one of any: what one job of it sends, another must not miss."""
    return ledger.lock_family(job.family) if job.family else nullcontext()


async def _check_destination(new: Job, ledger: Ledger, *, accept_new: bool) -> None:
    """Refuse a load that goes elsewhere than the one before it of its family: what is known there is not here.

    Raises:
        ConfigError: it does.
    """
    last = next((job for job in await ledger.jobs() if job.family == new.family and job.parent is None), None)
    if last is None:
        return
    try:
        before = wiring.destination(last.config)
    except ConfigError:
        return
    now = wiring.destination(new.config)
    same_place = (before[0], before[2]) == (now[0], now[2])
    if before == now or (same_place and accept_new):
        return
    there, here = (" ".join(filter(None, [kind, host, place])) for kind, host, place in (before, now))
    renamed = "; if it is the same service under another name, say --accept-new" if same_place else ""
    raise ConfigError(
        f"family {new.family!r} loads into {there} (job {last.name!r}), and this configuration names {here}: what is "
        f"known of there would be missing here. Nothing was sent. Take another --family{renamed}"
    )


async def _check_new(job: Job, setup: wiring.Setup, ledger: Ledger) -> None:
    """Raise if too many records are new to the family.

    Raises:
        TooManyNew: they are.
    """
    judged = setup.settings.delta.judged_records
    if await ledger.family_created(job.family) >= judged:
        offline = wiring.offline(setup, job)
        seen, new = await anyio.to_thread.run_sync(offline.count_new, job, ledger.address, judged)
        check_new(seen, new, setup.settings.delta, job.family)


async def take_name(name: str, ledger: Ledger, held: ExitStack, *, given: bool) -> str:
    """Return a name that no job has, locked as long as `held` is: `name`, or NAME-2, … if it was not `given`.

    Raises:
        JobError: there is a job of the name that was given.
        JobLocked: another process works on that.
    """
    for number in count_from(1):
        free = name if number == 1 else check_job_name(f"{name}-{number}")
        with ExitStack() as tried:
            try:
                tried.enter_context(ledger.lock(free))
            except JobLocked:
                if given:
                    raise
                continue
            if all(known.name != free for known in await ledger.jobs()):
                held.push(tried.pop_all())
                return free
        if given:
            break
    raise JobError(f"job {name!r} exists; `bulksubmit resume {name}` goes on with it, or choose another --job")


async def _make(new: Job, ledger: Ledger, emit: Listener, stop: Stop, *, again: bool) -> None:
    """Remember a new job, unless another one has taken its records; what is made meanwhile is looked at, too."""
    if again:
        await ledger.create_job(new)
        return
    seen: set[str] = set()
    while True:
        jobs = [job for job in await ledger.jobs() if job.name not in seen]
        await refuse_taken(new, jobs, ledger, emit, stop)
        seen.update(job.name for job in jobs)
        with suppress(OtherJobs):
            await ledger.create_job(new, seen=seen)
            return


@tells_end
async def resume(  # noqa: PLR0913 - what a person can say of it
    name: str,
    ledger: LedgerAddress | str = DEFAULT_LEDGER,
    emit: Listener = unheard,
    stop: Stop | None = None,
    *,
    config: Config | None = None,
    processes: int | None = None,
    dask: str = "",
    parked: bool = False,
    limits: RunLimits | None = None,
    metrics_textfile: Path | str | None = None,
    reopen: bool = False,
    until: str = "",
) -> Result:
    """Go on with a job where it stopped; a finished one is reported as it is.

    Args:
        name: of the job.
        ledger: file or URL of a database that remembers it.
        emit: is told what happens.
        stop: ends the run early.
        config: from now on the job's configuration; addresses, secrets and `[send]` may differ, and where tasks go
            while nothing was created or released.
        processes: that read beside this one; as configured where left out.
        dask: as of `submit`.
        parked: send the shards, too, with which several workers were lost.
        limits: of this run; what is left out is as configured.
        metrics_textfile: as of `submit`.
        until: "finished": follow the tasks of a job that was submitted until they are created to their end, too.
        reopen: go on with a job that was canceled, too: with all that was not sent, and what was never read.

    Raises:
        JobError: there is no such job.
        JobCanceled: it was canceled, and nobody has said to go on with it.
        ConfigError: the new configuration would make other batches.
        SourceChanged: a source is not what it was.
        JobLocked: another process works on it.
        WindowClosed: it is not the time for it.
    """
    stop, text = stop or Stop(), None
    if config is not None:
        text = wiring.read_config(config)
        ledger = ledger_path(ledger, wiring.configured_ledger(config, text))
    async with open_ledger(ledger) as opened:
        job = await _known(name, opened)
        with opened.lock(name), family_lock(job, opened):
            job = await opened.job(name)  # as whoever held it has left it
            if until:
                check_until(job, until)
            if job.state is JobState.CANCELED:
                await check_reopening(job, opened, reopen=reopen)
            if text is not None:
                job = await replace_config(job, text, opened, emit, stop)
            if parked:
                await opened.open_shards(name, parked=True)
            # Its deadline counts from here on.
            setup = wiring.load(job.config, limits=limits, textfile=metrics_textfile) if until else None
            result = await go_on(
                job, opened, emit, stop, processes=processes, dask=dask, limits=limits, textfile=metrics_textfile
            )
            if setup is not None and result.state == JobState.FINISHED:
                return await follow_to_the_end(await opened.job(name), setup, opened, emit, stop)
            return result


async def _known(name: str, ledger: Ledger) -> Job:
    """Return a job.

    Raises:
        JobError: there is none.
    """
    try:
        return await ledger.job(name)
    except JobError as error:
        if is_left_off(folder_beside(ledger.address, check_job_name(name))):
            raise JobError(
                f"job {name!r} is not made yet: it was stopped while its sources were copied. Nothing was sent. Run "
                "its submit again: it goes on with what was fetched"
            ) from error
        raise


async def replace_config(job: Job, config: str, ledger: Ledger, emit: Listener, stop: Stop) -> Job:
    """Give a job another configuration; what it has staged at another place is canceled first.

    Raises:
        ConfigError: it cannot go on with it.
        CallFailed: what it has staged could not be canceled.
    """
    drafts = wiring.load_offline(job).service.drafting is not None
    if wiring.check_replacement(job.config, config, unsent=await is_unsent(job, ledger, drafts=drafts)):
        async with wiring.open_run(wiring.load(job.config), job, ledger, emit, stop) as run:
            await take_back(run)
    await ledger.set_config(job.name, config)
    return replace(job, config=config)


async def go_on(  # noqa: PLR0913 - what a run is made of
    job: Job,
    ledger: Ledger,
    emit: Listener,
    stop: Stop,
    *,
    command: str = "resume",
    note: str = "",
    processes: int | None = None,
    dask: str = "",
    limits: RunLimits | None = None,
    overwritten: SourceChanged | None = None,
    textfile: Path | str | None = None,
) -> Result:
    """Go on with a job that this process has locked; `note` is what to say of one that is finished.

    `command`: what the job remembers the run by. `overwritten`: the caller knows that a source is not what it was, so
    only what was released is followed. Of a canceled job, `check_reopening` has allowed it.
    """
    if later := await ledger.taken_over_by(job.name):
        raise JobError(
            f"job {job.name!r} cannot go on: job {later!r} of its family has sent records of it since it was canceled. "
            "`bulksubmit submit --delta` with its sources finds what is still missing"
        )
    # Records that a settled batch left uncertain stay so: there is nothing that the service could be asked again.
    tally = await ledger.tally(job.name)
    if job.state is JobState.FINISHED and not (tally.states.get(State.UNCERTAIN) or tally.unresolved):
        result = await summarize(job, ledger, wiring.CLOCK.monotonic(), note=note, rewrite=False)
        return nothing_sent(result, job.config, limits)
    changed = None
    try:
        setup = wiring.load(job.config, processes=processes, dask=dask, limits=limits, textfile=textfile)
        check_open(setup.settings.window, wiring.CLOCK.now())
        if not job.read_complete or not UNSENT.isdisjoint(tally.states):  # what was released is followed in any case
            changed = overwritten or _changed(job, tally)
    except BulkSubmitError as error:
        await remember_refusal(job, ledger, error, textfile, command)
        raise
    if job.state is not JobState.OPEN:
        # First: what no search finds is sent again. Killed in between, a job that seems finished would leave it so.
        await ledger.set_job_state(job.name, JobState.OPEN)
        job = replace(job, state=JobState.OPEN)
    return await work_on(job, ledger, setup, emit, stop, command=command, changed=changed)


def check_until(job: Job, until: str) -> None:
    """Refuse to follow the tasks of a job further, where that cannot be.

    Raises:
        JobError: it is no word for that, or its service does not tell how tasks stand.
    """
    if until != UNTIL_THE_END:
        raise JobError(
            f"--until {until}: tasks of a job that exists can only be followed until they are {UNTIL_THE_END}"
        )
    refreshing_of(wiring.load_offline(job).service)


async def check_reopening(job: Job, ledger: Ledger, *, reopen: bool = False) -> None:
    """Refuse to go on with a canceled job whose records somebody may have sent since, or that nobody wants back.

    Raises:
        JobError: a job of its family may have sent since what this one has not read.
        JobCanceled: nobody has said that it shall go on.
    """
    # What it has read its family knows: `taken_over_by` tells. With delta, it would find out what it has not read.
    blind = job.family and not job.delta and not job.read_complete
    for other in await ledger.jobs() if blind else ():  # newest first
        if other.name == job.name:
            break
        if other.family == job.family and (await ledger.tally(other.name)).records:
            raise JobError(
                f"job {job.name!r} was canceled before all was read, and job {other.name!r} of the same family "
                f"({job.family}) has read records since: going on could send some twice. Submit its sources with "
                "--delta: what nobody has sent goes, and nothing else"
            )
    if not reopen:
        raise JobCanceled(_canceled(job, await ledger.tally(job.name), await ledger.last_batch(job.name)))


def _canceled(job: Job, tally: Tally, last: Batch | None) -> str:
    """Say what of a canceled job was not sent."""
    said = [f"job {job.name!r} was canceled: {count(tally.unresolved, 'record')} that it has read were not sent"]
    if not job.read_complete:
        at = last.end.offset if last else 0
        source = source_at(job.sources, at)
        said.append(f"what stands from byte {at - source.base} of {source.shown} on was never read")
    return "; ".join(said) + "."


def _changed(job: Job, tally: Tally) -> SourceChanged | None:
    """Return how the sources have changed, where something of the job can be followed without them.

    Raises:
        SourceChanged: they have, and nothing is.
    """
    try:
        check_unchanged(job.sources, times=not job.read_complete)
    except SourceChanged as error:
        if not tally.states.get(State.RELEASED):
            raise
        return error
    return None


async def work_on(  # noqa: PLR0913 - what a run is made of
    job: Job,
    ledger: Ledger,
    setup: wiring.Setup,
    emit: Listener,
    stop: Stop,
    *,
    command: str,
    pace: wiring.PlanPace | None = None,
    released_again_by_user: frozenset[int] = frozenset(),
    changed: SourceChanged | None = None,
) -> Result:
    """Work on a job that this process has locked until it is finished or stopped, and write its reports.

    `command`: what the job remembers the run by. `released_again_by_user`: sequences of the batches that a person has
    sent again, whatever may come twice. `changed`: the sources are not what they were, so only what was released is
    followed.
    """
    work = partial(
        _work_on,
        job,
        ledger,
        setup,
        stop,
        pace=pace,
        goes_on=command == TAKES_OVER,
        released_again_by_user=released_again_by_user,
        changed=changed,
    )
    return await remembered(job, ledger, setup, emit, stop, work, command=command)


async def _work_on(  # noqa: PLR0913 - as above
    job: Job,
    ledger: Ledger,
    setup: wiring.Setup,
    stop: Stop,
    memory: RunMemory,
    *,
    pace: wiring.PlanPace | None,
    goes_on: bool,
    released_again_by_user: frozenset[int],
    changed: SourceChanged | None,
) -> Result:
    started, emit = wiring.CLOCK.monotonic(), memory.emit
    last = await ledger.last_batch(job.name)
    with report_writer(job, ledger, setup) as reports:
        with (
            wiring.standby(setup, job, last, ledger.address) as standby,
            wiring.senders(setup, ledger, standby) as cluster,
        ):
            read_bytes = last.end.offset if last else 0
            before = await ledger.tally(job.name)
            emit(JobStarted(job.name, job.size_bytes, read_bytes, before))
            in_flight = InFlight(setup.settings.send, wiring.CLOCK, emit)
            bounds = _bounds(setup, before, stop, emit)
            async with wiring.open_run(
                setup, job, ledger, fan_out(emit, in_flight.hear), stop, in_flight
            ) as opened_run:
                most = setup.settings.limits.max_records
                run = replace(
                    opened_run,
                    released_again_by_user=set(released_again_by_user),
                    changed=changed,
                    sent_before=job.parent is not None and source_name(job) == UNCERTAIN_SOURCE,
                    most_records=most,
                    goes_on_for_another=goes_on,
                )
                run = await _learnt(replace(run, emit=fan_out(emit, reports.hear, bounds.hear)), last)
                pipeline = wiring.pipeline(setup, run, in_flight, pace, standby)
                beside: list[Callable[[], Coroutine[Any, Any, None]]]
                beside = [bounds.watch, reports.follow, partial(memory.follow, in_flight)]
                if ledger.shares_jobs:
                    beside.append(partial(tell_tally, job, ledger, wiring.CLOCK, emit))
                if cluster is not None:
                    from engine.commands.dask_work import send_on  # noqa: PLC0415 - which goes on with jobs itself

                    beside.append(partial(send_on, cluster, job, ledger, stop, emit))
                async with wiring.receiving(setup, pipeline.hear, emit):
                    error = stop.error or await _within_deadline(pipeline, run, setup, beside) or changed
                if error is stop.sending_error and stop.error is None and await _is_done(job.name, ledger):
                    error = None  # nothing was left to be sent
                error = error or await _parked(job, ledger)
                note = ""
                if error is None:
                    await cancel_orphans(run)
                    note = await find_extras(run)
                if isinstance(error, StrictRejects):
                    await ledger.set_job_state(job.name, JobState.CANCELED)
                    await cancel_batches(replace(run, job=replace(run.job, state=JobState.CANCELED)))
        result = await summarize(job, ledger, started, error, setup=setup, note=note, before=before, begun=reports)
    if ledger.shares_jobs:
        emit(await tallied(job, ledger))  # what others have settled at the end
    emit(JobEnded(job.name, result.state))
    return result


async def _learnt(run: Run, last: Batch | None) -> Run:
    """Return the run with what the service says once in the life of a job, before anything is frozen."""
    referencing = run.service.referencing
    if referencing is None or run.job.learnt or last is not None:
        return run
    try:
        learnt = await unless_stopped(run.stop, referencing.learn)
    except BulkSubmitError as error:
        run.end(error)
        return run
    if learnt is None:
        return run
    await run.ledger.set_learnt(run.job.name, learnt)
    return replace(run, job=replace(run.job, learnt=learnt))


def _bounds(setup: wiring.Setup, before: Tally, stop: Stop, emit: Listener) -> Bounds:
    settings = setup.settings
    ending = ending_of(settings.window, setup.deadline_at, wiring.CLOCK.now())
    return Bounds(settings.limits, ending, before, wiring.CLOCK, stop, emit)


async def _parked(job: Job, ledger: Ledger) -> ShardsParked | None:
    """Return that shards are not sent any more since workers were lost with them, if there are any."""
    shards = [shard for shard in await ledger.shards(job.name) if shard.state is ShardState.PARKED]
    if not shards:
        return None
    first = shards[0]
    return ShardsParked(
        f"{count(len(shards), 'shard')} of batches {'is' if len(shards) == 1 else 'are'} parked: with batches "
        f"{first.first} to {first.last}, {count(first.losses, 'worker')} were lost ({', '.join(first.lost.split())}). "
        f"What is in them may end a worker. See why, then run `bulksubmit resume {job.name} --parked`"
    )


async def _is_done(name: str, ledger: Ledger) -> bool:
    return (await ledger.job(name)).read_complete and not (await ledger.tally(name)).unresolved


async def _within_deadline(
    pipeline: Pipeline, run: Run, setup: wiring.Setup, beside: Sequence[Callable[[], Coroutine[Any, Any, None]]]
) -> BulkSubmitError | None:
    """Work to the end or the deadline; `beside` goes on meanwhile."""

    async def watch() -> None:
        if (seconds := setup.settings.send.deadline_seconds) is not None:
            await wiring.CLOCK.sleep(seconds)
            run.end(DeadlineReached())

    async with anyio.create_task_group() as group:
        for work in (watch, *beside):
            group.start_soon(work)
        error = await pipeline.work()
        group.cancel_scope.cancel()
    return error
