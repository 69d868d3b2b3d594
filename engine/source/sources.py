"""Finds the sources of a job: which files, in which order and format.

The operations call it before a job begins, and `check_unchanged` before one goes on. It reads no record. What cannot be
read where it is becomes a file first: `spool` makes it.
"""

from __future__ import annotations

import glob
import os
import shlex
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from engine.model.errors import RESUME, SourceChanged, SourceError
from engine.model.record import Format, Source
from engine.model.settings import SourceSettings
from engine.source.formats import columns_of, detect
from engine.source.splitter import SourceFile, unreadable

NOTHING_NAMED = "no source is named: give a path, a glob, or - for standard input"


class Copied(Struct, frozen=True):
    """What a file of ours is a copy of."""

    name: str = ""
    """As of a Source, and so below."""
    version: str = ""
    row_groups: str | None = None
    """None: it is no Parquet."""


NOTHING_COPIED = Copied()


def find_sources(patterns: Sequence[str], settings: SourceSettings) -> tuple[Source, ...]:
    """Return the files that `patterns` name, laid end to end.

    Patterns keep their order; the matches of a glob (`*`, `?`, `[…]`, `**`) are sorted by path. A file that is named
    twice is read once.

    Raises:
        SourceError: a path is missing or no file, a glob matches nothing, or a format cannot be read.
    """
    sources: list[Source] = []
    seen: set[str] = set()
    for path in (path for pattern in patterns for path in paths_of(pattern)):
        real = real_path(path)
        if real not in seen:
            seen.add(real)
            sources.append(describe(path, settings, after=sources[-1] if sources else None))
    if not sources:
        raise SourceError(NOTHING_NAMED)
    return tuple(sources)


def describe(
    path: Path,
    settings: SourceSettings,
    after: Source | None = None,
    *,
    ours: bool = False,
    copied: Copied = NOTHING_COPIED,
) -> Source:
    """Return the file at `path` as a source, laid `after` another.

    One of `ours` has the format that settings say. `copied`: what it is a copy of.

    Raises:
        SourceError: it is missing or no file, or its format cannot be read.
    """
    status = regular_file(path)
    if copied.row_groups is not None:
        settings = replace(settings, format=Format.PARQUET)
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:  # neither the ledger nor a report could hold it
        raise SourceError(f"{path} has a name that is not UTF-8: rename it, or pipe it to submit -") from error
    source = Source(
        number=after.number + 1 if after else 0,
        path=str(path.absolute()),
        format=settings.format or Format.NDJSON,  # until its first bytes have told
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        base=after.end if after else 0,
        inode=status.st_ino,
        ctime_ns=status.st_ctime_ns,
        name=copied.name,
        version=copied.version,
        row_groups=copied.row_groups or "",
    )
    if ours:  # bad records in it were judged before: a person may try all of them again
        return source
    with SourceFile(source) as file:
        source = replace(source, format=detect(file, settings))
        columns_of(source, file, settings)  # a CSV header that cannot be used must show before anything is sent
    return source


def header_of(source: Source, settings: SourceSettings) -> Sequence[str] | None:
    """Return the columns that the header of a source names; None if its format has no header."""
    with SourceFile(source) as file:
        return columns_of(source, file, settings)


def check_unchanged(sources: Sequence[Source], *, times: bool = False) -> None:
    """Check that each file still has the size that it had when the job began.

    What is frozen is compared by sha256 when each batch is read again, so the time of the file does not count there: a
    copy that is put back has a new one. What is not frozen yet (`times`) is known to be another file only by its time.

    Raises:
        SourceChanged: a file is missing, something else, or longer or shorter than it was.
    """
    for source in sources:
        try:
            status = _status(Path(source.path))
        except SourceError as error:
            raise SourceChanged(f"{error}. The job needs it until it is finished: then run {RESUME}") from error
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise SourceChanged(f"{source.path} is {kind} now; it was a file. {SourceChanged.PUT_BACK}")
        if status.st_size != source.size:
            raise SourceChanged(
                f"{source.path} has {status.st_size} bytes; it had {source.size} when its batches were frozen. "
                f"{SourceChanged.PUT_BACK}"
            )
        if times and status.st_mtime_ns != source.mtime_ns:
            raise SourceChanged(
                f"{source.path} was written after the job began to read it, and is not read to its end. If its content "
                f"is the same, give it the time that it had and run {RESUME}: touch -d '{_touched(source.mtime_ns)}' "
                f"{shlex.quote(source.path)}. {SourceChanged.PUT_BACK}"
            )


