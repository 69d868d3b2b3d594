"""A sync of drt from a table of SQLite to a REST API, in bodies of 1,000 rows.

    python -m benchmarks.contenders.drt_sync URL DATABASE

The table `tasks` has each record's JSON in its column `task`: drt reads tables, not files, and loading them is not
counted here.
"""
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import os
import sys
from pathlib import Path

from drt.cli.main import app

PROJECT = """
name: bench
version: "0.1"
profile: bench
"""
PROFILE = """
bench:
  type: sqlite
  database: {database}
"""
SYNC = """
name: tasks
model: SELECT task FROM tasks
destination:
  type: rest_api
  url: {url}
  method: POST
  headers: {{Content-Type: application/json}}
  body_mode: batch
  batch_template: >-
    {{"tasks":[{{% for row in rows %}}{{{{ row.task }}}}{{% if not loop.last %}},{{% endif %}}{{% endfor %}}]}}
  max_records_per_request: 1000
sync:
  mode: full
  batch_size: 1000
  rate_limit: {{requests_per_second: 0}}
  on_error: fail
"""


def main() -> None:
    """Write a project into this folder and run it."""
    url, database = sys.argv[1:]
    here = Path.cwd()
    os.environ["HOME"] = str(here)
    (here / ".drt").mkdir()
    (here / "syncs").mkdir()
    (here / ".drt" / "profiles.yml").write_text(PROFILE.format(database=database))
    (here / "drt_project.yml").write_text(PROJECT)
    (here / "syncs" / "tasks.yml").write_text(SYNC.format(url=url))
    app(["run"])


if __name__ == "__main__":
    main()
