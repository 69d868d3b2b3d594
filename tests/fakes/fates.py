"""A job in which every fate occurs, and its reports."""

from contextlib import asynccontextmanager

from engine.model.batch import Limits
from engine.model.outcome import Settlement
from engine.model.submission import State, Submission
from engine.reports.outcomes import ReportWriter
from fakes.bench import a_bench

BIG = "12345678901234567890123"
"""An integer that no float holds."""
FIRST = b'{"data":{"id":"0"}}\nno json\n{"data":{"id":"1","n":%s}}\n' % BIG.encode()
SECOND = b'\n{"data":{"id":"2"}}\n{"data":{"id":"3"}}\n{"data":{"id":"4"}}\n{"input":"\xc3\xa9"}\n'


@asynccontextmanager
async def every_fate(folder):
    """Open a job over two files, in batches of two: settled, uncertain and frozen."""
    paths = [folder / "a.ndjson", folder / "b.ndjson"]
    paths[0].write_bytes(FIRST)
    paths[1].write_bytes(SECOND)
    async with a_bench(folder, sources=paths, limits=Limits(2, 1 << 20)) as bench:
        settled, uncertain, _ = await bench.freeze()
        await settle(bench, settled, Settlement(["t0", None], {1: "data.n: too big"}))
        await bench.bring(uncertain, State.RELEASED, "r2")
        doubt = Submission(1, State.UNCERTAIN, "r2", note="the answer was lost")
        await bench.ledger.move("j", doubt, expected=State.RELEASED)
        yield bench


async def settle(bench, batch, settlement, remote_id="r1"):
    """Take a frozen batch to its settlement."""
    await bench.bring(batch, State.RELEASED, remote_id)
    settled = Submission(batch.sequence, State.SETTLED, remote_id)
    await bench.ledger.settle("j", settled, settlement, expected=State.RELEASED)


async def write(bench, record_at=None):
    """Write the reports of a job."""
    with writer_of(bench, record_at) as writer:
        return await writer.finish()


def writer_of(bench, record_at=None, **options):
    """Return what writes the reports of a job."""
    url, record_at = bench.service.task_url, record_at or bench.reader.as_json
    return ReportWriter(bench.job, bench.ledger, url, record_at, **options)
