"""A ledger copied row by row: all of it, exactly, or nothing."""

from contextlib import closing

import pytest

from engine.ledger import copying
from engine.ledger.address import open_reader
from engine.ledger.copying import copy_rows
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.statements import COPIED_TABLES
from engine.model.errors import LedgerError

from .full import ROWS, fill
from .values import a_job, frozen

NOTHING = {table: [] for table in COPIED_TABLES}
NAMES = [f"job-{number}" for number in range(1, ROWS + 1)]


def rows_of(address):
    with closing(open_reader(address)) as reader:
        return {table: sorted(reader.fetch(f"read_{table}"), key=str) for table in COPIED_TABLES}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.db"
    fill(path)
    return path


@pytest.fixture
def to(tmp_path):
    return tmp_path / "to.db"


def test_every_row_of_every_table_is_there_as_it_was(source, to):
    copied = copy_rows(source, to, NAMES)
    assert rows_of(to) == rows_of(source)
    assert {table: held.rows for table, held in copied.items()} == dict.fromkeys(COPIED_TABLES, ROWS)
    assert copy_rows(to, to.with_name("third.db"), NAMES) == copied


@pytest.mark.parametrize("chunk", [("_CHUNK_ROWS", 2), ("_CHUNK_BYTES", 300)])
def test_rows_go_over_in_chunks(monkeypatch, source, to, chunk):
    monkeypatch.setattr(copying, *chunk)
    copy_rows(source, to, NAMES)
    assert rows_of(to) == rows_of(source)


async def test_the_next_job_gets_a_number_after_all_others(source, to, clock):
    copy_rows(source, to, NAMES)
    async with SqliteLedger.open(to, clock) as ledger:
        await ledger.create_job(a_job("new"))
    assert max(row[0] for row in rows_of(to)["jobs"]) == ROWS + 1


async def test_a_ledger_that_has_anything_is_not_written_over(source, to, clock):
    async with SqliteLedger.open(to, clock) as ledger:
        await frozen(ledger)
    before = rows_of(to)
    with pytest.raises(LedgerError, match=r"to\.db is not empty: it has rows in jobs\. Nothing was copied"):
        copy_rows(source, to, NAMES)
    assert rows_of(to) == before


def test_a_job_that_was_made_meanwhile_is_not_left_behind(source, to):
    with pytest.raises(LedgerError, match="a job was made while the ledger was copied"):
        copy_rows(source, to, NAMES[1:])
    assert rows_of(to) == NOTHING
    copy_rows(source, to, NAMES)  # an empty one is as good as none


def test_a_row_that_differs_afterwards_takes_all_back(monkeypatch, source, to):
    chunks = copying._chunks

    def without_one(rows):
        return (chunk[1:] for chunk in chunks(rows))

    monkeypatch.setattr(copying, "_chunks", without_one)
    with pytest.raises(LedgerError, match=rf"jobs has {ROWS - 1} rows and digest .* and {ROWS} and .* in the other"):
        copy_rows(source, to, NAMES)
    assert rows_of(to) == NOTHING


class Rows:
    """A table that holds these."""

    def __init__(self, *rows):
        self.rows = rows

    def stream(self, _query):
        yield from self.rows


def test_the_digest_tells_rows_apart_and_not_their_order():
    first, second = (1, "a", None, b"x", 0.5), (2, "b", "", b"", 1.0)
    for other, same in [
        (Rows(second, first), True),
        (Rows(first, (2, "b", "", b"", 1.5)), False),
        (Rows(first, (2, "b", None, b"", 1.0)), False),
        (Rows(first, second, second), False),
        (Rows(first), False),
    ]:
        there, here = copying._digested(Rows(first, second), other, "jobs")
        assert (there == here) == same
