"""Secrets in, header and query parameters out; and what a service says in, the same without the secrets out.

`caller` holds them. How secrets are found in a text says `progress.redaction`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from yarl import URL

from engine.model.errors import ConfigError
from engine.model.settings import SecretStr
from engine.progress.redaction import HIDDEN, Redact, forms, redacting

_HIDDEN = HIDDEN.encode()


class Credentials:
    """What proves to a service who we are. Never shown: neither by `repr` nor in a text that went through `redact`."""

    def __init__(self, headers: Mapping[str, SecretStr] = {}, query: Mapping[str, SecretStr] = {}) -> None:
        self.headers, self.query = _sent(headers), _sent(query)
        """Names and values to send, in the clear."""
        parts = _parts([*self.headers.values(), *self.query.values()])
        self.redact = redacting(parts)
        """Returns a text without the secrets, and without what looks like one."""
        written = {form.encode("utf-8", "surrogatepass") for part in parts for form in forms(part)}
        self._forms = sorted(written, key=len, reverse=True)

    def hide(self, body: bytes) -> bytes:
        """Return what a service says without the secrets: it may end in an error, a ledger or a report.

        At the speed of memory, since whole pages of tasks pass; presigned URLs stay, for they are to be called.
        """
        for form in self._forms:
            body = body.replace(form, _HIDDEN)
        return body

    def hiding_query(self, url: str) -> Redact:
        """Return `redact`, made to hide the values in the query of `url`: S3 tells a signature without its name."""
        hide = redacting((), URL(url, encoded=True).query.values())
        return lambda text: hide(self.redact(text))


def _sent(secrets: Mapping[str, SecretStr]) -> Mapping[str, str]:
    values = {name: secret.get_secret_value() for name, secret in secrets.items()}
    for name, value in values.items():
        # aiohttp would refuse them as well, but only at the first call, and it would show the value.
        if not value or not value.isprintable() or value != value.strip():
            raise ConfigError(
                f"the secret for {name!r} is empty, begins or ends with a space, or holds a control character. "
                "Check the variable or file that it comes from (a newline at the end?)"
            )
    return values


def _parts(secrets: Iterable[str]) -> list[str]:
    """Return the secrets and, of a header like `Bearer xyz`, the part behind the scheme; longest first."""
    parts = {part for secret in secrets for part in (secret, secret.rpartition(" ")[2])}
    return sorted(parts, key=len, reverse=True)
