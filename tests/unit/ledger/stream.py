"""A program that writes to a ledger and is killed: by its parent, or by itself before or after its n-th commit.

python -m ledger.stream PATH|URL forever        # many writers; says each step that was awaited
python -m ledger.stream PATH|URL before|after N # one writer
"""

import asyncio
import itertools
import os
import signal
import sys

from engine.ledger.writer import Hooks
from engine.model.outcome import Settlement
from engine.model.submission import State, Submission

from .stores import open_named
from .values import ManualClock, bring, frozen, ids, settle

WRITERS = 16


def say(line):
    os.write(1, f"{line}\n".encode())


async def write_forever(path):
    async with open_named(path, ManualClock()) as ledger:
        await frozen(ledger, batches=WRITERS)

        async def write(sequence):
            before = State.FROZEN
            for number in itertools.count(1):
                await ledger.move("j", Submission(sequence, State.STAGING, note=str(number)), expected=before)
                before = State.STAGING
                say(f"{sequence} {number}")

        await asyncio.gather(*(write(sequence) for sequence in range(WRITERS)))


async def write_until(path, when, last):
    commits = itertools.count(1)

    def end(_changes):
        if next(commits) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    hooks = Hooks(before_commit=end) if when == "before" else Hooks(on_commit=end)
    async with open_named(path, ManualClock(), hooks=hooks) as ledger:
        await frozen(ledger)
        await bring(ledger, "j", 0, State.RELEASED)
        await settle(ledger, "j", 0, Settlement(ids(2)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case [path, "forever"]:
            asyncio.run(write_forever(path))
        case [path, when, last]:
            asyncio.run(write_until(path, when, int(last)))
