"""A ledger of a very large job in, the time until the pages of its dashboard are there: searches above all.

The ledger is that of `resume`, with every ten-thousandth record failed for one of a few reasons.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.harness import ROOT, Row, Section, Session, Target
from benchmarks.resume import JOB, write_job

REPEATS = 5
FAILED_EVERY = 10_000
REASONS = ("title: is missing", "image: cannot be read", "the label is not one of the project's")

METHOD = """The ledger of a job of 10 million records, written by the engine's own writer, of which one record in \
10,000 has failed. `bulksubmit dashboard` serves it in a process of its own. A client that is signed in asks for each \
page five times over HTTP, with another text each time; the time from the request to the last byte counts. Task ids \
and reasons are in no index: a page looks through the job for half a second at most, says how far it came, and goes \
on from there. So a task near the end takes more than one page."""


def measure(session: Session) -> Section:
    """Write the ledger once and ask for each page several times."""
    total = session.size(10_000_000, 200_000)
    place = session.folder / "searching"
    place.mkdir()
    write_job(place, total, FAILED_EVERY, REASONS)
    pages: dict[str, Callable[[int], str]] = {
        "all jobs": lambda _: "/",
        "the job": lambda _: f"/jobs/{JOB}",
        "search by index": lambda turn: _search("index", str(total - 5 - turn)),
        "search by task id, found early": lambda turn: _search("task", f"{7 + turn:024x}"),
        "search by task id, one that nobody has": lambda turn: _search("task", f"{2**90 + turn:024x}"),
        "search by error, fifty hits": lambda turn: _search("error", REASONS[turn % len(REASONS)]),
        "search by error, none": lambda turn: _search("error", f"no such words {turn}"),
        "a record": lambda turn: f"/jobs/{JOB}/records/{total - 5 - turn}",
    }
    with _dashboard(place / "ledger.db") as ask:
        seconds = {name: [ask(path(turn)) for turn in range(REPEATS)] for name, path in pages.items()}
    rows = [
        Row(f"dashboard, {total:,} records: {name}", "", times, Target(1, at_least=False), "s")
        for name, times in seconds.items()
    ]
    return Section("searching", "The dashboard of a very large job", METHOD, rows, (), {}, {"records": total})


def _search(way: str, text: str) -> str:
    return f"/jobs/{JOB}/search?" + urlencode({"q": text, "by": way})


@contextmanager
def _dashboard(ledger: Path) -> Iterator[Callable[[str], float]]:
    """Serve the dashboard; give what asks for a page and returns the seconds that it took."""
    command = [sys.executable, "-m", "engine", "dashboard", "--ledger", str(ledger), "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            link = json.loads(process.stdout.readline())["url"]
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
            opener.open(link).read()
            origin = link.partition("/sign-in")[0]

            def ask(path: str) -> float:
                began = time.perf_counter()
                with opener.open(origin + path) as answer:
                    answer.read()
                return time.perf_counter() - began

            yield ask
        finally:
            process.terminate()
