"""Opens what paths name, for every operation: the ledger that is there, an output folder that is no other job's.

It also writes out the commands that messages name. Where an error arises, nobody knows the job and the ledger, so the
message says `bulksubmit resume`; here it becomes a command that works as it is typed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from engine.commands import wiring
from engine.files import DEFAULT_LEDGER, find_ledger, folder_for_jobs, make_private_folder
from engine.ledger.address import LedgerAddress, PostgresAddress, address_of, require_postgres
from engine.ledger.base import Ledger
from engine.ledger.sqlite import SqliteLedger
from engine.model.errors import BulkSubmitError, ConfigError, JobError, JobLocked, NoLedger, SourceError
from engine.progress.events import Event, Listener, Noticed, Stopping
from engine.progress.log_file import LOG_FILE
from engine.reports.outcomes import OUTCOMES, REJECTS, SPREADSHEET
from engine.source.given import names_of

_BARE = re.compile(r"`bulksubmit resume((?: --[^`]*)?)`")
"""The command that goes on, without its job."""
_COMMAND = re.compile(r"`bulksubmit (?!validate|bench|sandbox|demo|ledger)([a-z][^`]*)`")
"""A command that takes a ledger."""
THE_SAME = "the same command"
"""What goes on where there is no job yet."""


def path_names(paths: Path | str | Sequence[Path | str]) -> list[str]:
    """Return one path or several as a list of text.

    Raises:
        SourceError: they are records, as `submit` takes them.
    """
    names = names_of(paths)
    if names is None:
        raise SourceError("records are taken by submit, validate and preview; write them to a file for anything else")
    return names


def ledger_path(named: LedgerAddress | str, configured: LedgerAddress | None = None) -> LedgerAddress:
    """Return where a ledger is; if nobody has named it, it may be `configured`.

    Raises:
        ConfigError: it is a URL that cannot be used, or would be in a home folder that there is not.
    """
    if named is not DEFAULT_LEDGER:
        return address_of(named)
    return address_of(find_ledger(configured.url if isinstance(configured, PostgresAddress) else configured))


def folder_beside(ledger: LedgerAddress, job: str = "") -> Path:
    """Return the folder for what a job writes, if nobody has named one: beside the ledger; or that in which they are.

    That of a database is called after it, for two of them may have jobs of one name. It is in the folder of the ledger
    that would be taken if nobody had named one.

    Raises:
        ConfigError: it would be in the home folder, and this user has none.
    """
    beside = folder_for_jobs() / ledger.folder_name if isinstance(ledger, PostgresAddress) else ledger.parent
    return beside / job


@asynccontextmanager
async def open_ledger(named: LedgerAddress | str, *, create: bool = False) -> AsyncIterator[Ledger]:
    """Open a ledger. This is the one place that chooses the store; `create`: make one where there is none, to `submit`.

    What is said of a job says of which ledger: who stands in another folder sees why it is not found.

    Raises:
        NoLedger: there is none, so there are no jobs.
        ConfigError: it cannot be named so, or what it takes is not installed.
    """
    address = ledger_path(named)
    try:
        async with _opening(address, create=create) as ledger:
            yield ledger
    except BulkSubmitError as error:
        error.args = (spelled(str(error), address),)
        # The operation may be a part of another one.
        if isinstance(error, JobError | JobLocked) and not str(error).startswith(of := f"ledger {address}: "):
            error.args = (f"{of}{error}",)
        raise


def _opening(address: LedgerAddress, *, create: bool) -> AbstractAsyncContextManager[Ledger]:
    if isinstance(address, PostgresAddress):
        require_postgres()
        from engine.ledger.postgres import PostgresLedger  # noqa: PLC0415 - an extra

        return PostgresLedger.open(address, wiring.CLOCK, create=create)
    if not create and not os.path.exists(address):  # noqa: PTH110 - one stat before anything else goes on
        raise NoLedger(f"there is no ledger at {address}: check --ledger and the working folder, or submit a first job")
    return SqliteLedger.open(address, wiring.CLOCK)


def command(words: str, ledger: LedgerAddress) -> str:
    """Return `bulksubmit WORDS` as it can be pasted, with the ledger unless it would be found without being named."""
    with suppress(ConfigError):  # without a home folder it has to be named
        if _absolute(ledger) == _absolute(ledger_path(DEFAULT_LEDGER)):
            return f"{program()} {words}"
    return f"{program()} {words} --ledger {shlex.quote(str(ledger))}"


def _absolute(ledger: LedgerAddress) -> LedgerAddress:
    return ledger if isinstance(ledger, PostgresAddress) else ledger.resolve()


def program() -> str:
    """Return how this command is called from here: by its path, where a shell would find none, or another one."""
    called = sys.argv[0]
    if os.sep not in called or os.path.basename(called) != "bulksubmit":  # noqa: PTH119 - a text
        return "bulksubmit"
    found = shutil.which("bulksubmit")
    with suppress(OSError):
        if found is not None and os.path.samefile(found, called):  # noqa: PTH121 - likewise
            return "bulksubmit"
    return shlex.quote(called)


def spelled(text: str, ledger: LedgerAddress, goes_on: str = "") -> str:
    """Return a message with its commands as they are typed: with the ledger, and with the job.

    `goes_on`: the words of the command that goes on, such as `resume images-1`; empty where there is no job.
    """
    if "`bulksubmit " not in text:
        return text
    going = f"`bulksubmit {goes_on}\\1`" if goes_on else THE_SAME
    text = _BARE.sub(going, text)
    return _COMMAND.sub(lambda found: found[0] if " --ledger " in found[0] else f"`{command(found[1], ledger)}`", text)


def spelling(emit: Listener, ledger: LedgerAddress, goes_on: str) -> Listener:
    """Return what tells events with their commands as they are typed; see `spelled`."""

    def tell(event: Event) -> None:
        match event:  # the others come by the thousand, and name no command
            case Noticed(text):
                event = Noticed(spelled(text, ledger, goes_on))
            case Stopping(reason):
                event = Stopping(spelled(reason, ledger, goes_on))
        emit(event)

    return tell


async def claim_output(folder: Path, ledger: Ledger, held: ExitStack) -> None:
    """Make the folder for a new job's reports, and see that it can be written, before anything is sent.

    As long as `held` is, no job of another ledger gets it. Once the job's log is there, none ever does.

    Raises:
        JobError: it cannot be written, or it is another job's: reports would overwrite each other.
    """
    taken = JobError(f"{folder} holds the reports of another job; choose another --output or --job")
    if any(job.output == str(folder) for job in await ledger.jobs()):
        raise taken
    try:
        _probe(folder)
        free = _lock(folder, held)
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError, too
        why = getattr(error, "strerror", None) or error
        raise JobError(f"{folder} cannot hold the reports ({why}); choose another --output") from error
    if not free or has_reports(folder):
        raise taken


def _lock(folder: Path, held: ExitStack) -> bool:
    """Lock a folder as long as `held` is; return whether no other process has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    held.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # not every file system locks a folder, NFS for one (flock(2)); the log is seen there, too
        pass
    return True


@contextmanager
def unless_made_in_vain(folder: Path) -> Iterator[None]:
    """Remove a folder that is made in the block if that ends in an error of ours and leaves nothing in it."""
    was_there = os.path.lexists(folder)
    try:
        yield
    except BulkSubmitError:
        if not was_there:
            with suppress(OSError, ValueError):  # something is in it, such as a download that goes on later
                folder.rmdir()
        raise


def has_reports(folder: Path) -> bool:
    """Return whether a folder holds the reports of a job, or only the log of one that has begun: of any ledger."""
    return any(os.path.lexists(folder / name) for name in (OUTCOMES, REJECTS, SPREADSHEET, LOG_FILE))


def _probe(folder: Path) -> None:
    str(folder).encode()  # the ledger remembers it: a name that is not UTF-8 is a ValueError
    make_private_folder(folder)
    with TemporaryFile(dir=folder):  # has no name, so it meets no link that somebody has put there
        pass
