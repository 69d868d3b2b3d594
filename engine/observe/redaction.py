"""Text in, the same text without what looks like a secret out: the last net below those that redact by value.

Whoever makes a call knows its credentials and removes exactly those (`transport.credentials`). What passes by here may
come from anywhere, a library's traceback included, so it is judged by its looks: the query of a URL (presigned URLs
carry their signature there), what is assigned to the name of a credential, and the values of environment variables that
are named like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

HIDDEN = "***"
_SHORTEST_SECRET = 6
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


def redactor(environment: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that hides what looks like a secret; `environment` is where secrets are usually kept."""
    values = sorted(
        {value for name, value in environment.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET},
        key=len,
        reverse=True,  # a secret that holds another one goes first
    )

    def redact(text: str) -> str:
        for value in values:
            text = text.replace(value, HIDDEN)
        for pattern in (_URL_QUERY, _URL_USER, _ASSIGNED, _HEADER):
            text = pattern.sub(rf"\g<kept>{HIDDEN}", text)
        return text

    return redact
