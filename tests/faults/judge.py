"""A sandbox's journal enters, how often each marker was created leaves: the judge of every run, never the engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

KEY = "sandbox-key"

BEHAVIOUR = """
continue_again = "duplicate"  # the unkindest: a batch that is released twice is created twice

[journal]
marker = "data.id"
"""

CONFIG = """
[service]
kind = "sama"
base_url = "http://127.0.0.1:{port}/v2"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"
mode = "{mode}"

[batch]
max_records = {batch}

[send]
{send}
poll_seconds = 0.01
max_poll_seconds = 0.05
retry_base_seconds = 0.01
retry_cap_seconds = 0.05
"""


@dataclass
class Judge:
    """Reads a journal as it grows; knows each created task by its marker."""

    path: Path
    task_ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _read: int = 0

    def look(self) -> None:
        """Take in what was written since the last look."""
        if not self.path.exists():
            return
        with self.path.open("rb") as journal:
            journal.seek(self._read)
            for line in journal:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                entry = orjson.loads(line)
                self.task_ids[entry["marker"]].append(entry["task_id"])

    def complaints(self, outcomes: Sequence[dict], markers: Sequence[str]) -> list[str]:
        """Compare what the engine says of each record with what was really created; nothing to say is the best."""
        self.look()
        found = []
        for outcome, marker in zip(outcomes, markers, strict=True):
            created = self.task_ids.get(marker, [])
            if len(created) > 1:
                found.append(f"{marker} was created {len(created)} times")
            if outcome["state"] == "created" and created != [outcome["task_id"]]:
                found.append(f"{marker} is said to be task {outcome['task_id']}, and is {created}")
            if outcome["state"] not in {"created", "uncertain"}:
                found.append(f"{marker} is {outcome['state']} ({outcome['error']}), and there is {created}")
        return found

    @property
    def duplicated(self) -> int:
        """Markers created more than once, in all runs so far."""
        self.look()
        return sum(len(ids) > 1 for ids in self.task_ids.values())


def write_tasks(path: Path, prefix: str, count: int) -> list[str]:
    """Write a source of `count` tasks; return their markers."""
    markers = [f"{prefix}-{number}" for number in range(count)]
    path.write_bytes(b"".join(orjson.dumps({"data": {"id": marker}}) + b"\n" for marker in markers))
    return markers


def lines(path: Path) -> list[dict]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@contextmanager
def sandbox_process(folder: Path) -> Iterator[tuple[int, Judge]]:
    """Run a sandbox as a process of its own, so that nothing the engine does can touch its memory; port and judge."""
    behaviour, journal = folder / "behaviour.toml", folder / "journal.ndjson"
    behaviour.write_text(BEHAVIOUR)
    command = [sys.executable, "-m", "engine", "sandbox", "--port", "0", "--json"]
    command += ["--behaviour", str(behaviour), "--journal", str(journal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        try:
            url = json.loads(process.stdout.readline())["url"]
            yield int(url.rpartition(":")[2].partition("/")[0]), Judge(journal)
        finally:
            process.terminate()
