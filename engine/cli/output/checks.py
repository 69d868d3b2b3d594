"""The screens of `audit`, `validate`, and of the story of one record."""

from __future__ import annotations

import os

from msgspec.structs import asdict

from engine.cli.output.screen import Mood, Screen, Table
from engine.cli.output.status import moment
from engine.commands.lineage import Attempt, Story
from engine.commands.paths import command
from engine.commands.result import Validation
from engine.ledger.address import LedgerAddress
from engine.model.errors import Exit
from engine.model.outcome import Fate, LaterFate
from engine.progress.redaction import redactor
from engine.progress.text import count, size
from engine.reports.audit import Audit, Reported
from engine.reports.missing import Missing

_SHOWN_REJECTS = 10


def audit_screen(audit: Audit, ledger: LedgerAddress) -> Screen:
    """Return whether every record has exactly one fate, what is still open, and the sum that shows it."""
    fates = {fate.value: audit.fates[fate] for fate in Fate}
    shown = [fate for fate in fates if fate != Fate.SKIPPED or fates[fate]]
    total = " + ".join(f"{count(fates[fate])} {fate}" for fate in shown)
    wrong = len(audit.findings)
    exit_code = Exit.ERROR if not audit.consistent else Exit.SOME_UNCERTAIN if audit.unproven else Exit.ALL_CREATED
    return Screen(
        f"Job {audit.job}: {_proven(audit)}"
        if audit.consistent
        else f"Job {audit.job}: the audit does not hold; {count(wrong, 'finding')}.",
        {
            "job": audit.job,
            "holds": audit.holds,
            "records": audit.records,
            "batches": audit.batches,
            **fates,
            "unread_bytes": audit.unread_bytes,
            "reports": str(audit.reports),
            "mended": audit.mended,
            "taken_out": audit.taken_out,
            "findings": audit.findings,
            "unproven": audit.unproven,
            "ledger": str(ledger),
            "exit_code": int(exit_code),
        },
        mood=(Mood.MIXED if _still_open(audit) or audit.unproven else Mood.GOOD) if audit.consistent else Mood.BAD,
        tables=[
            Table(
                [[f"{count(audit.records, 'record')} read", f"= {total}"], *_extent(audit), ["ledger", str(ledger)]],
                whole=frozenset({1}),
            ),
            Table([[finding] for finding in audit.findings], "Findings"),
            Table([[what] for what in audit.unproven], "Not proven"),
            Table(_advice(audit, ledger), "What to do next"),
        ],
        exit_code=exit_code,
    )


def _extent(audit: Audit) -> list[list[str]]:
    cut = "each cut from its source again and compared"
    if audit.unproven:
        cut = "compared with their sources as far as those are what they were"
    rows = [[count(audit.batches, "batch"), f"end to end, {cut}"]]
    if audit.unread_bytes:
        rows.append([f"{size(audit.unread_bytes)} unread", "the job ended before it had read them"])
    if audit.reports is not Reported.ABSENT:
        outdated = ", older than the ledger: `bulksubmit report` writes them anew"
        rows.append(["reports", f"{audit.reports}{outdated if audit.reports is Reported.OUTDATED else ''}"])
    if audit.mended:
        rows.append([f"{count(audit.mended, 'record')} mended", "in the rejects report, not as in the source"])
    if audit.taken_out:
        rows.append([f"{count(audit.taken_out, 'line')} taken out", "of the rejects report: `retry` leaves them alone"])
    return rows


def _proven(audit: Audit) -> str:
    still_open = _still_open(audit)
    if audit.unproven:
        files = count(len(audit.unproven), "source")
        still_open = [*still_open, f"{files} {'is' if len(audit.unproven) == 1 else 'are'} not what the job has read"]
    if not still_open:
        return "every record has exactly one outcome."
    return f"every record that was read is accounted for once, but {', '.join(still_open)}."


def _still_open(audit: Audit) -> list[str]:
    """Return what keeps the audit from being the last word."""
    unread = [f"{size(audit.unread_bytes)} of the sources are unread"] if audit.unread_bytes else []
    fates = [(audit.fates[fate], fate) for fate in (Fate.UNRESOLVED, Fate.UNCERTAIN) if audit.fates[fate]]
    return unread + [f"{count(number, 'record')} {'is' if number == 1 else 'are'} {fate}" for number, fate in fates]


def _advice(audit: Audit, ledger: LedgerAddress) -> list[list[str]]:
    if not audit.consistent:
        return [["do what the findings say, then audit again; leave ledger and sources alone otherwise"]]
    if _still_open(audit):
        return [["see how to go on", command(f"status {audit.job}", ledger)]]
    return []


def validation_screen(validation: Validation) -> Screen:
    """Return what is fit to be sent, and what is wrong with the rest."""
    good = not (validation.rejected or validation.twins)
    exit_code = Exit.ALL_CREATED if good else Exit.SOME_FAILED
    first = validation.rejects[:_SHOWN_REJECTS]
    tasks = [redactor(os.environ)(task) for task in validation.tasks]
    more = "" if len(first) == validation.rejected else f" (first {len(first)} of {count(validation.rejected)})"
    return Screen(
        f"{_verdict(validation)} Nothing was sent.",
        {
            "records": validation.records,
            "rejected": validation.rejected,
            "twins": validation.twins,
            "batches": validation.batches,
            "size_bytes": validation.size_bytes,
            "tasks": tasks,
            "rejects": [
                {"source": source.shown, **asdict(reject), **source.row_at(reject.line)}
                for source, reject in validation.rejects
            ],
            "exit_code": int(exit_code),
        },
        mood=Mood.GOOD if good else Mood.MIXED,
        tables=[
            Table([["batches", count(validation.batches)], ["to send", size(validation.size_bytes)]]),
            Table([[task] for task in tasks], "The first tasks, as they would go up"),
            Table(
                [[source.place(reject.line), f"record {reject.index}", reject.reason] for source, reject in first],
                f"Not fit to be sent{more}",
            ),
            _twins_table(validation),
        ],
        exit_code=exit_code,
    )


