"""Takes the named sources in: files as they are, or as copies of ours.

What is packed, elsewhere, Parquet, not UTF-8, standard input, or records that a program gives becomes a copy.

`submit` and `validate` call it before there is a job, so whatever is wrong is known before anything is sent. From then
on a copy is a file like any other, and goes with its job. `nightly` only looks first, which copies nothing.
The module is a long one: how each kind of source becomes a file stands beside what is left where that breaks off.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import cast

import anyio.to_thread
import orjson
from msgspec import Struct, field
from msgspec.structs import replace

from engine.commands import wiring
from engine.files import make_private_folder, private, refuse_foreign, regular
from engine.http.certificates import load_aiohttp
from engine.http.remote import RemoteFile, download
from engine.ledger.files import hold
from engine.model.errors import BulkSubmitError, JobLocked, SourceChanged, SourceError, SourceUnreachable
from engine.model.job import Job
from engine.model.record import Format, Source
from engine.model.settings import SourceSettings
from engine.progress.events import Listener, unheard
from engine.progress.redaction import redactor
from engine.run.context import Stop, unless_stopped
from engine.source.given import NAME, Records, Sources, blocks_of_records, names_of
from engine.source.packed import inner_suffix, named_packed
from engine.source.sources import NOTHING_NAMED, Copied, describe, find_sources, paths_of, real_path, regular_file
from engine.source.spool import (
    Original,
    blocks_of_file,
    blocks_of_stream,
    is_parquet,
    is_text_to_decode,
    packing_at,
    spool,
    spool_rows,
)

STANDARD_INPUT = "-"
_STREAM = "standard-input"
"""The copy of standard input, in the job's output folder; others are called after their place among the sources."""
_RECORDS = "given-records"
"""The same of records that a program gives."""
_DOWNLOAD = ".download"
_ORIGINAL = ".original"
"""A copy that turned out to be Parquet, while its rows are written."""
_COPYING = "spooled.json"
"""Says which sources are being copied for a job that there is not yet."""
SPOOLED = re.compile(
    rf"(?:{_STREAM}|{_RECORDS}|spooled-\d+(?:\.[a-z0-9_-]+)?)(?:\.part)?|spooled-\d+\.download(?:\.note(?:\.part)?)?|spooled\.json"
)
"""Names of the files that are made here."""
_DOWNLOADS = re.compile(r"spooled-\d+\.download(?:\.note)?|spooled\.json")
"""Those that the next attempt goes on with."""
_ROWS = ".rows"
_FETCHING = "spooled.lock"
"""Of the worker of this machine that fetches."""
_LOOK_SECONDS = 0.5
"""Between two looks whether it has ended."""
_UNPACKED, _CONVERTED, _DECODED = "unpacked", "converted", "decoded"
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")


class _NamedSource(Struct, frozen=True):
    """One source as it was named, found but not copied."""

    path: Path | None = None
    """Of a file on this machine."""
    remote: RemoteFile | None = field(default=None)
    becomes: str = ""
    """What is done with a file on this machine, as people are told; "" if it can be read where it is."""

    @property
    def is_plain(self) -> bool:
        """It can be read where it is."""
        return self.path is not None and not self.becomes


async def take_in(
    given: Sources, settings: SourceSettings, folder: Path, emit: Listener, stop: Stop
) -> tuple[Source, ...]:
    """Return sources laid end to end, once each of them can be read again and again. Copies are in `folder`.

    Raises:
        SourceError: one cannot be read. Copies are removed.
        SourceUnreachable: one cannot be fetched just now. What has come of it stays.
        BulkSubmitError: `stop` says so, likewise.
    """
    named = names_of(given)
    if named is None:
        return await _records_taken_in(cast("Records", given), settings, folder, emit, stop)
    try:
        found = await anyio.to_thread.run_sync(_find, named, settings)
        if all(one.is_plain for one in found):
            return await anyio.to_thread.run_sync(find_sources, named, settings)
        for one in found:  # whatever is wrong with a file is better known before others are copied
            if one.is_plain and one.path is not None:
                await anyio.to_thread.run_sync(describe, one.path, settings)
        sources = await unless_stopped(stop, partial(_copied, named, found, settings, folder, emit))
        if stop.error is not None:
            # Whoever wrote to us may have been interrupted, too: an end of input now is no proof that this is all.
            remove_copies(sources or (), folder)
            raise stop.error
    except BulkSubmitError as error:
        again = isinstance(error, SourceUnreachable) or error is stop.error
        _clean_up(folder, keep_downloads=again)
        raise
    except OSError as error:
        raise SourceError(
            f"the sources could not be copied to {folder} ({error.strerror or error}): make room, or name another "
            "folder with --output"
        ) from error
    assert sources is not None  # noqa: S101 - only a stop leaves them out
    return sources


