"""What the tests of the ledger rely on: a PostgreSQL that can be stopped, cut off, filled and failed over."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psycopg
import pytest
from fakes.processes import children
from torture.hostile.authority import Authority

from .cut_proxy import cut_proxy
from .postgres import may_mount, postgres, synchronous_standby

pytestmark = pytest.mark.slow
COUNT = "SELECT count(*) FROM records"
INSERT = "INSERT INTO records VALUES (1)"
MANY = "INSERT INTO records SELECT generate_series(1, 100000)"


@pytest.fixture(scope="module")
def server():
    with postgres() as running:
        yield running


@pytest.fixture
def database(server):
    name = made(server)
    yield name
    server.drop_database(name)


@pytest.fixture
def proxy(server):
    with cut_proxy(server.port) as running:
        yield running


def made(server):
    """Make a database with one table, without rows."""
    name = server.make_database()
    server.query("CREATE TABLE records (n int)", name)
    return name


@contextmanager
def left_alone(connection):
    """Close a connection that may be broken, without the ROLLBACK or COMMIT of `with connection`."""
    try:
        yield connection
    finally:
        connection.close()


def test_it_ends_with_its_block_and_nothing_is_left():
    with postgres(durable=False) as server:
        assert server.query("SHOW fsync") == [("off",)]
        assert server.pid in children()
    assert not Path(f"/proc/{server.pid}").exists()
    assert not server.folder.exists()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        server.query("SELECT 1")


def test_it_ends_with_the_process_that_started_it():
    program = """
import threading
from system.postgres import postgres
with postgres(durable=False) as server:
    thread = threading.Thread(target=server.restart)  # whose end is not the server's
    thread.start()
    thread.join()
    assert server.query("SELECT 1") == [(1,)]
    print(server.pid, server.folder, flush=True)
    input()
