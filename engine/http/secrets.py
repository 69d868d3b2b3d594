"""Secrets in, header and query parameters out; and any text in, the same text without the secrets out.

A secret is matched as the characters it is made of, each plain or escaped in any mix (percent-encoding, doubled or not,
JSON, HTML), or within base64: servers echo what they were sent in all of these forms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import SecretStr
from yarl import URL

from engine.model.errors import ConfigError
from engine.progress.text import SHORTEST_SECRET, base64_forms, forms

MASK = "***"

_SIGNED = re.compile(
    r"(?i)([?&;\s\"']|^)([\w.\-]*(?:signature|credential|token|secret|access_?key(?:id)?|api_?key|sig))=[^\s&\"'<>]+"
)
"""Query parameters that are secrets whatever their value: those of presigned URLs at S3, GCS (`X-Goog-Signature`) and
Azure (`sig`), and how vendors call their keys."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What proves to a service who we are. Never shown: neither by `repr` nor in a text that went through `redact`."""

    headers: Mapping[str, SecretStr] = field(default_factory=dict)
    query: Mapping[str, SecretStr] = field(default_factory=dict)
    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)
    _forms: Sequence[bytes] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        for name, secret in [*self.headers.items(), *self.query.items()]:
            _check(name, secret.get_secret_value())
        secrets = [secret.get_secret_value() for secret in [*self.headers.values(), *self.query.values()]]
        object.__setattr__(self, "_pattern", _pattern(_parts(secrets)))
        written = {form.encode("utf-8", "surrogatepass") for part in _parts(secrets) for form in forms(part)}
        object.__setattr__(self, "_forms", sorted(written, key=len, reverse=True))

    def header_values(self) -> dict[str, str]:
        """Return the headers to send, in the clear."""
        return {name: secret.get_secret_value() for name, secret in self.headers.items()}

    def query_values(self) -> dict[str, str]:
        """Return the query parameters to send, in the clear."""
        return {name: secret.get_secret_value() for name, secret in self.query.items()}

    def hide(self, body: bytes) -> bytes:
        """Return what a service says without the secrets: it may end in an error, a ledger or a report.

        At the speed of memory, since whole pages of tasks pass; presigned URLs stay, for they are to be called.
        """
        for form in self._forms:
            body = body.replace(form, MASK.encode())
        return body

    def redact(self, text: str) -> str:
        """Return `text` without the secrets, and without what looks like one in a query string."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return _SIGNED.sub(rf"\1\2={MASK}", text)


def hiding_query(url: str, redact: Callable[[str], str]) -> Callable[[str], str]:
    """Return `redact`, made to hide the values in the query of `url`, too: S3 tells a signature without its name."""
    values = {value for value in URL(url, encoded=True).query.values() if len(value) >= SHORTEST_SECRET}
    pattern = _pattern(sorted(values, key=len, reverse=True))
    return (lambda text: redact(pattern.sub(MASK, text))) if pattern else redact


def _check(name: str, secret: str) -> None:
    # aiohttp would refuse them as well, but only at the first call, and it would show the value.
    if not secret or not secret.isprintable() or secret != secret.strip():
        raise ConfigError(
            f"the secret for {name!r} is empty, begins or ends with a space, or holds a control character. "
            "Check the variable or file that it comes from (a newline at the end?)"
        )


def _parts(secrets: Iterable[str]) -> list[str]:
    """Return the secrets and, of a header like `Bearer xyz`, the part behind the scheme; longest first."""
    parts = {part for secret in secrets for part in (secret, secret.rpartition(" ")[2])}
    return sorted(parts, key=len, reverse=True)


def _pattern(secrets: list[str]) -> re.Pattern[str] | None:
    if not secrets:
        return None
    encoded = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in base64_forms(secret)}
    return re.compile("|".join([*("".join(map(_forms, secret)) for secret in secrets), *map(re.escape, encoded)]))


_HTML_NAMES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}


def _forms(character: str) -> str:
    """Return a pattern for one character, plain or escaped."""
    octets, units = character.encode("utf-8", "surrogatepass"), character.encode("utf-16-be", "surrogatepass").hex()
    point = ord(character)
    forms = [
        re.escape(character),
        "".join(f"%(?:25)*(?i:{octet:02x})" for octet in octets),  # %41, %2541 (encoded twice), …
        "".join(rf"\\u(?i:{units[start : start + 4]})" for start in range(0, len(units), 4)),
        rf"&#0*{point};",
        rf"&#[xX]0*(?i:{point:x});",
    ]
    if character in '"\\/':
        forms.append(rf"\\{re.escape(character)}")
    if character in _HTML_NAMES:
        forms.append(_HTML_NAMES[character])
    if character == " ":
        forms.append(r"\+")
    return f"(?:{'|'.join(forms)})"
