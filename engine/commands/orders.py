"""What a person asks for, and what came of it, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.model.job import Job
from engine.model.outcome import Tally
from engine.model.record import Format, Reject


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be submitted, and how."""

    sources: Sequence[str]
    """Paths and globs; `-` for standard input."""
    config: Path
    job: str | None = None
    """Named after the configuration and the time where left out."""
    output: Path | None = None
    """`.bulksubmit/<job>/` where left out."""
    format: Format | None = None
    until: str = ""
    """When a record counts as done, in the words of its service; its default where empty."""
    strict: bool = False
    """Send nothing if any record is not fit to be sent."""
    processes: int | None = None
    """Processes that read beside this one; as configured where left out."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run."""

    job: str
    state: str
    """open, finished or canceled"""
    tally: Tally
    elapsed_seconds: float
    exit_code: int
    message: str = ""
    """Why the run ended early; empty if it did not."""
    outcomes: Path | None = None
    rejects: Path | None = None
    orphans: int = 0
    """Empty batches left behind at the service."""
    unproven: int = 0
    """Created records whose task id may be that of another record of their batch."""


@dataclass(frozen=True, slots=True)
class UncertainRecords:
    """What of a job may be at the service without anybody knowing, and would be sent again next."""

    records: int
    batches: int
    examples: Sequence[str]
    """Of the first batches: their records, and why nobody knows."""
    job: str
    """In which they are sent again: their own, or one made of them."""
    sequences: frozenset[int] = frozenset()
    """Of the batches, where they are sent again in their place."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job stands."""

    job: Job
    tally: Tally
    running: bool
    """A process works on it just now."""
    working: Mapping[str, int] = field(default_factory=dict)
    """State of people's work → created tasks; only where asked for."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What reading everything found, nothing sent."""

    records: int
    rejected: int
    batches: int
    size_bytes: int
    rejects: Sequence[tuple[str, Reject]]
    """(source path, reject) of the first hundred; offsets are joined."""
