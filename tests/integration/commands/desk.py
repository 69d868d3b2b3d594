"""A sandbox, a configuration for it and a ledger: operations as a person would ask for them, and what came of them."""

import signal
from dataclasses import dataclass, field
from pathlib import Path

import orjson

import engine
from engine.model.errors import Interrupted
from engine.progress.events import BatchMoved
from engine.run.context import Stop
from engine.sandbox.journal import count_markers, read_journal
from engine.sandbox.server import Sandbox

CONFIG = """
[service]
kind = "sama"
base_url = "{url}"
project_id = 42
access_key = "${{env:SAMA_ACCESS_KEY}}"
{service}

[batch]
max_records = 10

[send]
poll_seconds = 0.01
max_poll_seconds = 0.05
polls_per_second = 1000
retry_base_seconds = 0.01
settle_seconds = 0.3
{send}

{more}
"""


def tasks(count, start=0, **fields):
    """Return tasks with an `id`, by which the sandbox's journal knows them."""
    return [{"data": {"id": str(number), **fields}} for number in range(start, start + count)]


def written(path, records):
    """Write records as NDJSON, and return the path."""
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


def once(count):
    """Return what a journal counts in which the tasks so far were created once each."""
    return {str(number): 1 for number in range(count)}


@dataclass
class Desk:
    """Where a test does its work; every operation opens the ledger anew, as a command does."""

    folder: Path
    sandbox: Sandbox
    events: list = field(default_factory=list)
    stop: Stop = field(default_factory=Stop)
    stop_at: int | None = None
    """Number of released batches after which the run is interrupted."""

    @property
    def ledger(self):
        return self.folder / "state" / "ledger.db"

    @property
    def journal(self):
        return self.folder / "journal.ndjson"

    def created(self):
        """Count how often the sandbox created each marker."""
        return count_markers(self.journal) if self.journal.exists() else {}

    def created_digests(self):
        """Return the sha256 of each created task, by marker."""
        return {entry.marker: entry.sha256 for entry in read_journal(self.journal)}

    def config(self, *, service="", send="", more="", url=None):
        path = self.folder / "engine.toml"
        path.write_text(CONFIG.format(url=url or self.sandbox.url, service=service, send=send, more=more))
        return path

    def source(self, records, name="tasks.ndjson"):
        return written(self.folder / name, records)

    async def submit(self, source, config=None, *, job="j", **order):
        return await engine.submit(
            source, config or self.config(), self.ledger, self.emit, self.new_stop(), job=job, **order
        )

    async def resume(self, job="j", **options):
        return await engine.resume(job, self.ledger, self.emit, self.new_stop(), **options)

    async def retry(self, job="j", **options):
        return await engine.retry(job, self.ledger, self.emit, self.new_stop(), **options)

    async def send_again(self, job="j"):
        return await engine.retry(job, self.ledger, self.emit, self.new_stop(), uncertain=True)

    async def cancel(self, job="j"):
        return await engine.cancel(job, self.ledger, self.emit, self.new_stop())

    async def audit(self, job="j"):
        return await engine.audit(job, self.ledger)

    async def status(self, job="j", **options):
        (status,) = await engine.status(job, self.ledger, **options)
        return status

    def new_stop(self):
        self.events.clear()
        self.stop = Stop()
        return self.stop

    def emit(self, event):
        self.events.append(event)
        moves = [str(one.after) for one in self.events if isinstance(one, BatchMoved)]
        if self.stop_at is not None and moves.count("released") >= self.stop_at:
            self.stop.request(Interrupted(signal.SIGTERM))

    def calls(self, *kinds):
        """Count the requests that the sandbox has seen."""
        return sum(self.sandbox.stats.requests[kind] for kind in kinds)


def lines(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def counts(result):
    """Return created, failed, rejected, uncertain and unresolved of a result."""
    tally = result.tally
    return tally.created, tally.failed, tally.rejected, tally.uncertain, tally.unresolved


async def stopped(desk, count=100, *, send="", **config):
    """Submit a job and stop it after three batches."""
    desk.stop_at = 3
    source = desk.source(tasks(count))
    result = await desk.submit(source, desk.config(send=f"max_in_flight = 1\n{send}", **config))
    desk.stop_at = None
    assert result.state == "open"
    return source
