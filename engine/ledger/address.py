"""Where a ledger is: a file, or a database of PostgreSQL by its URL. Whoever has the address opens it anew to read it.

A URL holds no password: it stands in messages, in configurations and in the list of processes. PostgreSQL has ways of
its own to give it: PGPASSWORD, PGPASSFILE, ~/.pgpass (https://www.postgresql.org/docs/current/libpq-envars.html).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from engine.model.errors import ConfigError

if TYPE_CHECKING:
    from engine.ledger.connection import Connection, WritingConnection

SCHEMES = ("postgresql://", "postgres://")
_URL_LIKE = r"(?i)(?:postgres(?:ql)?:|[a-z][a-z0-9+.-]*://)"
"""What would be a strange path, and is a mistake in a URL; compiled for a path with a colon, as few have."""
_USUAL_PORT = ":5432"
_UNFIT = r"[^\w.-]+"
"""For the name of a folder."""


class PostgresAddress(Struct, frozen=True):
    """A database of PostgreSQL."""

    url: str
    """As libpq reads it, without a password."""

    def __str__(self) -> str:
        return self.url

    @property
    def folder_name(self) -> str:
        """A name for a folder of what belongs to it: its first host and the database, as far as the URL tells."""
        parts = urlsplit(self.url)
        said = dict(parse_qsl(parts.query))
        host = (parts.netloc.rpartition("@")[2] or said.get("host", "")).partition(",")[0]
        words = [
            unquote(host).removesuffix(_USUAL_PORT),
            unquote(parts.path) or said.get("dbname", ""),
            said.get("port"),
        ]
        return (
            "-".join(word for one in words if one and (word := re.sub(_UNFIT, "-", one, flags=re.ASCII).strip("-.")))
            or parts.scheme
        )


LedgerAddress: TypeAlias = Path | PostgresAddress


def address_of(named: Path | str | PostgresAddress) -> LedgerAddress:
    """Return where a ledger is that was named so.

    Raises:
        ConfigError: it is a URL with a password, one of another kind, or none that can be read.
    """
    if isinstance(named, PostgresAddress):
        return named
    if not str(named).startswith(SCHEMES):
        if isinstance(named, str) and ":" in named and (mistaken := re.match(_URL_LIKE, named)):
            raise ConfigError(
                f"ledger: {mistaken[0]}… is neither a file nor a database of PostgreSQL; a file is named by its path, "
                "a database as postgresql://user@host/database"
            )
        return Path(named)
    try:
        parts = urlsplit(str(named))
        password = parts.password is not None or any(key.endswith("password") for key, _ in parse_qsl(parts.query))
    except ValueError:
        raise ConfigError("ledger: this is no URL that can be read: postgresql://user@host/database") from None
    if password:
        raise ConfigError(
            "ledger: a password in the URL is seen by everybody who lists the processes; leave it out, and give it by "
            "PGPASSWORD, or in a file that PGPASSFILE names"
        )
    return PostgresAddress(str(named))


def require_postgres() -> None:
    """Check that what a ledger in PostgreSQL takes is installed: it is an extra.

    Raises:
        ConfigError: it is not.
    """
    try:
        import psycopg  # noqa: F401, PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            f"ledger: a ledger in PostgreSQL takes psycopg ({error}); pip install 'bulksubmit[postgres]'"
        ) from error


def open_reader(address: LedgerAddress) -> Connection:
    """Open a ledger that is there, to read beside whoever writes.

    Raises:
        LedgerError: it cannot be read.
        ConfigError: what it takes is not installed.
    """
    if isinstance(address, PostgresAddress):
        require_postgres()
        from engine.ledger.postgres_connection import open_reader as open_postgres  # noqa: PLC0415 - an extra

        return open_postgres(address)
    from engine.ledger import database  # noqa: PLC0415 - one of the two is needed

    return database.open_reader(address)


def open_writer(address: LedgerAddress) -> WritingConnection:
    """Open a ledger to write to it alone; it is made where there is none.

    Raises:
        LedgerError: it cannot be used, or was written by a newer bulksubmit.
        ConfigError: what it takes is not installed.
    """
    if isinstance(address, PostgresAddress):
        require_postgres()
        from engine.ledger.postgres_connection import open_writer as open_postgres  # noqa: PLC0415 - an extra

        return open_postgres(address)
    from engine.ledger import database  # noqa: PLC0415 - one of the two is needed

    _, writer, reader = database.open_connections(address, busy_seconds=0, vfs=None)
    reader.close()
    return writer
