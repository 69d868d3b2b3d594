"""Sandboxes as processes of their own, for tests whose judge is a journal that the engine cannot touch.

Each is the command `bulksubmit sandbox`, forked from one process that has imported it already: a start then takes
hundredths of a second of CPU instead of half of one.
"""

import atexit
import importlib
import json
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock


@contextmanager
def served(folder: Path, behaviour: str) -> Iterator[tuple[str, Path]]:
    """Serve a sandbox that behaves so (TOML), its files in `folder`; its URL and the path of its journal."""
    config, journal = folder / "behaviour.toml", folder / "journal.ndjson"
    config.write_text(behaviour)
    arguments = ["sandbox", "--port", "0", "--json", "--behaviour", str(config), "--journal", str(journal)]
    with serving(arguments, folder / "said") as line:
        yield json.loads(line)["url"], journal


@contextmanager
def serving(arguments: list[str], said: Path) -> Iterator[str]:
    """Run a command that serves until it is ended; the first line that it says, through a pipe at `said`."""
    os.mkfifo(said)
    pid = _fork(arguments, said)
    with said.open() as output:
        try:
            yield output.readline()
        finally:
            os.kill(pid, signal.SIGTERM)
            output.read()  # to its end, which is the process's


_ONE_AT_A_TIME = Lock()


def _fork(arguments: list[str], output: Path) -> int:
    with _ONE_AT_A_TIME:
        parent = _parent()
        parent.stdin.write(json.dumps([str(output), *arguments]) + "\n")
        parent.stdin.flush()
        return int(parent.stdout.readline())


@cache
def _parent() -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    parent = subprocess.Popen([sys.executable, __file__], stdin=pipe, stdout=pipe, text=True)
    atexit.register(parent.communicate)
    return parent


def _serve_forever() -> None:
    """Fork a process for each line: where its output goes, then its arguments; tell its id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for name in ("engine.cli", "engine.commands", "engine.sandbox"):
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(module.name)
    for line in sys.stdin:
        output, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.stdin.close()
            os.dup2(os.open(output, os.O_WRONLY), 1)
            sys.argv[1:] = arguments
            runpy.run_module("engine", run_name="__main__")
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve_forever()
