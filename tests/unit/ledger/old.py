"""A ledger that an older version left in the midst of two jobs, put where a test wants it.

`presigned`, open and read to its end, in batches of two records:

    0  SETTLED    records 0 to 2: one created, one rejected, one failed
    1  UNCERTAIN  it was released, and then the service did not know its name any more
    2  RELEASED   nothing of it was created yet
    3  RELEASING  `continue` went out and was carried out; the process ended before the answer came
    4  FROZEN
    5  FROZEN

`inline`, open and read to its end, in batches of two records, each with a mark:

    0  SETTLED    both created
    1  UNCERTAIN  the POST was carried out and its answer lost; no name, to be searched for by its mark
    2  SETTLED    both created

Its times begin at BEGAN, long ago. No reports were written.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import apsw

VERSION_2 = Path(__file__).with_name("version_2.sql")
BEGAN = 1_700_000_000
"""Unix seconds."""
URL = "http://127.0.0.1:8800/v2"
"""Base URL of both jobs where a test names none; the access key is asked of SAMA_ACCESS_KEY."""

PRESIGNED = "presigned"
INLINE = "inline"
SOURCES = {
    PRESIGNED: [
        '{"data":{"id":"0"}}',
        "no json",
        '{"data":{"id":"2","status":"broken"}}',
        *(f'{{"data":{{"id":"{number}"}}}}' for number in range(3, 13)),
    ],
    INLINE: [f'{{"data":{{"id":"{number}"}}}}' for number in range(100, 106)],
}
"""Lines of each job's source, which is named after it."""
REMOTE_IDS = {
    (PRESIGNED, 0): "878561001",
    (PRESIGNED, 1): "878561002",
    (PRESIGNED, 2): "878561003",
    (PRESIGNED, 3): "878561004",
    (INLINE, 0): "878561005",
    (INLINE, 2): "878561007",
}
"""(job, sequence) → the batch's name at the service."""
INLINE_MARK = "inline-1965ad532f450e06-1"
"""`client_batch_id` of the tasks of the inline batch that is uncertain."""

_CLOCK_NS = (BEGAN - 1) * 1_000_000_000
"""When both sources were written, as the ledger has it."""


def write_old_ledger(folder: Path, *, url: str = URL, remote_ids: Mapping[tuple[str, int], str] | None = None) -> Path:
    """Write the sources and the ledger into `folder`; return the ledger's path.

    A server that is to go on with the jobs has `url` as its base, and its own names for the batches: `remote_ids` takes
    the place of those in REMOTE_IDS, all or some.
    """
    for job, lines in SOURCES.items():
        source = folder / f"{job}.ndjson"
        source.write_text("".join(f"{line}\n" for line in lines))
        os.utime(source, ns=(_CLOCK_NS, _CLOCK_NS))
    path = folder / "ledger.db"
    connection = apsw.Connection(str(path))
    connection.execute(VERSION_2.read_text().replace("{folder}", str(folder)).replace("{url}", url))
    for (job, sequence), remote_id in (remote_ids or {}).items():
        connection.execute(
            "UPDATE batches SET remote_id = ? WHERE job = (SELECT id FROM jobs WHERE name = ?) AND sequence = ?",
            (remote_id, job, sequence),
        )
    connection.close()
    return path
