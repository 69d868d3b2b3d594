"""The statements of a ledger by name, and the steps of a schema, as the SQL files of this folder hold them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

_QUERY = re.compile(r"^-- name: (\w+)\n-- .+\n((?:(?!-- name:).*\n?)+)", re.MULTILINE)
_CREATED = re.compile(r"^CREATE TABLE (\w+) \(\n(.+?)^\)", re.MULTILINE | re.DOTALL)
_ADDED = re.compile(r"^ALTER TABLE (\w+) ADD COLUMN (\w+)", re.MULTILINE)
_COLUMN = re.compile(r"^  ([a-z]\w*) [A-Z]", re.MULTILINE)
_STEP = re.compile(r"^-- version \d+: .+\n", re.MULTILINE)

REMOVED_TABLES: Mapping[str, str] = {
    "workers": "name",
    "shards": "first",
    "later_fates": "record_index",
    "origins": "record_index",
    "audits": "job",
    "samples": "run, at",
    "runs": "number",
    "skips": "record_index",
    "keys": "record_index",
    "rejects": "record_index",
    "orphans": "sequence, remote_id",
    "settlements": "sequence",
    "spans": "sequence",
    "batches": "sequence",
    "sources": "number",
}
"""Table with rows of a job → their key, but for the job, unless that is all of it. What hangs on rows of another table
goes before those."""


def read_queries(text: str) -> Mapping[str, str]:
    """Return the statements of `text` by name."""
    return {name: sql.strip() for name, sql in _QUERY.findall(text)}


def read_steps(text: str) -> Sequence[str]:
    """Return the steps of `text` in their order: number n brings a ledger from version n to n + 1, counted from 0."""
    return _STEP.split(text)[1:]


def sql_file(name: str) -> str:
    """Return the text of one of the SQL files."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def columns_of(steps: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the columns of each table that the steps of a schema make."""
    text = "".join(steps)
    columns = {table: _COLUMN.findall(body) for table, body in _CREATED.findall(text)}
    for table, column in _ADDED.findall(text):
        columns[table].append(column)
    return columns


def with_copies(queries: Mapping[str, str]) -> Mapping[str, str]:
    """Return statements with two for each table of COLUMNS: read_TABLE reads all of it, put_TABLE adds a row."""
    rest = dict(queries)
    reading, putting = rest.pop("read_table"), rest.pop("put_row")
    for table, columns in COLUMNS.items():
        names, values = ", ".join(columns), ", ".join(f":{column}" for column in columns)
        rest[f"read_{table}"] = reading.format(table=table, columns=names)
        rest[f"put_{table}"] = putting.format(table=table, columns=names, values=values)
    return rest


def with_removals(queries: Mapping[str, str]) -> Mapping[str, str]:
    """Return statements with `remove_some` for each table of REMOVED_TABLES, as remove_TABLE."""
    rest = dict(queries)
    some = rest.pop("remove_some")
    return rest | {f"remove_{table}": some.format(table=table, key=key) for table, key in REMOVED_TABLES.items()}


STEPS = read_steps(sql_file("schema.sql"))
"""Of SQLite's schema."""
COLUMNS = columns_of(STEPS)
"""Table → its columns; PostgreSQL has the same."""
COPIED_TABLES = ("jobs", *reversed(tuple(REMOVED_TABLES)), *sorted(COLUMNS.keys() - {"jobs", *REMOVED_TABLES}))
"""All tables; what hangs on rows of another one comes after it."""
QUERIES = with_copies(with_removals(read_queries(sql_file("queries.sql"))))
"""As SQLite takes them."""