"""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program]
    tests = Path(__file__).parents[1]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=tests) as process:
        pid, folder = process.stdout.readline().split()
        server = subprocess.Popen(["tail", f"--pid={pid}", "-f", "/dev/null"])
        process.kill()
    server.wait(30)
    assert not Path(f"/proc/{pid}").exists()
    subprocess.run(["rm", "-r", folder], check=True)


def test_users_prove_who_they_are_and_have_no_rights_beyond_their_database(server, database):
    server.make_user("loader")
    own = server.make_database(owner="loader")
    with server.connect("loader", own) as connection:
        connection.execute("CREATE TABLE records (n int)")
    assert server.passwords["loader"] not in server.url("loader", own)
    with server.connect("loader", database) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(COUNT)
    for password in ("wrong", server.passwords["postgres"]):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url("loader", own), password=password)


def test_each_database_is_fresh_or_a_copy(server, database):
    server.query(INSERT, database)
    fresh, copy = server.make_database(), server.make_database(template=database)
    with pytest.raises(psycopg.errors.UndefinedTable):
        server.query(COUNT, fresh)
    assert server.query(COUNT, copy) == [(1,)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_what_was_committed_outlives_a_stop_and_nothing_else(server, database, mode):
    with left_alone(server.connect(database=database)) as connection:
        connection.execute(INSERT)
        connection.commit()
        connection.execute(INSERT)
        before = server.log
        server.restart(mode)
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert server.query(COUNT, database) == [(1,)]
    said = server.log.removeprefix(before)
    assert ("was not properly shut down" in said) == (mode == "immediate")


def test_connections_are_cut_and_new_ones_can_be_made(server, database, proxy):
    with left_alone(server.connect(database=database, port=proxy.port)) as connection:
        connection.execute(INSERT)
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    with server.connect(database=database, port=proxy.port) as connection:
        assert connection.execute(COUNT).fetchall() == [(0,)]


def test_new_connections_are_refused_while_old_ones_stay(server, database, proxy):
    with server.connect(database=database, port=proxy.port) as connection:
        proxy.refuse()
        with pytest.raises(psycopg.OperationalError, match="refused"):
            server.connect(database=database, port=proxy.port)
        connection.execute(INSERT)
    proxy.accept()
    with server.connect(database=database, port=proxy.port) as connection:
        assert connection.execute(COUNT).fetchall() == [(1,)]


def test_a_stalled_network_answers_nothing_and_may_deliver_late(server, database, proxy):
    with server.connect(database=database, port=proxy.port, autocommit=True) as connection:
        proxy.stall()
        with ThreadPoolExecutor() as threads:
            insert = threads.submit(connection.execute, INSERT)
            with pytest.raises(TimeoutError):
                insert.result(timeout=0.3)
            assert server.query(COUNT, database) == [(0,)]
            with pytest.raises(psycopg.errors.ConnectionTimeout):
                server.connect(database=database, port=proxy.port, connect_timeout=2)
            proxy.flow()
            insert.result()
    assert server.query(COUNT, database) == [(1,)]


def test_a_stalled_network_does_not_tell_that_the_server_is_gone(server, database, proxy):
    with (
        left_alone(server.connect(database=database, port=proxy.port)) as connection,
        ThreadPoolExecutor() as threads,
    ):
        proxy.stall()
        insert = threads.submit(connection.execute, INSERT)
        os.kill(connection.info.backend_pid, signal.SIGKILL)  # it says nothing before it is gone
        server.restart("immediate")
        with pytest.raises(TimeoutError):
            insert.result(timeout=0.3)
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            insert.result()


@pytest.mark.parametrize("reaches_the_server", [True, False])
@pytest.mark.parametrize("in_pipeline", [False, True])
def test_the_answer_of_a_commit_is_lost_whether_it_was_done_or_not(
    server, database, proxy, reaches_the_server, in_pipeline
):
    with left_alone(server.connect(database=database, port=proxy.port)) as connection:
        connection.execute(INSERT)
        lost = proxy.lose_commit(reaches_the_server=reaches_the_server)
        with pytest.raises(psycopg.OperationalError), connection.pipeline() if in_pipeline else nullcontext():
            connection.commit()
        assert lost.wait(30)
    assert server.query(COUNT, database) == [(int(reaches_the_server),)]
    with server.connect(database=database, port=proxy.port) as connection:
        connection.execute(INSERT)  # and only that one was lost
    assert server.query(COUNT, database) == [(1 + reaches_the_server,)]


def test_a_read_only_server_refuses_writes_until_it_is_none(server, database):
    with server.connect(database=database, autocommit=True) as connection:
        server.set("default_transaction_read_only", "on")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute(INSERT)
        with server.connect(database=database) as new, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            new.execute(INSERT)
        server.set("default_transaction_read_only", None)
        connection.execute(INSERT)
    assert server.query(COUNT, database) == [(1,)]


@pytest.mark.skipif(not may_mount(), reason="this user may not mount a small disk")
def test_a_full_disk_refuses_writes_until_there_is_room():
    with postgres(disk_megabytes=128) as server:
        database = made(server)
        with server.connect(database=database, autocommit=True) as connection:
            connection.execute(INSERT)
            server.fill_disk()
            with pytest.raises(psycopg.errors.DiskFull):
                connection.execute(MANY)
            assert server.query(COUNT, database) == [(1,)]
            server.free_disk()
            connection.execute(MANY)
        server.restart("immediate")
        assert server.query(COUNT, database) == [(100_001,)]
    assert not server.folder.exists()


def test_a_promoted_standby_has_what_was_committed():
    with postgres() as primary, synchronous_standby(primary) as standby, cut_proxy(primary.port) as proxy:
        database = made(primary)
        with left_alone(primary.connect(database=database, port=proxy.port)) as connection:
            connection.execute(INSERT)
            connection.commit()
            primary.stop("immediate")
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                standby.query("CREATE TABLE records (n int)")
            standby.promote()
            proxy.target = standby.port
            with pytest.raises(psycopg.OperationalError):
                connection.execute(INSERT)
        with standby.connect(database=database, port=proxy.port) as connection:
            assert connection.execute(COUNT).fetchall() == [(1,)]
            connection.execute(INSERT)
        assert standby.query(COUNT, database) == [(2,)]


def test_without_its_standby_a_primary_commits_nothing():
    with postgres() as primary, synchronous_standby(primary) as standby:
        database = made(primary)
        standby.stop()
        with primary.connect(database=database, autocommit=True) as connection, ThreadPoolExecutor() as threads:
            insert = threads.submit(connection.execute, INSERT)
            with pytest.raises(TimeoutError):
                insert.result(timeout=0.3)
            standby.start()
            insert.result()
        assert primary.query(COUNT, database) == [(1,)]


def test_with_tls_nothing_is_said_in_the_clear_nor_to_a_stranger(tmp_path):
    with postgres(durable=False) as server:
        authority = str(server.require_tls())
        with server.connect(sslmode="verify-full", sslrootcert=authority) as connection:
            assert connection.pgconn.ssl_in_use
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            server.connect(sslmode="disable")
        stranger = Authority(tmp_path)
        stranger.found()
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            server.connect(sslmode="verify-full", sslrootcert=str(stranger.certificate))
