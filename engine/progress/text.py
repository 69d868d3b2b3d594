"""Text for people: numbers in words, and nothing that steers a terminal. Displays, log, screens and messages use it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it needs msgspec, and --help needs neither
    from engine.model.shard import Worker

_SIZES = ("B", "KB", "MB", "GB", "TB", "PB")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_LONG_SECONDS = 10
"""From here on tenths of a second are not shown."""


def place_words(place: str) -> str:
    """Return what people may call the place where tasks go: a path as it stands, anything else is a project's name."""
    return place if place.startswith("/") else f"project {place}"


def count(number: int, noun: str = "") -> str:
    """Return `1,204` or, with a noun, `1,204 records`, `2 batches`, `1 retry`."""
    if not noun:
        return f"{number:,}"
    if number != 1:
        noun = noun[:-1] + "ies" if noun.endswith("ry") else noun + ("es" if noun.endswith("ch") else "s")
    return f"{number:,} {noun}"


def size(size_bytes: float) -> str:
    """Return bytes in decimal units, as rates and vendors' limits are given: `3.4 MB`."""
    unit = 0
    while size_bytes >= 999.5 and unit < len(_SIZES) - 1:  # noqa: PLR2004 - what rounds to 1000 of a unit is 1 of the next
        size_bytes /= 1000
        unit += 1
    return f"{size_bytes:.0f} {_SIZES[unit]}" if unit == 0 else f"{size_bytes:.3g} {_SIZES[unit]}"


def duration(seconds: float) -> str:
    """Return `0.4 s`, `41 s`, `3 min 20 s`, `5 h 02 min` or `2 d 3 h`."""
    if seconds < _LONG_SECONDS:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def missed_words(worker: Worker) -> str:
    """Return when a worker that is missed was heard of last, and from when on others may have its shards."""
    left = worker.lease_seconds or 0.0
    when = f"in {duration(left)}" if left > 0 else "now"
    return f"last heard of {duration(worker.silent_seconds)} ago; its shards are free {when}"


def clock_time(seconds: float) -> str:
    """Return `00:01:32`, for where widths must not change."""
    whole = int(seconds)
    return f"{whole // _HOUR:02}:{whole % _HOUR // _MINUTE:02}:{whole % _MINUTE:02}"


def share(part: float, whole: float) -> str:
    """Return `62 %`; never 100 % before the end."""
    if whole <= 0:
        return "100 %"
    return f"{min(int(100 * part / whole), 100)} %"


def rate(per_second: float) -> str:
    """Return a number per second: three digits where it is small, none after the point where it is large."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"  # noqa: PLR2004 - three digits


def printable(text: str) -> str:
    r"""Return text of foreign origin on one line; what could steer a terminal is shown as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def unsteered_json(text: str) -> str:
    r"""Return the same JSON, in which what could steer a terminal or break a line is written as `\u202e`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def waiting_line(batches: int, seconds: float, names: str) -> str:
    """Return what is said of batches that the service has accepted and does not begin with."""
    wait = duration(seconds)
    return f"{count(batches, 'batch')} accepted, and not begun by the service for {wait}: {names}; followed on"
