"""What a worker of a cluster may do for long, in place of sending."""

import os
import signal
from pathlib import Path

from engine.model.errors import Unavailable


def handlers():
    """Return what signals do in this process."""
    return [repr(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


async def until_stopped(folder, stop):
    """Go on until told to end, with a file of the process's id as a sign; return how it was told."""
    _leave_sign(folder)
    await stop.wait()
    return type(stop.error).__name__


async def at_once(folder, stop):
    """Return what signals do here meanwhile."""
    return handlers()


async def failing(folder, stop):
    """Fail as a worker fails whose service is down."""
    raise Unavailable("the service is down", call="release")


def _leave_sign(folder):
    Path(folder, str(os.getpid())).touch()
