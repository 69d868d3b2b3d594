"""The engine's reader alone: a source in, the seconds out that it took to find, parse and check every record.

    python -m benchmarks.contenders.engine_read read|plan SOURCE

`plan` does all that a run does before it sends: it also cuts batches, hashes them and packs where their records stand.
"""

from __future__ import annotations

import json
import sys
import time

from engine.commands import wiring
from engine.commands.wiring import Offline
from engine.model.job import Job
from engine.model.record import Position
from engine.source.sources import find_sources

CONFIG = '[service]\nkind = "sama"\nproject_id = 1\naccess_key = "${env:SAMA_ACCESS_KEY}"\n'


def main() -> None:
    """Read everything and print the seconds."""
    way, source = sys.argv[1:]
    setup = wiring.load(CONFIG)
    job = Job("bench", "sama", CONFIG, find_sources([source], setup.settings.source), "")
    parts = wiring.offline(setup, job)
    started = time.perf_counter()
    count = read(parts, job) if way == "read" else plan(parts, job)
    print(json.dumps({"seconds": time.perf_counter() - started, "work": count}))


def read(parts: Offline, job: Job) -> int:
    """Count the records that are fit to be sent."""
    return sum(len(block.raws) for block in parts.tasks(job, Position()))


def plan(parts: Offline, job: Job) -> int:
    """Count the records that stand in batches."""
    return sum(batch.count for step in parts.plans(job, None) for batch in step.batches)


if __name__ == "__main__":
    main()
