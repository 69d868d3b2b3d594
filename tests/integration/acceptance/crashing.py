"""Submit a job and be killed, as if by a power loss, right after a chosen step became durable.

    python crashing.py CONFIG SOURCE LEDGER STATE NUMBER

STATE is a state of a batch, NUMBER says how many steps to that state happen before the end.
"""

import os
import signal
import sys
from functools import partial
from unittest.mock import patch

import anyio

import engine
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks


def main() -> None:
    config, source, ledger, state, number = sys.argv[1:]
    left = int(number)

    def die(changes) -> None:
        nonlocal left
        left -= sum(change.state == state for change in changes)
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def run() -> None:
        with patch.object(SqliteLedger, "open", partial(SqliteLedger.open, hooks=Hooks(on_commit=die))):
            await engine.submit(source, config, ledger, job="crashed")

    anyio.run(run)


main()
