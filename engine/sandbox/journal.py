"""What was really done enters, one NDJSON line each leaves: the sandbox's evidence, by which tests judge the engine.

A line is written when its task counts as created and never buffered in the process: whoever sees a batch completed
finds all of its tasks here. Each run of a Seven Bridges task is a line too, and each of its children. `sha256` is over
the task's canonical JSON (orjson, sorted keys).
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from engine.files import private
from engine.sandbox.behaviour import JournalSettings, value_at

EntryKind = Literal["task", "run", "child", "update"]


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One task created or run: when (epoch seconds), in which batch and position, under which id, with which marker.

    Seven Bridges: `batch_id` is the parent's id, "" for a task without one; `position` is among the parent's children,
    or among all tasks. Bulk: `batch_id` is the call or the job that did it, `position` that in its payload; "update" is
    a record that was written over with something else.
    """

    at: float
    batch_id: int | str
    task_id: str
    marker: str | int | float | bool | None
    position: int
    sha256: str
    kind: EntryKind = "task"


def canonical_sha256(task: object) -> str:
    """Digest a task independently of its whitespace and key order."""
    return hashlib.sha256(orjson.dumps(task, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Journal:
    """Appends to the file of `settings`; without a path it is off and costs nothing."""

    def __init__(self, settings: JournalSettings) -> None:
        """Open the file for appending, creating its directory."""
        marker = (settings.marker,) if isinstance(settings.marker, str) else settings.marker
        self._markers = [tuple(path.split(".")) for path in marker]
        self._file = None
        if settings.path is not None:
            settings.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(settings.path, "ab", buffering=0, opener=private)  # noqa: SIM115 - `close` closes it

    def entry(
        self,
        task: object,
        *,
        at: float,
        batch_id: int | str,
        task_id: str,
        position: int,
        kind: EntryKind = "task",
    ) -> JournalEntry:
        """Describe one task that was created or run."""
        return JournalEntry(at, batch_id, task_id, self._marker(task), position, canonical_sha256(task), kind)

    def append(self, entries: Iterable[JournalEntry]) -> None:
        """Write a block of entries with one system call, so that a reader sees all of them or none."""
        if self._file is not None:
            self._file.write(b"".join(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE) for entry in entries))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _marker(self, task: object) -> str | int | float | bool | None:
        for path in self._markers:
            value = value_at(task, path)
            if isinstance(value, str | int | float):
                return value
        return None


def read_journal(path: Path) -> Iterator[JournalEntry]:
    """Yield the entries of a journal in the order of events."""
    with path.open("rb") as lines:
        for line in lines:
            yield JournalEntry(**orjson.loads(line))


def count_markers(path: Path, kind: EntryKind = "task") -> Counter[str | int | float | bool | None]:
    """Count how often each marker was created (or run): 1 is right, more is a duplicate."""
    return Counter(entry.marker for entry in read_journal(path) if entry.kind == kind)
