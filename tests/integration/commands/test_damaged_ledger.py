"""A value of the ledger is spoilt: each operation ends as an error of ours, or goes on, and never with a traceback."""

import os
import shutil

import apsw
import pytest

import engine
from engine.model.errors import BulkSubmitError

from .desk import tasks

SPOILT = {"TEXT": ["garbage", "{", "[1]"], "INTEGER": [-1, 2**62], "REAL": [-1e300], "BLOB": [b"", b"Igarbage"]}
if os.environ.get("BULKSUBMIT_TORTURE") != "1":
    SPOILT = {kind: values[-1:] for kind, values in SPOILT.items()}
TABLES = ["jobs", "sources", "batches", "spans", "settlements", "rejects"]
OPERATIONS = {
    "status": lambda desk: engine.status("j", desk.ledger),
    "report": lambda desk: engine.report("j", desk.ledger),
    "audit": lambda desk: engine.audit("j", desk.ledger),
    "record": lambda desk: engine.find_record("j", 12, desk.ledger),
    "resume": lambda desk: engine.resume("j", desk.ledger),
    "retry": lambda desk: engine.retry("j", desk.ledger),
}


def values(ledger, table):
    """Yield each column of a table with each value that spoils it."""
    connection = apsw.Connection(str(ledger))
    columns = [(name, kind) for _, name, kind, *_ in connection.execute(f"PRAGMA table_info({table})")]
    connection.close()
    yield from ((name, value) for name, kind in columns for value in SPOILT[kind])


def spoil(ledger, table, column, value):
    connection = apsw.Connection(str(ledger))
    try:
        connection.execute(f"UPDATE {table} SET {column} = ?", [value])  # noqa: S608 - our own names
    except apsw.ConstraintError:  # a value that several rows may not have
        return False
    finally:
        connection.close()
    return True


@pytest.mark.parametrize("table", TABLES)
async def test_a_spoilt_value_ends_in_an_error_of_ours(desk, table, monkeypatch):
    desk = await desk()
    monkeypatch.chdir(desk.folder)  # the folder of the reports may be spoilt, too
    await desk.submit(desk.source([*tasks(25), {"no": "task"}]))
    whole = desk.ledger.read_bytes()
    bad = []
    for column, value in list(values(desk.ledger, table)):
        for name, operation in OPERATIONS.items():
            desk.ledger.write_bytes(whole)
            shutil.rmtree(desk.ledger.parent / "j.retry", ignore_errors=True)
            if spoil(desk.ledger, table, column, value):
                try:
                    await operation(desk)
                except BulkSubmitError:
                    pass
                except Exception as error:  # noqa: BLE001 - that is what is looked for
                    bad.append(f"{name} of {table}.{column} = {value!r}: {type(error).__name__}: {error}")
    assert bad == []
