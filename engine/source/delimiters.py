"""Finds what parts the columns of a CSV file: the delimiter by which its first rows fit its header. Pure.

`csv_rows` asks where `delimiter = "auto"`, and `init`, which proposes the best one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice

from msgspec import Struct

from engine.model.errors import SourceError
from engine.source.splitter import BOM

SAMPLE_BYTES = 1 << 16
DELIMITERS = (",", ";", "\t", "|")
_ROWS = 200


class Fit(Struct, frozen=True):
    """How well a delimiter fits."""

    delimiter: str
    columns: int
    """That the header has by it."""
    share: float
    """Of the rows below which have as many, in tenths."""


def fits_of(sample: bytes) -> Sequence[Fit]:
    """Return the delimiters by which the first row of `sample` has two columns or more, the best first."""
    lines = sample.removeprefix(BOM).decode(errors="replace").splitlines(keepends=True)
    if len(lines) > 1 and len(sample) >= SAMPLE_BYTES:
        lines.pop()  # it may be cut
    found = (fit for fit in (_fit(lines, delimiter) for delimiter in DELIMITERS) if fit is not None)
    return sorted(found, key=lambda fit: (fit.share, fit.columns), reverse=True)


def find_delimiter(sample: bytes, path: str) -> str:
    """Return the delimiter of a CSV file whose first bytes are `sample`; a comma if it has one column.

    Raises:
        SourceError: its rows fit the header by two of them equally well.
    """
    best = fits_of(sample)
    if not best:
        return ","
    alike = [fit for fit in best if fit.share == best[0].share]
    if len(alike) > 1:
        said = " and ".join(f"{fit.delimiter!r} ({fit.columns} columns)" for fit in alike)
        raise SourceError(
            f"the rows of {path} fit its header equally well by {said}: say which one it is, for example "
            f"delimiter = {_toml(best[0].delimiter)} under [source]"
        )
    return best[0].delimiter


def _fit(lines: Sequence[str], delimiter: str) -> Fit | None:
    lengths = list(islice(_lengths(lines, delimiter), _ROWS + 1))
    if not lengths or lengths[0] < 2:  # noqa: PLR2004 - one column is what each delimiter finds that is not there
        return None
    header, *rows = lengths
    return Fit(delimiter, header, round(rows.count(header) / len(rows), 1) if rows else 1.0)


def _lengths(lines: Sequence[str], delimiter: str) -> Iterator[int]:
    """Yield how many values each row has, blank lines left out; 0 for one that is no CSV by this delimiter."""
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            if str(error) == "unexpected end of data":  # within quotes, at the end of the sample
                return
            yield 0
            continue
        if row is None:
            return
        if row:
            yield len(row)


def _toml(letter: str) -> str:
    return '"\\t"' if letter == "\t" else f'"{letter}"'
