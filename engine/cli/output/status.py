"""The screen of `status`: one job in full, or all of them a line each.

The module is a long one, since it has the words of each state of a job, its runs and its workers.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec.structs import asdict

from engine.cli.output.result import fate_count, fates_shown, next_steps, retried_data
from engine.cli.output.screen import Mood, Screen, Table
from engine.commands.copying import LedgerCopy
from engine.commands.paths import command
from engine.commands.result import JobStatus, later_numbers, later_words
from engine.ledger.address import LedgerAddress
from engine.model.errors import Exit
from engine.model.job import Job, JobState
from engine.model.night import duration_seconds
from engine.model.outcome import Fate
from engine.model.runs import LOADING_NOTHING, PastRun, Sample
from engine.model.shard import ShardState, Worker
from engine.model.submission import State
from engine.progress.log_file import LOG_FILE
from engine.progress.text import count, duration, missed_words, rate, size

MOST_RUNS = 10
"""The newest so many are shown; `--json` has all of them."""

_CAME_TO_ITS_END = frozenset({Exit.ALL_CREATED, Exit.SOME_FAILED, Exit.SOME_UNCERTAIN, Exit.TASKS_FAILED})
"""Exit codes of a run that has done all that it could."""

_ONLY_IN_THE_REPORT = {"calls", "limit_steps", "batch_seconds", "slowest"}
"""Counts of a run that are many numbers."""
PEOPLE, STATE = "how people's work on them stands", "their state at the service"
_FREE = {"open": "may be taken", "left": "tried to their end; the next resume goes on"}
"""What is said of shards that nobody has."""
_PARKED_SHOWN = 5
FAILED_SHOWN = 100
"""Failed tasks that are shown; more would only scroll by. `--json` has some more."""


def moment_of(text: str, now: float) -> float:
    """Return the Unix seconds of a date, of a time, of this machine's clock if it says no other, or of so long ago.

    Raises:
        ValueError: it is none of them.
    """
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        pass
    try:
        return now - duration_seconds(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no date, time or duration: write it as 2026-11-01, 2026-11-01T22:00, 7d or 12h"
        ) from None


def jobs_screen(jobs: Sequence[JobStatus], ledger: LedgerAddress, *, chosen: bool = False) -> Screen:
    """Return all jobs, or those that were `chosen`, a line each, in the order given."""
    if not jobs and chosen:
        return Screen(f"No such job in {ledger}.", {"jobs": [], "ledger": str(ledger)})
    if not jobs:
        headline = f"No jobs in {ledger} yet. `{command('submit SOURCE --config FILE', ledger)}` makes one."
        return Screen(headline, {"jobs": [], "ledger": str(ledger)})
    rows = [
        [
            status.job.name,
            _state(status),
            count(status.tally.records),
            _fates(status),
            moment(status.job.created_at),
            _last_run(status),
        ]
        for status in jobs
    ]
    return Screen(
        f"{count(len(jobs), 'job')} in {ledger}",
        {"jobs": [_data(status) for status in jobs], "ledger": str(ledger)},
        tables=[
            Table(rows, header=["job", "state", "records", "of them", "begun", "last run"], figures=frozenset({2}))
        ],
    )


def backup_screen(jobs: Sequence[Job], file: Path, ledger: LedgerAddress) -> Screen:
    """Return what a backup holds."""
    return Screen(
        f"{ledger} is copied to {file}: {count(len(jobs), 'job')}. Only one of the two may go on: both would send what "
        "neither has sent yet.",
        {"backup": str(file), "ledger": str(ledger), "jobs": [job.name for job in jobs]},
        mood=Mood.GOOD,
    )


def copy_screen(copy: LedgerCopy, source: str, to: str) -> Screen:
    """Return what a copied ledger holds, table by table."""
    rows = [[table, f"{held.rows:,}", held.digest[:16]] for table, held in copy.tables.items() if held.rows]
    return Screen(
        f"{source} is copied to {to}: {count(len(copy.jobs), 'job')}, and each table is the same on both sides. Only "
        "one of the two may go on: both would send what neither has sent yet.",
        {"from": source, "to": to, "jobs": list(copy.jobs), "tables": msgspec.to_builtins(copy.tables)},
        mood=Mood.GOOD,
        tables=[Table(rows, header=["table", "rows", "digest"], figures=frozenset({1}))],
    )


def job_screen(status: JobStatus, ledger: LedgerAddress) -> Screen:
    """Return one job in full."""
    job = status.job
    batches = ", ".join(f"{number:,} {state}" for state, number in status.tally.states.items() if number)
    counts = [
        ["records", count(status.tally.records), "" if job.read_complete else "the sources are not read to the end"]
    ]
    notes = {Fate.CREATED: later_words(status.later)}
    counts += [
        [fate.value, count(fate_count(status.tally, fate)), notes.get(fate, "")] for fate in fates_shown(status.tally)
    ]
    counts.append(["batches", count(status.tally.batches), batches])
    return Screen(
        f"Job {job.name} is {_state(status)}.",
        {
            **_data(status),
            "stands": dict(_where_it_stands(status)),
            "next": [{"what": what, "command": line} for what, line in next_of(status, ledger)],
            "ledger": str(ledger),
        },
        mood=Mood.GOOD if job.state is JobState.FINISHED else Mood.MIXED,
        tables=[
            Table(counts, figures=frozenset({1})),
            Table(_where_it_stands(status), "Where it stands"),
            Table(
                [[state, count(number)] for state, number in status.working.items()],
                f"Created tasks, by {PEOPLE if status.service_can.people else STATE}",
                figures=frozenset({1}),
            ),
            *_failed(status),
            _workers(status),
            _runs(status),
            Table(_facts(status), "About it"),
            Table([*_files(status), ["ledger", str(ledger)]], "Files", whole=frozenset({1})),
            Table(next_of(status, ledger), "What to do next", whole=frozenset({1})),
        ],
    )


def _where_it_stands(status: JobStatus) -> list[list[str]]:
    """Return what the newest run came to, since when, and what is safe; nothing of a job that no run is known of."""
    if not status.runs:
        return []
    run, now = status.runs[-1], status.samples[-1] if status.samples else None
    rows = [["canceled", _canceled(status)]] if status.job.state is JobState.CANCELED else []
    if status.running:
        rows.append(["working", f"since {moment(run.begun_at)} on {run.host}{f' ({run.command})' * bool(run.command)}"])
        if now is not None:
            rows.append(["lately", _pace(now)])
    elif status.killed:
        rows.append(
            ["stopped", f"was killed or lost its machine ({run.host}); last sign at {moment(status.last_sign_at)}"]
        )
    elif run.ended_at is not None:
        rows.append(["stopped" if status.job.state is JobState.OPEN else "ended", _since(run.ended_at)])
        rows.append(["exit code", str(run.exit_code)])
    noted = {
        "why": run.reason,
        "tasks": later_numbers(run.counts.later),
        "warnings": f"{count(run.counts.warnings)} of that run, in {Path(status.job.output) / LOG_FILE}"
        if run.counts.warnings
        else "",
    }
    rows += [[what, words] for what, words in noted.items() if words]
    if status.job.state is JobState.OPEN and not status.running:
        rows.append(["safe", _safe(status)])
    return rows


def _canceled(status: JobStatus) -> str:
    """Return by which run a job was canceled, when, and what became of its rest."""
    run = status.canceled_by
    if run is None:
        by = "by a run that is not remembered"
    else:
        by = f"by run {run.number} ({run.command}), {_since(run.begun_at if run.ended_at is None else run.ended_at)}"
    unread = "" if status.job.read_complete else ", and what stands behind them in the sources was never read"
    return f"{by}; {count(status.tally.unresolved, 'record')} not sent{unread}"


def _since(at: float) -> str:
    return f"{moment(at)}, {duration(max(0.0, time.time() - at))} ago"


def _pace(sample: Sample) -> str:
    parts = [
        f"{rate(sample.tasks_per_second)} tasks/s",
        f"{size(sample.bytes_per_second)}/s",
        f"{rate(sample.requests_per_second)} requests/s",
        f"{count(sample.in_flight, 'batch')} of {count(sample.limit)} in flight",
        *(f"waited {duration(seconds)}: {reason}" for reason, seconds in sample.waits.items()),
        *(f"{count(number, 'retry')}: {reason}" for reason, number in sample.retries.items()),
    ]
    return ", ".join(parts)


def _safe(status: JobStatus) -> str:
    """Return what a stopped job has at the service and here; none of it is lost or sent twice by going on."""
    states = status.tally.states
    parts = {
        "settled for good": states.get(State.SETTLED, 0),
        "at the service, to be followed": states.get(State.RELEASED, 0),
        "about which the service is asked first": sum(
            states.get(state, 0) for state in (State.STAGING, State.RELEASING, State.UNCERTAIN)
        ),
        "not sent yet": states.get(State.FROZEN, 0) + states.get(State.STAGED, 0),
    }
    said = [f"{count(number, 'batch')} {what}" for what, number in parts.items() if number]
    return "; ".join([*said, "nothing is lost, and nothing is sent twice when it goes on"])


def _workers(status: JobStatus) -> Table:
    """Return who sends the job, with how many shards, and what of them nobody has."""
    going_on = [shard for shard in status.shards if shard.state is not ShardState.DONE]
    held = Counter(shard.holder for shard in going_on if shard.holder)
    rows = [
        [worker.name, count(held[worker.name], "shard"), f"since {moment(worker.begun_at)}", _lease(worker)]
        for worker in status.workers
    ]
    free = Counter(str(shard.state) for shard in going_on if not shard.holder and shard.state is not ShardState.PARKED)
    rows += [["nobody", count(number, "shard"), _FREE.get(state, state), ""] for state, number in free.items()]
    parked = [shard for shard in going_on if shard.state is ShardState.PARKED][:_PARKED_SHOWN]
    rows += [[f"batches {one.first} to {one.last}", "parked", f"lost with {one.lost}", ""] for one in parked]
    return Table(rows, "Workers", header=["worker", "has", "", "lease"] if rows else ())


def _lease(worker: Worker) -> str:
    if worker.lease_seconds is None:
        return ""
    return missed_words(worker) if worker.is_missed else f"{duration(max(0.0, worker.lease_seconds))} left"


def _runs(status: JobStatus) -> Table:
    shown = status.runs[-MOST_RUNS:]
    left_out = len(status.runs) - len(shown)
    rows = [
        [
            str(run.number),
            run.command,
            moment(run.begun_at),
            _lasted(status, run),
            _ended(status, run),
            count(run.counts.created),
            count(run.counts.failed + run.counts.rejected),
            count(run.counts.warnings),
        ]
        for run in shown
    ]
    title = f"Runs{f', the last {len(shown)} of {len(status.runs)}' if left_out else ''}"
    header = ["run", "command", "begun", "for", "end", "created", "failed", "warnings"]
    return Table(rows, title, header=header, figures=frozenset({0, 5, 6, 7}))


def _lasted(status: JobStatus, run: PastRun) -> str:
    """Return how long a run took; of a killed one so long as there was a sign of it, known of the newest only."""
    if run.ended_at is not None:
        return duration(run.ended_at - run.begun_at)
    return duration(status.last_sign_at - run.begun_at) if run is status.runs[-1] else ""


def _last_run(status: JobStatus) -> str:
    if not status.runs:
        return ""
    run = status.runs[-1]
    return f"{run.command}: " * (run.command in LOADING_NOTHING) + _ended(status, run)


def _ended(status: JobStatus, run: PastRun) -> str:
    """Return how a run ended, as short as can be."""
    if run.exit_code is not None:
        return f"exit {run.exit_code}"
    return "running" if status.running and run is status.runs[-1] else "killed"


def _failed(status: JobStatus) -> Sequence[Table]:
    if status.failed_tasks is None:
        return ()
    shown = status.failed_tasks[:FAILED_SHOWN]
    rows = [[f"record {task.index:,}", task.task_id, task.fate, task.reason] for task in shown]
    if not rows:
        return [Table([["none of the tasks has failed"]], "Tasks that failed")]
    more = f", the first {len(shown)} of {count(status.failed)}" if status.failed > len(shown) else ""
    return [Table(rows, f"Tasks that failed{more}", whole=frozenset({1}))]


def _state(status: JobStatus) -> str:
    return "running" if status.running else str(status.job.state)


def _fates(status: JobStatus) -> str:
    numbers = {fate.value: fate_count(status.tally, fate) for fate in Fate}
    return ", ".join(f"{count(number)} {fate}" for fate, number in numbers.items() if number)


def moment(unix_seconds: float) -> str:
    """Return a time for people, in the zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_seconds))


