"""Text in, the same text without what looks like a secret out: the last net below those that redact by value.

Whoever makes a call knows its credentials and removes exactly those (`http.secrets`). What passes by here may
come from anywhere, a library's traceback included, so it is judged by its looks: the query of a URL (presigned URLs
carry their signature there), what is assigned to the name of a credential, and the values of environment variables that
are named like one. And by its value: a secret may come from a file, or a variable of any name.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote, quote_plus

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


def remember_secret(secret: str) -> None:
    """Hide `secret` from now on, in every form that `forms` knows."""
    _remembered.update(forms(secret))


def forms(secret: str) -> frozenset[str]:
    """Return how `secret` may be written by whoever echoes it; nothing of one so short that it is found by chance."""
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
