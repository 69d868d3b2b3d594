"""A sandbox's journal enters, how often each marker was created leaves: the judge of every run, never the engine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from fakes.served import served

from .tally import Tally
from .ways import SCHEMA, Way


@dataclass
class Judge:
    """Reads a journal as it grows; knows each created task by its marker."""

    path: Path
    task_ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    runs: Counter[str] = field(default_factory=Counter)
    """How often each marker's task was run, by a service that does so apart."""
    children: Counter[str] = field(default_factory=Counter)
    """How many children each task has."""
    _read: int = 0

    def look(self) -> None:
        """Take in what was written since the last look."""
        if not self.path.exists():
            return
        with self.path.open("rb") as journal:
            journal.seek(self._read)
            for line in journal:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self._note(orjson.loads(line))

    def _note(self, entry: dict) -> None:
        match entry["kind"]:
            case "task":
                self.task_ids[entry["marker"]].append(entry["task_id"])
            case "run":
                self.runs[entry["marker"]] += 1
            case "child":
                self.children[entry["batch_id"]] += 1

    def weigh(  # noqa: C901 - one look at each record
        self,
        way: Way,
        outcomes: Sequence[dict],
        markers: Sequence[str],
        tally: Tally,
        *,
        canceled_before: bool = False,
        bad: Collection[str] = (),
    ) -> list[str]:
        """Compare what the engine says of each record with what was really created; nothing to say is the best.

        `bad`: markers of records that the service refuses.
        `canceled_before`: a job that was canceled may have left drafts, which nobody runs any more.
        """
        if canceled_before and way.service == "sevenbridges":
            self.look()
            for outcome, marker in zip(outcomes, markers, strict=True):
                if self.runs[marker] == 1 and outcome["task_id"] in self.task_ids[marker]:
                    self.task_ids[marker] = [outcome["task_id"]]
        self.look()
        tally.runs += 1
        tally.sent += len(markers)
        found = []
        for outcome, marker in zip(outcomes, markers, strict=True):
            created, state = self.task_ids.get(marker, []), outcome["state"]
            if state == "skipped":  # for one that an earlier job created, or does not know about
                state = "uncertain" if outcome["error"] else "created"
            tally.created += bool(created)
            tally.parked += state == "uncertain"
            tally.knowable += state == "uncertain" and not way.parks
            if marker in bad and state == "failed" and not created:
                continue
            tally.lost += not created and state != "uncertain"
            tally.duplicated += self._is_double(marker)
            if self._is_double(marker):
                found.append(f"{marker} was created {len(created)} times, run {self.runs[marker]} times")
            if state == "created" and created != [outcome["task_id"]]:
                found.append(f"{marker} is said to be task {outcome['task_id']}, and is {created}")
            if state not in {"created", "uncertain"}:
                found.append(f"{marker} is {state} ({outcome['error']}), and there is {created}")
            if outcome["state"] == "created" and way.children:
                found += self._unfit_parent(way, outcome, marker)
        return found

    def _unfit_parent(self, way: Way, outcome: dict, marker: str) -> list[str]:
        """Return what is wrong with a parent: it was run once, and has its children, and the engine knows them."""
        known = len(outcome["children"])
        there = self.children[outcome["task_id"]]
        if (self.runs[marker], there, known) == (1, way.children, way.children):
            return []
        return [f"{marker} was run {self.runs[marker]} times and has {there} children, of which {known} are known"]

    def _is_double(self, marker: str) -> bool:
        return len(self.task_ids.get(marker, [])) > 1 or self.runs[marker] > 1

    @property
    def duplicated(self) -> list[str]:
        """Markers created, or run, more than once, in all runs so far."""
        self.look()
        return [marker for marker in self.task_ids if self._is_double(marker)]


def lines(path: Path) -> list[dict]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


class Sandboxes(dict[str, tuple[int, Judge]]):
    """Behaviour → port and judge of a sandbox process, which is started when it is first asked for."""

    def __init__(self, stack: ExitStack, new_folder: Callable[[str], Path]) -> None:
        super().__init__()
        self._stack, self._new_folder = stack, new_folder

    def __missing__(self, behaviour: str) -> tuple[int, Judge]:
        self[behaviour] = self._stack.enter_context(sandbox_process(self._new_folder("sandbox"), behaviour))
        return self[behaviour]


@contextmanager
def sandbox_process(folder: Path, behaviour: str) -> Iterator[tuple[int, Judge]]:
    """Run a sandbox as a process of its own, so that nothing the engine does can touch its memory; port and judge."""
    (folder / "schema.json").write_bytes(SCHEMA)
    with served(folder, behaviour) as (url, journal):
        yield int(url.rpartition(":")[2].partition("/")[0]), Judge(journal)
