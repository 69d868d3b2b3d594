"""The screen of `status`: one job in full, or all of them a line each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from engine.cli.output.result import command, fate_count, fates_shown, next_steps
from engine.cli.output.screen import Mood, Screen, Table
from engine.commands.result import JobStatus
from engine.model.job import Job, JobState
from engine.model.outcome import Fate
from engine.progress.text import count, size


def jobs_screen(jobs: Sequence[JobStatus], ledger: Path) -> Screen:
    """Return all jobs, a line each, in the order given."""
    if not jobs:
        headline = f"No jobs in {ledger} yet. `{command('submit SOURCE --config FILE', ledger)}` makes one."
        return Screen(headline, {"jobs": [], "ledger": str(ledger)})
    rows = [
        [status.job.name, _state(status), count(status.tally.records), _fates(status), _moment(status.job.created_at)]
        for status in jobs
    ]
    return Screen(
        f"{count(len(jobs), 'job')} in {ledger}",
        {"jobs": [_data(status) for status in jobs], "ledger": str(ledger)},
        tables=[Table(rows, header=["job", "state", "records", "of them", "begun"], figures=frozenset({2}))],
    )


def backup_screen(jobs: Sequence[Job], file: Path, ledger: Path) -> Screen:
    """Return what a backup holds."""
    return Screen(
        f"{ledger} is copied to {file}: {count(len(jobs), 'job')}. Only one of the two may go on: both would send what "
        "neither has sent yet.",
        {"backup": str(file), "ledger": str(ledger), "jobs": [job.name for job in jobs]},
        mood=Mood.GOOD,
    )


def job_screen(status: JobStatus, ledger: Path) -> Screen:
    """Return one job in full."""
    job = status.job
    batches = ", ".join(f"{number:,} {state}" for state, number in status.tally.states.items() if number)
    counts = [
        ["records", count(status.tally.records), "" if job.read_complete else "the sources are not read to the end"]
    ]
    counts += [[fate.value, count(fate_count(status.tally, fate)), ""] for fate in fates_shown(status.tally)]
    counts.append(["batches", count(status.tally.batches), batches])
    return Screen(
        f"Job {job.name} is {_state(status)}.",
        {**_data(status), "ledger": str(ledger)},
        mood=Mood.GOOD if job.state is JobState.FINISHED else Mood.MIXED,
        tables=[
            Table(counts, figures=frozenset({1})),
            Table(
                [[state, count(number)] for state, number in status.working.items()],
                "Created tasks, by how people's work on them stands",
                figures=frozenset({1}),
            ),
            Table([*_facts(status), ["ledger", str(ledger)]], "About it", whole=frozenset({1})),
            Table(_next(status, ledger), "What to do next", whole=frozenset({1})),
        ],
    )


def _state(status: JobStatus) -> str:
    return "running" if status.running else str(status.job.state)


def _fates(status: JobStatus) -> str:
    numbers = {fate.value: fate_count(status.tally, fate) for fate in Fate}
    return ", ".join(f"{count(number)} {fate}" for fate, number in numbers.items() if number)


def _moment(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_seconds))


def _facts(status: JobStatus) -> list[list[str]]:
    job = status.job
    facts = [["service", job.service], ["begun", _moment(job.created_at)], ["reports", job.output]]
    facts += [["source", f"{source.path} ({size(source.size)})"] for source in job.sources]
    if job.family:
        facts.append(["family", f"{job.family}{', what it knows is skipped' if job.delta else ''}"])
    if job.parent:
        facts.append(["retries", job.parent])
    return facts


def _next(status: JobStatus, ledger: Path) -> list[list[str]]:
    job = status.job
    if status.running:
        return [["it is being worked on", command(f"status {job.name}", ledger)]]
    steps = next_steps(job.name, job.state, status.tally, ledger, service_can=status.service_can)
    return [[what, line] for what, line in steps]


def _data(status: JobStatus) -> dict[str, object]:
    job, tally = status.job, status.tally
    return {
        "job": job.name,
        "state": str(job.state),
        "running": status.running,
        "service": job.service,
        "parent": job.parent,
        "family": job.family,
        "delta": job.delta,
        "attempt": job.attempt,
        "created_at": job.created_at,
        "read_complete": job.read_complete,
        "size_bytes": job.size_bytes,
        "records": tally.records,
        "batches": tally.batches,
        **{fate.value: fate_count(tally, fate) for fate in Fate},
        "states": dict(tally.states),
        "working": dict(status.working),
        "output": job.output,
        "sources": [source.path for source in job.sources],
    }
