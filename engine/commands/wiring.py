"""Turns a configuration into the parts of the engine, for all operations. It chooses parts and joins them, no more.

A service is a `services.base.ServiceModule`. One of ours is named in SERVICES, one in a package of its own by an entry
point. Nothing else needs to know. The module is a long one: each part of a run is made here, and nowhere else.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import anyio.to_thread
from msgspec import Struct
from msgspec.structs import asdict, replace

from engine.adaptive.batch_size import BatchBytes
from engine.adaptive.settle_time import SettleTime
from engine.batch.children import Crew, child_environment
from engine.batch.chunker import Plan
from engine.batch.known import FamilyMemory, marker_for
from engine.batch.mapping import Mapper
from engine.batch.payload import PayloadReader
from engine.batch.planning import (
    NoCalls,
    PlanningRecipe,
    plan_job,
    planning_recipe,
    reference_of,
    replanned,
    service_at,
    standby_for,
)
from engine.clock import Clock, SystemClock
from engine.commands.configuration import (
    Config,
    Expand,
    check,
    expand_secret,
    hide_secret,
    parse_toml,
    read_text,
    rooted,
    secret_variables,
    text_of,
)
from engine.http.certificates import load_aiohttp
from engine.http.proxies import from_environment
from engine.http.secrets import Credentials
from engine.http.tokens import check_exchange
from engine.http.urls import check_base_url
from engine.ledger.address import LedgerAddress, PostgresAddress, address_of
from engine.ledger.base import Ledger
from engine.ledger.known import KnownRecords
from engine.model.batch import Batch
from engine.model.errors import ConfigError, SourceChanged
from engine.model.job import Job, check_job_name
from engine.model.night import deadline_at, zone_of
from engine.model.payload import Payload
from engine.model.record import Block, Position, Skipped
from engine.model.settings import AUTO, BatchSettings, RunLimits, ServiceSettings, Settings, SourceSettings
from engine.progress.events import Listener
from engine.run.context import Run, Stop, beside
from engine.run.in_flight import InFlight
from engine.run.pipeline import Pipeline
from engine.run.poller import Poller
from engine.run.shards import Shards, lease_terms, worker_name
from engine.run.uploader import Uploader
from engine.services.base import Caller, Service, ServiceModule
from engine.services.described.shipped import KIND, is_shipped, shipped_kinds, whole
from engine.source.reader import read_blocks

if TYPE_CHECKING:
    from engine.batch.dask import DaskCluster
    from engine.http.client import Client

SERVICES = {
    "sama": "engine.services.sama",
    "sevenbridges": "engine.services.sevenbridges",
    KIND: "engine.services.described.service",
}
"""`service.kind` → where the service is, as an entry point says it."""

SERVICE_POINTS = "bulksubmit.services"
"""Group of the entry points by which packages of their own name services."""

CLOCK: Clock = SystemClock()
"""Of every operation; a simulation puts another one in its place."""

PlanPace: TypeAlias = Callable[[Iterator[Plan]], Iterator[Plan]]
"""Plans as they were read → the same, each when it shall be sent. It is asked in a worker thread and may wait."""


class Setup(Struct, frozen=True):
    """A checked configuration."""

    settings: Settings
    service: ServiceSettings
    module: ServiceModule
    deadline_at: float | None = None
    """Unix seconds by which a run has ended."""
    secret_variables: frozenset[str] = frozenset()
    """Variables of the environment from which its secrets come."""
    overhear: Callable[[Caller], Caller] | None = None
    """Puts one that hears each call before the caller."""
    hears: Callable[[Client], Client] | None = None
    """Puts one that hears each request, with its credentials, before the client."""
    dask: str = ""
    """The cluster on which sources are read: as `check_dask` takes it; "" for none."""

    @property
    def textfile(self) -> Path | None:
        """Where metrics go."""
        textfile = self.settings.metrics.textfile
        return None if textfile is None else Path(textfile)


def read_config(config: Config) -> str:
    """Return the text of a configuration, its relative paths made absolute: they are meant from the file's folder.

    The text is kept with the job, and whoever reads it again may stand elsewhere. Of tables, it is the working folder.
    A description that is shipped becomes part of the text, so that a newer one changes no job.

    Raises:
        ConfigError: it cannot be read, or names no service.
    """
    text = text_of(config) if isinstance(config, Mapping) else read_text(Path(config))
    if is_shipped(_kind_in(text)):
        tables, service = _tables(text)
        text = text_of({**tables, "service": service})
    return rooted(text, _service_settings(text).PATHS, _folder(config).resolve())


def _folder(config: Config) -> Path:
    return Path() if isinstance(config, Mapping) else Path(config).parent


def config_name(config: Config, text: str) -> str:
    """Return what a job is called after: the name of the configuration's file, or the service that tables name."""
    if not isinstance(config, Mapping):
        return Path(config).stem
    service = _tables(text)[1]
    return str(service.get("name") or service["kind"])


