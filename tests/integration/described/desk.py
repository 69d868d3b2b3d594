"""A vendor's stand-in, the description of it that is shipped, and a ledger: loads as a person would make them."""

import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import orjson

import engine
from engine.model.errors import Interrupted
from engine.progress.events import BatchMoved
from engine.run.context import Stop
from engine.sandbox.journal import read_journal

CONFIG = """
{service}

[batch]
max_records = {records}

[send]
poll_seconds = 0.01
max_poll_seconds = 0.05
polls_per_second = 1000
retry_base_seconds = 0.01
settle_seconds = 0.3
{send}
"""


@dataclass
class VendorDesk:
    """`kind` is what is shipped, `filled_in` what a person writes beside it: TOML, with `{url}` for the address."""

    folder: Path
    url: str
    service: object
    kind: str
    filled_in: str
    records: int = 20
    events: list = field(default_factory=list)
    stop: Stop = field(default_factory=Stop)
    stop_at: int | None = None
    """Number of released batches after which the run is interrupted."""

    @property
    def ledger(self):
        return self.folder / "state" / "ledger.db"

    def config(self, *, send="", more=""):
        service = f'[service]\nkind = "{self.kind}"\n{self.filled_in.replace("{url}", self.url)}\n{more}'
        path = self.folder / "vendor.toml"
        path.write_text(CONFIG.format(service=service, records=self.records, send=send))
        return path

    async def submit(self, records, *, job="j", send="", more=""):
        return await engine.submit(
            self._source(records), self.config(send=send, more=more), self.ledger, self.emit, self.new_stop(), job=job
        )

    async def resume(self, job="j", **options):
        return await engine.resume(job, self.ledger, self.emit, self.new_stop(), **options)

    async def submit_a_part(self, records, batches):
        """Submit, and have the run ended once so many batches are released; the job stays open."""
        self.stop_at = batches
        assert (await self.submit(records, send="max_in_flight = 1")).state == "open"
        self.stop_at = None

    async def retry(self, job="j", **options):
        return await engine.retry(job, self.ledger, self.emit, self.new_stop(), **options)

    async def check(self, records):
        """Check a load; return what came of each check, with its words."""
        report = await engine.check(self.config(), self._source(records), self.ledger)
        return {line.name: (line.verdict.value, line.found) for line in report.lines}

    def _source(self, records):
        source = self.folder / "records.ndjson"
        source.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
        return source

    async def audit(self, job="j"):
        return await engine.audit(job, self.ledger)

    def new_stop(self):
        self.events.clear()
        self.stop = Stop()
        return self.stop

    def emit(self, event):
        self.events.append(event)
        moves = [str(one.after) for one in self.events if isinstance(one, BatchMoved)]
        if self.stop_at is not None and moves.count("released") + moves.count("settled") >= self.stop_at:
            self.stop.request(Interrupted(signal.SIGTERM))

    def created(self):
        """Count how often each marker was created, by the stand-in's journal."""
        path = self.folder / "journal.ndjson"
        entries = read_journal(path) if path.exists() else ()
        return Counter(str(entry.marker) for entry in entries if entry.kind == "task")

    @property
    def faults(self):
        """Requests that a fault struck."""
        return self.service.traffic.stats.faults.total()

    async def cancel(self, job="j"):
        return await engine.cancel(job, self.ledger, self.emit, self.new_stop())

    def calls(self, kind):
        """Count the requests of a kind that the stand-in has seen."""
        return self.service.traffic.stats.requests[kind]


async def is_resumed(vendor, records):
    """Have a run stopped and resumed: each record is created once."""
    await vendor.submit_a_part(records, 3)
    result = await vendor.resume()
    assert counts(result) == (len(records), 0, 0, 0, 0)
    assert vendor.created() == once(range(len(records)))
    assert (await vendor.audit()).holds


async def is_checked(vendor, records, promise, monkeypatch):
    """Have a check tell what comes after a lost answer, and that a key does not hold; nothing is created by it."""
    told = await vendor.check(records)
    assert told["key"][0] == "ok"
    assert promise in told["lost answers"][1]
    monkeypatch.setenv("VENDOR_KEY", "wrong-key-9f2c")
    assert (await vendor.check(records))["key"][0] == "failed"
    assert vendor.created() == {}


def counts(result):
    """Return created, failed, rejected, uncertain and unresolved of a result."""
    tally = result.tally
    return tally.created, tally.failed, tally.rejected, tally.uncertain, tally.unresolved


def reasons(result):
    """Return why each record failed, by its index."""
    return {outcome.index: outcome.error for outcome in result.read_outcomes() if outcome.error}


def once(indexes):
    """Return what a journal counts in which the records with these numbers were created once each."""
    return {str(index): 1 for index in indexes}
