"""A source and a service in, the command that submits it out: bulksubmit as a contender, and the parser's ceiling."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import Contender, python
from benchmarks.workload import BATCH_RECORDS

NAME = "bulksubmit"
IN_FLIGHT = 8
"""Requests under way at once, for every contender that has to be told; bulksubmit finds out its own number."""

KEYS = {"SAMA_ACCESS_KEY": "sandbox-key", "SB_AUTH_TOKEN": "sandbox-key"}

INLINE = """[service]
kind = "sama"
base_url = "{url}/v2"
project_id = {batch_records}
access_key = "${{env:SAMA_ACCESS_KEY}}"
mode = "{mode}"

[batch]
max_records = {batch_records}
max_bytes = 33554432
"""

DRAFTS = """[service]
kind = "sevenbridges"
base_url = "{url}/v2"
auth_token = "${{env:SB_AUTH_TOKEN}}"

[send]
max_in_flight = {in_flight}
"""


def sama_config(path: Path, url: str, *, mode: str = "inline", batch_records: int = 1000) -> Path:
    """Write a configuration for Sama; the project's id is the size of its batches (see `nginx`)."""
    path.write_text(INLINE.format(url=url, mode=mode, batch_records=batch_records))
    return path


def drafts_config(path: Path, url: str, in_flight: int) -> Path:
    """Write a configuration for drafts of Seven Bridges."""
    path.write_text(DRAFTS.format(url=url, in_flight=in_flight))
    return path


def submitting(  # noqa: PLR0913 - what differs between contenders
    source: Path,
    config: Path,
    work: float,
    name: str = NAME,
    *,
    unit: str = "records",
    ledger: str = ".bulksubmit/ledger.db",
    environment: Mapping[str, str] = KEYS,
) -> Contender:
    """Return bulksubmit, submitting a source: ledger and reports on disk, every task followed to its creation."""
    command = [sys.executable, "-m", "engine", "submit", str(source), "--config", str(config)]
    command += ["--job", "bench", "--ledger", ledger, "--output", ".bulksubmit/bench", "--json", "--quiet"]
    remark = "durable ledger, every task followed to its creation, reports written"
    return Contender(name, command, work, unit, {**KEYS, **environment}, remark)


def ceiling(name: str, kind: str, source: Path, work: float, *, collector: bool = True) -> Contender:
    """Return `orjson.loads` alone, over blocks of a source of this kind; with Python's cyclic collector or without."""
    command = python("benchmarks.contenders.blocks", source, BATCH_RECORDS[kind], *([] if collector else ["no-gc"]))
    return Contender(name, command, work, remark="parses, and no more")
