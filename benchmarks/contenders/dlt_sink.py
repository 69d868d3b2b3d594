"""A custom destination of dlt that POSTs batches of 1,000, with nesting and dlt's own columns switched off.

python -m benchmarks.contenders.dlt_sink URL SOURCE
"""
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator"

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import orjson
import requests

URL, SOURCE = sys.argv[1:]
SESSION = requests.Session()


@dlt.destination(
    batch_size=1000,
    loader_file_format="typed-jsonl",
    name="sink",
    naming_convention="direct",
    max_table_nesting=0,
    skip_dlt_columns_and_tables=True,
)
def sink(items: Any, table: Any) -> None:
    """Send one batch."""
    del table
    SESSION.post(URL, json={"tasks": items}, timeout=60).raise_for_status()


def records() -> Iterator[Any]:
    """Yield the records of the file."""
    with Path(SOURCE).open("rb") as file:
        for line in file:
            yield orjson.loads(line)


if __name__ == "__main__":
    pipeline = dlt.pipeline("bench", destination=sink, pipelines_dir=str(Path.cwd()))
    pipeline.run(records(), table_name="tasks").raise_on_failed_jobs()
