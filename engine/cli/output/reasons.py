"""The beginning of `rejects.ndjson` in, the most common reasons with their counts out.

Only the beginning is read, so that the last screen of a hundred million rejects comes as quickly as that of ten.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

READ_BYTES = 4_000_000
"""Some thousand rejects, parsed in about ten milliseconds."""
MOST_REASONS = 5
_PARTICULARS = re.compile(r"\d+")
"""What differs between two records that failed for the same reason: positions, sizes, ids."""


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why records were not created."""

    top: Sequence[tuple[int, str]]
    """(records, reason), most frequent first; reasons that differ in numbers only are one, told by its first."""
    seen: int
    """Rejects that were looked at: the first so many."""
    whole: bool
    """They are all."""


NO_REASONS = Reasons([], 0, whole=True)


def common_reasons(rejects: Path | None, read_bytes: int = READ_BYTES) -> Reasons:
    """Return the most common reasons of a rejects file; none if there is no such file."""
    try:
        with (rejects or Path("/nonexistent")).open("rb") as file:
            lines = file.read(read_bytes).split(b"\n")
            whole = not file.read(1)
    except OSError:
        return NO_REASONS
    if not whole:
        lines.pop()  # the last one is cut
    groups: dict[str, tuple[int, str]] = {}
    for line in lines:
        if line:
            reason = str(orjson.loads(line).get("error") or "no reason given")
            key = _PARTICULARS.sub("0", reason)
            number, first = groups.get(key, (0, reason))
            groups[key] = (number + 1, first)
    top = sorted(groups.values(), key=lambda group: -group[0])[:MOST_REASONS]
    return Reasons(top, sum(number for number, _ in groups.values()), whole)
