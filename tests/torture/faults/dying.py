"""Work on jobs in processes that die as told; be a parent to them and tell what became of each.

    python dying.py < orders > ends

Each line of input is an order {"number", "config", "source", "ledger", "output", "shared", "deaths"}, each line of
output an end {"number", "died", "code"}; orders are worked on side by side. The first process of an order dies the
first death, the next one resumes the job and dies the second, and so on; the last may live. Where the job is shared,
each is another worker, and has to wait for the end of the leases that the one before it left. Deaths:

    {"seconds": 0.3}                                          killed from outside, after so long
    {"state": "staged", "number": 2, "moment": "after"}       killed right before or after a batch's second such step
                                                              is durable; of the first process only
    {"sync": 3, "tail": "torn"}                               the power goes at the third sync of a file of the ledger

The processes are forked from one that has imported everything and runs no thread: a life is all work, and no start-up.
"""

import json
import os
import signal
import sys
import threading
from functools import partial
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import anyio

import engine
from engine.commands import wiring
from engine.ledger.sqlite import SqliteLedger
from engine.ledger.writer import Hooks
from engine.model import shard
from engine.model.errors import Exit, JobError
from engine.reports import outcomes
from engine.run import shards
from tests.torture.faults.power import FailingPower, Tail


async def work(order: dict, hooks: Hooks) -> int:
    """Go on with the job, or begin it, if its first life was too short even for that.

    With nights, a job of its family stands before it, with some of its records, and one after it, with all of them.
    """
    outcomes._LOOK_RECORDS = 1  # reports are written beside the run however small it is
    if "before" not in order:
        return await one_job(order, "j", order["source"], hooks)
    family = {"family": "nightly", "delta": True}
    await one_job(order, "before", order["before"], Hooks(), **family)
    code = await one_job(order, "j", order["source"], hooks, **family)
    await one_job(order, "again", order["source"], Hooks(), **family)
    return code


async def one_job(order: dict, name: str, source: str, hooks: Hooks, **options) -> int:
    ledger, output = Path(order["ledger"]), Path(order["output"])
    try:
        result = await engine.resume(name, ledger)
    except JobError:
        with patch.object(SqliteLedger, "open", partial(SqliteLedger.open, hooks=hooks)):
            folder = output if name == "j" else output / name
            result = await engine.submit(source, order["config"], ledger, job=name, output=folder, **options)
    while result.exit_code == Exit.LOCKED:  # a machine so busy that a lease has ended
        result = await engine.resume(name, ledger)
    return result.exit_code


def share() -> None:
    """Be one of the processes that send a job together, with leases that are soon over."""
    SqliteLedger.open = partial(SqliteLedger.open, shares_jobs=True)
    shards._SLACK_SECONDS = (1.0, 1.0)
    shard.SHARD_BATCHES = 2


def dying_at(state: str, number: int, moment: str) -> Hooks:
    left = number

    def look(changes) -> None:
        nonlocal left
        left -= sum(change.state == state for change in changes)
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return Hooks(before_commit=look) if moment == "before" else Hooks(on_commit=look)


def live(order: dict, death: dict) -> None:
    """Be one process that works on the job; never returns."""
    code = 70
    try:
        if order["shared"]:
            share()
        disk = FailingPower(death["sync"], Tail(death["tail"])) if "sync" in death else None
        code = int(anyio.run(work, order, dying_at(**death) if "state" in death else Hooks()))
        del disk  # SQLite's default as long as it is there
    finally:
        os._exit(code)


def live_until(order: dict, death: dict) -> int:
    """Let a process work until it dies; return its exit code, or -SIGKILL."""
    child = os.fork()
    if child == 0:
        live(order, death)
    timer = None
    if "seconds" in death:
        # Not a thread of ours at the moment of a fork: it is started after, and joined before the next.
        timer = threading.Timer(death["seconds"], os.kill, (child, signal.SIGKILL))
        timer.start()
    # Not reaped before the timer is done: else its number could belong to somebody else when the timer strikes.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    if timer is not None:
        timer.cancel()
        timer.join()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def watch_over(order: dict) -> None:
    """Be the parent of all processes of one order; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    died, code = 0, -signal.SIGKILL
    for death in [*order["deaths"], {}]:
        code = live_until(order, death)
        if code != -signal.SIGKILL:
            break
        died += 1
    end = {"number": order["number"], "died": died, "code": code}
    os.write(sys.stdout.fileno(), json.dumps(end).encode() + b"\n")  # at once, so that lines do not mingle
    os._exit(0)


def main() -> None:
    for module in ("engine.http.caller", *wiring.SERVICES.values()):  # as a running engine has
        import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a watcher ended
    for line in sys.stdin:
        if os.fork() == 0:
            watch_over(json.loads(line))


if __name__ == "__main__":
    main()
