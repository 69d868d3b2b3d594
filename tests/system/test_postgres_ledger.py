"""The ledger in PostgreSQL: what every ledger keeps, and what its own faults leave behind.

The server runs without fsync: here processes end, and not machines.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import replace
from torture.hostile.authority import Authority
from unit.ledger import test_round_trips as round_trips
from unit.ledger.full import ROWS, fill
from unit.ledger.stream import WRITERS
from unit.ledger.test_contract import *  # noqa: F403 - all that a ledger keeps
from unit.ledger.test_contract import A, B, brief, removed
from unit.ledger.test_copying import NAMES, NOTHING, rows_of
from unit.ledger.test_disk_faults import STEPS, snapshot
from unit.ledger.test_round_trips import test_batches_and_rejects, test_jobs, test_settlements  # noqa: F401 - run here, too
from unit.ledger.values import (
    ManualClock,
    a_batch,
    a_job,
    all_batches,
    bring,
    frozen,
    ids,
    settle,
    submission,
)

import engine
from engine.ledger import postgres_connection
from engine.ledger.address import PostgresAddress
from engine.ledger.copying import copy_rows
from engine.ledger.postgres import PostgresLedger
from engine.ledger.postgres_connection import examine, open_reader, open_writer, version_of
from engine.model.errors import JobLocked, LedgerError, NoLedger
from engine.model.job import JobState
from engine.model.outcome import Settlement
from engine.model.submission import State, Submission

from .cut_proxy import cut_proxy
from .postgres import may_mount, postgres, synchronous_standby

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]
USER = "loader"


@pytest.fixture(scope="module")
def server():
    """A server with a user who owns the databases of the tests, and an empty ledger to copy."""
    with postgres(durable=False) as running:
        running.make_user(USER)
        yield running


@pytest.fixture(scope="module")
def template(server):
    name = server.make_database(owner=USER)
    with psycopg.connect(server.url(USER, name), password=server.passwords[USER], autocommit=True) as connection:
        for step in postgres_connection.STEPS:
            connection.execute(step)
        connection.execute("INSERT INTO ledger_version VALUES (%s)", [len(postgres_connection.STEPS)])
    return name


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(autouse=True)
def _password(server, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", server.passwords[USER])


@pytest.fixture
def database(server, template):
    return server.make_database(owner=USER, template=template)


@pytest.fixture
def address(server, database):
    return PostgresAddress(server.url(USER, database))


@pytest.fixture
def opened(address, clock):
    """Open the same ledger, again and again if need be: what the contract asks for."""
    return lambda: PostgresLedger.open(address, clock)


@pytest.fixture
def sharing(opened):
    """Open it as a process that shares jobs: here each does."""
    return opened


@pytest.fixture
def proxy(server):
    with cut_proxy(server.port) as running:
        yield running


@pytest.fixture
def through_proxy(server, database, proxy):
    return PostgresAddress(server.url(USER, database, port=proxy.port))


@pytest.fixture(autouse=True)
def _round_trips(server, template, monkeypatch):
    """Let the round trips of the other store go through this one."""

    @asynccontextmanager
    async def new_ledger():
        server.query("TRUNCATE jobs CASCADE", template)
        async with PostgresLedger.open(PostgresAddress(server.url(USER, template)), ManualClock()) as ledger:
            yield ledger
        server.query("TRUNCATE jobs CASCADE", template)

    monkeypatch.setattr(round_trips, "new_ledger", new_ledger)


async def test_what_is_empty_of_the_store_is_counted(ledger):
    """The database keeps to itself how much that is."""
    await frozen(ledger)
    assert await ledger.free_bytes() == 0


async def test_a_batch_of_one_process_alone_is_in_no_shard_until_the_job_is_shared(ours):
    """Of this store each job is shared from the beginning; making shards once more changes nothing."""
    await frozen(ours, 3)
    await ours.open_shards("j")
    assert [(shard.first, shard.last) for shard in await ours.shards("j")] == [(0, 2)]


async def test_a_worker_that_is_silent_for_longer_than_a_lease_is_forgotten_once_it_has_no_shard(ours, theirs):
    """By the clock of the database, which no test can set."""
    short = replace(B, seconds=0.3)
    await frozen(ours)
    await ours.take_shards("j", brief(A), 1)
    await ours.renew_shards("j", brief(A))
    await asyncio.sleep(short.seconds + 0.1)
    await theirs.renew_shards("j", short)
    assert [worker.name for worker in await theirs.workers("j")] == ["A", "B"]
    await theirs.take_shards("j", short, 1)
    await theirs.renew_shards("j", short)
    assert [worker.name for worker in await theirs.workers("j")] == ["B"]


# Killed


def start(address, *arguments):
    command = [sys.executable, "-m", "unit.ledger.stream", str(address), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS)


@pytest.mark.parametrize("lines", [1, 500])
async def test_every_write_that_was_awaited_is_there(address, opened, lines):
    with start(address, "forever") as process:
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    awaited = dict(map(int, line.split()) for line in said)
    async with opened() as ledger:
        found = {batch.sequence: int(found.note or 0) for batch, found in await all_batches(ledger, "j")}
    assert len(found) == WRITERS
    # One more than was said: committed, and killed before it could be told.
    assert all(found[sequence] - number in {0, 1} for sequence, number in awaited.items())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("last", range(1, 6))
async def test_killed_around_a_commit(address, opened, when, last):
    with start(address, when, str(last)) as process:
        assert process.wait() == -signal.SIGKILL
    commits = last if when == "after" else last - 1
    async with opened() as ledger:
        assert [job.name for job in await ledger.jobs()] == ["j"] * (commits >= 1)
        if commits >= 1:
            assert (await ledger.job("j")).read_complete == (commits >= 2)
        if commits >= 2:
            state = [State.FROZEN, State.RELEASING, State.RELEASED, State.SETTLED][commits - 2]
            assert (await submission(ledger, "j", 0)).state is state
            assert await ledger.settlement("j", 0) == (Settlement(ids(2)) if state is State.SETTLED else None)


async def test_a_lock_ends_with_its_process(address, opened):
    command = [sys.executable, "-m", "unit.ledger.holder", str(address), "j"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    async with opened() as ledger:
        with subprocess.Popen(command, text=True, cwd=TESTS, **pipes) as process:  # noqa: ASYNC220 - it only waits
            assert process.stdout.readline() == "held\n"
            assert ledger.is_locked("j")
            with pytest.raises(JobLocked, match=f"process {process.pid} on .* is working on job 'j'"), ledger.lock("j"):
                pass
            process.kill()
        until = time.monotonic() + 30
        while ledger.is_locked("j"):
            assert time.monotonic() < until
        with ledger.lock("j"):
            assert ledger.is_locked("j")


# The database is lost, and comes back


async def write(ledger, sequence, stop, awaited):
    """Take a batch from step to step, and count those that were awaited."""
    before, number = State.FROZEN, 0
    while not stop.is_set():
        number += 1
        await ledger.move("j", Submission(sequence, State.STAGING, note=str(number)), expected=before)
        before, awaited[sequence] = State.STAGING, number


async def test_a_database_that_is_stopped_at_once_and_started_loses_nothing_and_doubles_nothing(server, opened):
    awaited, stop = {}, threading.Event()

    def break_it():
        for _ in range(3):
            time.sleep(0.3)  # of work between two breaks
            server.restart("immediate")
        time.sleep(0.3)
        stop.set()

    async with opened() as ledger:
        await frozen(ledger, batches=WRITERS)
        breaking = asyncio.create_task(asyncio.to_thread(break_it))
        await asyncio.gather(breaking, *(write(ledger, sequence, stop, awaited) for sequence in range(WRITERS)))
    async with opened() as ledger:
        found = {batch.sequence: int(found.note) for batch, found in await all_batches(ledger, "j")}
    assert found == awaited
    assert min(found.values()) > 3


async def test_every_step_stands_once_whatever_is_lost_before_it(tmp_path, proxy, through_proxy, clock):
    """The connection is reset before each step; it is opened anew, and what was asked for is done."""
    del tmp_path
    async with PostgresLedger.open(through_proxy, clock) as ledger:
        for step in STEPS:
            proxy.cut()
            await step(ledger)
        jobs, batches, *_ = await snapshot(ledger)
    assert [job.name for job in jobs] == ["later", "j"]
    assert [found.state for _, found in batches] == [State.SETTLED, State.FROZEN]


@pytest.mark.parametrize("reaches_the_server", [True, False], ids=["it stood", "it did not stand"])
@pytest.mark.parametrize("lost", range(len(STEPS)))
async def test_a_commit_that_was_not_answered_is_settled_by_asking(
    proxy,
    through_proxy,
    clock,
    lost,
    reaches_the_server,
):
    async with PostgresLedger.open(through_proxy, clock) as ledger:
        for number, step in enumerate(STEPS):
            happened = proxy.lose_commit(reaches_the_server=reaches_the_server) if number == lost else None
            await step(ledger)
            assert happened is None or happened.wait(10)
        jobs, batches, settlements, rejects, tally = await snapshot(ledger)
    assert [job.name for job in jobs] == ["later", "j"]
    assert [found.state for _, found in batches] == [State.SETTLED, State.FROZEN]
    assert (len(rejects), tally.created, tally.failed) == (4, 299, 1)
    assert settlements[1] is None


async def test_a_database_that_does_not_come_back_in_time_is_told(monkeypatch, proxy, through_proxy, clock):
    monkeypatch.setattr(postgres_connection, "RECONNECT_SECONDS", 0.5)
    async with PostgresLedger.open(through_proxy, clock) as ledger:
        await frozen(ledger)
        proxy.refuse()
        proxy.cut()
        step = Submission(0, State.STAGING)
        with pytest.raises(
            LedgerError, match="the database cannot be reached; see that it runs, then `bulksubmit resume`"
        ):
            await ledger.move("j", step, expected=State.FROZEN)
        proxy.accept()
        await ledger.move("j", step, expected=State.FROZEN)
        assert (await submission(ledger, "j", 0)).state is State.STAGING


async def test_a_standby_that_takes_over_has_all_that_was_awaited(monkeypatch, clock):
    with postgres(durable=False) as primary, synchronous_standby(primary) as standby:
        primary.make_user(USER)
        monkeypatch.setenv("PGPASSWORD", primary.passwords[USER])
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        name = primary.make_database(owner=USER)
        address = PostgresAddress(f"postgresql://{USER}@{hosts}/{name}?target_session_attrs=read-write")
        awaited, stop = {}, threading.Event()

        def fail_over():
            time.sleep(0.5)  # of work before it
            primary.stop("immediate")
            standby.promote()
            time.sleep(0.5)
            stop.set()

        async with PostgresLedger.open(address, clock) as ledger:
            await frozen(ledger, batches=WRITERS)
            breaking = asyncio.create_task(asyncio.to_thread(fail_over))
            await asyncio.gather(breaking, *(write(ledger, sequence, stop, awaited) for sequence in range(WRITERS)))
            found = {batch.sequence: int(found.note) for batch, found in await all_batches(ledger, "j")}
        assert found == awaited
        with closing(open_reader(address)) as reader:
            assert reader.raw.info.port == standby.port


async def test_two_things_are_read_at_once_and_let_go_in_any_order(address, opened):
    async with opened() as ledger:
        await frozen(ledger, batches=300)
    with closing(open_reader(address)) as reader:
        first, second = reader.stream("read_batches"), reader.stream("read_batches")
        assert next(first) == next(second)
        assert len(reader.fetch("recent_names", {"limit": 1})) == 1
        first.close()
        assert len(list(second)) == 299
        assert reader.raw.info.transaction_status.name == "IDLE"


# The database refuses


async def test_a_database_that_is_read_only_is_told_and_goes_on_when_it_is_none(server, address, opened):
    async with opened() as ledger:
        await frozen(ledger)
        server.set("default_transaction_read_only", "on")
        try:
            with pytest.raises(LedgerError, match="the database is read-only, as a standby is; name the one"):
                await ledger.move("j", Submission(0, State.STAGING), expected=State.FROZEN)
            assert (await submission(ledger, "j", 0)).state is State.FROZEN
            with pytest.raises(LedgerError, match="the database is read-only, as a standby is; name the one"):
                open_writer(address)
        finally:
            server.set("default_transaction_read_only", None)
        await ledger.move("j", Submission(0, State.STAGING), expected=State.FROZEN)


@pytest.mark.skipif(not may_mount(), reason="this user may not mount a small disk")
async def test_a_full_disk_of_the_database_loses_nothing_and_the_job_goes_on_when_there_is_room(
    monkeypatch,
    clock,
):
    large = [replace(a_batch(sequence), spans=os.urandom(100_000)) for sequence in range(100)]
    with postgres(durable=False, disk_megabytes=128) as server:
        server.make_user(USER)
        monkeypatch.setenv("PGPASSWORD", server.passwords[USER])
        address = PostgresAddress(server.url(USER, server.make_database(owner=USER)))
        async with PostgresLedger.open(address, clock) as ledger:
            await ledger.create_job(a_job())
            await ledger.freeze("j", large[:1], [], last=False)
            server.fill_disk()
            with pytest.raises(
                LedgerError, match="the disk of the database is full; make room, then `bulksubmit resume`"
            ):
                await ledger.freeze("j", large[1:], [], last=True)
            assert await ledger.last_batch("j") == large[0]
            server.free_disk()
            await ledger.freeze("j", large[1:], [], last=True)
            assert len(await all_batches(ledger, "j")) == len(large)


@pytest.mark.parametrize("what", ["ROLE loader", "DATABASE {database}"])
def test_a_database_that_promises_too_little_is_refused(server, database, address, what):
    whose = what.format(database=database)
    server.query(f"ALTER {whose} SET synchronous_commit = off")
    try:
        with pytest.raises(LedgerError, match="synchronous_commit is off, so a step that was answered could be lost"):
            open_writer(address)
        with pytest.raises(LedgerError, match="synchronous_commit is off"):
            examine(address)
    finally:
        server.query(f"ALTER {whose} RESET synchronous_commit")
    open_writer(address).close()


async def test_an_old_schema_is_brought_up_and_a_newer_one_is_refused(address, opened):
    newer = [*postgres_connection.STEPS, "CREATE TABLE later (number BIGINT)", "ALTER TABLE later ADD COLUMN x TEXT"]
    async with opened() as ledger:
        await frozen(ledger)
    for _ in range(2):
        writer = open_writer(address, newer)
        assert version_of(writer) == len(newer)
        assert writer.raw.execute("SELECT number, x FROM later").fetchall() == []
        writer.close()
    with pytest.raises(
        LedgerError, match=r"written by a newer bulksubmit: its schema is version .*\. Update bulksubmit"
    ):
        open_writer(address)


def test_a_step_that_fails_takes_back_those_before_it(address):
    broken = [*postgres_connection.STEPS, "CREATE TABLE later (number BIGINT)", "SELECT 1 / 0"]
    with pytest.raises(LedgerError, match="division by zero"):
        open_writer(address, broken)
    writer = open_writer(address)
    assert version_of(writer) == len(postgres_connection.STEPS)
    assert writer.raw.execute("SELECT TO_REGCLASS('later')").fetchall() == [(None,)]
    writer.close()


def test_a_database_without_a_ledger_gets_one_from_whoever_makes_a_job(server):
    address = PostgresAddress(server.url(USER, server.make_database(owner=USER)))
    assert (examine(address).version, examine(address).lacking) == (0, [])
    with pytest.raises(NoLedger, match=r"there is no ledger in postgresql://.*: check --ledger, or submit a first job"):
        open_writer(address, create=False)
    open_writer(address).close()
    seen = examine(address)
    assert (seen.version, seen.lacking, seen.user) == (len(postgres_connection.STEPS), [], USER)
    assert abs(seen.ahead_seconds) < 1


async def test_two_processes_that_make_the_tables_at_once_make_them_once(server):
    address = PostgresAddress(server.url(USER, server.make_database(owner=USER)))
    writers = await asyncio.gather(*(asyncio.to_thread(open_writer, address) for _ in range(4)))
    assert {version_of(writer) for writer in writers} == {len(postgres_connection.STEPS)}
    for writer in writers:
        writer.close()


GRANTS = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user};"


async def test_who_may_only_read_and_write_rows_can_work(server, database, monkeypatch, clock):
    assert GRANTS in (TESTS.parent / "docs" / "many-machines.md").read_text()
    server.make_user("worker")
    monkeypatch.setenv("PGPASSWORD", server.passwords["worker"])
    address = PostgresAddress(server.url("worker", database))
    lacking = examine(address).lacking
    assert {"SELECT on ledger_version", "INSERT on jobs", "DELETE on shards"} <= set(lacking)
    with pytest.raises(LedgerError, match=r"this user may not do that; docs/many-machines\.md has the rights"):
        open_writer(address)
    server.query(GRANTS.format(user="worker"), database)
    assert examine(address).lacking == []
    async with PostgresLedger.open(address, clock) as ledger:
        with ledger.lock("j"), ledger.lock_family("f"), ledger.lock_nights("f"):
            job = await frozen(ledger, batches=3)
            (shard,) = await ledger.take_shards(job, A, 4)
            await bring(ledger, job, 0, State.RELEASED)
            await settle(ledger, job, 0, Settlement(ids(2)))
            await ledger.renew_shards(job, A)
            await ledger.give_back_shards(job, A, left=True)
            await ledger.revise("budget", lambda state, _: f"{state}+")
        assert (shard.first, shard.last) == (0, 2)
        await removed(ledger, job)
        assert await ledger.jobs() == []


# Copied


def test_a_ledger_is_copied_from_a_file_to_a_database_and_back_and_on(server, template, address, tmp_path):
    fill(tmp_path / "a.db")
    other = PostgresAddress(server.url(USER, server.make_database(owner=USER)))
    copied = copy_rows(tmp_path / "a.db", address, NAMES)
    assert copy_rows(address, other, NAMES) == copied
    assert copy_rows(other, tmp_path / "b.db", NAMES) == copied
    assert rows_of(tmp_path / "a.db") == rows_of(address) == rows_of(tmp_path / "b.db")
    with pytest.raises(LedgerError, match="is not empty: it has rows in jobs"):
        copy_rows(tmp_path / "a.db", address, NAMES)


async def test_the_next_job_of_a_copied_ledger_is_the_newest(opened, address, tmp_path):
    fill(tmp_path / "a.db")
    copy_rows(tmp_path / "a.db", address, NAMES)
    async with opened() as ledger:
        await ledger.create_job(a_job("new"))
    assert max(row[0] for row in rows_of(address)["jobs"]) == ROWS + 1


@pytest.mark.parametrize("reaches_the_server", [True, False], ids=["it stood", "it did not stand"])
def test_a_copy_whose_commit_was_not_answered_is_there_once(
    proxy, through_proxy, address, tmp_path, reaches_the_server
):
    fill(tmp_path / "a.db")
    happened = proxy.lose_commit(reaches_the_server=reaches_the_server)
    copy_rows(tmp_path / "a.db", through_proxy, NAMES)
    assert happened.wait(10)
    assert rows_of(address) == rows_of(tmp_path / "a.db")


def test_of_a_copy_that_is_refused_nothing_is_there(address, tmp_path):
    fill(tmp_path / "a.db")
    with pytest.raises(LedgerError, match="a job was made while the ledger was copied"):
        copy_rows(tmp_path / "a.db", address, NAMES[1:])
    assert rows_of(address) == NOTHING


async def test_while_a_worker_sends_nothing_is_copied(opened, address, tmp_path):
    async with opened() as ledger:
        await frozen(ledger)
        await ledger.take_shards("j", A, 1)
        with pytest.raises(JobLocked, match="workers have 1 shard of job 'j'"):
            await engine.copy_ledger(str(address), tmp_path / "b.db")


# How it is reached


def test_a_password_that_is_wrong_or_missing_is_told_without_it(monkeypatch, address):
    monkeypatch.setenv("PGPASSWORD", "not-the-password")
    with pytest.raises(LedgerError, match="the password is wrong or missing: PGPASSWORD gives it, or the file") as told:
        open_writer(address)
    assert "not-the-password" not in str(told.value)
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(LedgerError, match="the password is wrong or missing"):
        open_writer(address)


def test_a_password_may_stand_in_a_file(server, database, monkeypatch, tmp_path, address):
    monkeypatch.delenv("PGPASSWORD")
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"127.0.0.1:{server.port}:{database}:{USER}:{server.passwords[USER]}\n")
    passfile.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    open_writer(address).close()
    monkeypatch.delenv("PGPASSFILE")
    open_writer(PostgresAddress(f"{address}?passfile={passfile}")).close()


def test_a_server_proves_who_it_is(monkeypatch, tmp_path):
    with postgres(durable=False) as server:
        server.make_user(USER)
        monkeypatch.setenv("PGPASSWORD", server.passwords[USER])
        url = server.url(USER, server.make_database(owner=USER))
        authority = server.require_tls()
        writer = open_writer(PostgresAddress(f"{url}?sslmode=verify-full&sslrootcert={authority}"))
        assert writer.raw.pgconn.ssl_in_use
        writer.close()
        stranger = Authority(tmp_path)
        stranger.found()
        with pytest.raises(LedgerError, match="certificate verify failed"):
            open_writer(PostgresAddress(f"{url}?sslmode=verify-full&sslrootcert={stranger.certificate}"))
        with pytest.raises(LedgerError, match="no encryption"):
            open_writer(PostgresAddress(f"{url}?sslmode=disable"))


def test_a_database_or_user_that_is_not_there_is_told(server, address):
    with pytest.raises(LedgerError, match="there is no such database, or no such user; check the URL, or make it"):
        open_writer(PostgresAddress(server.url(USER, "nowhere")))


async def test_a_network_that_brings_no_answer_is_given_up_and_the_step_taken_again(
    server, database, clock, proxy, monkeypatch
):
    monkeypatch.setattr(postgres_connection, "ANSWER_SECONDS", 1.0)
    address = PostgresAddress(server.url(USER, database).replace(f":{server.port}/", f":{proxy.port}/"))
    async with PostgresLedger.open(address, clock) as ledger:
        await ledger.create_job(a_job())
        proxy.stall()
        async with asyncio.TaskGroup() as both:
            both.create_task(ledger.set_job_state("j", JobState.CANCELED))
            await asyncio.sleep(2.5)  # the first attempt is given up by then; only the wall clock brings that about
            proxy.flow()
        assert (await ledger.job("j")).state is JobState.CANCELED
