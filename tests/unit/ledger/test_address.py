"""What names a ledger: a path, or a URL that shows nobody a password."""

import sys
from pathlib import Path

import pytest

from engine.ledger.address import PostgresAddress, address_of, open_reader
from engine.model.errors import ConfigError


@pytest.mark.parametrize("named", ["l.db", "/a/l.db", "postgresql", "./postgresql://host/jobs", Path("l.db")])
def test_what_is_no_url_is_a_path(named):
    assert address_of(named) == Path(named)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///jobs",
        "postgres://loader@host:5433/jobs",
        "postgresql://loader@one,two:5433/jobs?target_session_attrs=read-write",
        "postgresql://host/jobs?passfile=/run/secrets/pgpass",
    ],
)
def test_a_url_stays_as_it_is(url):
    assert address_of(url) == address_of(PostgresAddress(url)) == PostgresAddress(url)
    assert str(address_of(url)) == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://loader:hidden@host/jobs",
        "postgresql://loader:hid%64en@one,two/jobs",
        "postgresql://host/jobs?user=loader&password=hidden",
        "postgresql://host/jobs?sslpassword=hidden",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match="PGPASSWORD, or in a file that PGPASSFILE names") as told:
        address_of(url)
    assert "hid" not in str(told.value)


@pytest.mark.parametrize(
    "url", ["postgres:/host/jobs", "postgresql:host", "PostgreSQL://h/jobs", "mysql://me:hidden@h/jobs"]
)
def test_what_is_nearly_a_url_is_no_file(url):
    with pytest.raises(ConfigError, match="a database as postgresql://user@host/database") as told:
        address_of(url)
    assert "hidden" not in str(told.value)


def test_a_url_that_cannot_be_read_is_refused():
    with pytest.raises(ConfigError, match="this is no URL that can be read"):
        address_of("postgresql://[::1/jobs")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://loader@db.example.com/jobs?sslmode=verify-full", "db.example.com-jobs"),
        ("postgresql://worker@db.example.com:5432/jobs", "db.example.com-jobs"),
        ("postgresql://db.example.com:5433/jobs", "db.example.com-5433-jobs"),
        ("postgresql://one:5433,two/jobs?target_session_attrs=read-write", "one-5433-jobs"),
        ("postgresql://[::1]:5433/jobs", "1-5433-jobs"),
        ("postgresql:///jobs?host=/var/run/postgresql&port=5433", "var-run-postgresql-jobs-5433"),
        ("postgresql://%2Fvar%2Frun/..%2F..%2Fetc", "var-run-etc"),
        ("postgresql:///jobs", "jobs"),
        ("postgresql://", "postgresql"),
    ],
)
def test_a_database_has_a_name_for_a_folder_that_leads_nowhere_else(url, name):
    assert PostgresAddress(url).folder_name == name


def test_a_reader_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'bulksubmit\[postgres\]'"):
        open_reader(PostgresAddress("postgresql://host/jobs"))
