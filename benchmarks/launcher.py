"""A command in, what it took out: run as a program of its own, small, so that nothing of ours is counted.

    python -I -S launcher.py REPORT COMMAND…

The operating system counts what a forked child held before it became the command. Started from here that is 10 MB,
less than any contender. REPORT gets one JSON object; the output of the command goes where ours goes.

The peak of a single process is exact (`ru_maxrss`). Of a command with processes below it, all of them count: the sum of
their proportional shares (PSS), looked at ten times a second.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

LOOK_SECONDS = 0.1


def main() -> None:
    """Run the command to its end."""
    report, *command = sys.argv[1:]
    started = time.monotonic()
    process = os.posix_spawnp(command[0], command, os.environ)
    family = Family(process)
    family.start()
    _, status, usage = os.wait4(process, 0)
    seconds = time.monotonic() - started
    family.ended.set()
    taken = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": max(usage.ru_maxrss * 1024, family.peak_bytes),
        "exit": os.waitstatus_to_exitcode(status),
    }
    Path(report).write_text(json.dumps(taken))


class Family(Thread):
    """Looks at how much a process holds together with those below it, if there are any."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.peak_bytes = 0
        self.ended = Event()

    def run(self) -> None:
        """Look until the process has ended."""
        while not self.ended.wait(LOOK_SECONDS):
            members = list(below(self._process))
            if members:
                self.peak_bytes = max(self.peak_bytes, sum(map(share_bytes, [self._process, *members])))


def below(process: int) -> Iterator[int]:
    """Yield the processes that a process started, and theirs."""
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in read(task).split():
            yield int(child)
            yield from below(int(child))


def share_bytes(process: int) -> int:
    """Return the memory of a process, what it shares with others in equal parts; 0 if it has ended."""
    line = next((line for line in read(Path(f"/proc/{process}/smaps_rollup")).splitlines() if "Pss:" in line), "")
    return int(line.split()[1]) * 1024 if line else 0


def read(path: Path) -> str:
    """Return a file of /proc, empty where its process has ended."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


if __name__ == "__main__":
    main()