def _facts(status: JobStatus) -> list[list[str]]:
    job = status.job
    facts = [["service", job.service], ["begun", moment(job.created_at)]]
    if job.family:
        facts.append(["family", f"{job.family}{', what it knows is skipped' if job.delta else ''}"])
    if job.parent:
        facts.append(["retries", job.parent])
    if status.retried:
        facts.append(["tried again", str(status.retried)])
    return facts


def _files(status: JobStatus) -> list[list[str]]:
    sources = [["source", f"{source.shown} ({size(source.size)})"] for source in status.job.sources]
    return [["reports", status.job.output], *sources]


def next_of(status: JobStatus, ledger: LedgerAddress) -> list[list[str]]:
    """Return what a person may do next, each with its command."""
    job = status.job
    if status.running:
        return [["it is being worked on", command(f"status {job.name}", ledger)]]
    last = status.runs[-1].exit_code if status.runs else None
    mend_first = job.state is JobState.OPEN and last in {Exit.MEND_FIRST, Exit.USAGE}
    steps = next_steps(
        job.name,
        job.state,
        status.tally,
        ledger,
        service_can=status.service_can,
        mend_first=mend_first,
        later=status.later,
        retried=status.retried,
        parked=_only_parked(status),
    )
    newest = status.runs[-1] if status.runs else None
    if newest and newest.command in LOADING_NOTHING and newest.exit_code not in _CAME_TO_ITS_END:
        again = command(f"{newest.command} {job.name}", ledger)
        steps = [one for one in steps if one[1] != again]
        steps.insert(0, (f"go on with the {newest.command} that was ended early", again))
    if mend_first and not _only_parked(status):
        steps.insert(1, ("or with a configuration that is mended", command(f"resume {job.name} --config FILE", ledger)))
    elif job.state is JobState.OPEN and last == Exit.LIMIT:
        more = command(f"resume {job.name} --max-failed LIMIT", ledger)
        steps[0] = ("go on, once you have seen why so many failed", more)
    return [[what, line] for what, line in steps]


