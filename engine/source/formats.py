"""The input formats: which one a file has, and the splitter that each one brings.

To add an input format: write a module beside `ndjson.py` with a function `open_splitter(file, settings)` that returns a
`splitter.Splitter`, name the format in `engine.model.record.Format`, and the module in `FORMATS` and, if its files have
an extension of their own, in `EXTENSIONS`. Nothing else knows formats. A module is loaded when a source has its format.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from engine.model.errors import SourceError
from engine.model.record import Format, Source
from engine.model.settings import SourceSettings
from engine.source.json_text import BLANKS
from engine.source.splitter import BOM, SourceFile, Splitter

FORMATS = {
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
        SourceError: its header cannot be used.
    """
    splitter: Splitter = import_module(FORMATS[source.format]).open_splitter(file, settings)
    return splitter


def detect(file: SourceFile, settings: SourceSettings) -> Format:
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
    known = settings.format or EXTENSIONS.get(extension)
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
