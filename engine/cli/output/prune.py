"""The screen of `prune`: what became of each job, and why."""

from __future__ import annotations

import shlex
import time

from msgspec import to_builtins

from engine.cli.output.screen import Mood, Screen, Table
from engine.commands.prune import Fall, Pruned
from engine.ledger.address import LedgerAddress, PostgresAddress
from engine.model.errors import Exit
from engine.progress.text import count, size

WORTH_A_VACUUM_BYTES = 10_000_000
"""Free bytes of a ledger from which on it is said how to give them back."""


def prune_screen(pruned: Pruned, ledger: LedgerAddress, *, dry_run: bool) -> Screen:
    """Return all jobs, newest first, with what becomes of each."""
    gone, reports = len(pruned.of(Fall.REMOVED)), len(pruned.of(Fall.REPORTS))
    would = "would be " if dry_run else ""
    headline = f"{count(gone, 'job')} of {count(len(pruned.verdicts))} {would}removed from {ledger}"
    headline += f", and the reports of {count(reports)} more" if reports else ""
    headline += f": {size(pruned.file_bytes)} of files." if pruned.file_bytes else "."
    if gone and isinstance(ledger, PostgresAddress):
        headline += " The room in the database waits for later jobs; the database keeps how much that is to itself."
    if pruned.error is not None:
        headline += " It was interrupted: run it again for the rest."
    rows = [
        [verdict.job, verdict.family, verdict.state, _day(verdict.last_at), str(verdict.fall), verdict.reason]
        for verdict in pruned.verdicts
    ]
    return Screen(
        headline,
        {
            "removed": list(pruned.of(Fall.REMOVED)),
            "reports_removed": list(pruned.of(Fall.REPORTS)),
            "dry_run": dry_run,
            "file_bytes": pruned.file_bytes,
            "free_bytes": pruned.free_bytes,
            "jobs": to_builtins(pruned.verdicts),
            "ledger": str(ledger),
        },
        mood=Mood.NEUTRAL if pruned.error is None else Mood.MIXED,
        tables=[
            Table(rows, header=["job", "family", "state", "last step", "becomes", "because"]),
            Table(_next(pruned, ledger), "What to do next", whole=frozenset({1})),
        ],
        exit_code=Exit.ALL_CREATED if pruned.error is None else pruned.error.exit_status,
    )


def _day(unix_seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(unix_seconds))


def _next(pruned: Pruned, ledger: LedgerAddress) -> list[list[str]]:
    if pruned.free_bytes < WORTH_A_VACUUM_BYTES:
        return []
    free = (
        f"{size(pruned.free_bytes)} of the ledger wait for later jobs; to give them back while no process works on it"
    )
    return [[free, f"sqlite3 {shlex.quote(str(ledger))} VACUUM"]]
