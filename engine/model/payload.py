"""A payload: what goes up for one batch, as a whole and task by task.

`batch.payload` reads it from the sources, and a service turns it into the body of its calls. The sha256 and the size
that the ledger keeps of a batch are those of the array, whatever a service makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Payload(Struct, frozen=True):
    """The tasks of a batch, in the order of its records."""

    array: bytes
    """All tasks as one JSON array without spaces between them, `[task,task,…]`: what was frozen, byte by byte."""
    lengths: Sequence[int]
    """Of each task in the array, in bytes."""
    indexes: Sequence[int]
    """Of the record of each task in the whole input, from 0: what was rejected or skipped counts there, too."""

    @classmethod
    def of(cls, tasks: Sequence[bytes], indexes: Sequence[int] | None = None) -> Payload:
        """Return the payload of some tasks; without `indexes`, of the first records of an input.

        Raises:
            ValueError: there are not as many indexes as tasks.
        """
        indexes = range(len(tasks)) if indexes is None else indexes
        if len(indexes) != len(tasks):
            raise ValueError(f"{len(tasks)} tasks and {len(indexes)} indexes")
        return cls(array_of(tasks), [len(task) for task in tasks], indexes)

    def __repr__(self) -> str:
        """Return how large it is: what is in it is somebody's data."""
        return f"Payload({len(self.lengths)} tasks, {len(self.array)} bytes)"

    @property
    def tasks(self) -> Sequence[bytes]:
        """The text of each task, cut anew each time: whoever needs it twice keeps it."""
        array, tasks = self.array, []
        at = 1  # behind the opening bracket
        for length in self.lengths:
            tasks.append(array[at : at + length])
            at += length + 1  # and the comma
        return tasks


def array_of(tasks: Sequence[bytes]) -> bytes:
    """Return tasks as one JSON array."""
    if not tasks:
        return b"[]"
    # In one piece: each further copy of half a megabyte takes ten times as long as the joining, in fresh pages.
    texts = [*tasks]
    texts[0] = b"[" + texts[0]
    texts[-1] += b"]"
    return b",".join(texts)


NO_TASKS = Payload.of(())
"""Of no record: what is uploaded to learn whether anything gets through, to a batch that is never released."""
