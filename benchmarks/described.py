"""What a service made by a description costs beside a built-in one: the same rows, the same calls, the same nginx."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

from benchmarks.harness import Contender, Row, Section, Session, Target, alternate
from benchmarks.nginx import nginx
from benchmarks.ours import KEYS, sama_config
from benchmarks.workload import BLOCK_RECORDS, MEGABYTE, SIZES, records

BUILT_IN = "built in: sama"
DESCRIBED = "described: the same calls"
KEYED = "described: elasticsearch, a key for each record"

MAPPING = """
[mapping]
wrap = "data"
"""

SAME_CALLS = """[service]
kind = "http"
base_url = "{url}/v2/projects/1000"

[service.auth]
kind = "query"
name = "access_key"
secret = "${{env:SAMA_ACCESS_KEY}}"

[service.body]
under = "tasks"

[service.release]
call = "POST /batches.json"
payload = true
take = {{ id = "batch_id" }}
again = "never"

[service.status]
call = "GET /batches/${{id}}.json"
query = {{ page = "1", page_size = "1000" }}
state = "state"
finished = ["completed"]
failed = ["failed", "canceled"]
created = "created"

[service.results]
of = "status"
items = "tasks"
match = "order"
id = ["id"]
ok = {{ state = "created" }}

[batch]
max_records = 1000
max_bytes = 33554432
"""

ELASTICSEARCH = """[service]
kind = "elasticsearch"
base_url = "{url}"

[service.values]
index_name = "tasks"

[service.auth]
kind = "header"
secret = "${{env:SAMA_ACCESS_KEY}}"

[service.limit]
bytes = 33554432

[service.results]
id = ["*._id"]
ok = {{ "*.status" = [200, 201] }}

[batch]
max_records = 1000
max_bytes = 33554432
"""

METHOD = """Rows of typical size are read from an NDJSON file and wrapped by `[mapping]`, sent inline in batches of \
1,000, followed to their creation and reported, once by the built-in service and once by a description that makes the \
same calls and reads the same answers. The third one is the shipped description of Elasticsearch, which gives each \
record a key of its own and a line before it, and has the answer at once. The server is nginx, as for the way from \
the file to nginx. What counts is the CPU time of all processes that take part."""


def measure(session: Session) -> Section:
    """Measure the three in turn."""
    count = session.size(200, 40) * MEGABYTE // SIZES["typical"] // BLOCK_RECORDS * BLOCK_RECORDS
    source = session.made(f"rows-{count}.ndjson", lambda path: _write_rows(path, count))
    with nginx(session.folder) as url:
        built_in = sama_config(session.folder / "built-in.toml", url)
        built_in.write_text(built_in.read_text() + MAPPING)
        configs = {
            BUILT_IN: built_in,
            DESCRIBED: _written(session.folder / "described.toml", SAME_CALLS, url),
            KEYED: _written(session.folder / "elasticsearch.toml", ELASTICSEARCH, url),
        }
        contenders = [_submitting(name, source, config, count) for name, config in configs.items()]
        runs = alternate(contenders, session.rounds(5, 90), session.folder)
    costs = {name: [one.cpu_seconds for one in runs[name]] for name in configs}
    ratios = {
        name: [one / other for one, other in zip(costs[name], costs[BUILT_IN], strict=True)]
        for name in (DESCRIBED, KEYED)
    }
    rows = [
        Row("CPU a record, the same calls by description", BUILT_IN, ratios[DESCRIBED], Target(1.2, at_least=False)),
        Row("CPU a record, Elasticsearch by description, with keys", BUILT_IN, ratios[KEYED]),
    ]
    settings = {"records": count, "records a batch": BLOCK_RECORDS}
    return Section("described", "A service by a description", METHOD, rows, contenders, runs, settings)


def _write_rows(path: Path, count: int) -> int:
    begin, end = len(b'{"data":'), -len(b"}")
    with path.open("wb") as file:
        file.writelines(record[begin:end] + b"\n" for record in islice(records("typical"), count))
    return count


def _written(path: Path, text: str, url: str) -> Path:
    path.write_text(text.format(url=url) + MAPPING)
    return path


def _submitting(name: str, source: Path, config: Path, count: int) -> Contender:
    command = [sys.executable, "-m", "engine", "submit", str(source), "--config", str(config)]
    command += ["--job", "bench", "--ledger", ".bulksubmit/ledger.db", "--json", "--quiet"]
    return Contender(name, command, count, environment=KEYS, remark="durable ledger and reports")