def _only_parked(status: JobStatus) -> bool:
    """Return whether `resume` has nothing to send but what is parked."""
    states = {shard.state for shard in status.shards}
    return (
        status.job.read_complete and ShardState.PARKED in states and not states & {ShardState.OPEN, ShardState.SETTLING}
    )


def resume_said(status: JobStatus) -> str:
    """Return what `resume` will do to a job."""
    tally, name = status.tally, status.job.name
    if status.job.state is JobState.FINISHED:
        return f"The service is asked again about {count(tally.uncertain, 'record')} of job {name} that are uncertain."
    if status.job.state is JobState.CANCELED:
        unread = "" if status.job.read_complete else ", and what was never read,"
        return f"Job {name} was canceled. {count(tally.unresolved, 'record')} that were not sent{unread} will be sent."
    return f"Job {name} goes on where it stopped: {_safe(status)}."


def retry_said(status: JobStatus) -> str:
    """Return what `retry` will do to a job."""
    tally = status.tally
    return (
        f"Of job {status.job.name}, {count(tally.failed)} failed and {count(tally.rejected)} rejected records are sent "
        "again as a job of their own, as they stand in its rejects.ndjson, those left out that a retry has created."
    )


def cancel_said(status: JobStatus) -> str:
    """Return what `cancel` will do to a job."""
    tally = status.tally
    unread = "" if status.job.read_complete else ", and its sources are not read to the end"
    return (
        f"Job {status.job.name} has created {count(tally.created, 'task')}, which stay; "
        f"{count(tally.unresolved, 'record')} of it may still be on their way or unsent{unread}."
    )


