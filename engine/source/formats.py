"""The input formats: which one a file has, and the splitter that each one brings.

To add an input format: write a module beside `ndjson.py` with a function `open_splitter(file, settings)` that returns a
`splitter.Splitter`, name the format in `engine.model.record.Format`, and the module in `FORMATS` and, if its files have
an extension of their own, in `EXTENSIONS`. A package of its own names such a module by an entry point of the group
`bulksubmit.formats`; the module itself has the `EXTENSIONS`. Nothing else knows formats. A module is loaded when a
source has its format.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from engine.model.errors import SourceError
from engine.model.record import FORMAT_POINTS, Format, Source
from engine.model.settings import SourceSettings
from engine.source.head import check_columns, check_head, guess, head_of
from engine.source.splitter import SourceFile, Splitter, WithHeader

FORMATS: dict[str, str] = {
    Format.NDJSON: "engine.source.ndjson",
    Format.JSON: "engine.source.json_array",
    Format.CSV: "engine.source.csv_rows",
}
"""Format → the module that knows it."""

EXTENSIONS = {".ndjson": Format.NDJSON, ".jsonl": Format.NDJSON, ".csv": Format.CSV, ".tsv": Format.CSV}
"""`.json` is not among them: people give that name to arrays and to NDJSON, so its content decides."""


def open_splitter(source: Source, file: SourceFile, settings: SourceSettings) -> Splitter:
    """Return what cuts `source` into records.

    Raises:
        SourceError: its header cannot be used, or its format is not installed.
    """
    own = FORMATS.get(source.format)
    module = import_module(own) if own else _installed().get(source.format)
    if module is None:
        raise SourceError(f"{source.path} has the format {source.format!r}: install the package that brings it")
    splitter: Splitter = module.open_splitter(file, settings)
    return splitter


def _installed() -> dict[str, Any]:
    """Return the formats of packages: name → module.

    Raises:
        SourceError: one of them cannot be loaded.
    """
    modules = {}
    for point in entry_points(group=FORMAT_POINTS):
        try:
            modules[point.name] = point.load()
        except (ImportError, AttributeError) as error:
            raise SourceError(f"the format {point.name!r} is {point.value}, which cannot be loaded: {error}") from error
    return modules


def detect(file: SourceFile, settings: SourceSettings) -> str:
    """Return the format of a source: as configured, else by extension, else by content; its head must fit the format.

    Raises:
        SourceError: it is no file of that format as a whole; says what to do.
    """
    path = file.source.path
    head = head_of(file)
    extension = Path(path).suffix.lower()
    known = settings.format or EXTENSIONS.get(extension) or _installed_for(extension)
    known = known or guess(head, path, extension, settings.delimiter)
    check_head(head, path, known)
    return known


def columns_of(source: Source, file: SourceFile, settings: SourceSettings) -> Sequence[str] | None:
    """Return the columns that a header names, once it is read and judged; None if the format has no header.

    Raises:
        SourceError: the header cannot be used.
    """
    splitter = open_splitter(source, file, settings)
    if not isinstance(splitter, WithHeader):
        return None
    check_columns(splitter.columns, splitter.delimiter, head_of(file), source.path)
    return splitter.columns


def _installed_for(extension: str) -> str | None:
    """Return the format of a package whose files have an extension; None if there is none, as for `.json` and none."""
    if extension in {"", ".json"}:
        return None
    return next((name for name, module in _installed().items() if extension in module.EXTENSIONS), None)
