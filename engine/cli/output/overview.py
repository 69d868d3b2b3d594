"""What `report --html` says when the page is written, and the facts of a job for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.cli.output.screen import Mood, Screen, Table
from engine.cli.output.status import next_of
from engine.commands.paths import command
from engine.commands.result import JobStatus
from engine.ledger.address import LedgerAddress
from engine.progress.text import count, size
from engine.reports.overview import NextCommand, Overview

_CAUSES_SHOWN = 5


def with_next(facts: Overview, status: JobStatus, ledger: LedgerAddress) -> Overview:
    """Return the facts of a job with what a person may do next; what is proven need not be proven again."""
    proven = facts.audit is not None and facts.audit.found.holds and not facts.audit.outdated
    steps = [NextCommand(what, line) for what, line in next_of(status, ledger)]
    audit = command(f"audit {facts.job}", ledger)
    return replace(facts, next=[step for step in steps if not (proven and step.command == audit)])


def page_screen(facts: Overview, path: Path, ledger: LedgerAddress) -> Screen:
    """Return where the page is, and the most common causes."""
    causes = [[count(cause.records), cause.fate, cause.words] for cause in facts.causes.top[:_CAUSES_SHOWN]]
    return Screen(
        f"The report of job {facts.job} is written.",
        {**_plain(facts), "page": str(path), "ledger": str(ledger)},
        mood=Mood.GOOD,
        tables=[
            Table([["page", str(path)], ["size", size(path.stat().st_size)]], whole=frozenset({1})),
            Table(causes, "Why records were not created, or their tasks failed", figures=frozenset({0})),
        ],
    )


def _plain(value: object) -> Any:
    """Return what JSON can hold; unlike msgspec's own, with what is nothing, too."""
    if isinstance(value, Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, str) else value
