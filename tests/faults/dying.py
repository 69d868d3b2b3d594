"""Work on jobs in processes that are killed at random moments; be a parent to them and tell what became of each.

    python dying.py SEED SECONDS < orders > ends

Each line of input is an order {"config", "source", "ledger", "output"}, each line of output {"kills", "code"}. A job is
killed after a time drawn from 0 to SECONDS, resumed, killed again, and so on until it outlives a draw. The processes
are forked from this one, which has imported everything and runs no thread: so a life is all work, and no start-up.
"""

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path

import anyio

from engine import assembly
from engine.model.errors import JobError
from engine.operations import Order, resume, submit
from engine.run import Stop

MOST_KILLS = 4
"""Kills of one job; then it may finish, or a slow disk would never let it."""


async def work(order: dict) -> int:
    """Go on with the job, or begin it, if its first life was too short even for that."""
    ledger = Path(order["ledger"])
    try:
        result = await resume("j", ledger, lambda _: None, Stop())
    except JobError:
        sent = Order([order["source"]], Path(order["config"]), job="j", output=Path(order["output"]))
        result = await submit(sent, ledger, lambda _: None, Stop())
    return result.exit_code


def live(order: dict) -> None:
    """Be one process that works on the job; never returns."""
    code = 70
    try:
        code = int(anyio.run(work, order))
    finally:
        os._exit(code)


def live_for(order: dict, seconds: float | None) -> int:
    """Let a process work for so long and kill it; return its exit code, or -SIGKILL."""
    child = os.fork()
    if child == 0:
        live(order)
    timer = None
    if seconds is not None:
        # Not a thread of ours at the moment of a fork: it is started after, and joined before the next.
        timer = threading.Timer(seconds, os.kill, (child, signal.SIGKILL))
        timer.start()
    # Not reaped before the timer is done: else its number could belong to somebody else when the timer strikes.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    if timer is not None:
        timer.cancel()
        timer.join()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    draw = random.Random(int(sys.argv[1]))
    longest = float(sys.argv[2])
    assembly.import_module(assembly.SERVICES["sama"])  # as a running engine has
    for line in sys.stdin:
        order = json.loads(line)
        kills = 0
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            code = live_for(order, draw.uniform(0, longest) if kills < MOST_KILLS else None)
            kills += code == -signal.SIGKILL
        print(json.dumps({"kills": kills, "code": code}), flush=True)  # noqa: T201 - what it is for


if __name__ == "__main__":
    main()
