"""Text for people: numbers in words, nothing that steers a terminal, and nothing that looks like a secret.

Displays, log, screens and messages use it. Redaction here is the last net: `http.secrets` removes exactly the
credentials that a call has. A text that comes here may be from anywhere, a traceback of a library, too, so it is judged
by its looks: the query of a URL (presigned URLs carry their signature there), what is assigned to the name of a
credential, and the values of environment variables that are named like one. And by its values: a secret may come from a
file, or a variable of any name.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote, quote_plus

_SIZES = ("B", "KB", "MB", "GB", "TB", "PB")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_LONG_SECONDS = 10
"""From here on tenths of a second are not shown."""

HIDDEN = "***"
SHORTEST_SECRET = 6
"""A shorter value would also be found where it is none: `API_KEY=test`."""
_NAMES = r"[\w-]*(?:access[_-]?key|api[_-]?key|auth[_-]?token|access[_-]?token|secret|password|signature)"
_SECRET_NAME = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)", re.IGNORECASE)
_URL_QUERY = re.compile(r"(?P<kept>https?://[^\s?#'\"<>]*\?)[^\s'\"<>]+", re.IGNORECASE)
_URL_USER = re.compile(r"(?P<kept>https?://)[^\s/@'\"<>]+(?=@)", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?P<kept>\b{_NAMES}(?:\s*=\s*['\"]?|['\"]\s*:\s*['\"]))[^\s'\",;&}}{{)(]+", re.IGNORECASE)
"""Not `access_key: …` without quotes: that is how a message about the key begins."""
_HEADER = re.compile(
    r"(?P<kept>\b(?:authorization|[\w-]*auth-token|x-api-key)['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic)\s+)?)[^\s'\",;]+",
    re.IGNORECASE,
)

_remembered: set[str] = set()
"""Forms of the secrets that a configuration has named. The process's own, as its environment is."""


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


def waiting_line(batches: int, seconds: float, names: str) -> str:
    """Return what is said of batches that the service has accepted and does not begin with."""
    wait = duration(seconds)
    return f"{count(batches, 'batch')} accepted, and not begun by the service for {wait}: {names}; followed on"


def remember_secret(secret: str) -> None:
    """Hide `secret` from now on, in every form that `forms` knows."""
    _remembered.update(forms(secret))


def forms(secret: str) -> frozenset[str]:
    """Return the forms in which `secret` may be echoed; none if it is so short that it is found by chance."""
    if len(secret) < SHORTEST_SECRET:
        return frozenset()
    percent = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    return frozenset({secret, json.dumps(secret)[1:-1], html.escape(secret), *percent, *base64_forms(secret)})


def base64_forms(secret: str) -> Iterator[str]:
    """Yield the letters by which `secret` is known within base64, in each of the three places where it may begin."""
    content = secret.encode("utf-8", "surrogatepass")
    for before in range(3):
        known = slice(-(-before * 8 // 6), (before + len(content)) * 8 // 6)  # letters that nothing else has a part in
        yield base64.b64encode(bytes(before) + content).decode()[known]
        yield base64.urlsafe_b64encode(bytes(before) + content).decode()[known]


def redactor(environment: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that hides what looks like a secret; `environment` is where secrets are usually kept."""
    values = frozenset(
        {value for name, value in environment.items() if _SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET}
    )

    def redact(text: str) -> str:
        # A secret that holds another one goes first.
        for value in sorted(_remembered.union(values), key=len, reverse=True):
            text = text.replace(value, HIDDEN)
        for pattern in (_URL_QUERY, _URL_USER, _ASSIGNED, _HEADER):
            text = pattern.sub(rf"\g<kept>{HIDDEN}", text)
        return text

    return redact
