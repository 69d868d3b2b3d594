"""Secrets in, header and query parameters out; and what a service says in, the same without the secrets out.

`caller` holds them. How secrets are found in a text says `progress.redaction`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from yarl import URL

from engine.model.errors import ConfigError
from engine.model.settings import SecretStr
from engine.progress.redaction import HIDDEN, Redact, forms, redacting

_HIDDEN = HIDDEN.encode()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What proves to a service who we are. Never shown: neither by `repr` nor in a text that went through `redact`."""

    headers: Mapping[str, SecretStr] = field(default_factory=dict)
    query: Mapping[str, SecretStr] = field(default_factory=dict)
    redact: Redact = field(init=False, repr=False, compare=False)
    """Returns a text without the secrets, and without what looks like one."""
    _forms: Sequence[bytes] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        for name, secret in [*self.headers.items(), *self.query.items()]:
            _check(name, secret.get_secret_value())
        secrets = [secret.get_secret_value() for secret in [*self.headers.values(), *self.query.values()]]
        object.__setattr__(self, "redact", redacting(_parts(secrets)))
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
            body = body.replace(form, _HIDDEN)
        return body

    def hiding_query(self, url: str) -> Redact:
        """Return `redact`, made to hide the values in the query of `url`: S3 tells a signature without its name."""
        hide = redacting((), URL(url, encoded=True).query.values())
        return lambda text: hide(self.redact(text))


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
