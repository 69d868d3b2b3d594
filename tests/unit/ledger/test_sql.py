"""The SQL files read well: every statement has a sentence and a use, every table and column a comment."""

import re
from importlib.resources import files

import apsw
import pytest

from engine.ledger.database import APPLICATION_ID, STEPS
from engine.ledger.operations import REMOVALS
from engine.ledger.statements import COLUMNS, COPIED_TABLES, QUERIES, read_queries

FOLDER = files("engine.ledger")
CODE = "".join(file.read_text() for file in FOLDER.iterdir() if file.name.endswith(".py"))


ONLY_IN_POSTGRES = {"lock_tokens", "lock_holder", "take_lock", "lacking_rights"}
"""SQLite has locks of its own, and the rights of a file."""


COPIES = {f"{what}_{table}" for what in ("read", "put") for table in COLUMNS}


def schema():
    connection = apsw.Connection(":memory:")
    for step in STEPS:
        connection.execute(step)
    return connection


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_compiles_and_is_used(name):
    statements = f"EXPLAIN {QUERIES[name]}" if "PRAGMA" not in QUERIES[name] else "SELECT 1"
    schema().execute(statements, dict.fromkeys(re.findall(r":(\w+)", statements)))
    assert name in REMOVALS or name in COPIES or f'"{name}"' in CODE


def test_what_is_known_of_settled_records_is_written_once():
    """Reports are written beside a run: no line of a settled batch may change."""
    for name in QUERIES.keys() - set(REMOVALS):  # `remove_rows` takes them of a job in state removed only
        sql = QUERIES[name]
        assert not re.search(r"(UPDATE|REPLACE INTO|DELETE FROM) (settlements|spans|rejects|sources)\b", sql)


def test_of_a_job_that_is_removed_nothing_stays():
    """A table with rows of jobs stands among the removals, or keeps the job: `needed` names it."""
    connection = schema()
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    of_jobs = {table for table in tables if any(row[1] == "job" for row in connection.pragma("table_info", table))}
    keeping = {table for table in tables if re.search(rf"FROM {table}\b", QUERIES["needed"])} - {"skips"}
    removed = {re.search(r"DELETE FROM (\w+)", QUERIES[name])[1] for name in REMOVALS}
    assert of_jobs - keeping == removed - {"jobs"}


def test_every_query_is_read():
    text = FOLDER.joinpath("queries.sql").read_text()
    assert len(read_queries(text)) == text.count("\n-- name:")
    calls = r"QUERIES\[|_update\(|_rows\(|_pages\(|_ask\(|_stream\(|\.fetch\(|\.change\(\s*"
    used = set(re.findall(rf'(?:{calls})"(\w+)"', CODE))
    assert (used | set(REMOVALS) | COPIES) - ONLY_IN_POSTGRES == set(QUERIES)


def test_every_query_looks_up_by_key():
    """No statement on batches or what hangs on them walks through those of other jobs; jobs are few."""
    connection = schema()
    for name, sql in QUERIES.items():
        if name == "needed" or name in COPIES:  # of all jobs, and `prune` and a copy have the time
            continue
        if re.search(
            r"\b(batches|spans|settlements|rejects|orphans|skips|copies|known|later_fates)\b", sql
        ) and not sql.startswith("INSERT INTO"):
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", dict.fromkeys(re.findall(r":(\w+)", sql)))
            assert not [row for *_, row in plan if re.match(r"SCAN (?!jobs|json_each|known)", row)], name


def test_a_copy_takes_every_table_with_every_column_and_parents_first():
    connection = schema()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert set(COPIED_TABLES) == set(COLUMNS) == tables
    for at, table in enumerate(COPIED_TABLES):
        assert COLUMNS[table] == [column for _, column, *_ in connection.pragma("table_info", table)]
        parents = {row[2] for row in connection.execute(f"PRAGMA foreign_key_list({table})")}
        assert parents <= set(COPIED_TABLES[:at])


def test_postgres_has_each_query_with_the_same_names():
    """One that differs is found by the name of the other, binds what that binds, and is there for that reason."""
    text = FOLDER.joinpath("queries_postgres.sql").read_text()
    own = read_queries(text)
    assert len(own) == text.count("\n-- name:")
    for name, sql in own.items():
        if name in QUERIES:
            assert set(re.findall(r"(?<!:):(\w+)", sql)) == set(re.findall(r":(\w+)", QUERIES[name])), name
            assert " ".join(sql.split()) != " ".join(QUERIES[name].split()), name
        else:
            assert name in ONLY_IN_POSTGRES
            assert f'"{name}"' in CODE


def test_postgres_has_the_same_tables_with_the_same_columns():
    """In another order at most: what came later by ALTER TABLE stands in its place there."""
    text = FOLDER.joinpath("schema_postgres.sql").read_text()
    found = dict(re.findall(r"^CREATE TABLE (\w+) \(\n(.+?)^\);", text, re.MULTILINE | re.DOTALL))
    columns = {name: re.findall(r"^  ([a-z]\w*) (\w+)", body, re.MULTILINE) for name, body in found.items()}
    connection = schema()
    types = {"INTEGER": {"BIGINT"}, "TEXT": {"TEXT"}, "BLOB": {"BYTEA"}, "REAL": {"DOUBLE"}}
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"):
        there = dict(columns.pop(name))
        for _, column, kind, *_ in connection.pragma("table_info", name):
            assert there.pop(column) in types[kind], f"{name}.{column}"
        assert not there
    assert set(columns) == {"ledger_version", "locks", "writers"}


def test_every_table_and_column_of_postgres_has_a_comment():
    text = FOLDER.joinpath("schema_postgres.sql").read_text()
    for name, body in re.findall(r"^CREATE TABLE (\w+) \(\n(.+?)^\);", text, re.MULTILINE | re.DOTALL):
        assert re.match(r"(  -- .+\n)*  -- .+\.\n", body), name
        for column in re.findall(r"^  ([a-z]\w*) \w+", body, re.MULTILINE):
            described = rf"^(  {column} .* -- .+|  -- .+\n  {column} .+)$"
            assert re.search(described, body, re.MULTILINE), f"{name}.{column}"


def test_steps_are_numbered_from_one_without_a_gap():
    versions = re.findall(r"^-- version (\d+): ", FOLDER.joinpath("schema.sql").read_text(), re.MULTILINE)
    assert [int(version) for version in versions] == list(range(1, len(STEPS) + 1))


def test_the_schema_names_the_program():
    assert schema().pragma("application_id") == APPLICATION_ID


def test_every_table_and_column_has_a_comment():
    connection = schema()
    for name, sql in connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'"):
        assert re.search(r"\(\n(  -- .+\n)*  -- .+\.\n", sql), name
        for _, column, *_ in connection.pragma("table_info", name):
            # A column that a later step adds has its comment there: SQLite keeps none in the table's own text.
            added = f"-- {name}.{column}: " in FOLDER.joinpath("schema.sql").read_text()
            assert added or re.search(rf"^  {column} .* -- .+$", sql, re.MULTILINE), f"{name}.{column}"
