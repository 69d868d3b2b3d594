"""Measure a service: an order in, what was measured out, and `bench.json` and `bench.html` in a folder.

Each step is a job of its own in a ledger in that folder, worked on by the same pipeline as any other, so what it
created is accounted for in the same way. The documents are written anew after each step: what was measured is not lost
with the process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from itertools import chain, islice
from pathlib import Path
from random import SystemRandom
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import anyio.to_thread
import orjson
from msgspec import Struct, field
from msgspec.structs import replace

from engine.bench.loads import Knee, Load, Point, Timing, closed_loads, find_knee, generated, open_loads, paced
from engine.bench.meter import Meter
from engine.bench.page import page
from engine.bench.results import Bench, BenchOrder, BenchPlan, BenchStep, document
from engine.commands import wiring
from engine.commands.intake import STANDARD_INPUT, is_elsewhere
from engine.commands.paths import claim_output, spelled
from engine.commands.result import exit_code
from engine.commands.submit import work_on
from engine.files import private, replace_file
from engine.http.urls import check_base_url, is_loopback
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import RESUME, BulkSubmitError, ConfigError, DeadlineReached, SourceError
from engine.model.job import Job
from engine.model.outcome import Tally
from engine.model.record import Format, Position
from engine.model.settings import LimitSettings, WindowSettings
from engine.progress.events import Listener, fan_out
from engine.progress.redaction import redactor
from engine.reports.outcomes import OUTCOMES
from engine.run.context import Stop
from engine.source.reader import read_blocks
from engine.source.sources import describe, find_sources

LEAST_LATE_SECONDS = 30.0
LATE_STEPS = 3.0
"""A step may take so much longer, whichever is more, until all that was sent is settled; then the bench ends."""

TASKS = "tasks.ndjson"
"""The records of one step, in the folder of its job."""

_FIRST_RECORDS = 100
"""Looked at before anything is made: where none of these is fit to be sent, the mapping is wrong."""


async def bench_plan(order: BenchOrder) -> BenchPlan:
    """Return what an order would do, and to whom; nothing is sent.

    Raises:
        ConfigError, SourceError: the order or its configuration cannot be used.
    """
    return _planned(order, _loaded(order)[1])


async def bench(order: BenchOrder, emit: Listener, stop: Stop) -> Bench:
    """Measure step by step up to the knee; a stop ends it in order, with what was measured so far.

    Whoever calls it has asked whether tasks may be created there: `bench_plan` says how many.

    Raises:
        ConfigError, SourceError, JobError: nothing was sent.
    """
    text, setup = _loaded(order)
    plan = _planned(order, setup)
    seed = None if order.sources else (SystemRandom().randrange(10**6) if order.seed is None else order.seed)
    records = _records(order, setup, seed)
    folder = (order.output or Path(".bulksubmit") / f"bench-{time.strftime('%Y%m%d-%H%M%S')}").absolute()
    wiring.check_parts(setup, _job(text, setup, folder, 1))
    first = await anyio.to_thread.run_sync(list, islice(records, _FIRST_RECORDS))
    await anyio.to_thread.run_sync(_check_fit, setup, _job(text, setup, folder, 1), first)
    if any((folder / name).exists() for name in ("ledger.db", OUTCOMES)):
        raise ConfigError(f"{folder} holds another bench, or the reports of a job; choose another --output")
    with ExitStack() as held:
        async with SqliteLedger.open(folder / "ledger.db", wiring.CLOCK) as ledger:
            await claim_output(folder, ledger, held)
            series = _Series(order, plan, text, setup, seed, folder, ledger, held, chain(first, records))
            for number in range(1, len(plan.loads) + 1):
                await _one_more(series, number, emit, stop)
                if series.ended:
                    break
            series.ended = series.ended or f"Every step was taken{_lead_on(plan.loads)}."
            return await series.write()


class _Series(Struct):
    """A bench under way."""

    order: BenchOrder
    plan: BenchPlan
    text: str
    setup: wiring.Setup
    seed: int | None
    folder: Path
    ledger: SqliteLedger
    held: ExitStack
    """Holds its folders."""
    records: Iterator[bytes]
    """Those that no step has sent."""
    began: float = field(default_factory=wiring.CLOCK.monotonic)
    steps: list[BenchStep] = []
    tallies: list[Tally] = []
    error: BulkSubmitError | None = None
    ended: str = ""

    @property
    def knee(self) -> Knee | None:
        """The knee of the steps whose load is known."""
        known = [step for step in self.steps if step.load.level is not None]
        return find_knee([Point(step.measure.throughput, step.measure.time_to_created.p50) for step in known])

    def end(self, error: BulkSubmitError | None, reason: str) -> None:
        """End it after the step at hand."""
        self.error, self.ended = error, redactor(os.environ)(reason)

    def bench(self) -> Bench:
        """Return what was measured so far."""
        tally = _sum(self.tallies)
        return Bench(
            self.plan,
            self.order.seconds,
            self.seed,
            _settings(self.setup, self.plan.loads[0]),
            tuple(self.steps),
            self.knee,
            self.ended,
            tally,
            exit_code(tally, self.error),
            self.folder,
        )

    async def write(self) -> Bench:
        """Write the documents anew."""
        bench = self.bench()

        def write() -> None:
            json = orjson.dumps(document(bench), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
            _put(self.folder / "bench.json", json)
            _put(self.folder / "bench.html", page(bench).encode())

        await anyio.to_thread.run_sync(write)
        return bench


def _loaded(order: BenchOrder) -> tuple[str, wiring.Setup]:
    text = wiring.read_config(order.config)
    return text, wiring.load(text, processes=0)  # a step's file is short: a process to read it would only start up


def _planned(order: BenchOrder, setup: wiring.Setup) -> BenchPlan:
    if order.rates and order.steps:
        raise ConfigError("--steps is a closed loop, --rate an open one: choose one of them")
    if STANDARD_INPUT in order.sources:
        raise SourceError("bench reads files, not standard input: write it to a file first")
    if any(map(is_elsewhere, order.sources)):
        raise SourceError("bench reads files of this machine: download the others first")
    if not order.sources:
        generated(setup.module, setup.service.kind, setup.settings.mapping, 0)
    service = setup.service
    host = check_base_url(service.base_url).host or ""
    most = wiring.offline(setup, Job("bench", service.kind, "", (), "")).service.limits.records
    loads = (
        open_loads(order.rates, order.records, most, order.seconds)
        if order.rates
        else closed_loads(order.steps, order.records, most)
    )
    return BenchPlan(service.title, host, is_loopback(host), service.place, loads)


def _settings(setup: wiring.Setup, first: Load) -> dict[str, Any]:
    """Return what bears on speed; there is no secret among it."""
    batch, send = setup.settings.batch, setup.settings.send
    names = ["polls_in_flight", "requests_per_second", "poll_seconds", "max_poll_seconds"]
    if first.rate is not None:
        names = ["max_in_flight", "max_open_batches", *names]
    return {
        **{f"service.{name}": value for name, value in setup.service.bearing_on_speed().items()},
        "batch.max_records": first.batch_records,
        "batch.max_bytes": batch.max_bytes,
        **{f"send.{name}": getattr(send, name) for name in names if getattr(send, name) is not None},
    }


def _records(order: BenchOrder, setup: wiring.Setup, seed: int | None) -> Iterator[bytes]:
    """Return the records of all steps, each as a line of NDJSON; those of files that cannot be read are left out."""
    if seed is not None:
        return generated(setup.module, setup.service.kind, setup.settings.mapping, seed)
    settings = wiring.source_settings(setup, None)
    blocks = read_blocks(find_sources(order.sources, settings), Position(), settings)
    # In JSON a line break can only stand between tokens.
    return (raw.replace(b"\n", b" ").replace(b"\r", b" ") for block in blocks for raw in block.raws)


def _job(text: str, setup: wiring.Setup, folder: Path, number: int) -> Job:
    name = f"bench-{number:02}"
    return Job(name, setup.service.kind, text, (), str(folder / name), created_at=wiring.CLOCK.now())


async def _one_more(series: _Series, number: int, emit: Listener, stop: Stop) -> None:
    """Take one step, note what came of it, and whether it was the last."""
    load = series.plan.loads[number - 1]
    job = await _with_source(series, number)
    if job is None:
        series.end(None, "The sources hold no more records.")
        return
    started = wiring.CLOCK.monotonic()
    meter = Meter(wiring.CLOCK.monotonic, load.rate)
    limit = series.order.seconds + max(LEAST_LATE_SECONDS, LATE_STEPS * series.order.seconds)
    late = DeadlineReached(f"what was sent was not settled within {limit:g} s.")
    with series.ledger.lock(job.name):
        await series.ledger.create_job(job)
        async with _step_stop(stop, limit, late) as (step_stop, ended):
            timing = Timing(wiring.CLOCK.monotonic, ended.wait)
            pace = partial(paced, load=load, seconds=series.order.seconds, timing=timing, due=meter.due)
            hearing = fan_out(meter.listen, emit)
            result = await work_on(
                job, series.ledger, _at(load, series.setup), hearing, step_stop, command="bench", pace=pace
            )
        measure = meter.measured()
        # A stop may leave a last plan in the ledger's queue: what is written after it is on disk after it.
        await series.ledger.set_config(job.name, job.config)
        if not (await series.ledger.job(job.name)).read_complete:
            await series.ledger.freeze(job.name, (), (), last=True)  # `resume` shall settle it, not send the rest
    series.steps.append(BenchStep(load, job.name, started - series.began, measure))
    series.tallies.append(result.tally)
    series.records = chain(_lines_from(Path(job.output) / TASKS, result.tally.records), series.records)
    await anyio.to_thread.run_sync(_append, Path(job.output) / OUTCOMES, series.folder / OUTCOMES)
    if step_stop.error is not None:
        goes_on = f"resume {job.name}"
        rest = f" {RESUME} settles its last batches." if result.tally.unresolved else ""
        said = spelled(f"{step_stop.error}{rest}", series.ledger.address, goes_on)
        series.end(step_stop.error, f"Step {load.label} ended early: {said}")
    elif not measure.created:
        reason = measure.first_error or f"see {Path(job.output) / 'rejects.ndjson'}"
        series.end(None, f"Nothing was created in step {load.label}: {reason}")
    elif series.knee is not None:
        series.end(None, f"It ended one step beyond the knee, at {load.label}.")
    await series.write()


@asynccontextmanager
async def _step_stop(outer: Stop, seconds: float, late: BulkSubmitError) -> AsyncIterator[tuple[Stop, threading.Event]]:
    """Give a step its own stop, requested from outside or when it is time, and what wakes whoever waits in a thread."""
    inner, ended = Stop(), threading.Event()

    async def forward() -> None:
        await outer.wait()
        assert outer.error is not None  # noqa: S101 - that is what it waited for
        inner.request(outer.error)

    async def expire() -> None:
        await wiring.CLOCK.sleep(seconds)
        inner.request(late)

    async def release() -> None:
        try:
            await inner.wait()
        finally:  # also of a step that is canceled: whoever waits in a thread holds it up
            ended.set()

    async with anyio.create_task_group() as group:
        for watch in (forward, expire, release):
            group.start_soon(watch)
        yield inner, ended
        group.cancel_scope.cancel()


async def _with_source(series: _Series, number: int) -> Job | None:
    """Return the job of a step, with a file of the records that come next; None if there are none left."""
    load = series.plan.loads[number - 1]
    job = _job(series.text, series.setup, series.folder, number)
    await claim_output(Path(job.output), series.ledger, series.held)
    path = Path(job.output) / TASKS
    if not await anyio.to_thread.run_sync(_write_lines, path, islice(series.records, load.records)):
        return None
    settings = wiring.source_settings(series.setup, Format.NDJSON)
    return replace(job, sources=(describe(path, settings),))


def _check_fit(setup: wiring.Setup, job: Job, first: Sequence[bytes]) -> None:
    """Refuse tasks of which the first are not fit to be sent, before anything is."""
    if not first:
        raise SourceError("the sources hold no record that can be read; `bulksubmit validate` says more")
    with TemporaryDirectory(prefix="bulksubmit-") as folder:
        path = Path(folder) / TASKS
        _write_lines(path, iter(first))
        job = replace(job, sources=(describe(path, wiring.source_settings(setup, Format.NDJSON)),))
        block = next(wiring.offline(setup, job).tasks(job, Position()))
    if block.rejects and not block.raws:
        raise ConfigError(
            f"the tasks are not fit to be sent: {block.rejects[0].reason}. "
            "Mend [mapping], or name a SOURCE with tasks of the project"
        )


def _at(load: Load, setup: wiring.Setup) -> wiring.Setup:
    """Return the configuration with the load of a step; limits are for jobs, and would end a step too early."""
    settings = setup.settings
    batch = replace(settings.batch, max_records=load.batch_records)
    update: dict[str, Any] = {}
    if load.rate is None:
        # A place is held until the batch's fate is known: with sending alone bounded, whatever is taken in at once is
        # sent at once, and the time to created says how long the line was that the bench itself has made.
        at_once = {"max_open_batches": load.in_flight} if load.in_flight else {}
        update = {"max_in_flight": load.in_flight or "auto", **at_once}
    send = replace(settings.send, **update)
    settings = replace(settings, batch=batch, send=send, window=WindowSettings(), limits=LimitSettings())
    settings = replace(settings, hooks=(), callback=None)  # a step is no load
    return replace(setup, settings=settings, deadline_at=None)


def _lead_on(loads: Sequence[Load]) -> str:
    """Return what would find the knee that these loads did not."""
    if len(loads) == 1:
        return ""
    more = "a higher --rate" if loads[0].rate is not None else "higher --steps, or more --records,"
    return f" without a knee; {more} would go on from here"


def _sum(tallies: Sequence[Tally]) -> Tally:
    names = ("records", "batches", "created", "failed", "rejected", "uncertain")
    return Tally(**{name: sum(getattr(tally, name) for tally in tallies) for name in names})


def _write_lines(path: Path, lines: Iterator[bytes]) -> int:
    """Write each line to a new file; return how many there were."""
    written = 0
    with _disk(path), open(path, "xb", opener=private) as file:
        for line in lines:
            file.write(line + b"\n")
            written += 1
    return written


def _lines_from(path: Path, number: int) -> Iterator[bytes]:
    """Yield the lines of a file from the one with this number on."""
    with path.open("rb") as lines:
        for line in islice(lines, number, None):
            yield line.rstrip(b"\n")


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BulkSubmitError(
            f"{path} cannot be written ({error.strerror}): make room, or choose another --output"
        ) from error


def _append(part: Path, whole: Path) -> None:
    """Add the outcomes of a step to those of all."""
    with _disk(whole), part.open("rb") as lines, open(whole, "ab", opener=private) as file:
        file.writelines(lines)


def _put(path: Path, content: bytes) -> None:
    with _disk(path):
        replace_file(path, content)
