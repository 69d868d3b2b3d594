"""What the dashboard says in the words of the command line, which hands them in: imports point down, to here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from engine.commands.result import JobStatus
from engine.ledger.address import LedgerAddress


class Words(Struct, frozen=True):
    """How the command line says what a page shows, too."""

    next_steps: Callable[[JobStatus, LedgerAddress], Sequence[Sequence[str]]]
    """What to do next about a job: what for, and the command."""
    command: Callable[[str, LedgerAddress], str]
    """A command as a person types it, with the ledger where that has to be named."""
    before: Mapping[str, Callable[[JobStatus], str]]
    """Action → what it will do to a job."""