async def _records_taken_in(
    records: Records, settings: SourceSettings, folder: Path, emit: Listener, stop: Stop
) -> tuple[Source, ...]:
    path, settings = folder / _RECORDS, replace(settings, format=Format.NDJSON)

    async def copied() -> None:
        async with aclosing(blocks_of_records(records)) as blocks:
            await spool(blocks, path, Original(NAME, converted=True), settings, emit)

    await unless_stopped(stop, copied)
    if stop.error is not None:
        path.unlink(missing_ok=True)
        raise stop.error
    return (await anyio.to_thread.run_sync(describe, path, settings),)


async def copied_here(job: Job, settings: SourceSettings, folder: Path, emit: Listener) -> Job:
    """Return a job with copies of our own of its sources elsewhere, where another machine has made those that it names.

    What this machine can read where the job says is left as it is.

    Raises:
        SourceChanged: what is there now is not what the job has frozen.
        SourceError: it cannot be read.
        SourceUnreachable: it cannot be fetched just now.
    """
    sources: list[Source] = []
    for source in job.sources:
        if not is_elsewhere(source.name) or await anyio.to_thread.run_sync(os.path.exists, source.path):
            sources.append(source)
            continue
        await anyio.to_thread.run_sync(make_private_folder, folder)
        async with _in_turn(folder, job):
            copy = await _copied_before(source, folder) or await _copy(
                _NamedSource(remote=_remote(source.name, settings)), source.number, settings, folder, emit
            )
            after = sources[-1] if sources else None
            found = await anyio.to_thread.run_sync(partial(describe, copy.path, settings, after, copied=copy.of))
            if (found.size, found.version) != (source.size, source.version):
                copy.path.unlink()
                raise SourceChanged(f"{source.name} is not what job {job.name!r} has read: put it back as it was")
        sources.append(replace(found, format=source.format))
    return replace(job, sources=tuple(sources))


