"""Tells the commands and ping URLs of `[[hooks]]` how a run goes; `runs.remembered` calls it around each run of a job.

What keeps a run from beginning, `endings` has them hear: a configuration that cannot be used, say.

A hook decides nothing. What goes wrong with one is said as a warning, and the run ends as it would without it. Those of
`start` are called beside the run and hold nothing up; the others once its reports are written, and never before those
of `start` have ended. Each is given its `seconds`; then its process group is killed, by its own number.

    start     the run begins
    finish    exit code 0
    partial   3, 4 and 10: it came to its end, and a person has something to look at
    stop      5 and what a signal brings (129, 130, 143): `resume` goes on
    fail      all else: 1, 2, 7, 8, 9. 8 (nothing to do) too: it is only told to who has asked to hear of it

A ping says how the load stands. So of a run that loads nothing (`cancel`, `undo`, `refresh`) only what went wrong is
pinged as its end: that a job was canceled well is no success of the load.

Each end comes with a sentence for people, whatever the exit code. Of a job on which another process works (6), no hook
hears.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO, Any

import anyio
import orjson
from yarl import URL

from engine.commands import wiring
from engine.commands.result import MOST_REASONS, Result, message_of
from engine.http.certificates import load_aiohttp
from engine.http.urls import check_base_url
from engine.model.errors import BulkSubmitError, ConfigError, Exit
from engine.model.job import Job
from engine.model.runs import LOADING_NOTHING
from engine.model.settings import HookSettings, SendSettings
from engine.progress.events import Listener, Noticed
from engine.progress.redaction import foreign_words, redactor
from engine.progress.text import count, printable
from engine.run.context import Stop
from engine.services.base import Call

_SIGNALS = 128
"""Exit codes above it are those of signals."""
_STATES: Mapping[int, str] = {
    Exit.ALL_CREATED: "finish",
    **dict.fromkeys((Exit.SOME_FAILED, Exit.SOME_UNCERTAIN, Exit.TASKS_FAILED), "partial"),
    Exit.STOPPED_EARLY: "stop",
}
MOST_OUTPUT_BYTES = 16 * 1024
"""Of what a command prints: so much goes to the log, the rest nowhere."""
MOST_BODY_BYTES = 10_000
"""Of a ping: what a healthchecks server keeps, unless it was told otherwise."""
MOST_MESSAGE = 1_000
"""Letters of the message."""
_TRIES, PAUSE_SECONDS = 3, 1.0
"""Of a ping: a monitor that is being restarted shall not wake anybody."""
_READ_BYTES = 64 * 1024
_LAST_SECONDS = 0.2
"""What a command has printed may still be on its way when it has ended; children that it leaves behind are not waited
for."""
_OK = range(200, 300)

_logger = logging.getLogger(__name__)


def state_of(exit_code: int) -> str:
    """Return the state of a run that ends with this exit code."""
    return "stop" if exit_code > _SIGNALS else _STATES.get(exit_code, "fail")


def check_hooks(setup: wiring.Setup) -> None:
    """Check what can be checked before anything is sent.

    Raises:
        ConfigError: a ping is not a URL that may be called; names the key, never the URL.
    """
    for number, hook in enumerate(setup.settings.hooks):
        check_ping(hook, number)


def check_ping(hook: HookSettings, number: int) -> None:
    """Check the URL of a hook, if it is a ping; errors as of `check_hooks`."""
    if hook.ping is not None:
        try:
            check_base_url(hook.ping.get_secret_value())
        except ConfigError as error:
            raise ConfigError(f"hooks[{number}].ping: {str(error).replace('base_url', 'it')}") from None


async def tell_end(told: Told, end: Result | BulkSubmitError) -> None:
    """Have the hooks hear of an end that no run has told: an error, or the result of a call that had no run."""
    if isinstance(end, Result):
        await told.tell(state_of(end.exit_code), end.exit_code, **_facts(end))
    else:
        code = end.exit_status
        await told.tell(state_of(code), code, message=str(end))


async def with_hooks(
    job: Job, setup: wiring.Setup, emit: Listener, stop: Stop, work: Callable[[], Awaitable[Result]], *, command: str
) -> Result:
    """Do the work of a run of a command, and have the hooks hear of its beginning and of its end, an error too."""
    if not setup.settings.hooks:
        return await work()
    told = Told(job, dict(enumerate(setup.settings.hooks)), setup.secret_variables, emit, stop, command=command)
    begun = asyncio.ensure_future(told.tell("start"))
    try:
        try:
            result = await work()
        except Exception as error:
            await begun
            if isinstance(error, BulkSubmitError):
                await tell_end(told, error)
                error.heard = True
            else:
                await told.tell(state_of(Exit.ERROR), Exit.ERROR, message=f"{type(error).__name__}: {error}")
            raise
        await begun
        await tell_end(told, result)
    finally:
        begun.cancel()
    return result


def _facts(result: Result) -> dict[str, Any]:
    tally = result.tally
    return {
        "job_state": str(result.state),
        "message": message_of(result),
        "seconds": round(result.elapsed_seconds, 3),
        "records": tally.records,
        "created": tally.created,
        "failed": tally.failed,
        "rejected": tally.rejected,
        "uncertain": tally.uncertain,
        "skipped": tally.skipped,
        "unresolved": tally.unresolved,
        "outcomes": str(result.outcomes) if result.outcomes else None,
        "rejects": str(result.rejects) if result.rejects else None,
        "reasons": [{"records": one.records, "reason": one.words} for one in result.causes[:MOST_REASONS]],
    }


class Told:
    """The hooks of one run, or of a call that has none, and what is told to each."""

    def __init__(
        self,
        job: Job,
        hooks: Mapping[int, HookSettings],
        secret_variables: frozenset[str],
        emit: Listener,
        stop: Stop,
        *,
        command: str,
    ) -> None:
        """Begin: `hooks` by their number in the configuration; its `secret_variables` are kept from commands.

        `command`: which runs, or could not.
        """
        self._hooks = hooks
        self._secret_variables = secret_variables
        self._emit = emit
        self._stop = stop
        self._redact = redactor(os.environ)
        self._run = str(uuid.uuid4())
        """By which a monitor knows that a beginning and an end belong together."""
        self._about = {
            "command": command,
            "job": job.name,
            "family": job.family,
            "service": job.service,
            "report": job.output or None,
        }

    async def tell(self, state: str, exit_code: int | None = None, *, message: str = "", **facts: Any) -> None:
        """Call each hook that wants to hear of a state, one after the other."""
        said = printable(self._redact(message))[:MOST_MESSAGE]
        told = {"schema": 1, "state": state, **self._about, "run": self._run, "exit_code": exit_code, "message": said}
        for number, hook in self._hooks.items():
            if state not in hook.states:
                continue
            try:
                if hook.ping is not None:
                    wrong = await self._ping(hook, URL(hook.ping.get_secret_value()), told | facts)
                else:
                    wrong = await self._command(hook, number, told | facts)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is no matter of the run
                wrong = str(error) or type(error).__name__
            if wrong:
                what = "ping" if hook.ping is not None else hook.command[0]
                words = foreign_words(wrong, self._redact)
                self._emit(Noticed(f"hooks[{number}] ({what}), at {state}: {words}. The job is not affected"))

    # A command

    async def _command(self, hook: HookSettings, number: int, facts: Mapping[str, Any]) -> str:
        """Run a command to its end, or until its time is over; return what went wrong."""
        with TemporaryFile() as told:
            told.write(orjson.dumps(facts, option=orjson.OPT_APPEND_NEWLINE))
            told.seek(0)
            reading, writing = os.pipe()
            output = _Output(reading)
            try:
                try:
                    process = await self._start(hook, facts, told, writing)
                finally:
                    os.close(writing)
                wrong = await self._end(process, hook.seconds)
                with anyio.move_on_after(_LAST_SECONDS):
                    await output.ended.wait()
            except OSError as error:
                return f"it cannot be started ({error.strerror})"
            finally:
                output.close()
        lines = [printable(self._redact(line)) for line in output.text().splitlines()]
        for line in lines:
            _logger.info("hooks[%d] %s: %s", number, facts["state"], line)
        return f"{wrong}: {lines[-1]}" if wrong and lines else wrong

    async def _start(
        self, hook: HookSettings, facts: Mapping[str, Any], told: IO[bytes], output: int
    ) -> asyncio.subprocess.Process:
        """Start a command as the leader of a process group, with our environment, but for the secrets that we use."""
        environment = {name: value for name, value in os.environ.items() if name not in self._secret_variables}
        for name in ("command", "job", "state", "exit_code", "report", "family", "message", "run"):
            if facts[name] is not None:
                environment[f"BULKSUBMIT_{name.upper()}"] = str(facts[name])
        return await asyncio.create_subprocess_exec(
            *hook.command, stdin=told, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )

    async def _end(self, process: asyncio.subprocess.Process, seconds: float) -> str:
        self._stop.groups.add(process.pid)
        try:
            with anyio.move_on_after(seconds):
                code = await process.wait()
                return f"it ended with exit code {code}" if code else ""
        finally:
            if process.returncode is None:  # until it is waited for, nobody else can have its number
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                with anyio.CancelScope(shield=True):
                    await process.wait()
            self._stop.groups.discard(process.pid)
        return f"it took longer than {seconds:g} s and was killed"

    # A ping

    async def _ping(self, hook: HookSettings, url: URL, facts: Mapping[str, Any]) -> str:
        """Call a URL; return what went wrong, without the URL's path: whoever has it can say that all is well."""
        load_aiohttp()
        from engine.http.client import Request, open_client  # noqa: PLC0415 - see `wiring.online`
        from engine.http.losses import Lost  # noqa: PLC0415 - slow

        url = (url / _ending(hook, facts)).update_query(rid=facts["run"])
        body = orjson.dumps(facts)[:MOST_BODY_BYTES]
        request = Request(Call("ping", "POST", str(url), body=body), url, {"Content-Type": "application/json"})
        send = SendSettings(connect_seconds=hook.seconds, answer_seconds=hook.seconds, call_seconds=hook.seconds)
        said = f"no answer within {hook.seconds:g} s"
        with anyio.move_on_after(hook.seconds):
            async with open_client(send, trusted_hosts=(), anywhere=True) as client:
                for attempt in range(_TRIES):
                    await wiring.CLOCK.sleep(PAUSE_SECONDS if attempt else 0.0)
                    answer = await client.send(request)
                    if isinstance(answer, Lost):
                        said = answer.words
                    elif answer.status in _OK:
                        return ""
                    else:
                        said = f"{url.host} answered HTTP {answer.status}"
        return said


def _ending(hook: HookSettings, facts: Mapping[str, Any]) -> str:
    """Return what stands behind the URL of a check: the state in the words of healthchecks.io.

    A stop is no end: it only goes to the check's log, and the alarm comes if nobody resumes in time. Neither begins
    nor ends the load with what loads nothing.
    """
    match facts["state"]:
        case "start":
            ending = "start"
        case "stop":
            ending = "log"
        case "partial" if hook.partial == "success":
            ending = "0"
        case _:
            ending = str(int(facts["exit_code"]))
    return "log" if facts["command"] in LOADING_NOTHING and ending in {"start", "0"} else ending


class _Output:
    """The beginning of what a command prints; the rest is read and forgotten, or it would wait for us."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._kept = bytearray()
        self._left_out = 0
        self.ended = asyncio.Event()
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            piece = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        if not piece:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self.ended.set()
        kept = piece[: MOST_OUTPUT_BYTES - len(self._kept)]
        self._kept += kept
        self._left_out += len(piece) - len(kept)

    def text(self) -> str:
        """Return it."""
        more = f"\n({count(self._left_out, 'byte')} more are left out)" if self._left_out else ""
        return self._kept.decode(errors="replace") + more

    def close(self) -> None:
        """Stop reading."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
