"""What a person may start from the dashboard, where `--allow-actions` is given: resume, cancel, retry.

Each is the command that one could type, as a process of its own that goes on when the dashboard ends. A page asks first
and says what will happen. The form that starts it says how the job stood then, so that nothing is done to a job that
has changed meanwhile. How it went is read from the ledger, as of any run. What the command itself has said is shown,
too: one that fails before its run begins leaves nothing else.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from tempfile import TemporaryFile
from typing import BinaryIO

from msgspec import Struct

from engine.commands.result import JobStatus
from engine.dashboard.html import Fragment, foreign, join, link, moment, tag
from engine.dashboard.layout import HtmlPage, trail
from engine.dashboard.parts import badge, command_line, sentence, state_of
from engine.dashboard.words import Words
from engine.ledger.address import LedgerAddress
from engine.model.job import JobState
from engine.model.submission import State
from engine.progress.html import Markup

LABELS = {"resume": "Resume", "cancel": "Cancel", "retry": "Retry"}
_OPTIONS = {"resume": ["--yes"], "cancel": ["--yes"], "retry": []}
"""The page has asked: the command need not."""
MOST_STARTED = 50
"""Commands that are remembered."""
_SAID_BYTES = 4096


def possible(status: JobStatus) -> list[str]:
    """Return what may be done about a job as it stands. While a run works on it, it is that run's."""
    job, tally = status.job, status.tally
    if status.running:
        return []
    found: list[str] = []
    uncertain = job.state is JobState.FINISHED and tally.states.get(State.UNCERTAIN)
    if job.state is JobState.OPEN or (job.state is JobState.CANCELED and tally.unresolved) or uncertain:
        found.append("resume")
    if job.state is JobState.OPEN:
        found.append("cancel")
    if job.state is not JobState.OPEN and tally.failed + tally.rejected:
        found.append("retry")
    return found


def stands(status: JobStatus) -> str:
    """Return how a job stands, as a short text that changes whenever that does."""
    shown = (status.job.state, status.running, len(status.runs), status.tally)
    return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]


class Started(Struct):
    """A command that was started here."""

    job: str
    action: str
    at: float
    """Unix seconds."""
    process: subprocess.Popen[bytes]
    output: BinaryIO
    """What it says; a file without a name, which goes when both have ended."""

    @property
    def exit_code(self) -> int | None:
        """None while it works."""
        return self.process.poll()

    def said(self) -> str:
        """Return the end of what it has said."""
        size = os.fstat(self.output.fileno()).st_size
        lines = (
            os.pread(self.output.fileno(), _SAID_BYTES, max(size - _SAID_BYTES, 0))
            .decode(errors="replace")
            .splitlines()
        )
        if size > _SAID_BYTES:
            lines = lines[1:]  # half a line may hold half a secret, which nobody would know for one
        return "\n".join(map(foreign, lines))


class Actions:
    """Starts commands on jobs of one ledger, and remembers which."""

    def __init__(self, ledger: LedgerAddress, words: Words) -> None:
        self._ledger = ledger
        self._words = words
        self.started: list[Started] = []

    def start(self, job: str, action: str) -> None:
        """Start a command. Raises: OSError: it cannot be started."""
        output = TemporaryFile()  # noqa: SIM115 - it lives as long as the command
        words = [action, job, "--ledger", str(self._ledger), *_OPTIONS[action]]
        process = subprocess.Popen(  # noqa: S603 - our own command, about a job whose name was checked
            [sys.executable, "-m", "engine", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # neither Ctrl-C nor the end of the terminal is meant for it
        )
        self.started = [*self.started[-MOST_STARTED + 1 :], Started(job, action, time.time(), process, output)]

    def is_busy(self, job: str) -> bool:
        """Return whether a command that was started here is at work on a job."""
        return any(one.job == job and one.exit_code is None for one in self.started)

    def possible(self, status: JobStatus) -> list[str]:
        """Return what may be started on a job as it stands."""
        return [] if self.is_busy(status.job.name) else possible(status)

    def buttons(self, status: JobStatus) -> Markup | None:
        """Return the ways to what may be done about a job, and what was started here."""
        ways = [
            tag("li", link(f"/jobs/{status.job.name}/actions/{action}", LABELS[action], "…", class_="button"))
            for action in self.possible(status)
        ]
        latest = [one for one in self.started if one.job == status.job.name][-3:]
        if not ways and not latest:
            return None
        return tag(
            "section",
            tag("h2", "Actions"),
            tag("ul", ways, class_="row") if ways else None,
            [_told(one) for one in reversed(latest)],
        )

    def page(self, status: JobStatus, action: str, *, changed: bool = False) -> HtmlPage:
        """Return the page that says what will happen, and asks."""
        job = status.job.name
        title = f"{LABELS[action]} job {job}?"
        told = "The job has changed since that page was made. This is how it stands now." if changed else None
        code = 409 if changed else 200
        if action not in self.possible(status):
            why = (
                "a command that was started here is at work" if self.is_busy(job) else f"the job is {state_of(status)}"
            )
            body: list[Fragment] = [
                trail((f"/jobs/{job}", job), here=LABELS[action]),
                tag("h1", title),
                tag("p", sentence(status, None)),
                tag("p", f"Nothing to {action}: {why}. ", link(f"/jobs/{job}", "Back to it")),
            ]
            return HtmlPage(title, join(body), job=job, status=code)
        form = tag(
            "form",
            tag("input", type="hidden", name="stands", value=stands(status)),
            tag("button", f"Yes, {action} it", class_="main"),
            link(f"/jobs/{job}", "No, go back", class_="button"),
            action=f"/jobs/{job}/actions/{action}",
            method="post",
            class_="row",
        )
        parts = [
            trail((f"/jobs/{job}", job), here=LABELS[action]),
            tag("h1", title),
            tag("p", told, class_="note", role="alert") if told else None,
            tag("p", "It is ", badge(state_of(status)), ". ", self._words.before[action](status)),
            tag("p", "This command is run, and goes on when the dashboard ends:"),
            tag("p", command_line(self._words.command(" ".join([action, job, *_OPTIONS[action]]), self._ledger))),
            form,
        ]
        return HtmlPage(title, join(parts), job=job, status=code, has_form=True)

    def close(self) -> None:
        """Let the commands go on by themselves."""
        for one in self.started:
            one.output.close()
            one.process.returncode = one.process.poll() or 0  # nobody here waits for it any more


def _told(one: Started) -> Markup:
    code, said = one.exit_code, one.said()
    how = "is at work" if code is None else f"has ended with exit code {code}"
    words = tag("details", tag("summary", "What it has said"), tag("pre", said, tabindex=0)) if said else None
    return tag(
        "div", tag("p", f"{LABELS[one.action]}, started here ", moment(one.at), f", {how}."), words, class_="note"
    )
