"""The packaged SQL files enter; their statements leave, by name, and the steps of the schema, by version."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import apsw

_QUERY = re.compile(r"^-- name: (\w+)\n-- (.+)\n((?:(?!-- name:).*\n?)+)", re.MULTILINE)
_STEP = re.compile(r"^-- version (\d+): (.+)\n((?:(?!-- version ).*\n?)+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SchemaStep:
    """What brings a ledger from the version before to `version`."""

    version: int
    sentence: str
    sql: str


def read_queries(text: str) -> Mapping[str, str]:
    """Return the statements of `text` by name."""
    return {name: sql.strip() for name, _sentence, sql in _QUERY.findall(text)}


def read_steps(text: str) -> Sequence[SchemaStep]:
    """Return the steps of `text` in their order."""
    return [SchemaStep(int(version), sentence, sql) for version, sentence, sql in _STEP.findall(text)]


def _packaged(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


QUERIES = read_queries(_packaged("queries.sql"))
STEPS = read_steps(_packaged("schema.sql"))


def fetch(connection: apsw.Connection, name: str, bindings: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Run the statement of that name and return its rows."""
    return connection.execute(QUERIES[name], bindings).fetchall()