def _run_data(status: JobStatus, run: PastRun) -> dict[str, object]:
    ended = _ended(status, run)
    counts = {name: value for name, value in asdict(run.counts).items() if name not in _ONLY_IN_THE_REPORT}
    return {**msgspec.to_builtins(run), "counts": counts, "state": "ended" if "exit" in ended else ended}


def _data(status: JobStatus) -> dict[str, object]:
    job, tally, tasks = status.job, status.tally, status.failed_tasks
    return {
        "job": job.name,
        "state": str(job.state),
        "running": status.running,
        "service": job.service,
        "parent": job.parent,
        "family": job.family,
        "delta": job.delta,
        "attempt": job.attempt,
        "retried": retried_data(status.retried),
        "created_at": job.created_at,
        "read_complete": job.read_complete,
        "size_bytes": job.size_bytes,
        "records": tally.records,
        "batches": tally.batches,
        **{fate.value: fate_count(tally, fate) for fate in Fate},
        "states": dict(tally.states),
        "working": dict(status.working),
        "later": dict(status.later),
        **({} if tasks is None else {"failed_tasks": [asdict(task) for task in tasks], "tasks_failed": status.failed}),
        "output": job.output,
        "sources": [source.shown for source in job.sources],
        "killed": status.killed,
        "canceled_by": status.canceled_by.number if status.canceled_by else None,
        "last_sign_at": status.last_sign_at,
        "workers": [asdict(worker) for worker in status.workers],
        "shards": [asdict(shard) for shard in status.shards if shard.state is not ShardState.DONE],
        "runs": [_run_data(status, run) for run in status.runs],
        "samples": [asdict(sample) for sample in status.samples],
    }
