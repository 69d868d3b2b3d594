"""Submit a job and be killed, as if by a power loss, right after a chosen step became durable.

    python crashing.py CONFIG SOURCE LEDGER STATE NUMBER

STATE is a state of a batch, NUMBER says how many steps to that state happen before the end.
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from engine.commands.api import Order, submit
from engine.ledger.writer import Hooks
from engine.run.context import Stop


def main() -> None:
    config, source, ledger, state, number = sys.argv[1:]
    left = int(number)

    def die(changes) -> None:
        nonlocal left
        left -= sum(change.state == state for change in changes)
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def run() -> None:
        order = Order([source], Path(config), job="crashed")
        await submit(order, Path(ledger), lambda _: None, Stop(), hooks=Hooks(on_commit=die))

    anyio.run(run)


main()
