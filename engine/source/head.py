"""Judges the first bytes of a source: are they what the format says? `formats` asks, before a job begins.

A file that is something else as a whole is refused here, with the way to mend it; else it would become thousands of
rejects, or be sent as if it were data. One bad record among good ones is none of this module's business: it is a
reject. So each rule looks at several lines, or at what no file of the format can begin with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

from engine.model.errors import SourceError
from engine.model.record import Format, known_formats, loads
from engine.source.json_text import BLANKS, closed
from engine.source.splitter import BOM, SourceFile

HEAD_BYTES = 1 << 16
_LINES = 10
"""Lines that are looked at: if none of so many holds an object, the file is no NDJSON."""
_BYTE_ORDER_MARK = "\ufeff"
_DELIMITERS = ";\t|,"
_QUOTED = re.compile(rb'"(?:[^"]|"")*+"([;\t|,])')
_SHOWN = 40

_PARQUET = "Parquet"
_UNREADABLE = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xff\x06\x00\x00sNaPpY": "snappy",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"PK\x03\x04": "zip (Excel's .xlsx is one, too)",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel or Word file",
    b"PAR1\x15": _PARQUET,
    b"ORC\x0a": "ORC",
    b"ARROW1\x00": "Arrow",
    b"Obj\x01": "Avro",
    b"SQLite format 3\x00": "an SQLite database",
    b"%PDF-": "PDF",
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
"""First bytes → what such a file is; a longer mark stands before one that it begins with."""

_PATTERNS = {(0, 0, 0, 1): "UTF-32BE", (1, 0, 0, 0): "UTF-32LE", (0, 1): "UTF-16BE", (1, 0): "UTF-16LE"}
"""Which of the first bytes are NUL (0), where the text begins with an ASCII character and no byte order mark does."""

_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<!--")


def head_of(file: SourceFile) -> bytes:
    """Return the first bytes of a source.

    Raises:
        SourceError: it is compressed, binary, in another encoding, or a page.
    """
    head = file.read(file.source.base, min(file.source.size, HEAD_BYTES))
    path = file.source.shown
    for magic, name in _UNREADABLE.items():
        if head.startswith(magic):
            raise SourceError(
                f"{path} is {name}: "
                + (
                    "leave its format out, or say --format parquet"
                    if name == _PARQUET
                    else "convert it to NDJSON, JSON or CSV in UTF-8, or pipe that to submit -"
                )
            )
    _refuse_nul(head, path)
    text = head.removeprefix(BOM)
    if text.startswith(BOM):
        raise SourceError(f"{path} begins with two byte order marks: remove one (sed '1s/^\\xEF\\xBB\\xBF//')")
    if text.lstrip(BLANKS).lower().startswith(_PAGES):
        raise SourceError(
            f"{path} is HTML or XML, perhaps the page of a login or an error in place of the file: get the file again"
        )
    if len(head) == HEAD_BYTES and not text.strip(BLANKS):
        raise SourceError(f"{path} begins with {HEAD_BYTES // 1024} KiB of blanks: remove them, if records follow")
    return head


def _refuse_nul(head: bytes, path: str) -> None:
    """Refuse a text whose first line holds NUL bytes: UTF-8 has none there, UTF-16 and binary files do."""
    first = head[: len(b"\n\0\0\0")]
    for pattern, name in _PATTERNS.items():
        if len(first) >= len(pattern) and tuple(int(byte > 0) for byte in first[: len(pattern)]) == pattern:
            raise SourceError(f'{path} looks like {name}: say encoding = "{name.lower()}" under [source]')
    line = head.removeprefix(BOM).lstrip(BLANKS).partition(b"\n")[0]
    if b"\0" in line and len(line) < HEAD_BYTES:
        raise SourceError(
            f"{path} holds NUL bytes in its first line: it is no text, or a crash has left them there. Get the file "
            "again, or remove them (tr -d '\\000')"
        )


def guess(head: bytes, path: str, extension: str, delimiter: str) -> str:
    """Return the format that the content shows; a table is believed only if it seems to have two columns.

    Raises:
        SourceError: it shows none.
    """
    text = _text(head)
    if text[:1] == b"[":
        return Format.JSON
    if text[:1] == b"{":
        return Format.NDJSON
    if extension == ".json":
        return Format.JSON
    line = text.partition(b"\n")[0].rstrip(b"\r")
    if text and not any(letter.encode() in line for letter in _DELIMITERS + delimiter):
        raise SourceError(
            f"{path} begins with {_shown(line)}, and neither its name nor that says what it is: name its --format "
            f"({_either(known_formats())})"
        )
    return Format.CSV


def check_head(head: bytes, path: str, format_: str) -> None:
    """Check that a source begins as a file of its format does. A format of a package judges by itself.

    Raises:
        SourceError: it is something else; says what to do.
    """
    text = _text(head)
    if not text:
        return
    if format_ == Format.NDJSON:
        _check_ndjson(text, path, whole=len(head) < HEAD_BYTES)
    elif format_ == Format.JSON and text[:1] != b"[":
        raise SourceError(
            f"{path} begins with {_shown(text)} and not with [, so it is no JSON array; records on lines of their own "
            "are --format ndjson"
        )
    elif format_ == Format.JSON:
        _check_keys(text[1:].lstrip(BLANKS), path)
    elif format_ == Format.CSV:
        _check_csv(text, path)


def _text(head: bytes) -> bytes:
    return head.removeprefix(BOM).lstrip(BLANKS)


def _either(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def _shown(text: bytes) -> str:
    line = text[: 4 * _SHOWN].partition(b"\n")[0].decode(errors="replace").rstrip("\r")
    return repr(line if len(line) <= _SHOWN else line[:_SHOWN] + "…")


# NDJSON


def _check_ndjson(text: bytes, path: str, *, whole: bool) -> None:
    lines = [line for line in (line.strip(BLANKS) for line in text.split(b"\n")) if line][:_LINES]
    end = _first_object(text)
    objects = [line for line in lines if line.startswith(b"{")]
    if text.startswith(b"[") and (not objects or not _is_json(lines[0])):
        raise SourceError(
            f"{path} begins with [, so it is a JSON array and no NDJSON: read it with --format json, or put its "
            "records on a line each (jq -c '.[]')"
        )
    if not objects:
        raise SourceError(
            f"{path} begins with {_shown(text)} and not with an object a line, as NDJSON does: name its --format "
            f"({_either([name for name in known_formats() if name != Format.NDJSON])}), or convert it"
        )
    if text.startswith(b"{") and (b"\n" in text[:end] if end else _goes_on(text)):
        raise SourceError(
            f"{path} begins with one object over several lines: put its records on a line each (jq -c .; of an object "
            "that holds them in a list, jq -c '.records[]'), or in one array"
        )
    _check_ends(lines, path, whole=whole)
    _check_keys(text, path)


def _check_ends(lines: Sequence[bytes], path: str, *, whole: bool) -> None:
    """Refuse lines that each hold more than their object: a comma, or the next object."""
    judged = lines if len(lines) == 1 or not (whole and len(lines) < _LINES) else lines[:-1]  # the last may lack it
    if all(line.endswith(b",") and _is_json(line[:-1]) for line in judged):
        raise SourceError(
            f"{path} has a comma behind each line, so it is no NDJSON: remove them (sed 's/,[[:space:]]*$//'), or put "
            "[ before and ] behind all and read it with --format json"
        )
    if all(_holds_several(line) for line in judged):
        raise SourceError(f"{path} has several objects on one line: put each on a line of its own (jq -c .)")


def _holds_several(line: bytes) -> bool:
    end = _first_object(line)
    return bool(end) and line[end:].lstrip(BLANKS + b",").startswith(b"{")


def _goes_on(text: bytes) -> bool:
    """Return whether the first line breaks off as pretty-printed JSON does; the object's end is not in the head."""
    first, newline, _ = text.partition(b"\n")
    line = first.rstrip(BLANKS) if newline else b""
    return line.endswith((b"{", b"[", b",")) and not _is_json(line.rstrip(b","))