def family_name(config: Config, family: str | None) -> str:
    """Return the name of a load that comes back: as given, or as the configuration's file is called.

    Raises:
        ConfigError: neither is there.
    """
    if not family and isinstance(config, Mapping):
        raise ConfigError("family: tables have no name as a file has; say which load comes back (family=…)")
    return check_job_name(family or config_name(config, ""))


def configured_ledger(config: Config, text: str) -> LedgerAddress | None:
    """Return the ledger that a configuration names, a path meant from its file's folder; None if it names none.

    Raises:
        ConfigError: it cannot be used.
    """
    if "ledger" not in parse_toml(text):
        return None
    return ledger_beside(config, load(text, hide_secret).settings.ledger or "")


def ledger_beside(config: Config, named: str) -> LedgerAddress:
    """Return the ledger that a configuration names so, a path meant from its folder.

    Raises:
        ConfigError: it is a URL that cannot be used.
    """
    if isinstance(address := address_of(named), PostgresAddress):
        return address
    return _folder(config) / Path(os.path.expanduser(named))  # noqa: PTH111 - Path.expanduser raises a RuntimeError


def load(
    text: str,
    expand: Expand = expand_secret,
    *,
    processes: int | None = None,
    dask: str = "",
    limits: RunLimits | None = None,
    textfile: Path | str | None = None,
) -> Setup:
    """Check the text of a configuration; `processes` stands above `source.processes`, `limits` above what it limits.

    `textfile` stands above `metrics.textfile`. `dask` names the cluster on which sources are read. A deadline counts
    from now on.

    Raises:
        ConfigError: names the key and what to do.
    """
    if dask:
        from engine.batch.dask import check_dask  # noqa: PLC0415 - only where one is asked for

        check_dask(dask)
    tables, service = _tables(text)
    module = service_module(service.get("kind"))
    settings = check(Settings, {**tables, "service": {}}, "", expand)
    if processes is not None:
        source = replace(settings.source, processes=processes)
        settings = replace(settings, source=source)
    if textfile is not None:
        settings = replace(settings, metrics=replace(settings.metrics, textfile=str(Path(textfile).absolute())))
    try:
        settings = limits.over(settings) if limits else settings
    except ValueError as error:
        raise ConfigError(f"{error}") from error
    deadline, zone = settings.limits.deadline, zone_of(settings.window.zone)
    at = deadline_at(deadline, CLOCK.now(), zone) if deadline else None
    variables = secret_variables(Settings, tables) | secret_variables(module.SETTINGS, service)
    return Setup(settings, check(module.SETTINGS, service, "service", expand), module, at, variables, dask=dask)


