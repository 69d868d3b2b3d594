"""When work may be done, in the words of people: clock times, durations and shares in, moments and numbers out.

`model.settings` reads `[window]` and `[limits]` by it, and `run.bounds` ends runs by it. A clock time means the first
moment of its day at which the clocks of its zone show it: one that comes twice, when clocks are set back, counts the
first time; one that never comes, when they are set forward, is the moment at which they are.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_LONGEST_SEARCH_DAYS = 4
"""A window opens each day, but for the night in which the clocks jump over all of it."""


def clock_time(text: str) -> time:
    """Return a time of the day, as in `05:30`. Raises: ValueError."""
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no time of the day; write it as 22:00")
    return time(int(found[1]), int(found[2]))


def duration_seconds(text: str) -> int:
    """Return the seconds of a duration, as in `2h30m`. Raises: ValueError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or not any(map(int, found.groups("0"))):
        raise ValueError(f"{text!r} is no duration; write it as 2h30m, 90m or 1d")
    days, hours, minutes, seconds = map(int, found.groups("0"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def zone_of(name: str) -> ZoneInfo | None:
    """Return a time zone by its IANA name; where there is no name, None: this machine's. Raises: ValueError."""
    if not name:
        return None
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - most configurations name no zone

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:  # KeyError: what zoneinfo says of a name that it does not find
        raise ValueError(
            f"this machine knows no time zone {name!r}; names are those of IANA, as Europe/Berlin. A small system may "
            "lack all of them: `pip install tzdata` brings them"
        ) from error


def moment(day: date, clock: time, zone: ZoneInfo | None) -> float:
    """Return the first Unix second of a day at which the clocks show a time, or have jumped over it."""
    first, second = (datetime.combine(day, clock, zone).replace(fold=fold).timestamp() for fold in (0, 1))
    if first <= second:  # the usual day, or a time that comes twice
        return first
    shown, low, high = datetime.combine(day, clock), int(second), int(first)
    while low < high:  # the clocks jump somewhere between the two
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).replace(tzinfo=None) < shown:
            low = middle + 1
        else:
            high = middle
    return float(low)


def day_of(now: float, zone: ZoneInfo | None) -> date:
    """Return the day on which a moment is."""
    return datetime.fromtimestamp(now, zone).date()


def deadline_at(text: str, now: float, zone: ZoneInfo | None) -> float:
    """Return a deadline: a moment, the next such time of the day, or so long from now. Raises: ValueError."""
    if "T" in text:
        return datetime.fromisoformat(text).timestamp()
    if ":" not in text:
        return now + duration_seconds(text)
    clock, today = clock_time(text), day_of(now, zone)
    return next(at for days in range(3) if (at := moment(today + timedelta(days), clock, zone)) > now)


def most_failed(text: str) -> tuple[float, bool]:
    """Return how many records may fail, and whether it is a share of all. Raises: ValueError."""
    share = _SHARE.fullmatch(text.strip())
    if share and float(share[1]) <= 100:  # noqa: PLR2004 - per cent
        return float(share[1]) / 100, True
    if text.strip().isascii() and text.strip().isdigit():
        return int(text), False
    raise ValueError(f"{text!r} is neither a share nor a number of records; write it as 1% or 500")


class Opening(Struct, frozen=True):
    """One night's window."""

    day: date
    """On which it opens."""
    opens: float
    """Unix seconds, as the next one."""
    closes: float


class DailyWindow(Struct, frozen=True):
    """Two clock times between which work may be done, each day."""

    opens: time
    closes: time
    zone: ZoneInfo | None
    """That of this machine where there is none."""

    def at(self, now: float) -> Opening:
        """Return the opening that a moment is in, or else the next one."""
        today = day_of(now, self.zone)
        days = (today + timedelta(days) for days in range(-1, _LONGEST_SEARCH_DAYS))
        return next(one for one in map(self._of, days) if now < one.closes > one.opens)

    def _of(self, day: date) -> Opening:
        last = day if self.opens < self.closes else day + timedelta(1)
        return Opening(day, moment(day, self.opens, self.zone), moment(last, self.closes, self.zone))


def said_moment(at: float, zone: ZoneInfo | None) -> str:
    """Return a moment for people, with the zone in which it is said."""
    local = datetime.fromtimestamp(at, zone)
    if zone is None:
        local = local.astimezone()
    return f"{local:%Y-%m-%d %H:%M} {zone.key if zone else local.tzname()}"