def _first_object(text: bytes) -> int:
    """Return where the object ends with which a text begins; 0 if there is none that is whole and JSON."""
    end = closed(text, 0) if text.startswith(b"{") else 0
    return end if end and _is_json(text[:end]) else 0


def _is_json(text: bytes) -> bool:
    try:
        loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _check_keys(text: bytes, path: str) -> None:
    end = _first_object(text)
    if end:
        _check_letters(list(loads(text[:end])), path, "the first record")


# CSV


def _check_csv(text: bytes, path: str) -> None:
    if text[:4].lower() == b"sep=":
        other = text[4:5].decode(errors="replace")
        raise SourceError(
            f"{path} begins with the line {_shown(text)}, which Excel writes: remove it"
            + (f", and say delimiter = {_toml(other)} under [source]" if other.strip("\r\n") not in {"", ","} else "")
        )
    line = text.partition(b"\n")[0].strip(BLANKS)
    if _first_object(text) or line in {b"{", b"["} or line.startswith((b'{"', b"[{", b"[[")):
        raise SourceError(
            f"{path} begins with {_shown(text)}, so it is JSON and no CSV: name it .json or .ndjson, or read it with "
            "--format json (one array) or --format ndjson (an object a line)"
        )


def check_columns(names: Sequence[str], delimiter: str, head: bytes, path: str) -> None:
    """Check that the header of a CSV file was cut at the delimiter that the file has.

    A name in quotes is taken as it is, so a column may be called `a;b`, unless each line below is parted alike.

    Raises:
        SourceError: it was not; says which delimiter the file seems to have.
    """
    if len(names) == 1:
        _check_one_column(names[0], delimiter, _text(head), path)
    _check_letters(names, path, "the header")


