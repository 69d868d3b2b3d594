"""Go the whole way of a load and make nothing: is there anything on it that would stop `submit`?

A check that depends on one that failed is not made, and says so. Each has ten seconds, all of them together a minute:
whatever hangs is found out by that. `checks_here` has those that need no network; those that only a service can make
are its ability `checking`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
from msgspec import Struct
from msgspec.structs import replace
from yarl import URL

from engine.commands import wiring
from engine.commands.checks_here import Here
from engine.commands.configuration import HIDDEN, Config, expand_secret, hide_secret, lacking, parse_toml
from engine.commands.hooks import check_hooks
from engine.commands.paths import ledger_path, path_names
from engine.commands.trace import Trace
from engine.files import DEFAULT_LEDGER
from engine.http.urls import check_base_url, exact_hosts, is_loopback
from engine.ledger.address import LedgerAddress
from engine.model.errors import BulkSubmitError, ConfigError, Unauthorized
from engine.model.job import Job
from engine.progress.events import unheard
from engine.progress.text import duration, place_words
from engine.services.base import Service
from engine.services.checks import CheckVerdict, Finding, ServiceCheck

CHECK_SECONDS = 10.0
"""Longest time for one check."""
PROBED = 2
"""Records that a probe sends: fewer would show no order, and each more is one more to delete."""
ALL_SECONDS = 60.0
"""Longest time for all of them."""
CLOCK_SECONDS = 30.0
"""From this difference on a clock is wrong enough to be mended."""
EXPIRES_SECONDS = 14 * 86_400.0
"""A certificate that ends sooner is worth a word."""

VARIABLES, CONFIGURATION, KEY = "variables", "configuration", "key"
PROXY, DNS, CONNECTION, TLS, CLOCK = "proxy", "dns", "connection", "tls", "clock"
ALWAYS = (PROXY, DNS, CONNECTION, TLS, CLOCK, KEY)
"""Named also where the configuration cannot be read, and nothing can be asked."""


class Checked(Struct, frozen=True):
    """What one check has found."""

    name: str
    verdict: CheckVerdict
    found: str
    cure: str = ""
    seconds: float = 0.0


class CheckReport(Struct, frozen=True):
    """What all checks have found, in their order."""

    config: str
    lines: Sequence[Checked]
    destination: str = ""
    """Where tasks would go, in words: host, kind of service and place; "" if that is not known."""
    note: str = ""
    """What people should know before tasks are created there."""
    good: Sequence[int] = ()
    """Indexes of the first good records, PROBED at most: what a probe would send."""
    undoable: bool = False
    """What a probe creates can be taken back."""

    @property
    def failed(self) -> Sequence[Checked]:
        """Return the checks that failed."""
        return [one for one in self.lines if one.verdict is CheckVerdict.FAILED]


async def check(
    config: Config,
    sources: Path | str | Sequence[Path | str] = (),
    ledger: LedgerAddress | str = DEFAULT_LEDGER,
    *,
    output: Path | str | None = None,
    format: str | None = None,  # noqa: A002 - as the option is called
    trace: Trace | None = None,
) -> CheckReport:
    """Check whether a load would go well, and make nothing.

    Args:
        config: TOML file, or its tables.
        sources: what the load would read; without them, records are not looked at.
        ledger: file or URL of a database that remembers jobs; it need not be there.
        output: folder of the reports; the ledger's where left out.
        format: how the sources are written; told by their names where left out.
        trace: is filled with what the service is asked and answers, and with the requests that a load would make.

    Raises:
        ConfigError: the configuration cannot be read at all, or names no service.
    """
    text = wiring.read_config(config)
    shown = "the given tables" if isinstance(config, Mapping) else str(config)
    run = _Checks()
    await run.make(ServiceCheck(VARIABLES, partial(_variables, text), _SET_THEM))
    setups: list[wiring.Setup] = []
    # Where variables are missing, the way to the service can be tried all the same.
    load = partial(_configuration, text, setups, hides=run.failed)
    await run.make(ServiceCheck(CONFIGURATION, load, f"mend it in {shown}"))
    if not setups:
        for name in (*ALWAYS, *Here.NAMES):
            await run.make(ServiceCheck(name, _nothing, needs=(VARIABLES, CONFIGURATION)))
        return CheckReport(shown, run.lines)
    setup = setups[0] if trace is None else trace.hears(setups[0])
    named = ledger_path(ledger, wiring.configured_ledger(config, text))
    here = Here(setup, path_names(sources), named, output, format)
    note, undoable = "", False
    if trace is not None:
        await trace.plan(config, sources, PROBED, format)
    async with AsyncExitStack() as stack:
        service: Service | None = None
        for one in way_checks(setup):
            await run.make(one)
        with run.time_left(), suppress(ConfigError):  # a proxy that cannot be used, of which `proxy` tells
            service = await stack.enter_async_context(_asking(setup))
        checking = service.checking if service else None
        undoable = service is not None and service.undoing is not None
        for one in checking.checks() if checking else [_cannot_be_asked(service)]:
            await run.make(replace(one, needs=(VARIABLES, CLOCK, *one.needs)))
        for one in (*upload_checks(setup), *here.checks()):
            await run.make(one)
        if checking is not None:
            note = checking.probe_note()
            cure = "mend the records, [mapping] or [service]; `bulksubmit validate` shows the first tasks"
            await run.make(ServiceCheck("tasks", partial(here.tasks, checking), cure, (KEY, "project", "records")))
    host = URL(setup.service.base_url).host
    place = f", {place_words(setup.service.place)}" if setup.service.place else ""
    where = f"{host} ({setup.service.title}{place})"
    return CheckReport(shown, run.lines, where, note, here.good[:PROBED], undoable)


_SET_THEM = "set them in the environment of whoever runs bulksubmit (export NAME=…), also of cron"


class _Checks:
    """Makes checks one after the other, within their time."""

    def __init__(self) -> None:
        self._ends_at = time.monotonic() + ALL_SECONDS
        self._roots: dict[str, str] = {}
        """Check that failed, or was not made → the one that failed first."""
        self.lines: list[Checked] = []

    @property
    def failed(self) -> bool:
        """Whether one has failed so far."""
        return bool(self._roots)

    def time_left(self, most: float = CHECK_SECONDS) -> anyio.CancelScope:
        """Return what ends a block in time."""
        return anyio.move_on_after(max(0.0, min(most, self._ends_at - time.monotonic())))

    async def make(self, one: ServiceCheck) -> None:
        """Make a check, unless one that it needs has failed."""
        began = time.monotonic()
        root = next((self._roots[need] for need in one.needs if need in self._roots), None)
        finding = await self._found(one) if root is None else Finding(f"since {root} failed", CheckVerdict.UNCHECKED)
        if finding.verdict is CheckVerdict.FAILED:
            root = one.name
        if root is not None:
            self._roots[one.name] = root
        took = time.monotonic() - began
        self.lines.append(Checked(one.name, finding.verdict, finding.found, finding.cure, took))

    async def _found(self, one: ServiceCheck) -> Finding:
        if time.monotonic() >= self._ends_at:
            return Finding(f"since the checks before it took {ALL_SECONDS:.0f} s", CheckVerdict.UNCHECKED)
        try:
            with self.time_left() as scope:
                return await one.look()
        except Unauthorized as error:
            return Finding(f"the service does not take it (status {error.status})", CheckVerdict.FAILED, one.cure)
        except BulkSubmitError as error:
            return Finding(str(error), CheckVerdict.FAILED, one.cure)
        assert scope.cancelled_caught  # noqa: S101 - nothing else leads here
        return Finding(f"no answer within {CHECK_SECONDS:.0f} s", CheckVerdict.FAILED, one.cure)


async def _nothing() -> Finding:
    return Finding("nothing to look at", CheckVerdict.UNCHECKED)


def _cannot_be_asked(service: Service | None) -> ServiceCheck:
    """Return the check of a service that says nothing of itself: only its one cheap call."""

    async def look() -> Finding:
        if service is None:
            return Finding("since no connection could be opened in time", CheckVerdict.UNCHECKED)
        return Finding(await service.look())

    return ServiceCheck(KEY, look, "put a valid key into what [service] names")


async def _variables(text: str) -> Finding:
    missing = list(dict.fromkeys(words for _, words in lacking(parse_toml(text))))
    if missing:
        return Finding("; ".join(missing), CheckVerdict.FAILED, _SET_THEM)
    return Finding("each one that the configuration names is set")


async def _configuration(text: str, setups: list[wiring.Setup], *, hides: bool) -> Finding:
    """Load the configuration; `hides`: variables are missing, and what they stand for is hidden."""
    try:
        setup = wiring.load(text, hide_secret if hides else expand_secret)
        wiring.check_settings(setup, _job(setup))
        if not hides:
            check_hooks(setup)
    except ConfigError as error:
        # What a hidden value stands for is no mistake; other keys may be mistaken all the same.
        keys = {words.partition(":")[0] for _, words in lacking(parse_toml(text))}
        left = [line for line in str(error).splitlines() if line.partition(":")[0] not in keys]
        if left:
            raise ConfigError("\n".join(left)) from error
        return Finding(f"since {VARIABLES} failed", CheckVerdict.UNCHECKED)
    if HIDDEN in setup.service.base_url:
        return Finding(f"since {VARIABLES} failed", CheckVerdict.UNCHECKED)
    setups.append(setup)
    return Finding(f"kind {setup.service.title!r}, {setup.service.base_url}")


def _job(setup: wiring.Setup) -> Job:
    return Job("check", setup.service.kind, "", (), "", created_at=wiring.CLOCK.now())


@asynccontextmanager
async def _asking(setup: wiring.Setup) -> AsyncIterator[Service]:
    """Open the way to the service for calls that are given up early."""
    send = replace(
        setup.settings.send,
        connect_seconds=CHECK_SECONDS / 2,
        answer_seconds=CHECK_SECONDS,
        give_up_seconds=CHECK_SECONDS / 2,
    )
    asking = replace(setup, settings=replace(setup.settings, send=send))
    async with wiring.online(asking, _job(setup), unheard) as service:
        yield service


def way_checks(setup: wiring.Setup) -> Sequence[ServiceCheck]:
    """Return the checks of the way to a service: proxy, name, connection, TLS, clock."""
    url = check_base_url(setup.service.base_url)
    checking = wiring.offline(setup, _job(setup)).service.checking
    most = checking.clock_seconds if checking else CLOCK_SECONDS
    by_proxy = "HTTPS_PROXY names it, NO_PROXY the hosts that need none"
    return [
        ServiceCheck(PROXY, partial(_proxy, url), by_proxy),
        ServiceCheck(
            DNS, partial(_dns, url), "check service.base_url, and that this machine can look names up", (PROXY,)
        ),
        ServiceCheck(
            CONNECTION,
            partial(_connection, url),
            "check service.base_url, a firewall on the way, and HTTPS_PROXY",
            (DNS,),
        ),
        ServiceCheck(
            TLS, partial(_tls, url), "see what it says; without a trusted certificate nothing is sent", (CONNECTION,)
        ),
        ServiceCheck(CLOCK, partial(_clock, url, most), "check service.base_url: is it the API?", (TLS,)),
    ]


async def _proxy(url: URL) -> Finding:
    from engine.http.reach import way_to  # noqa: PLC0415 - aiohttp, which has to be loaded by `load_aiohttp`

    way = way_to(url)
    if way.proxy is None:
        return Finding("none is used: this machine" if is_loopback(url.host or "") else "none is used")
    return Finding(f"{way.proxy.place} stands before {url.host}")


async def _dns(url: URL) -> Finding:
    from engine.http import reach  # noqa: PLC0415 - as above

    way = reach.way_to(url)
    found = await reach.addresses_of(way)
    host = way.first[0]
    if list(found) == [host]:
        return Finding(f"{host} is an address: no name is looked up")
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return Finding(f"{host} is {found[0]}{more}")


async def _connection(url: URL) -> Finding:
    from engine.http import reach  # noqa: PLC0415 - as above

    way, began = reach.way_to(url), time.monotonic()
    async with reach.connected(way, tls=False):
        return Finding(f"{way.words} takes connections, after {1000 * (time.monotonic() - began):.0f} ms")


async def _tls(url: URL) -> Finding:
    from engine.http import reach  # noqa: PLC0415 - as above

    if url.scheme != "https":
        return Finding("plain http; that is allowed to this machine only")
    certificate = await reach.certificate_of(reach.way_to(url))
    said = f"signed by {certificate.issuer}, valid until {reach.day(certificate.until)}"
    left = certificate.until - wiring.CLOCK.now()
    if left < EXPIRES_SECONDS:
        return Finding(
            f"{said}: {duration(max(left, 0.0))} left", CheckVerdict.WARNING, "the server's owner must renew it"
        )
    return Finding(said)


async def _clock(url: URL, most: float) -> Finding:
    from engine.http import reach  # noqa: PLC0415 - as above
    from engine.http.classify import date_of  # noqa: PLC0415 - as above

    _, headers = await reach.answer_of(reach.way_to(url))
    server, now = date_of(headers), wiring.CLOCK.now()
    if server is None:
        return Finding("the server's answer has no Date to compare with", CheckVerdict.WARNING)
    differs = abs(now - server)
    said = f"{duration(differs)} {'behind' if now < server else 'ahead of'} the server's"
    cure = "set this machine's clock, by NTP (timedatectl set-ntp true)"
    if differs > most:
        return Finding(f"{said}: what was sent could not be found again", CheckVerdict.FAILED, cure)
    if differs >= CLOCK_SECONDS:
        return Finding(said, CheckVerdict.WARNING, cure)
    return Finding("as the server's, within 2 s" if differs <= 2 else said)  # noqa: PLR2004 - a Date has whole seconds


def upload_checks(setup: wiring.Setup) -> Sequence[ServiceCheck]:
    """Return the check of the hosts to which payloads may go; none for a service that takes them itself."""
    hosts = setup.service.allowed_upload_hosts()
    if not hosts or wiring.offline(setup, _job(setup)).service.staging is None:
        return []
    cure = "check a firewall and HTTPS_PROXY: payloads go there, not to the service"
    return [ServiceCheck("upload host", partial(_upload_host, setup, hosts), cure, (PROXY,))]


AMAZON = "amazonaws.com"
_STAND_IN = "s3.amazonaws.com"
"""Of all hosts of S3: which one is named, only a batch tells, and making one is no check."""


async def _upload_host(setup: wiring.Setup, hosts: Sequence[str]) -> Finding:
    from engine.http import reach  # noqa: PLC0415 - as above

    local = is_loopback(URL(setup.service.base_url).host or "")
    exact = exact_hosts(hosts)
    unknown = "; the service names the host of a batch only when it makes one"
    if local and not exact:
        return Finding(f"not known{unknown}. A service on this machine may name itself", CheckVerdict.UNCHECKED)
    tried = exact or ([_STAND_IN] if any(one.endswith(AMAZON) for one in hosts) else [])
    if not tried:
        return Finding(f"allowed are {', '.join(hosts)}{unknown}", CheckVerdict.UNCHECKED)
    for host in tried:
        port = next((one.partition(":")[2] for one in hosts if one.partition(":")[0] == host), "")
        await reach.certificate_of(reach.way_to(URL(f"https://{host}{f':{port}' if port else ''}/")))
    if exact:
        return Finding(f"{', '.join(exact)} can be reached by TLS{unknown}")
    return Finding(f"{_STAND_IN} can be reached by TLS{unknown}, and it may be another of S3's")
