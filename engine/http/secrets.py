"""Secrets in, header and query parameters out; and what a service says in, the same without the secrets out.

`caller` holds them. How secrets are found in a text says `progress.redaction`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import BinaryIO

from yarl import URL

from engine.model.errors import ConfigError
from engine.model.settings import SecretStr
from engine.progress.redaction import HIDDEN, Redact, forms, redacting

_HIDDEN = HIDDEN.encode()


class Credentials:
    """What proves to a service who we are. Never shown: neither by `repr` nor in a text that went through `redact`."""

    def __init__(
        self,
        headers: Mapping[str, SecretStr] = {},
        query: Mapping[str, SecretStr] = {},
        others: Iterable[SecretStr] = (),
    ) -> None:
        """Take what is sent, and `others`, which are only hidden."""
        self.headers, self.query = _sent(headers), _sent(query)
        """Names and values to send, in the clear."""
        sent = _parts([*self.headers.values(), *self.query.values()])
        hidden = {other.get_secret_value() for other in others} - {""}
        parts = sorted(hidden.union(sent), key=len, reverse=True)  # one that holds another one goes first
        self.redact = redacting(parts)
        """Returns a text without the secrets, and without what looks like one."""
        written = {form.encode("utf-8", "surrogatepass") for part in parts for form in forms(part)}
        self.forms = sorted(written, key=len, reverse=True)
        """In which a service may repeat them; longest first."""

    def __repr__(self) -> str:
        """Return nothing of them."""
        return "Credentials()"

    def hide(self, body: bytes) -> bytes:
        """Return what a service says without the secrets: it may end in an error, a ledger or a report.

        At the speed of memory, since whole pages of tasks pass; presigned URLs stay, for they are to be called.
        """
        for form in self.forms:
            body = body.replace(form, _HIDDEN)
        return body

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """Of the forms; needed only where one of them was found."""
        return re.compile(b"|".join(map(re.escape, self.forms)))

    def hiding_query(self, url: str) -> Redact:
        """Return `redact`, made to hide the values in the query of `url`: S3 tells a signature without its name."""
        hide = redacting((), URL(url, encoded=True).query.values())
        return lambda text: hide(self.redact(text))


class HidingFile:
    """What a service says on its way into a file, without the secrets, also where one stands across two pieces.

    What may be the beginning of a secret is held back until the next piece shows whether it is one.
    """

    def __init__(self, file: BinaryIO, credentials: Credentials) -> None:
        self._file, self._credentials = file, credentials
        self._held = b""
        self._most_held = max(map(len, credentials.forms), default=1) - 1

    def begin(self) -> None:
        """Empty the file: each attempt begins anew. Raises: OSError."""
        self._held = b""
        self._file.seek(0)
        self._file.truncate()

    def write(self, piece: bytes) -> None:
        """Write the next piece, or what may be written of it. Raises: OSError."""
        known = self._held + piece if self._held else piece
        # A secret that begins before this place lies wholly in what is known; one that begins behind it may not.
        certain = max(0, len(known) - self._most_held)
        if any(form in known for form in self._credentials.forms):
            clean, certain = self._cleaned(known, certain)
            self._file.write(clean)
        else:
            self._file.write(memoryview(known)[:certain])
        self._held = known[certain:]

    def end(self) -> None:
        """Write what is left. Raises: OSError."""
        self._file.write(self._credentials.hide(self._held))
        self._file.flush()
        self._held = b""

    def whole(self, body: bytes) -> None:
        """Write a body that is here already. Raises: OSError."""
        self.begin()
        self.write(body)
        self.end()

    def _cleaned(self, known: bytes, certain: int) -> tuple[bytes, int]:
        """Return what may be written, without the secrets in it, and where in `known` it ends."""
        pieces, end = [], 0
        for found in self._credentials.pattern.finditer(known):
            if found.start() >= certain:
                break
            pieces += [known[end : found.start()], _HIDDEN]
            end = found.end()
        pieces.append(known[end:certain])
        return b"".join(pieces), max(end, certain)


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


def _parts(secrets: Iterable[str]) -> set[str]:
    """Return the secrets and, of a header like `Bearer xyz`, the part behind the scheme."""
    return {part for secret in secrets for part in (secret, secret.rpartition(" ")[2])}