def _check_one_column(name: str, delimiter: str, text: bytes, path: str) -> None:
    below = [line.decode(errors="replace") for line in text.split(b"\n")[1:] if line.strip(BLANKS)][:_LINES]
    quoted = text.startswith(b'"')
    if name.startswith("#") and not quoted and below:
        parts = [one for one in delimiter + _DELIMITERS if one not in name and all(one in line for line in below)]
        if parts:
            raise SourceError(
                f"{path} begins with {_shown(text)}, which seems to be a comment, for the lines below have several "
                f"columns, parted by {parts[0]!r}: remove it (sed 1d); if it names one column, put it into quotes"
            )
    counts = {other: name.count(other) for other in _DELIMITERS if other != delimiter}
    other = max(counts, key=lambda one: counts[one])
    if not counts[other]:
        return
    begun = f"the header of {path} is one column, {_shown(name.encode(errors='replace'))}: if its columns are parted by"
    if not quoted:
        raise SourceError(f"{begun} {other!r}, {_cure(other, path)}; if it is one, put its name into quotes")
    if below and all(line.count(other) == counts[other] for line in below):
        raise SourceError(
            f"{begun} {other!r}, remove the quotes around each line (sed 's/^\"//; s/\"[[:space:]]*$//') and "
            f"{_cure(other, path)}; if it is one, give it a name without {other!r}"
        )


def delimiter_hint(text: bytes, delimiter: str, path: str) -> str:
    """Return what to do about a header that cannot be cut: what follows its first name, in quotes, tells most."""
    found = _QUOTED.match(_text(text))
    other = found[1].decode() if found else delimiter
    if other != delimiter:
        return f"If its columns are parted by {other!r}, {_cure(other, path)}"
    return f"Is source.delimiter, {delimiter!r}, the one that the file has?"


def _cure(delimiter: str, path: str) -> str:
    if delimiter == "," and path.lower().endswith(".tsv"):
        return "name it .csv"
    return f"say delimiter = {_toml(delimiter)} under [source]"


def _toml(letter: str) -> str:
    return '"\\t"' if letter == "\t" else f'"{letter}"'


def _check_letters(names: Sequence[str], path: str, where: str) -> None:
    for name in names:
        for letter, word in (("\0", "a NUL"), (_BYTE_ORDER_MARK, "a byte order mark (U+FEFF)")):
            if letter in name:
                raise SourceError(
                    f"{where} of {path} has {word} in the name {name!r}, which nobody sees: remove it from the file"
                )
