"""Be the command `bulksubmit`, with an accident amid a call, and leave behind how much memory it took at most.

    python -m hostile.betrayed PEAK ACCIDENT ARGUMENT...

PEAK is the file that gets the figure, in KiB. It is the kernel's own for this program: what `getrusage` says of a child
begins with the memory of the process that started it. ACCIDENT is `raise` (an error that shows all of the request, from
where nobody expects one), `kill` (the process dies at the call that the variable DIE_AT names, and leaves the ledger's
WAL behind) or `none`.
"""

import os
import signal
import sys
from pathlib import Path

from engine.cli.app import call
from engine.http.client import HttpClient

sent = HttpClient.send


async def raising(self, request):
    raise RuntimeError(f"cannot {request.call.method} {request.url} with {request.headers}")


async def dying(self, request):
    if request.call.kind == os.environ["DIE_AT"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return await sent(self, request)


ACCIDENTS = {"raise": raising, "kill": dying, "none": sent}


def peak_kib() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


if __name__ == "__main__":
    peak, accident, *arguments = sys.argv[1:]
    HttpClient.send = ACCIDENTS[accident]
    code = call(arguments)
    Path(peak).write_text(str(peak_kib()))
    sys.exit(code)
