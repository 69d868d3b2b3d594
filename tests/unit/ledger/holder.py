"""A program that holds a job until its standard input ends: `python -m ledger.holder PATH JOB`."""

import asyncio
import sys
from pathlib import Path

from engine.ledger.sqlite import SqliteLedger

from .values import ManualClock


async def hold(path, job):
    async with SqliteLedger.open(path, ManualClock()) as ledger:
        with ledger.lock(job):
            sys.stdout.write("held\n")
            sys.stdout.flush()
            sys.stdin.read()


if __name__ == "__main__":
    asyncio.run(hold(Path(sys.argv[1]), sys.argv[2]))
