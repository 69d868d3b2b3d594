"""Where a job stands in, what a person should do next out, each with a command that works as it is typed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from engine.cli.options import DEFAULT_LEDGER, LEDGER_VARIABLE
from engine.model.job import JobState
from engine.model.outcome import Tally
from engine.model.submission import State


def command(words: str, ledger: Path) -> str:
    """Return `bulksubmit WORDS`, with the ledger unless it would be found without being named."""
    if ledger == Path(os.environ.get(LEDGER_VARIABLE) or DEFAULT_LEDGER):
        return f"bulksubmit {words}"
    return f"bulksubmit {words} --ledger {shlex.quote(str(ledger))}"


def next_steps(
    job: str, state: str, tally: Tally, ledger: Path, rejects: Path | None = None, *, mend_first: bool = False
) -> list[tuple[str, str]]:
    """Return (what for, command) of what a person should do about a job that nobody works on, in this order.

    `mend_first`: it stopped for something that only a person can mend.
    """
    steps: list[tuple[str, str]] = []
    if state == JobState.OPEN:
        steps.append(
            ("mend what is named above, then go on" if mend_first else "go on where it stopped", f"resume {job}")
        )
    if state == JobState.CANCELED and tally.unresolved:
        steps.append(("end what is unresolved, the canceling was interrupted", f"cancel {job}"))
    elif state == JobState.CANCELED and (tally.failed or tally.rejected):
        steps.append(("send what was not created after all", f"retry {job}"))
    elif state == JobState.FINISHED and (tally.failed or tally.rejected):
        steps.append(("send failed and rejected again", f"retry {job}"))
    if tally.uncertain:
        if state == JobState.FINISHED and tally.states.get(State.UNCERTAIN):
            steps.append(("ask the service again about the uncertain", f"resume {job}"))
        steps.append(("look at the service for the uncertain", f"status {job} --tasks"))
        if state == JobState.FINISHED:
            steps.append(("send them again, if none of them is there", f"retry {job} --uncertain"))
    if state != JobState.OPEN:
        steps.append(("prove that every record is accounted for", f"audit {job}"))
    if rejects and any(words == f"retry {job}" for _, words in steps):
        return [("see which were not created, and why", f"less {shlex.quote(str(rejects))}"), *_typed(steps, ledger)]
    return _typed(steps, ledger)


def _typed(steps: list[tuple[str, str]], ledger: Path) -> list[tuple[str, str]]:
    return [(what, command(words, ledger)) for what, words in steps]
