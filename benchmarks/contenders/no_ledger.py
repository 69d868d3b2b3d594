"""The engine without its memory: the same job, its ledger writes nothing, and there is no report at the end.

    python -m benchmarks.contenders.no_ledger SOURCE CONFIG

What `submit` takes longer than this is the price of the ledger and of the bookkeeping.
"""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import uvloop

from engine.clock import SystemClock
from engine.commands import wiring
from engine.ledger.base import Ledger
from engine.model.batch import Batch
from engine.model.job import Job
from engine.model.submission import Submission
from engine.run.context import Run, Stop
from engine.run.in_flight import InFlight
from engine.source.sources import find_sources


class Forgetful:
    """A ledger that writes nothing: it knows where the records of batches under way stand, and forgets the rest."""

    address = Path("no-ledger")
    """Of the file; there is none."""
    shares_jobs = False

    def __init__(self) -> None:
        self._batches: dict[int, Batch] = {}

    async def freeze(self, _job: str, batches: Sequence[Batch], *_: Any, **__: Any) -> None:
        """Know batches until they are settled: the proof of the tasks' order reads one again."""
        self._batches.update((batch.sequence, batch) for batch in batches)

    async def move(self, *_: Any, **__: Any) -> None:
        """Forget a step."""

    async def settle(self, _job: str, submission: Submission, *_: Any, **__: Any) -> None:
        """Forget a batch, and the fate of its records."""
        self._batches.pop(submission.sequence, None)

    async def written(self) -> None:
        """Return at once: nothing is kept that could be waited for."""

    async def last_batch(self, job: str) -> None:
        """Return None: there is none."""

    async def batch(self, _job: str, sequence: int) -> tuple[Batch, Submission] | None:
        """Return a batch under way."""
        batch = self._batches.get(sequence)
        return (batch, Submission(sequence)) if batch else None

    async def owner(self, *_: Any) -> None:
        """Return None: no batch is remembered that could have this remote id."""

    async def note_slowest_start(self, *_: Any) -> None:
        """Forget how long a batch waited."""

    def check_lease(self, *_: Any) -> None:
        """Refuse nothing: nobody else has a batch."""

    async def batches(self, *_: Any, **__: Any) -> AsyncIterator[tuple[Batch, Submission]]:
        """Yield nothing."""
        nothing: tuple[tuple[Batch, Submission], ...] = ()
        for pair in nothing:
            yield pair


async def main(source: str, config: str) -> None:
    """Run the job once."""
    text = wiring.read_config(Path(config))
    setup = wiring.load(text)
    sources = find_sources([source], setup.settings.source)
    job = Job("bench", setup.service.kind, text, sources, "")
    clock, stop = SystemClock(), Stop()
    in_flight = InFlight(setup.settings.send, clock, lambda _: None)
    ledger = cast("Ledger", Forgetful())
    with wiring.standby(setup, job, None) as standby:
        async with wiring.online(setup, job, in_flight.hear) as service:
            run = Run(job, service, ledger, clock, random.random, lambda _: None, stop)
            if error := await wiring.pipeline(setup, run, in_flight, standby=standby).work():
                raise error


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
