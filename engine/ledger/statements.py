"""The statements of a ledger by name, and the steps of a schema, as the SQL files of this folder hold them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

_QUERY = re.compile(r"^-- name: (\w+)\n-- .+\n((?:(?!-- name:).*\n?)+)", re.MULTILINE)
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


def with_removals(queries: Mapping[str, str]) -> Mapping[str, str]:
    """Return statements with `remove_some` for each table of REMOVED_TABLES, as remove_TABLE."""
    rest = dict(queries)
    some = rest.pop("remove_some")
    return rest | {f"remove_{table}": some.format(table=table, key=key) for table, key in REMOVED_TABLES.items()}


QUERIES = with_removals(read_queries(sql_file("queries.sql")))
"""As SQLite takes them."""
