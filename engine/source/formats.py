"""The input formats: which one a file has, and the splitter that each one brings.

To add an input format: write a module beside `ndjson.py` with a function `open_splitter(file, settings)` that returns a
`splitter.Splitter`, name the format in `engine.model.record.Format`, and the module in `FORMATS` and, if its files have
an extension of their own, in `EXTENSIONS`. A package of its own names such a module by an entry point of the group
`bulksubmit.formats`; the module itself has the `EXTENSIONS`. Nothing else knows formats. A module is loaded when a
source has its format.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from engine.model.errors import SourceError
from engine.model.record import FORMAT_POINTS, Format, Source
from engine.model.settings import SourceSettings
from engine.source.json_text import BLANKS
from engine.source.splitter import BOM, SourceFile, Splitter

FORMATS: dict[str, str] = {
    Format.NDJSON: "engine.source.ndjson",
    Format.JSON: "engine.source.json_array",
    Format.CSV: "engine.source.csv_rows",
}
"""Format → the module that knows it."""

EXTENSIONS = {".ndjson": Format.NDJSON, ".jsonl": Format.NDJSON, ".csv": Format.CSV, ".tsv": Format.CSV}
"""`.json` is not among them: people give that name to arrays and to NDJSON, so its content decides."""

UNREADABLE = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"PAR1\x15": "Parquet",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""First bytes → what such a file is. People pipe and rename, so the content is asked and not the name."""

_HEAD_BYTES = 1 << 16


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
    """Return the format of a source: as configured, else by extension, else by content.

    Raises:
        SourceError: the file is compressed or binary, or holds one object over many lines.
    """
    path = file.source.path
    head = file.read(file.source.base, min(file.source.size, _HEAD_BYTES))
    for magic, name in UNREADABLE.items():
        if head.startswith(magic):
            raise SourceError(f"{path} is {name}: convert it to NDJSON, JSON or CSV in UTF-8, or pipe that to submit -")
    extension = Path(path).suffix.lower()
    known = settings.format or EXTENSIONS.get(extension) or _installed_for(extension)
    if known is not None:
        return known
    text = head.removeprefix(BOM).lstrip(BLANKS)
    if text[:1] == b"[":
        return Format.JSON
    if text[:1] != b"{":
        return Format.JSON if extension == ".json" else Format.CSV
    if text.partition(b"\n")[0].strip(BLANKS) == b"{":  # pretty-printed: as NDJSON each of its lines would be a reject
        raise SourceError(
            f"{path} begins with one object over several lines: put its records on a line each (jq -c '.records[]'), "
            "or in one array"
        )
    return Format.NDJSON


def _installed_for(extension: str) -> str | None:
    """Return the format of a package whose files have an extension; None if there is none, as for `.json` and none."""
    if extension in {"", ".json"}:
        return None
    return next((name for name, module in _installed().items() if extension in module.EXTENSIONS), None)
