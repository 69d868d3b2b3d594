"""The engine without its memory: the same job, its ledger forgets at once, and there is no report at the end.

    python -m benchmarks.contenders.no_ledger SOURCE CONFIG

What `submit` takes longer than this is the price of the ledger and of the bookkeeping.
"""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator
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
    """A ledger that remembers nothing: what a run asks of it is answered as for a job that has just begun."""

    async def freeze(self, *_: Any, **__: Any) -> None:
        """Forget batches."""

    async def move(self, *_: Any, **__: Any) -> None:
        """Forget a step."""

    async def settle(self, *_: Any, **__: Any) -> None:
        """Forget the fate of records."""

    async def last_batch(self, job: str) -> None:
        """Return None: there is none."""

    async def batch(self, *_: Any) -> None:
        """Return None: it is forgotten, and with it where its records stand."""

    async def names_of(self, *_: Any) -> tuple[str, ...]:
        """Return no names."""
        return ()

    async def batches(self, *_: Any) -> AsyncIterator[tuple[Batch, Submission]]:
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
    with wiring.standby(setup, job, None) as standby:
        async with wiring.online(setup, job, in_flight.hear) as service:
            run = Run(job, service, cast("Ledger", Forgetful()), clock, random.random, lambda _: None, stop)
            if error := await wiring.pipeline(setup, run, in_flight, standby=standby).work():
                raise error


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2]))
