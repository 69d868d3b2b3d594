"""The input formats: which one a file has, and the splitter that each one brings.

To add an input format: write a module beside `ndjson.py` with a function `open_splitter(file, settings)` that returns a
`splitter.Splitter`, name the format in `engine.model.record.Format`, and the module in `FORMATS` and, if its files have
an extension of their own, in `EXTENSIONS`. A package of its own names such a module by an entry point of the group
`bulksubmit.formats`; the module itself has the `EXTENSIONS`, if there are any. Nothing else knows formats. A module of
ours is loaded when a source has its format, one of a package also to see whether it has the extension of a source.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.model.errors import SourceError
from engine.model.record import FORMAT_POINTS, Format, Source
from engine.model.settings import AUTO, SourceSettings
from engine.source.head import check_columns, check_head, guess, head_of
from engine.source.splitter import SourceFile, Splitter, WithHeader

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

FORMATS: dict[str, str] = {
    Format.NDJSON: "engine.source.ndjson",
    Format.JSON: "engine.source.json_array",
    Format.CSV: "engine.source.csv_rows",
    Format.PARQUET: "engine.source.ndjson",
}
"""Format → the module that knows it. Of Parquet it sees the copy that `parquet` has made."""

OUR_EXTENSIONS = {".ndjson": Format.NDJSON, ".jsonl": Format.NDJSON, ".csv": Format.CSV, ".tsv": Format.CSV}
"""`.json` is not among them: people give that name to arrays and to NDJSON, so its content decides."""


def splitter_for(source: Source, file: SourceFile, settings: SourceSettings) -> Splitter:
    """Return what cuts `source` into records.

    Raises:
        SourceError: its header cannot be used, or its format is not installed.
    """
    own = FORMATS.get(source.format)
    module = import_module(own) if own else _named(source)
    splitter: Splitter = module.open_splitter(file, settings)
    return splitter


def _named(source: Source) -> Any:
    """Return the module of a package's format. No other format is loaded, so a broken one stops nobody else."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow, and ours need no look at what is installed

    for point in entry_points(group=FORMAT_POINTS, name=source.format):
        return _loaded(point)
    raise SourceError(f"{source.shown} has the format {source.format!r}: install the package that brings it")


def _loaded(point: EntryPoint) -> Any:
    """Load the module of a format.

    Raises:
        SourceError: it cannot be loaded, for whatever reason.
    """
    try:
        module = point.load()
    except Exception as error:  # the code of a package that is not ours may raise anything
        said = f"{type(error).__name__}: {error}"
        raise SourceError(f"the format {point.name!r} is {point.value}, which cannot be loaded: {said}") from error
    if not hasattr(module, "open_splitter"):
        raise SourceError(f"the format {point.name!r} is {point.value}, which lacks open_splitter")
    return module


def detect(file: SourceFile, settings: SourceSettings) -> str:
    """Return the format of a source: as configured, else by extension, else by content; its head must fit the format.

    Raises:
        SourceError: it is no file of that format as a whole; says what to do.
    """
    path = file.source.shown
    head = head_of(file)
    extension = Path(file.source.path).suffix.lower()
    known = settings.format or OUR_EXTENSIONS.get(extension)
    if known is None:
        known, broken = _installed_for(extension)
        known = known or _told_by_content(head, path, extension, settings, broken)
    check_head(head, path, known)
    return known


def _told_by_content(head: bytes, path: str, extension: str, settings: SourceSettings, broken: str) -> str:
    """Return the format that the content of a file shows; `broken`: what is wrong with formats it might have as well.

    What begins as JSON is believed. A table is a guess: the file may be of the format that cannot be loaded, and its
    lines would go up as what they are not.
    """
    trouble = ""
    try:
        shown = guess(head, path, extension, "," if settings.delimiter == AUTO else settings.delimiter)
    except SourceError as error:
        shown, trouble = None, str(error)
    if shown is None or (shown == Format.CSV and broken):
        trouble = trouble or f"{path} may be csv, or of a format that cannot be loaded: name its --format"
        raise SourceError(f"{trouble}; {broken}" if broken else trouble)
    return shown


def columns_of(source: Source, file: SourceFile, settings: SourceSettings) -> Sequence[str] | None:
    """Return the columns that a header names, once it is read and judged; None if the format has no header.

    Raises:
        SourceError: the header cannot be used.
    """
    splitter = splitter_for(source, file, settings)
    if not isinstance(splitter, WithHeader):
        return None
    check_columns(splitter.columns, splitter.delimiter, head_of(file), source.shown)
    return splitter.columns


def _installed_for(extension: str) -> tuple[str | None, str]:
    """Return the format of a package whose files have an extension, None for `.json` and none; and what is broken.

    Which extensions a format has is known to its module alone, so each is loaded. One that cannot be loaded is passed
    over: another one may have the extension.
    """
    broken: list[str] = []
    if extension in {"", ".json"}:
        return None, ""
    from importlib.metadata import entry_points  # noqa: PLC0415 - as above

    for point in entry_points(group=FORMAT_POINTS):
        try:
            if extension in getattr(_loaded(point), "EXTENSIONS", ()):
                return point.name, ""
        except SourceError as error:
            broken.append(str(error))
    return None, "; ".join(broken)