def _twins_table(validation: Validation) -> Table:
    first = validation.first_twins[:_SHOWN_REJECTS]
    more = "" if len(first) == validation.twins else f" (first {len(first)} of {count(validation.twins)})"
    rows = [[source.place(twin.line), f"record {twin.index}", twin.reason] for source, twin in first]
    return Table(rows, f"Sent all the same: keys that stand twice{more}")


def _verdict(validation: Validation) -> str:
    if not validation.twins:
        return _fit(validation)
    have = "record has" if validation.twins == 1 else "records have"
    return f"{_fit(validation)} {count(validation.twins)} {have} a key that an earlier one has."


def _fit(validation: Validation) -> str:
    if validation.rejected:
        return f"{count(validation.rejected)} of {count(validation.records, 'record')} cannot be sent."
    if not validation.records:
        return f"{validation.nothing or 'The sources hold no record'}."
    return f"{'The' if validation.records == 1 else 'All'} {count(validation.records, 'record')} can be sent."


def missing_screen(missing: Missing, ledger: LedgerAddress) -> Screen:
    """Return what a family has created and the source of a job no longer has."""
    named = [
        [str(one["key"] or ""), f"job {one['job']}, record {one['record']}, task {one['task_id']}"]
        for one in missing.examples
    ]
    more = f" (the first {len(named)} of {count(missing.records)})" if len(named) < missing.records else ""
    records = f"{count(missing.records, 'record')} that family {missing.family} has created"
    return Screen(
        f"{records} {'is' if missing.records == 1 else 'are'} not in the source of job {missing.job} any more.",
        {
            "job": missing.job,
            "family": missing.family,
            "records": missing.records,
            "missing": str(missing.file),
            "ledger": str(ledger),
        },
        tables=[
            Table(named, f"Missing{more}"),
            Table([["all of them", str(missing.file)], ["ledger", str(ledger)]], "Files", whole=frozenset({1})),
        ],
    )


def story_screen(story: Story, ledger: LedgerAddress) -> Screen:
    """Return what became of one record, in the job that was asked for and in all attempts at it."""
    asked, outcome = story.asked, story.asked.outcome
    skipped = outcome.state is Fate.SKIPPED
    facts = {
        "source": f"{outcome.source}, {_place(asked)}",
        "known from": f"job {outcome.details['job']}, record {outcome.details['record']:,}" if skipped else None,
        "key": f"{story.column} = {story.key}" if story.key is not None else None,
        "task": outcome.task_id,
        "batch": outcome.batch_id,
        "page": outcome.url,
        "reason": outcome.error,
        "later": asked.later and _later(asked.later),
        "ledger": str(ledger),
    }
    created = next((one for one in reversed(story.attempts) if one.outcome.state is Fate.CREATED), None)
    elsewhere = f", and created by {created.job}" if created and created.job != asked.job else ""
    rows = [
        [str(one.number), one.job, f"{one.outcome.index:,}", moment(one.at) if one.at else "", _ended(one)]
        for one in story.attempts
    ]
    return Screen(
        f"Record {outcome.index:,} of job {asked.job}: {outcome.state}{elsewhere}.",
        {"job": asked.job, **asdict(outcome), "line": asked.line, "column": story.column or None, "key": story.key}
        | {"later": asked.later and asdict(asked.later), "attempts": [_attempt_data(one) for one in story.attempts]}
        | {"ledger": str(ledger)},
        mood=Mood.GOOD if (created and not created.later) or (skipped and outcome.error is None) else Mood.MIXED,
        tables=[
            Table([[what, fact] for what, fact in facts.items() if fact]),
            Table(
                rows if len(rows) > 1 else [],
                "All attempts",
                header=["attempt", "job", "record", "when", "what became of it"],
                figures=frozenset({0, 2}),
            ),
        ],
    )


def _place(attempt: Attempt) -> str:
    details = attempt.outcome.details
    if "row_group" in details:
        return f"row group {details['row_group']:,}, row {details['row']:,}"
    return f"{f'line {attempt.line:,}, ' if attempt.line else ''}byte {attempt.outcome.offset:,}"


def _attempt_data(attempt: Attempt) -> dict[str, object]:
    later = attempt.later and asdict(attempt.later)
    where = {"job": attempt.job, "attempt": attempt.number, "at": attempt.at or None, "line": attempt.line}
    return {**where, **asdict(attempt.outcome), "later": later}


def _ended(attempt: Attempt) -> str:
    outcome = attempt.outcome
    said = [outcome.state.value, f"as task {outcome.task_id}" if outcome.task_id else "", outcome.error or ""]
    ended = " ".join(filter(None, [said[0], said[1]])) + (f": {said[2]}" if said[2] else "")
    return f"{ended}; {_later(attempt.later)}" if attempt.later else ended


def _later(later: LaterFate) -> str:
    return f"later {later.fate} ({moment(later.seen_at)}){f': {later.reason}' if later.reason else ''}"
