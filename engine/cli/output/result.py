"""The last screen of a run: the counts, why it stopped, why records failed, what to do next, the files.

What to do next is a command that works as it is typed; `status` says the same.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from engine.cli.output.screen import Mood, Screen, Table
from engine.commands.cancel import CANCELED
from engine.commands.lineage import Retried
from engine.commands.paths import command
from engine.commands.result import MOST_REASONS, Result, ServiceCan, headline, later_words, not_created
from engine.ledger.address import LedgerAddress
from engine.model.errors import Exit
from engine.model.job import JobState
from engine.model.outcome import Fate, Later, Tally
from engine.model.submission import State
from engine.progress.snapshot import SHORTEST_SECONDS
from engine.progress.text import count, duration, rate
from engine.reports.outcomes import SPREADSHEET

if TYPE_CHECKING:
    from engine.commands.work import WorkDone
    from engine.reports.causes import Cause

EVERYTHING = ServiceCan()
_UNDER_WAY = (State.STAGING, State.RELEASING, State.RELEASED)
"""States that a canceled batch does not stay in."""


def result_screen(result: Result, ledger: LedgerAddress) -> Screen:
    """Return what is to be said of a run that has ended."""
    return Screen(
        headline=headline(result),
        mood=_mood(result),
        tables=[
            Table(_counts(result), figures=frozenset({1})),
            Table([[note] for note in _notes(result)], "Note"),
            _why(result),
            Table(_steps(result, ledger), "What to do next", whole=frozenset({1})),
            Table(_files(result, ledger), "Files", whole=frozenset({1})),
        ],
        data=_data(result, ledger),
        exit_code=result.exit_code,
    )


def work_screen(done: WorkDone, ledger: LedgerAddress) -> Screen:
    """Return what a worker has done, of all the jobs that it took part in."""
    part = f"{count(len(done.jobs), 'job')}: {count(done.created, 'record')} created here"
    part += f", {count(done.not_created)} not" if done.not_created else ""
    left = f" {done.message}" if done.message else ""
    return Screen(
        f"Worked on {part}.{left}" if done.jobs else f"No open job in {ledger}.{left}",
        {
            "jobs": list(done.jobs),
            "created": done.created,
            "not_created": done.not_created,
            "message": done.message,
            "ledger": str(ledger),
            "exit_code": done.exit_code,
        },
        mood=Mood.GOOD if done.exit_code == Exit.ALL_CREATED else Mood.MIXED,
        exit_code=done.exit_code,
    )


def _notes(result: Result) -> list[str]:
    notes = [result.message] if result.message and result.state == JobState.FINISHED else []
    return notes + ([str(result.retried)] if result.retried else [])


def retried_data(retried: Retried | None) -> dict[str, object] | None:
    """Return what became of failures that were tried again, for a program."""
    if retried is None:
        return None
    return {"job": retried.job, "failures": retried.failures, "created": dict(retried.created)}


def _mood(result: Result) -> Mood:
    if result.exit_code == Exit.ALL_CREATED:
        return Mood.GOOD
    return Mood.MIXED if result.state != JobState.OPEN else Mood.BAD


def _counts(result: Result) -> list[list[str]]:
    tally = result.tally
    seconds, resolved = result.elapsed_seconds, result.resolved
    lasted = seconds >= SHORTEST_SECONDS
    speed = f"{rate(resolved / seconds)} records a second" if lasted and resolved > 0 else ""
    ids = f"of {count(result.unproven)} it is not proven which id is whose" if result.unproven else ""
    notes = {
        Fate.CREATED: "; ".join(filter(None, [later_words(result.later), ids])),
        Fate.FAILED: _who_said_no(result),
        Fate.REJECTED: "not fit to be sent, never left",
        Fate.UNCERTAIN: "sent, but nobody knows what became of them",
        Fate.SKIPPED: "known already, from an earlier job of the family",
        Fate.UNRESOLVED: "not known yet",
    }
    fates = [[fate.value, count(fate_count(tally, fate)), notes.get(fate, "")] for fate in fates_shown(tally)]
    states = ", ".join(f"{number:,} {state}" for state, number in tally.states.items() if number)
    return [
        ["records", count(tally.records), ""],
        *[[name, number, note if number != "0" else ""] for name, number, note in fates],
        ["batches", count(tally.batches), states],
        *([["time", duration(seconds), speed]] if lasted or resolved > 0 else []),
    ]


def _who_said_no(result: Result) -> str:
    if result.state != JobState.CANCELED:
        return "the service said no"
    canceled = sum(cause.records for cause in result.causes if cause.words == CANCELED)
    if canceled == result.tally.failed:
        return CANCELED
    return f"{CANCELED}, or the service said no"


def fates_shown(tally: Tally) -> Sequence[Fate]:
    """Return the fates that a person is told of; nothing is skipped where a job has no family."""
    return [fate for fate in Fate if fate is not Fate.SKIPPED or tally.skipped]


def fate_count(tally: Tally, fate: Fate) -> int:
    """Return how many records had a fate."""
    number: int = getattr(tally, fate.value)
    return number


def _why(result: Result) -> Table:
    """Return the causes, each with a record that shows it where its records do not all have the same words."""
    rows: list[list[str]] = []
    for cause in result.causes[:MOST_REASONS]:
        rows.append([count(cause.records), cause.words])
        if example := _example(cause):
            rows.append(["", example])
    if rows and (rest := _not_spelled(result)) > 0:
        rows.append([count(rest), "for other reasons"])
    return Table(rows, "Why records were not created", figures=frozenset({0}))


def _not_spelled(result: Result) -> int:
    return not_created(result.tally) - sum(cause.records for cause in result.causes[:MOST_REASONS])


def _example(cause: Cause) -> str:
    first = next(iter(cause.examples), None)
    return f"e.g. record {first.index:,}: {first.message}" if first and first.message != cause.words else ""


def _steps(result: Result, ledger: LedgerAddress) -> list[list[str]]:
    mend_first = result.exit_code == Exit.MEND_FIRST
    steps = next_steps(
        result.job,
        result.state,
        result.tally,
        ledger,
        result.rejects,
        result.service_can,
        mend_first=mend_first,
        later=result.later,
        retried=result.retried,
        parked=result.parked,
    )
    if result.orphans:
        left = f"{count(result.orphans, 'empty batch')} left at the service"
        steps.append((left, "nothing needs to be done"))
    return [[what, line] for what, line in steps]


def _files(result: Result, ledger: LedgerAddress) -> list[list[str]]:
    files = {
        "every record's outcome": result.outcomes,
        "records not created": result.rejects,
        "… for a spreadsheet": _spreadsheet(result) if not_created(result.tally) else None,
        "ledger": ledger,
    }
    return [[what, str(path)] for what, path in files.items() if path]


def _spreadsheet(result: Result) -> Path | None:
    return result.rejects and result.rejects.with_name(SPREADSHEET)


def _data(result: Result, ledger: LedgerAddress) -> dict[str, object]:
    tally = result.tally
    return {
        "job": result.job,
        "state": result.state,
        "records": tally.records,
        "batches": tally.batches,
        **{fate.value: fate_count(tally, fate) for fate in Fate},
        "elapsed_seconds": round(result.elapsed_seconds, 3),
        "exit_code": int(result.exit_code),
        "message": result.message,
        "states": dict(tally.states),
        "retried": retried_data(result.retried),
        "orphans": result.orphans,
        "unproven_ids": result.unproven,
        "later": dict(result.later),
        "reasons": [
            {"records": cause.records, "reason": cause.words, "example": _example(cause)}
            for cause in result.causes[:MOST_REASONS]
        ],
        "reasons_other": _not_spelled(result) if result.causes else 0,
        "files": {
            "outcomes": str(result.outcomes) if result.outcomes else None,
            "rejects": str(result.rejects) if result.rejects else None,
            "spreadsheet": str(_spreadsheet(result)) if result.rejects else None,
            "ledger": str(ledger),
        },
    }


def next_steps(  # noqa: PLR0913 - what there is to know of a job
    job: str,
    state: str,
    tally: Tally,
    ledger: LedgerAddress,
    rejects: Path | None = None,
    service_can: ServiceCan = EVERYTHING,
    *,
    mend_first: bool = False,
    later: Mapping[str, int] = MappingProxyType({}),
    retried: Retried | None = None,
    parked: bool = False,
) -> list[tuple[str, str]]:
    """Return (what for, command) of what a person should do about a job that nobody works on, in this order.

    `mend_first`: it stopped for something that only a person can mend. `retried`: what became of failures since.
    `parked`: nothing else is left of it to be sent.
    """
    failed = bool(tally.failed or tally.rejected) and not (retried and retried.job == job and not retried.left)
    again = f"retry {retried.job if retried else job}"  # of the job that is retried: it takes what was mended in any
    steps: list[tuple[str, str]] = []
    if state == JobState.OPEN:
        steps.append(_going_on(job, mend_first=mend_first, parked=parked))
    if state == JobState.CANCELED and any(tally.states.get(one) for one in _UNDER_WAY):
        steps.append(("end what is under way, the canceling was interrupted", f"cancel {job}"))
    elif state == JobState.CANCELED and tally.unresolved:
        steps.append(("send what was not sent after all", f"resume {job}"))
    if state == JobState.CANCELED and failed:
        steps.append(("send what was read and not created after all", again))
    elif state == JobState.FINISHED and failed:
        steps.append(("send failed and rejected again", again))
    steps += _about_later(job, later)
    if tally.uncertain:
        steps += _about_uncertain(job, state, tally, service_can)
    if state != JobState.OPEN:
        steps.append(("prove that every record is accounted for", f"audit {job}"))
    if rejects and any(words == again for _, words in steps):
        return [_read("see which were not created, and why", rejects), *_typed(steps, ledger)]
    if rejects and tally.uncertain and not service_can.count:
        return [_read("see which are uncertain, and look for them at the service", rejects), *_typed(steps, ledger)]
    return _typed(steps, ledger)


def _going_on(job: str, *, mend_first: bool, parked: bool) -> tuple[str, str]:
    if parked:
        return "see why workers were lost with what is parked, then go on", f"resume {job} --parked"
    return "mend what is named above, then go on" if mend_first else "go on where it stopped", f"resume {job}"


def _about_later(job: str, later: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    if later.get(Later.FAILED):
        yield "see which tasks failed later, and why", f"status {job} --tasks --failed"
        yield "submit those again, where the service does not do so by itself", f"retry {job} --task-failed"


def _about_uncertain(job: str, state: str, tally: Tally, service_can: ServiceCan) -> Iterator[tuple[str, str]]:
    """Yield what helps with the uncertain: no question that this service cannot answer."""
    if service_can.ask and state == JobState.FINISHED and tally.states.get(State.UNCERTAIN):
        yield "ask the service again about the uncertain", f"resume {job}"
    if service_can.count:
        yield "look at the service for the uncertain", f"status {job} --tasks"
    if state == JobState.FINISHED:
        yield "send them again, if none of them is there", f"retry {job} --uncertain"


def _read(what: str, file: Path) -> tuple[str, str]:
    return what, f"less {shlex.quote(str(file))}"


def _typed(steps: list[tuple[str, str]], ledger: LedgerAddress) -> list[tuple[str, str]]:
    return [(what, command(words, ledger)) for what, words in steps]
