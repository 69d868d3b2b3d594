"""What a store is to the rest of a ledger: connections that run the statements of queries.sql by their names.

database.py has those to SQLite, postgres_connection.py those to PostgreSQL. One thread at a time uses a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from engine.model.errors import BulkSubmitError, JobError

T = TypeVar("T")

Bindings: TypeAlias = Mapping[str, Any] | Sequence[Any]
"""What a statement wants to know, by name, or in the order in which the statement names it first."""
NAMES_SHOWN = 10
"""Jobs, or faults, that one message names: what fits on a few lines."""


class Connection(Protocol):
    """Runs the statements of a ledger.

    Raises:
        LedgerError: the ledger cannot be read, where the connection only reads. One that writes raises the store's own
            errors, which the writer has to tell apart.
    """

    def fetch(self, query: str, bindings: Bindings = ()) -> list[tuple[Any, ...]]:
        """Return all rows that a statement yields."""

    def stream(self, query: str, bindings: Bindings = ()) -> Generator[tuple[Any, ...], None, None]:
        """Yield its rows one by one; memory does not grow with their number. Close it if it is not read to its end."""

    def change(self, query: str, rows: Sequence[Bindings]) -> int:
        """Run it once for each of some bindings; return how many rows it changed in all."""

    def close(self) -> None:
        """Let go of the store."""


class WritingConnection(Connection, Protocol):
    """Writes in transactions."""

    def told(self, error: Exception) -> BulkSubmitError:
        """Return what to tell of an error: what happened and what to do. One of our own tells enough itself."""

    def transaction(self, work: Callable[[], None]) -> None:
        """Do `work`, and make what it writes durable, all or nothing. It may be done again if the store was lost.

        Raises:
            Exception: what `work` raises, or why it is not durable.
        """

    def attempt(self, work: Callable[[], T]) -> T:
        """Do a part of a transaction: if it is refused, only that is taken back.

        Raises:
            Exception: what `work` raises; the transaction can go on if `is_refusal` says so.
        """

    def is_refusal(self, error: Exception) -> bool:
        """Return whether an error concerns only the part that raised it."""

    def is_passing(self, error: Exception) -> bool:
        """Return whether what failed a transaction says nothing of the next one."""


def job_id(connection: Connection, name: str) -> int:
    """Return the short name of a job in the other tables.

    Raises:
        JobError: there is none of that name.
    """
    found = connection.fetch("job_id", {"name": name})
    if not found:
        raise JobError(f"there is no job {name!r}; {_existing(connection)}")
    return int(found[0][0])


def _existing(connection: Connection) -> str:
    names = [name for (name,) in connection.fetch("recent_names", {"limit": NAMES_SHOWN + 1})]
    if not names:
        return "there are no jobs yet. `bulksubmit submit` makes one."
    more = ", …" if len(names) > NAMES_SHOWN else ""
    return f"there are: {', '.join(names[:NAMES_SHOWN])}{more}. `bulksubmit status` lists them all."
