"""Tells hooks, and who collects metrics, how an operation ended where no run of it has told: `@tells_end` does so.

That is what fails before there is a run: a configuration that cannot be used, a source that is not there, a ledger that
cannot be opened. Or it is a night whose exit code is not that of its last run: nothing was left to do, say.

Who is to be told stands in the configuration, which may be just what is wrong. So `ledger`, `[metrics]` and each of
`[[hooks]]` are read by themselves: an error elsewhere does not matter. Where the file is no TOML, or not there, the
last job of the load has the one before it, if the ledger is found without the file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from engine.commands import wiring
from engine.commands.configuration import Config, check, expand_secret, parse_toml, read_text, text_of, variables_in
from engine.commands.hooks import Told, check_ping, tell_end
from engine.commands.paths import ledger_path, open_ledger
from engine.commands.result import Result
from engine.commands.runs import counted_last, write_metrics
from engine.ledger.address import LedgerAddress
from engine.model.errors import BulkSubmitError, ConfigError, JobError, JobLocked, LedgerError
from engine.model.job import Job
from engine.model.outcome import Tally
from engine.model.runs import LOADING_NOTHING, Standing
from engine.model.settings import HookSettings, Settings
from engine.run.context import Stop

Operation = TypeVar("Operation", bound=Callable[..., Awaitable[Result]])


def tells_end(operation: Operation) -> Operation:  # its own type, or `engine.sync` could not know it
    """Have an operation tell how it ended, where no run of it does. Its arguments are those of `submit` or `resume`.

    It is called after its command, `retry_tasks` after `retry`, unless an argument says whose work it is.
    """
    command = operation.__name__.partition("_")[0]

    @wraps(operation)
    async def telling(*args: Any, **options: Any) -> Result:
        bound = signature(operation).bind(*args, **options)
        bound.apply_defaults()
        ending = _Ending({"command": command, **bound.arguments}, wiring.CLOCK.now())
        try:
            result = await operation(*args, **options)
        except BulkSubmitError as error:
            with suppress(Exception):  # whatever goes wrong with it, the error is what counts
                await ending.tell_error(error)
            raise
        with suppress(Exception):
            await ending.tell_result(result)
        return result

    return cast("Operation", telling)


class _Told(Struct, frozen=True):
    """Who is told, as far as a configuration can be read."""

    ledger: str | None = None
    textfile: str | None = None
    hooks: Mapping[int, HookSettings] = {}
    """By their numbers in the file."""
    variables: frozenset[str] = frozenset()
    """Of the environment, that the file names: any of them may be a secret."""
    service: str = ""


def _readable(text: str) -> _Told:
    """Return who is told. Raises: ConfigError: it is no TOML."""
    tables = parse_toml(text)
    service = tables.get("service")
    kind = service.get("kind") if isinstance(service, dict) else None
    told = _Told(variables=variables_in(text), service=kind if isinstance(kind, str) else "")
    if (ledger := _alone(tables, "ledger")) is not None:
        told = replace(told, ledger=ledger.ledger)
    if (metrics := _alone(tables, "metrics")) is not None:
        told = replace(told, textfile=metrics.metrics.textfile)
    hooks: dict[int, HookSettings] = {}
    written = tables.get("hooks")
    for number, one in enumerate(written if isinstance(written, list) else ()):
        if (found := _alone({"hooks": [one]}, "hooks")) is not None:
            with suppress(ConfigError):
                check_ping(found.hooks[0], number)
                hooks[number] = found.hooks[0]
    return replace(told, hooks=hooks)


def _alone(tables: Mapping[str, Any], key: str) -> Settings | None:
    """Return settings with one key of a file, all else left out; None if that one cannot be used."""
    with suppress(ConfigError):
        return check(Settings, {"service": {}, key: tables[key]}, "", expand_secret) if key in tables else None
    return None


def _text(config: Config) -> str:
    """Return the text of a configuration; "" for a pipe, which can be read once only. Raises: ConfigError."""
    if isinstance(config, Mapping):
        return text_of(config)
    path = Path(config)
    return read_text(path) if path.is_file() or not path.exists() else ""


class _Known(Struct, frozen=True):
    """What the ledger knows of a load: how its runs went, and what was counted last."""

    standing: Standing
    numbers: Tally | None = None
    seconds: Mapping[str, float] = {}


class _Ending:
    """How one call of an operation ended."""

    def __init__(self, arguments: Mapping[str, Any], began: float) -> None:
        self._arguments = arguments
        self._command: str = arguments["command"]
        self._began = began
        self._ledger: LedgerAddress | str = arguments["ledger"]
        self._config: Config | None = arguments.get("config")
        self._textfile: Path | str | None = arguments.get("metrics_textfile")
        self._makes_job = "sources" in arguments
        stem = "" if self._config is None or isinstance(self._config, Mapping) else Path(self._config).stem
        self._family: str = arguments.get("family") or (stem if arguments.get("delta") else "")
        self._name: str = arguments.get("job") or arguments.get("name") or self._family or stem

    async def tell_error(self, error: BulkSubmitError) -> None:
        """Tell of an operation that failed, unless a run of it has done so."""
        told = await self._told()
        # What is wrong with the name of a job, say, is the answer to whoever has typed it.
        is_answer = isinstance(error, JobError) and not self._makes_job
        loads = self._command not in LOADING_NOTHING
        if told.textfile is not None and loads and not (is_answer and self._textfile is None):
            known = await self._known(error)
            if known.standing.last_completion < self._began:
                await self._tell_metrics(told.textfile, error.exit_status, known)
        if not (is_answer or error.heard or isinstance(error, JobLocked)):
            await self._tell_hooks(told, error)
            error.heard = True

    async def tell_result(self, result: Result) -> None:
        """Tell of an operation whose exit code is not that of a run of it: a night that was not begun, say."""
        if self._config is None and self._textfile is None:
            return
        self._name = result.job
        told = await self._told()
        if told.textfile is None and not (told.hooks and result.exit_code):
            return
        known = await self._known()
        standing = known.standing
        if standing.last_completion >= self._began and standing.exit_code == result.exit_code:
            return
        if told.textfile is not None:
            await self._tell_metrics(told.textfile, result.exit_code, known)
        if self._makes_job and result.exit_code:
            await self._tell_hooks(told, result)

    async def _told(self) -> _Told:
        """Read who is told, in the configuration that was named, or in the one that the ledger has."""
        told: _Told | None = None
        with suppress(ConfigError):
            told = self._told_by_file()
        if told is None and (self._config is None or self._makes_job):
            with suppress(BulkSubmitError):
                told = _readable(await self._kept_config())
        told = told or _Told()
        return told if self._textfile is None else replace(told, textfile=str(self._textfile))

    def _told_by_file(self) -> _Told | None:
        """Read who is told in the configuration that was named, and where the ledger is; None if none was named.

        Raises:
            ConfigError: it cannot be read, or is no TOML.
        """
        if self._config is None:
            return None
        told = _readable(_text(self._config))
        with suppress(ConfigError):
            configured = wiring.ledger_beside(self._config, told.ledger) if told.ledger else None
            self._ledger = ledger_path(self._ledger, configured)
        return told

    async def _kept_config(self) -> str:
        """Return the configuration that the ledger has of the job; of a new one, that of the last job of the load.

        Raises:
            BulkSubmitError: it cannot be read, or has none.
        """
        async with open_ledger(self._ledger) as opened:
            if not self._makes_job:
                return (await opened.job(self._name)).config
            return next((job.config for job in await opened.jobs() if job.family == self._load), "")

    async def _known(self, error: BulkSubmitError | None = None) -> _Known:
        """Return what the ledger knows of the load; without a last success where it cannot be read."""
        if not isinstance(error, LedgerError):
            try:
                async with open_ledger(self._ledger) as opened:
                    with suppress(JobError):
                        self._family = (await opened.job(self._name)).family
                    return _Known(await opened.standing(self._load), *await counted_last(self._load, opened))
            except JobError:  # there is no ledger yet
                return _Known(Standing())
            except BulkSubmitError:
                pass
        return _Known(Standing(last_success=None))

    @property
    def _load(self) -> str:
        return self._family or self._name

    async def _tell_metrics(self, textfile: str, exit_code: int, known: _Known) -> None:
        standing = replace(known.standing, last_completion=wiring.CLOCK.now(), exit_code=int(exit_code))
        await write_metrics(Path(textfile), self._load, standing, known.numbers, known.seconds)

    async def _tell_hooks(self, told: _Told, end: Result | BulkSubmitError) -> None:
        job = Job(self._name, told.service, "", (), "", family=self._family)
        stop, emit = self._arguments["stop"] or Stop(), self._arguments["emit"]
        await tell_end(Told(job, told.hooks, told.variables, emit, stop, command=self._command), end)