def _tables(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all tables of a configuration, and that of its service, with the description that its kind names."""
    tables = parse_toml(text)
    service = tables.get("service")
    if not isinstance(service, dict):
        raise ConfigError('[service] is missing; it begins with kind = "sama"')
    return tables, whole(service)


def _kind_in(text: str) -> object:
    service = parse_toml(text).get("service")
    return service.get("kind") if isinstance(service, dict) else None


def _service_settings(text: str) -> type[ServiceSettings]:
    return service_module(_tables(text)[1].get("kind")).SETTINGS


def service_module(kind: object) -> ServiceModule:
    """Return the service of a kind.

    Raises:
        ConfigError: there is none, or it cannot be loaded.
    """
    place = _service_place(kind)
    try:
        module = service_at(place)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"service.kind: {kind!r} is {place}, which cannot be loaded: {error}") from error
    if not isinstance(module, ServiceModule):
        raise ConfigError(f"service.kind: {kind!r} is {place}, which lacks SETTINGS or build")
    return module


def _service_place(kind: object) -> str:
    """Return where a service is, as an entry point says it. One of ours needs no look at what is installed."""
    if isinstance(kind, str) and kind in SERVICES:
        return SERVICES[kind]
    if is_shipped(kind):
        return SERVICES[KIND]
    known = _installed()
    if isinstance(kind, str) and kind in known:
        return known[kind]
    names = service_kinds()
    near = get_close_matches(str(kind), names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    raise ConfigError(f"service.kind: {kind!r} is not a service; {hint}")


def service_kinds() -> list[str]:
    """Return the kinds of services: ours first, then those that installed packages bring. None of them is loaded.

    Ours are those that are built in, and those of which a description is shipped.
    """
    return list(dict.fromkeys([*SERVICES, *shipped_kinds(), *sorted(_installed())]))


def _installed() -> Mapping[str, str]:
    """Return where the services of other packages are, by their names."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow, and ours need no look at what is installed

    return {point.name: point.value for point in entry_points(group=SERVICE_POINTS)}


def check_service(module: ServiceModule, settings: ServiceSettings) -> None:
    """Have a service judge its own settings: what goes together, and where it is.

    Raises:
        ConfigError: names the key and what to do.
    """
    check_base_url(settings.base_url)
    module.build(settings, BatchSettings(), Job("check", settings.kind, "", (), ""), NoCalls(), CLOCK)


class Offline(Struct, frozen=True):
    """The parts that need no network: to validate, to report, to audit."""

    service: Service
    mapper: Mapper
    setup: Setup

    def payloads(self, job: Job) -> PayloadReader:
        """Return what reads frozen batches of `job` again."""
        return PayloadReader(job.sources, self.setup.settings.source, self.mapper, reference_of(self.service))

    def tasks(self, job: Job, start: Position) -> Iterator[Block]:
        """Read and map the sources of `job` again from `start` on, whatever batches were made of them."""
        marker = marker_for(job, self.setup.settings.delta)
        proof = None if marker and marker.needs_rows else self.mapper.proof
        for block in read_blocks(job.sources, start, self.setup.settings.source, proof=proof):
            tasks = self.mapper.apply(block)
            yield marker.mark(block, tasks) if marker else tasks

    def count_new(self, job: Job, ledger: LedgerAddress, most: int) -> tuple[int, int]:
        """Look the first records of `job` up, `most` of them; return how many that were, and how many are new."""
        settings = self.setup.settings
        with KnownRecords(ledger) as records:
            known = FamilyMemory(records, job, settings.delta)
            proof = None if known.marker.needs_rows else self.mapper.proof
            for block in read_blocks(job.sources, Position(), settings.source, proof=proof):
                known.apply(block, self.mapper.apply(block))
                if known.seen >= most:
                    break
        return known.seen, known.new

    def plans(
        self,
        job: Job,
        last: Batch | None,
        standby: Crew | None = None,
        most_bytes: int | None = None,
        ledger: LedgerAddress | None = None,
    ) -> Iterator[Plan]:
        """Cut the sources of `job` into batches of `most_bytes`, if said, from where the batch frozen `last` ends.

        What the family of the job knows is looked up in the `ledger`.
        """
        recipe = _recipe(self.setup, job, ledger)
        if most_bytes is not None:
            batch = replace(recipe.settings.batch, max_bytes=most_bytes)
            recipe = replace(recipe, settings=replace(recipe.settings, batch=batch))
        return plan_job(recipe, last, standby)


def source_settings(setup: Setup, format_: str | None) -> SourceSettings:
    """Return how sources are read, with a format that was named on the command line."""
    return replace(setup.settings.source, format=format_) if format_ else setup.settings.source


_CHANGEABLE = frozenset({"send", "window", "limits", "ledger", "metrics", "hooks", "callback"})
"""Tables that decide over no batch."""


def check_replacement(old: str, new: str, *, unsent: bool = False) -> bool:
    """Check that a job that began with the text `old` can go on with `new`; return whether its tasks go elsewhere then.

    `unsent`: nothing was created or released, so its tasks may go elsewhere.

    Raises:
        ConfigError: it would make other batches, or send them to another place.
    """
    check_base_url(load(new).service.base_url)  # one with a password must not get into the ledger
    service = _service_settings(old)
    places = {f"service.{key}" for key in service.MENDABLE_UNSENT}
    before, after = (_shaping(parse_toml(text), service.MENDABLE) for text in (old, new))
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    for key in changed:
        if unsent and key in places:
            continue
        why = "something was created or released" if key in places else "its batches are frozen"
        raise ConfigError(
            f"{key}: cannot change while a job goes on, for {why}; submit a new job, or put {before.get(key)!r} back"
        )
    return not places.isdisjoint(changed)


def _shaping(tables: dict[str, Any], mendable: frozenset[str]) -> dict[str, Any]:
    """Return what decides over the content of batches and where they go, by dotted key."""
    kept = {f"service.{key}": value for key, value in tables.get("service", {}).items() if key not in mendable}
    source = {key: value for key, value in tables.get("source", {}).items() if key not in SourceSettings.NOT_SHAPING}
    kept |= {"source": source} if source else {}
    return kept | {key: value for key, value in tables.items() if key not in {"service", "source", *_CHANGEABLE}}


def makes_same_tasks(old: str, new: str) -> bool:
    """Return whether two configurations make the same tasks of the same records, at the same place.

    How records are cut into batches does not count. One that cannot be read any more is not the same.
    """
    try:
        return _making(load(old, hide_secret)) == _making(load(new, hide_secret))
    except ConfigError:
        return False


def destination(text: str) -> tuple[str, str | None, str]:
    """Return where the tasks of a configuration go: kind of the service, its host, and the place there.

    Raises:
        ConfigError: it cannot be read any more.
    """
    service = load(text, hide_secret).service
    return service.kind, urlsplit(service.base_url).hostname, service.place


def _making(setup: Setup) -> tuple[object, ...]:
    """Return what decides over the tasks that are made of records, and over where they go."""
    service, source = asdict(setup.service), asdict(setup.settings.source)
    for key in {"format", *SourceSettings.NOT_SHAPING}:
        del source[key]
    for key in setup.service.MENDABLE - {"base_url"}:  # another address is another service: a sandbox, say
        service.pop(key, None)
    return service, source, setup.settings.mapping


def offline(setup: Setup, job: Job, service: Service | None = None) -> Offline:
    """Join the parts that need no network, with a service that calls nobody unless one is given."""
    service = service or setup.module.build(setup.service, setup.settings.batch, job, NoCalls(), CLOCK)
    mapping, most = setup.settings.mapping, service.limits.task_bytes
    return Offline(service, Mapper(mapping, service.check, service.plain_task, task_bytes=most), setup)


def load_offline(job: Job) -> Offline:
    """Join the offline parts of a job that the ledger knows, without its secrets."""
    return offline(load(job.config, hide_secret), job)


def check_parts(setup: Setup, job: Job) -> None:
    """Join every part once and send nothing: what does not go together is better known before there is a job.

    Raises:
        ConfigError: names the key and what to do.
    """
    check_settings(setup, job)
    from_environment().before(check_base_url(setup.service.base_url))


def check_settings(setup: Setup, job: Job) -> None:
    """Do the same, but for the proxy of the environment.

    Raises:
        ConfigError: names the key and what to do.
    """
    offline(setup, job)
    Credentials(setup.service.secret_headers(), setup.service.secret_query(), setup.service.other_secrets())
    if exchange := setup.service.exchange():
        check_exchange(exchange)
    check_base_url(setup.service.base_url)
    if setup.settings.callback is not None:
        _callback_reader(setup)


@asynccontextmanager
async def online(
    setup: Setup, job: Job, emit: Listener, ledger: Ledger | None = None, in_flight: InFlight | None = None
) -> AsyncIterator[Service]:
    """Open the way to the service.

    `ledger`: where it is one that several processes share, so are the limits of the service, by all who call it.
    `in_flight`: the places for batches, which are a part of these limits; None if none are sent.
    """
    load_aiohttp()
    from engine.http.caller import open_caller  # noqa: PLC0415 - aiohttp: 0.05 s, only where something is sent

    from_environment().before(check_base_url(setup.service.base_url))  # whatever cannot be called, better now
    send, share = setup.settings.send, None
    sharing: AbstractAsyncContextManager[None] = nullcontext()
    if ledger is not None and ledger.shares_jobs:
        from engine.http.share import Share  # noqa: PLC0415 - only where it is shared
        from engine.run.sharing import Sharing, budget_name  # noqa: PLC0415 - likewise

        share = Share(worker_name())
        syncs = Sharing(budget_name(setup.service), ledger.revise, share, in_flight, CLOCK, emit)
        sharing = beside(syncs.run)
    async with open_caller(setup.service, send, clock=CLOCK, emit=emit, hears=setup.hears, share=share) as opened:
        caller: Caller = setup.overhear(opened) if setup.overhear else opened
        opened_service = setup.module.build(setup.service, setup.settings.batch, job, caller, CLOCK, emit)
        if send.settle_seconds is not None:
            opened_service.settle_seconds = send.settle_seconds
        async with sharing:
            yield opened_service


@asynccontextmanager
async def open_run(
    setup: Setup, job: Job, ledger: Ledger, emit: Listener, stop: Stop, in_flight: InFlight | None = None
) -> AsyncIterator[Run]:
    """Open the way to the service for one run of a job. `in_flight`: as of `online`."""
    async with online(setup, job, emit, ledger, in_flight) as service:
        settle_time = SettleTime(service.settle_seconds, job.slowest_start)
        yield Run(job, service, ledger, CLOCK, random.random, emit, stop, settle_time)


def standby(setup: Setup, job: Job, last: Batch | None, ledger: LedgerAddress | None = None) -> Crew:
    """Start the processes that will read beside a run: they need the time in which the way to the service is opened."""
    return standby_for(_recipe(setup, job, ledger), last, setup.dask, _environment_of_senders(ledger))


def senders(setup: Setup, ledger: Ledger, standby: Crew) -> AbstractContextManager[DaskCluster | None]:
    """Return the Dask cluster whose workers send, too, where there is one and the ledger can be shared.

    `standby`: what reads the sources, which may be that cluster.
    """
    if not setup.dask or not ledger.shares_jobs:
        return nullcontext()
    from engine.batch.dask import DaskCluster  # noqa: PLC0415 - only where one is asked for

    if isinstance(standby, DaskCluster):
        return nullcontext(standby)
    return DaskCluster(setup.dask, _environment_of_senders(ledger.address))


def _environment_of_senders(ledger: LedgerAddress | None) -> Mapping[str, str] | None:
    """Return the variables of a cluster of our own: who sends needs the secrets; who only reads, none."""
    if not isinstance(ledger, PostgresAddress):
        return None
    return {**os.environ, **child_environment()}


def _recipe(setup: Setup, job: Job, ledger: LedgerAddress | None) -> PlanningRecipe:
    return planning_recipe(job, setup.settings, setup.service, _service_place(setup.service.kind), ledger)


def pipeline(
    setup: Setup,
    run: Run,
    in_flight: InFlight | None = None,
    pace: PlanPace | None = None,
    standby: Crew | None = None,
    *,
    plans_job: bool = True,
) -> Pipeline:
    """Join the parts of one run.

    `in_flight`: the places for batches, made by a caller that lets it hear of push-back. `pace` holds plans back.
    `plans_job`: this process holds the job's lock; else it only sends what another one freezes.
    """
    parts = offline(setup, run.job, run.service)
    send = setup.settings.send
    sizes = BatchBytes(run.service.limits.bytes)

    def cut(last: Batch | None, most_bytes: int) -> Generator[Plan, None, None]:
        yield from parts.plans(run.job, last, standby, most_bytes, run.ledger.address)

    def plans(last: Batch | None) -> Iterator[Plan]:
        cut_anew = replanned(cut, last, lambda: sizes.limit)
        return pace(cut_anew) if pace else cut_anew  # whose schedule begins once, whatever is cut anew

    payloads = _InThreads(parts.payloads(run.job), run.indexes)
    uploader = Uploader(run, payloads, sizes if send.max_in_flight == AUTO else None)
    places = in_flight or InFlight(send, run.clock, run.emit)
    poller = Poller(run, send, payloads)
    shards = shards_of(setup, run, places, plans_job=plans_job) if run.ledger.shares_jobs else None
    return Pipeline(run, plans, uploader, poller, places, send, shards)


def shards_of(setup: Setup, run: Run, places: InFlight | None = None, *, plans_job: bool = True) -> Shards:
    """Return what this process has of a job that several send. `places`: for the batches that it sends."""
    terms = lease_terms(setup.settings.send)

    def has_places() -> bool:
        return places is None or places.limit > 0

    return Shards(
        run.job,
        run.ledger,
        run.clock,
        run.stop,
        terms,
        plans=plans_job,
        has_places=has_places,
        again=run.released_again_by_user,
        emit=run.emit,
    )


@asynccontextmanager
async def receiving(setup: Setup, hear: Callable[[str, int], None], emit: Listener) -> AsyncIterator[None]:
    """Receive the service's callbacks, where the configuration asks for it, and pass on what they tell."""
    settings = setup.settings.callback
    if settings is None:
        yield
        return
    load_aiohttp()
    from engine.http import receiver  # noqa: PLC0415 - aiohttp's server: 0.1 s, only where one is asked for

    async with receiver.receiving(settings, _callback_reader(setup), hear, CLOCK, emit):
        yield


def _callback_reader(setup: Setup) -> Callable[[bytes], Mapping[str, int]]:
    reader: Callable[[bytes], Mapping[str, int]] | None = getattr(setup.module, "read_callback", None)
    if reader is None:
        raise ConfigError(f"callback: service {setup.service.kind!r} sends no callbacks; leave [callback] out")
    return reader


_SMALL_BYTES = 16 * 1024
"""A payload up to this size takes less time to read than the change to a thread and back."""


class _InThreads(Struct, frozen=True):
    """`Payloads` of an uploader, read without holding up the event loop; small ones many at once."""

    reader: PayloadReader
    indexes: Callable[[Batch], Awaitable[Sequence[int]]]
    """Looks up those of the records of a batch in the whole input."""
    _ready: dict[int, Payload] = {}
    """Payloads read ahead, by sequence."""

    async def read(self, batch: Batch) -> Payload:
        ready = self._ready.pop(batch.sequence, None)
        if ready is not None:
            return ready
        return await anyio.to_thread.run_sync(self.reader.read, batch, await self.indexes(batch))

    async def ahead(self, batches: Sequence[Batch]) -> None:
        small = [batch for batch in batches if batch.count and batch.size_bytes <= _SMALL_BYTES]
        if len(small) > 1:
            indexes = [await self.indexes(batch) for batch in small]
            with suppress(SourceChanged):  # `read` says of which batch
                payloads = await anyio.to_thread.run_sync(self.reader.read_each, small, indexes)
                self._ready.update(zip((batch.sequence for batch in small), payloads, strict=True))

    async def halves(self, batch: Batch, rejected: Sequence[int], skips: Sequence[Skipped] = ()) -> tuple[Batch, Batch]:
        self._ready.pop(batch.sequence, None)
        return await anyio.to_thread.run_sync(self.reader.halves, batch, rejected, skips)
