"""A program that holds a job until its standard input ends: `python -m ledger.holder PATH|URL JOB`."""

import asyncio
import sys

from .stores import open_named
from .values import ManualClock


async def hold(path, job):
    async with open_named(path, ManualClock()) as ledger:
        with ledger.lock(job):
            sys.stdout.write("held\n")
            sys.stdout.flush()
            sys.stdin.read()


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1], sys.argv[2]))