def is_file_of(source: Source, status: os.stat_result) -> bool:
    """Return whether a file is the one that a source was made of, as far as no program has hidden a change.

    An old ledger knows no inode, which is 0 there.
    """
    same = (source.size, source.mtime_ns) == (status.st_size, status.st_mtime_ns)
    return same and source.inode in {0, status.st_ino}


def is_untouched(source: Source) -> bool:
    """Return whether a file certainly is what it was when the job began.

    A program can set the time of a file that it writes (`touch -r`, `rsync -t`), but not `ctime_ns`. That also changes
    with the rights and the links of a file: where only that is another one, the content must decide.
    """
    try:
        status = Path(source.path).stat()
    except OSError:
        return False
    return is_file_of(source, status) and source.ctime_ns in {0, status.st_ctime_ns}


def _touched(unix_ns: int) -> str:
    """Return a time as `touch -d` takes it, to the nanosecond."""
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{ns:09}Z"


def regular_file(path: Path) -> os.stat_result:
    """Return what the system knows of the file at `path`.

    Raises:
        SourceError: it is missing, or no regular file.
    """
    status = _status(path)
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{path} is a folder: name the files in it, for example '{path / '*.ndjson'}'")
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{path} is no regular file and cannot be read twice: pipe it to standard input, source -")
    return status


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise unreadable(str(path), error) from error


def real_path(path: Path) -> str:
    """Return where the path leads; of a loop of links, how far it gets."""
    try:
        return os.path.realpath(path)  # Path.resolve raises a RuntimeError on a loop
    except ValueError as error:  # a NUL
        raise SourceError(f"{str(path)!r} cannot be read: {error}") from error


def paths_of(pattern: str) -> Iterator[Path]:
    """Yield the files that a path or a glob names, those of a glob sorted.

    Raises:
        SourceError: a glob matches nothing, or cannot be followed.
    """
    if not glob.has_magic(pattern) or os.path.lexists(pattern):  # a file may be named like a glob
        yield Path(pattern)
        return
    _check_folders(pattern)
    matches = glob.iglob(pattern, recursive=True)  # noqa: PTH207 - takes absolute and relative patterns alike
    files = sorted(name for name in matches if not Path(name).is_dir())
    if not files:
        raise SourceError(f"{pattern} matches no file: check the folder and the pattern")
    yield from map(Path, files)


def _check_folders(pattern: str) -> None:
    """Check that each folder can be read in which a glob looks: `glob` passes over others, and their files with them.

    Raises:
        SourceError: one cannot be.
    """
    parts = Path(pattern).parts
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    for number in range(first, len(parts)):
        # `x/*/` names the folders in x, `x/**/` x and all folders below
        above = os.path.join(*parts[:number], "") if number else "./"  # noqa: PTH118 - a Path has no slash at its end
        deeper = [f"{above}**/"] if parts[number] == "**" else []
        for one in (above, *deeper):
            for folder in glob.iglob(one, recursive=True):  # noqa: PTH207 - takes absolute and relative patterns alike
                _check_folder(folder, parts[number])


def _check_folder(folder: str, part: str) -> None:
    """Check that a folder can be searched for what one part of a pattern names."""
    try:
        if glob.has_magic(part):
            with os.scandir(folder) as entries:
                part = next((entry.name for entry in entries), ".")
        os.lstat(os.path.join(folder, part))  # noqa: PTH118 - names may be listed that cannot be looked up
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise unreadable(folder, error) from error