@asynccontextmanager
async def _in_turn(folder: Path, job: Job) -> AsyncIterator[None]:
    """Wait until no other worker of this machine fetches sources of a job, which go into one folder."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(hold(folder / _FETCHING, f"the sources of job {job.name!r}"))
                break
            except JobLocked:
                await wiring.CLOCK.sleep(_LOOK_SECONDS)
        yield


async def _copied_before(source: Source, folder: Path) -> _Copy | None:
    """Return the copy that another worker of this machine has made, if it is there."""
    path = folder / Path(source.path).name
    there = await anyio.to_thread.run_sync(lambda: path.is_file() and path.stat().st_size == source.size)
    return _Copy(path, Copied(source.name, source.version, source.row_groups or None)) if there else None


async def as_file(name: str, settings: SourceSettings, folder: Path) -> tuple[Path, Copied]:
    """Return the file in which one source can be read, and what that is a copy of, for who only looks at its beginning.

    A copy is in `folder`.

    Raises:
        SourceError: it cannot be read, or `name` names several.
        SourceUnreachable: it cannot be fetched just now.
    """
    found = await anyio.to_thread.run_sync(_find, [name], settings)
    if len(found) > 1:
        raise SourceError(f"{name} names several files: name one of them")
    if found[0].is_plain and found[0].path is not None:
        return found[0].path, Copied()
    copy = await _copy(found[0], 0, settings, folder, unheard)
    return copy.path, copy.of


async def look(named: Sequence[str], settings: SourceSettings) -> Sequence[Source]:
    """Return the named sources as they are now, without a copy: what would be one has a name, a version and no size.

    Raises:
        SourceError: one cannot be read.
    """
    found = await anyio.to_thread.run_sync(_find, named, settings)
    sources: list[Source] = []
    for one in found:
        if one.is_plain and one.path is not None:
            after = sources[-1] if sources else None
            sources.append(await anyio.to_thread.run_sync(describe, one.path, settings, after))
        else:
            base, version = sources[-1].end if sources else 0, await _version(one)
            sources.append(Source(len(sources), "", "", 0, 0, base, name=_name(one), version=version))
    return sources


def is_elsewhere(name: str) -> bool:
    """Return whether a source is named by a URL."""
    return bool(_URL.match(name)) and not os.path.lexists(name)


def remove_copies(sources: Sequence[Source], folder: Path) -> None:
    """Remove what was copied to a folder for a job that there will not be."""
    ours = {str(folder / _STREAM), str(folder / _RECORDS)}
    for path in (Path(source.path) for source in sources if source.name or source.path in ours):
        path.unlink(missing_ok=True)


def _clean_up(folder: Path, *, keep_downloads: bool) -> None:
    """Remove what a copying that was broken off has left; `keep_downloads`: so that the next attempt goes on."""
    if not is_left_off(folder):
        return
    for path in folder.iterdir():
        if SPOOLED.fullmatch(path.name) and not (keep_downloads and _DOWNLOADS.fullmatch(path.name)):
            with suppress(OSError):  # somebody else's: refused
                refuse_foreign(path)
                path.unlink()
    if not any(_DOWNLOAD in path.name for path in folder.glob("spooled-*")):  # nothing to go on with
        (folder / _COPYING).unlink(missing_ok=True)


def left_off(named: Sequence[str], beside: Path) -> str:
    """Return the name of a job that there is not, since the copying of just these sources was broken off; else "".

    `beside`: the folder in which jobs have theirs. So the next one cleans up, and goes on with what was fetched.
    """
    shown = _shown(named)
    for path in sorted(beside.glob(f"*/{_COPYING}"), reverse=True):  # the newest first, by the time in its name
        with suppress(OSError, ValueError), open(path, "rb", opener=regular) as file:
            if orjson.loads(file.read()) == shown:
                return path.parent.name
    return ""


def is_left_off(folder: Path) -> bool:
    """Return whether sources were being copied to a folder when that was broken off."""
    return (folder / _COPYING).exists()


def _shown(named: Sequence[str]) -> list[str]:
    hide = redactor({})
    return [hide(name) for name in named]


# Finding


def _find(named: Sequence[str], settings: SourceSettings) -> Sequence[_NamedSource]:
    found: dict[str, _NamedSource] = {}
    for name in named:
        if name == STANDARD_INPUT:
            found.setdefault(name, _NamedSource())
        elif is_elsewhere(name):
            found.setdefault(name, _NamedSource(remote=_remote(name, settings)))
        else:
            for path in paths_of(name):
                found.setdefault(real_path(path), _found(path, settings))
    if not found:
        raise SourceError(NOTHING_NAMED)
    return list(found.values())


def _found(path: Path, settings: SourceSettings) -> _NamedSource:
    regular_file(path)
    return _NamedSource(path=path, becomes=_becomes(path, path.name, settings))


def _becomes(path: Path, name: str, settings: SourceSettings) -> str:
    """Return what is done with a file on this machine; `name`: of what it is."""
    if packing_at(path) is not None or named_packed(name):
        return _UNPACKED
    if _is_to_convert(path, settings):
        return _CONVERTED
    return _DECODED if is_text_to_decode(path, settings) else ""


def _is_to_convert(path: Path, settings: SourceSettings) -> bool:
    return settings.format == Format.PARQUET or (settings.format is None and is_parquet(path))


def _remote(name: str, settings: SourceSettings) -> RemoteFile:
    scheme = _URL.match(name)
    kind = scheme["scheme"].lower() if scheme else ""
    if kind == "s3":
        from engine.http.s3_file import S3File  # noqa: PLC0415 - only where one is named, and so below

        return S3File(name, settings.plain_http_hosts)
    if kind in {"http", "https"}:
        load_aiohttp()
        from engine.http.web_file import WebFile  # noqa: PLC0415 - aiohttp

        return WebFile(name, settings.plain_http_hosts)
    raise SourceError(f"{redactor({})(name)}: {kind}:// is not read. Name a file, https://host/path or s3://bucket/key")


def _name(one: _NamedSource) -> str:
    return one.remote.name if one.remote else str(one.path.absolute()) if one.path else _STREAM


async def _version(one: _NamedSource) -> str:
    if one.remote is not None:
        return await one.remote.version()
    status = regular_file(one.path) if one.path is not None else None
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}" if status else ""


# Copying


class _Copy(Struct, frozen=True):
    path: Path
    of: Copied = Copied()


async def _copied(
    named: Sequence[str], found: Sequence[_NamedSource], settings: SourceSettings, folder: Path, emit: Listener
) -> tuple[Source, ...]:
    _clean_up(folder, keep_downloads=True)  # of an attempt that was killed
    copying = folder / _COPYING
    await anyio.to_thread.run_sync(_write, copying, orjson.dumps(_shown(named)))
    copies: dict[int, _Copy] = {}
    for number, one in enumerate(found):
        if not one.is_plain:
            copies[number] = await _copy(one, number, settings, folder, emit)
    sources = await anyio.to_thread.run_sync(_described, found, copies, settings)
    copying.unlink(missing_ok=True)  # from here on the copies are the caller's
    return sources


async def _copy(one: _NamedSource, number: int, settings: SourceSettings, folder: Path, emit: Listener) -> _Copy:
    if one.remote is not None:
        return await _fetched(one.remote, number, settings, folder, emit)
    if one.path is None:
        path, name = folder / _STREAM, "standard input"
        await spool(blocks_of_stream(sys.stdin.buffer, name), path, Original(name), settings, emit)
        return await _rows_of(_Copy(path), number, settings, emit)
    name, version = _name(one), await _version(one)
    if one.becomes == _CONVERTED:
        path = folder / f"spooled-{number}{_ROWS}"
        copy = _Copy(path, Copied(name, version, await spool_rows(one.path, path, name, settings, emit)))
    else:
        path = folder / f"spooled-{number}{inner_suffix(name)}"
        await _spooled(one.path, path, name, one.becomes, settings, emit)
        copy = await _rows_of(_Copy(path, Copied(name, version)), number, settings, emit)
    if version != await _version(one):
        raise SourceError(f"{name} was written while it was {one.becomes}: run the command again once it is whole")
    return copy


async def _rows_of(copy: _Copy, number: int, settings: SourceSettings, emit: Listener) -> _Copy:
    """Return a copy; of one that is Parquet, with its rows in its place."""
    if not await anyio.to_thread.run_sync(_is_to_convert, copy.path, settings):
        return copy
    original = copy.path.with_name(f"spooled-{number}{_ORIGINAL}")
    copy.path.replace(original)
    groups = await spool_rows(original, copy.path, copy.of.name or "standard input", settings, emit)
    original.unlink()
    return replace(copy, of=replace(copy.of, row_groups=groups))


async def _fetched(remote: RemoteFile, number: int, settings: SourceSettings, folder: Path, emit: Listener) -> _Copy:
    fetched = folder / f"spooled-{number}{_DOWNLOAD}"
    path = folder / f"spooled-{number}{inner_suffix(remote.file_name)}"
    version = await download(remote, fetched, wiring.CLOCK.sleep, emit)
    becomes = await anyio.to_thread.run_sync(_becomes, fetched, remote.file_name, settings)
    if becomes in {_UNPACKED, _DECODED}:
        await _spooled(fetched, path, remote.name, becomes, settings, emit)
        fetched.unlink()
    else:
        fetched.replace(path)
    copy = await _rows_of(_Copy(path, Copied(remote.name, version)), number, settings, emit)
    fetched.with_name(f"{fetched.name}.note").unlink(missing_ok=True)
    return copy


async def _spooled(source: Path, path: Path, name: str, becomes: str, settings: SourceSettings, emit: Listener) -> None:
    original = Original(name, (await anyio.to_thread.run_sync(source.stat)).st_size, becomes)
    await spool(blocks_of_file(source, name), path, original, settings, emit)


def _write(path: Path, text: bytes) -> None:
    path.unlink(missing_ok=True)
    with open(path, "xb", opener=private) as file:
        file.write(text)


def _described(found: Sequence[_NamedSource], copies: dict[int, _Copy], settings: SourceSettings) -> tuple[Source, ...]:
    sources: list[Source] = []
    for number, one in enumerate(found):
        copy, after = copies.get(number), sources[-1] if sources else None
        if copy is not None:
            sources.append(describe(copy.path, settings, after, copied=copy.of))
        elif one.path is not None:
            sources.append(describe(one.path, settings, after))
    return tuple(sources)
