"""A batch as it was at a time enters, its creation status leaves: keys, words and the order of tasks are our choice.

The vendor's page names the states of a task, *waiting* for a batch, and says that a status shows the data of failed
tasks. All else could be otherwise, and `SamaUnwritten` says how.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from engine.sandbox.sama.batches import CreationRun, SandboxBatch, TaskAddress
from engine.sandbox.sama.settings import SamaUnwritten


@dataclass(frozen=True, slots=True)
class StatusPage:
    """Which tasks of a status are wanted; a size of 0 wants none."""

    low: int
    size: int
    omit_data: bool


class Statuses:
    """Writes the creation statuses of one server."""

    def __init__(self, unwritten: SamaUnwritten, started: int) -> None:
        """Take what is part of every task id."""
        self._unwritten, self._started = unwritten, started

    def status(self, batch: SandboxBatch, at: float, page: StatusPage) -> dict[str, object]:
        """Return the body for a batch."""
        run = batch.runs[-1] if batch.runs else None
        body: dict[str, object] = {"batch_id": batch.batch_id, "state": self._batch_word(batch.state(at))}
        if self._unwritten.counts:
            body |= {"total": run.total if run else 0, "created": run.created if run else 0}
        body["messages"] = [message.text for message in batch.messages]
        if page.size:
            body["tasks"] = self._tasks(batch, run, page) if run else []
        return body

    def told(self, batch: SandboxBatch, tasks: int) -> dict[str, object]:
        """Return what the answer to inline tasks says of their ids."""
        key = self._unwritten.told_ids
        if not key:
            return {}
        ids = [TaskAddress(batch.batch_id, 0, position).task_id(self._started) for position in range(tasks)]
        told: list[object] = [{"id": task_id, "state": "queued"} if key == "tasks" else task_id for task_id in ids]
        return {key: told}

    def _tasks(self, batch: SandboxBatch, run: CreationRun, page: StatusPage) -> list[dict[str, object]]:
        order = _order(self._unwritten.task_order, batch.batch_id, run.total)
        return [
            self._task(batch, run, position, omit_data=page.omit_data)
            for position in order[page.low : page.low + page.size]
        ]

    def _task(self, batch: SandboxBatch, run: CreationRun, position: int, *, omit_data: bool) -> dict[str, object]:
        state = self._task_word(run.task_state(position))
        if position in run.failures:
            failures = run.failures[position]
            errors = [{"type": failure.type, "message": failure.message} for failure in failures]
            task: dict[str, object] = {"state": state, "errors": errors}
            shows = self._unwritten.failed_data and not omit_data
            return {**task, "data": run.failed_data[position]} if shows else task
        if position >= run.done:
            return {"state": state}
        return {**self._id(batch, position), "state": state}

    def _id(self, batch: SandboxBatch, position: int) -> dict[str, object]:
        unwritten = self._unwritten
        if _strikes(unwritten.no_id_every, position):
            return {}
        shown = position - 1 if _strikes(unwritten.same_id_every, position) else position
        return {"id": TaskAddress(batch.batch_id, len(batch.runs) - 1, shown).task_id(self._started)}

    def _batch_word(self, word: str) -> str:
        return self._cased(self._unwritten.batch_words.get(word, word))

    def _task_word(self, word: str) -> str:
        return self._cased(self._unwritten.task_words.get(word, word))

    def _cased(self, word: str) -> str:
        case = self._unwritten.case
        return str(word) if case == "lower" else word.upper() if case == "upper" else word.title()


def _strikes(every: int, number: int) -> bool:
    return every > 0 and number % every == every - 1


@lru_cache(maxsize=8)
def _order(kind: str, seed: int, tasks: int) -> Sequence[int]:
    """Return the positions in the order of the list: the same for each page of a batch."""
    if kind == "shuffled":
        return Random(seed).sample(range(tasks), tasks)
    return [*range(1, tasks), 0][:tasks] if kind == "shifted" else range(tasks)
