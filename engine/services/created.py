"""What a service may tell of tasks that were created, and do with them: two abilities of it, beside those in `base`.

`commands.later` and `commands.undo` use them. A task is only taken back if it was just shown as untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from engine.model.outcome import Later


class CreatedTasks(msgspec.Struct, frozen=True):
    """Created tasks of one batch, which a question is about."""

    remote_id: str
    records: int
    """Of the batch that went up: the service has no more tasks of it."""
    task_ids: Sequence[str]


class TaskState(msgspec.Struct, frozen=True):
    """How a created task stands."""

    word: str
    """In the service's own words."""
    untouched: bool = False
    """Nobody has begun with it: it may be taken back."""
    ended: bool = False
    """Nothing more happens to it by itself: nobody needs to wait for it."""
    later: Later | None = None
    """What became of it; None if there is nothing to tell."""
    reason: str = ""
    """Why, as far as the service says."""
    again: bool = False
    """It has failed for good: only if it is submitted once more, it is done after all."""
    price: tuple[float, str] | None = None
    """What it has cost, and in which currency."""


@runtime_checkable
class Refreshing(Protocol):
    """Created tasks can be asked about, each by itself."""

    polls_together: int
    """Batches that one `task_states` call covers; as in `Polling`."""
    by_people: bool
    """People work on the tasks: it takes days until they end, and what is completed may be rejected afterwards."""

    async def task_states(self, batches: Sequence[CreatedTasks]) -> Mapping[str, TaskState]:
        """Return by id how the tasks of up to `polls_together` batches stand; one that is left out is not shown.

        Raises:
            UnexpectedAnswer: other tasks than those of the batches are shown.
        """
        ...


@runtime_checkable
class Undoing(Protocol):
    """Created tasks can be taken back, as long as nobody has begun with them."""

    undone_together: int
    """Tasks that one `undo` call takes."""

    async def undo(self, task_ids: Sequence[str]) -> None:
        """Take back up to `undone_together` tasks; what is gone already may be refused.

        `task_states` shows what came of it.

        Raises:
            Refused: not all of them were taken back.
        """
        ...
