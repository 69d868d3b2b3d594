"""A ledger with rows in every table: values of each type that a column may hold, nulls where it may be null."""

import apsw

from engine.ledger.address import open_writer
from engine.ledger.database import STEPS
from engine.ledger.statements import COPIED_TABLES

ROWS = 3


def _values(column, kind, number):
    return {
        "INTEGER": number,
        "REAL": number + 0.1,
        "TEXT": f"{column} {number} é 🔑 \ue000 \0",
        "BLOB": bytes([number, *range(256)]),
    }[kind]


def fill(address, jobs=ROWS):
    """Put as many rows into every table; those of one number belong together."""
    schema = apsw.Connection(":memory:")
    for step in STEPS:
        schema.execute(step)
    writer = open_writer(address)

    def put():
        for table in COPIED_TABLES:
            for number in range(1, jobs + 1):
                row = {}
                for _, column, kind, not_null, _, key in schema.execute(f"PRAGMA table_info({table})"):
                    is_null = number % 2 == 0 and not not_null and not key
                    row[column] = None if is_null else _values(column, kind, number)
                if table == "jobs":
                    row |= {"name": f"job-{number}", "state": "finished", "family": "f"}
                writer.change(f"put_{table}", [row])
        writer.fetch("number_next_job")

    writer.transaction(put)
    writer.close()
