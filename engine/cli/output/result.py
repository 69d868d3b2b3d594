"""A run's result in, its last screen out: the counts, why it stopped, why records failed, what to do, files."""

from __future__ import annotations

from pathlib import Path

from engine.cli.output.advice import next_steps
from engine.cli.output.reasons import NO_REASONS, Reasons, common_reasons
from engine.cli.output.screen import Mood, Screen, Table
from engine.commands.api import Result
from engine.commands.cancel import CANCELED
from engine.model.errors import Exit
from engine.model.job import JobState
from engine.model.outcome import Fate, Tally
from engine.progress.text import count, duration, rate


def result_screen(result: Result, ledger: Path) -> Screen:
    """Return what is to be said of a run that has ended."""
    reasons = common_reasons(result.rejects) if _not_created(result.tally) else NO_REASONS
    return Screen(
        headline=_headline(result),
        mood=_mood(result),
        tables=[
            Table(_counts(result, reasons), figures=frozenset({1})),
            Table([[result.message]] if result.message and result.state == JobState.FINISHED else [], "Note"),
            _why(reasons, result.tally),
            Table(_steps(result, ledger), "What to do next"),
            Table(_files(result, ledger), "Files"),
        ],
        data=_data(result, ledger, reasons),
        exit_code=result.exit_code,
    )


def _headline(result: Result) -> str:
    tally = result.tally
    if result.state == JobState.OPEN:
        return f"Job {result.job} is not finished. {result.message}".strip()
    if result.state == JobState.CANCELED:
        reason = f" {result.message}" if result.message else ""
        return f"Job {result.job} is canceled.{reason} {count(tally.created, 'task')} had been created."
    if not tally.records:
        return f"Job {result.job} is finished: no records."
    if tally.created == tally.records:
        return f"Job {result.job} is finished: {count(tally.records, 'record')}, all created."
    return f"Job {result.job} is finished: {count(tally.created)} of {count(tally.records, 'record')} created."


def _mood(result: Result) -> Mood:
    if result.exit_code == Exit.ALL_CREATED:
        return Mood.GOOD
    return Mood.MIXED if result.state != JobState.OPEN else Mood.BAD


def _not_created(tally: Tally) -> int:
    return tally.failed + tally.rejected + tally.uncertain


def _counts(result: Result, reasons: Reasons) -> list[list[str]]:
    tally = result.tally
    known = tally.records - tally.unresolved
    speed = f"{rate(known / result.elapsed_seconds)} records a second" if result.elapsed_seconds > 0 and known else ""
    ids = f"of {count(result.unproven)} it is not proven which id is whose" if result.unproven else ""
    notes = {
        Fate.CREATED: ids,
        Fate.FAILED: _who_said_no(result, reasons),
        Fate.REJECTED: "not fit to be sent, never left",
        Fate.UNCERTAIN: "sent, but nobody knows what became of them",
        Fate.UNRESOLVED: "not known yet",
    }
    fates = [[fate.value, count(fate_count(tally, fate)), notes.get(fate, "")] for fate in Fate]
    states = ", ".join(f"{number:,} {state}" for state, number in tally.states.items() if number)
    return [
        ["records", count(tally.records), ""],
        *[[name, number, note if number != "0" else ""] for name, number, note in fates],
        ["batches", count(tally.batches), states],
        ["time", duration(result.elapsed_seconds), speed],
    ]


def _who_said_no(result: Result, reasons: Reasons) -> str:
    if result.state != JobState.CANCELED:
        return "the service said no"
    canceled = sum(number for number, reason in reasons.top if reason == CANCELED)
    if canceled == result.tally.failed:
        return CANCELED
    return f"{CANCELED}, or the service said no"


def fate_count(tally: Tally, fate: Fate) -> int:
    """Return how many records had a fate."""
    number: int = getattr(tally, fate.value)
    return number


def _why(reasons: Reasons, tally: Tally) -> Table:
    title = "Why records were not created"
    if not reasons.whole:
        title += f", counted in the first {count(reasons.seen)} of {count(_not_created(tally))}"
    return Table([[count(number), reason] for number, reason in reasons.top], title, figures=frozenset({0}))


def _steps(result: Result, ledger: Path) -> list[list[str]]:
    mend_first = result.exit_code == Exit.MEND_FIRST
    steps = next_steps(result.job, result.state, result.tally, ledger, result.rejects, mend_first=mend_first)
    if result.orphans:
        left = f"{count(result.orphans, 'empty batch')} left at the service"
        steps.append((left, "nothing needs to be done"))
    return [[what, line] for what, line in steps]


def _files(result: Result, ledger: Path) -> list[list[str]]:
    files = {"every record's outcome": result.outcomes, "records not created": result.rejects, "ledger": ledger}
    return [[what, str(path)] for what, path in files.items() if path]


def _data(result: Result, ledger: Path, reasons: Reasons) -> dict[str, object]:
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
        "orphans": result.orphans,
        "unproven_ids": result.unproven,
        "reasons_seen": reasons.seen,
        "reasons": [{"records": number, "reason": reason} for number, reason in reasons.top],
        "files": {
            "outcomes": str(result.outcomes) if result.outcomes else None,
            "rejects": str(result.rejects) if result.rejects else None,
            "ledger": str(ledger),
        },
    }
