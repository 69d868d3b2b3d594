"""The names of jobs for the completion of a shell: fast, read only, and never an error. It loads little but SQLite."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import apsw

MOST_JOB_NAMES = 200
"""Longer lists help nobody, and a shell would ask whether to show them."""
_BUSY_MS = 50
_NEWEST = (
    "SELECT name FROM jobs WHERE substr(name, 1, length(:prefix)) = :prefix AND state != 'removed' "
    "ORDER BY id DESC LIMIT :most"
)


def job_names(ledger: Path, prefix: str = "") -> list[str]:
    """Return the newest jobs whose names begin with `prefix`, newest first; none where the ledger cannot be read.

    Nothing is made: neither a ledger, nor the files that SQLite keeps beside one while it is open.
    """
    try:
        wal = Path(f"{ledger}-wal")
        # Without a WAL nothing is missing in the file itself, and nobody need be kept from it.
        whole = "" if wal.exists() and wal.stat().st_size else "&immutable=1"
        address = f"file:{quote(str(ledger.resolve()))}?mode=ro{whole}"
        with closing(apsw.Connection(address, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)) as connection:
            connection.set_busy_timeout(_BUSY_MS)
            found = connection.execute(_NEWEST, {"prefix": prefix, "most": MOST_JOB_NAMES}).fetchall()
    except (apsw.Error, OSError, ValueError):
        return []
    return [str(name) for (name,) in found]
