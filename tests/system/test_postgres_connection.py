"""What a ledger in PostgreSQL makes of a database that ends at once: its transactions, and its locks."""

from __future__ import annotations

import asyncio

import pytest
from psycopg.sql import SQL, Identifier
from unit.ledger.values import a_batch, a_job

import engine.ledger.postgres
from engine.clock import SystemClock
from engine.ledger.address import PostgresAddress
from engine.ledger.postgres import PostgresLedger
from engine.ledger.postgres_connection import examine, open_writer
from engine.model.errors import LeaseLost, LedgerAway, LedgerError
from engine.model.shard import SHARD_BATCHES, LeaseTerms

from .postgres import SUPERUSER, postgres

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with postgres(durable=False) as server:
        yield server


@pytest.fixture
def address(server, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", server.passwords[SUPERUSER])
    return PostgresAddress(server.url(SUPERUSER, server.make_database()))


def test_a_transaction_whose_number_was_given_anew_after_a_crash_is_done_again(server, address):
    writer = open_writer(address)
    numbers = []

    def work():
        ((number,),) = writer.raw.execute("SELECT CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)").fetchall()
        numbers.append(number)
        if len(numbers) == 1:
            server.restart("immediate")
            while server.query("SELECT CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)")[0][0] < number:
                pass  # others commit, one of them by that number
        writer.change("make_budget", [{"name": "one"}])

    writer.transaction(work)
    assert len(numbers) == 2
    assert writer.fetch("budget", {"name": "one"}) == [("",)]
    writer.close()


def test_a_connection_that_ends_leaves_no_row_of_its_own(server, address):
    writer = open_writer(address)
    writer.transaction(lambda: None)
    database = address.url.rpartition("/")[2]
    assert server.query("SELECT count(*) FROM writers", database) == [(1,)]
    writer.close()
    assert server.query("SELECT count(*) FROM writers", database) == [(0,)]


async def test_a_lock_that_is_lost_with_its_session_is_taken_again_unless_another_process_was_faster(
    server, address, monkeypatch
):
    monkeypatch.setattr(engine.ledger.postgres, "_SIGN_SECONDS", 3600)  # nobody looks before this test does
    async with (
        PostgresLedger.open(address, SystemClock()) as one,
        PostgresLedger.open(address, SystemClock()) as other,
    ):
        with one.lock("kept"), one.lock("lost"):
            await asyncio.to_thread(server.restart, "immediate")
            with other.lock("lost"):
                assert one.is_locked("kept")
                one.check_lock("kept")
                with pytest.raises(LeaseLost, match=r"another process has taken over job 'lost'"):
                    one.check_lock("lost")
        with other.lock("kept"):  # and it is free again
            pass


async def test_whoever_holds_a_lock_notices_soon_that_it_was_lost(server, address, monkeypatch):
    monkeypatch.setattr(engine.ledger.postgres, "_SIGN_SECONDS", 0.05)
    database = address.url.rpartition("/")[2]
    async with PostgresLedger.open(address, SystemClock()) as one, asyncio.timeout(20):
        with one.lock("load"):
            await asyncio.to_thread(server.stop, "immediate")
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.start)
            while not _has_lock(server, database):  # noqa: ASYNC110 - in the database
                await asyncio.sleep(0.05)


def _has_lock(server, database):
    """Return whether anybody holds a lock in a database."""
    return bool(server.query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'", database))


async def test_of_two_jobs_made_at_once_the_second_sees_the_first(address):
    async with PostgresLedger.open(address, SystemClock()) as one, PostgresLedger.open(address, SystemClock()) as other:
        for number in range(10):
            seen = {job.name for job in await one.jobs()}
            made = [
                ledger.create_job(a_job(f"{name}-{number}"), seen=seen)
                for name, ledger in (("first", one), ("second", other))
            ]
            told = await asyncio.gather(*made, return_exceptions=True)
            assert sorted(type(one).__name__ for one in told) == ["NoneType", "OtherJobs"]


async def test_no_more_shards_are_taken_than_wanted_however_the_database_goes_about_it(server, address):
    database = Identifier(address.url.rpartition("/")[2])
    for way in ("hashjoin", "mergejoin", "hashagg", "sort", "material"):  # as statistics may have it
        server.query(SQL("ALTER DATABASE {} SET {} = off").format(database, Identifier(f"enable_{way}")))
    async with PostgresLedger.open(address, SystemClock()) as ledger:
        await ledger.create_job(a_job())
        await ledger.freeze("j", [a_batch(sequence) for sequence in range(5 * SHARD_BATCHES)], [], last=True)
        taken = [await ledger.take_shards("j", LeaseTerms("A", 60.0, 30.0), most) for most in (1, 2)]
        assert [[shard.first // SHARD_BATCHES for shard in shards] for shards in taken] == [[0], [1, 2]]
        assert sum(shard.holder == "" for shard in await ledger.shards("j")) == 2


@pytest.mark.parametrize("look", [open_writer, examine])
def test_tables_of_others_with_the_names_of_the_ledgers_are_told(server, address, look):
    database = address.url.rpartition("/")[2]
    server.query("CREATE TABLE jobs (a INT)", database)
    with pytest.raises(LedgerError, match=r"\(jobs\)\. Make a database for the ledger alone, or a schema"):
        look(address)
    server.query("CREATE SCHEMA own", database)
    open_writer(PostgresAddress(f"{address.url}?options=-csearch_path%3Down")).close()


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("?sslmode=require", "do not agree on TLS; check sslmode"),
        ("?sslmod=require", "the URL says something that is not known"),
        ("?connect_timeout=soon", "the URL says something that is not known"),
    ],
)
def test_a_mistake_in_the_url_is_told_as_one_and_not_as_a_database_that_is_away(address, said, cure):
    with pytest.raises(LedgerError, match=cure) as told:
        open_writer(PostgresAddress(address.url + said))
    assert not isinstance(told.value, LedgerAway)
